"""Trains the papers' MLP at several percentages, exports it and shows what each one costs.

    python examples/mnist_mlp.py --dataset=digits --output_dir=out/digits
    python examples/mnist_mlp.py --dataset=mnist --output_dir=out/mnist

The network is 784-100-100-10 with ReLU; the layer between the two hidden ones is incomplete. The
defaults are the paper's budget: 50 epochs of 200 batches of 28. The output directory gets
`results.json`, the trained model `tesla.keras`, `tflite/model.tflite` for all percentages (with
`--mode=per_percentage` a file for each) and `accuracy_over_cost.png`.
"""

import json
import pathlib
import re
import sys

import keras
import numpy as np
from absl import app, flags, logging

import keras_tesla as kt
import keras_tesla.tflite
from keras_tesla import data, literature
from keras_tesla.analysis import plots
from keras_tesla.tflite.settings import MODES

FLAGS = flags.FLAGS
flags.DEFINE_enum("dataset", "digits", ["digits", "mnist", "fashion_mnist"], "What to learn.")
flags.DEFINE_string("data_dir", None, "Folder of TFDS; default: that of TFDS_DATA_DIR.")
flags.DEFINE_integer("train_size", None, "Use only so many training images.", lower_bound=100)
flags.DEFINE_list("percentages", list(range(100, 0, -10)), "The percentages to train.")
flags.DEFINE_string("profile", "all_one", "Profile of the incomplete layer.")
flags.DEFINE_enum("method", "tesla", ["tesla", "joint", "idp"], "How the tasks are trained.")
flags.DEFINE_enum("aggregation", "sum", ["sum", "exponential"], "How the losses become one.")
flags.DEFINE_string("monitor", "val_p{percentage}_accuracy", "What ends a task.")
flags.DEFINE_float("min_delta", 0.002, "Least change that counts as an improvement.")
flags.DEFINE_integer("patience", 1, "Epochs without improvement after which a task ends.")
flags.DEFINE_integer("last_patience", 50, "The same for the last task, which trains all.")
flags.DEFINE_integer("epochs", 50, "Epochs over all tasks.")
flags.DEFINE_integer("steps_per_epoch", 200, "Batches per epoch.")
flags.DEFINE_integer("batch_size", 28, "Images per batch.")
flags.DEFINE_float("learning_rate", 1e-3, "Of Adam.")
flags.DEFINE_integer("seed", 0, "Of weights, order and splits.")
flags.DEFINE_bool("export", True, "Whether to write .tflite files.")
flags.DEFINE_enum("mode", "percentage_input", MODES, "What the .tflite files are.")
flags.DEFINE_string("output_dir", "out/mnist_mlp", "Where the results go.")


def flat(split: data.Split):
    """Returns images as rows, and labels."""
    return split.x.reshape(len(split), -1), split.y


def train(tesla: kt.TESLA, dataset: data.Dataset):
    """Trains the tasks; every decision is made on the validation split."""
    callbacks = [keras.callbacks.TerminateOnNaN()]
    if FLAGS.method == "tesla":
        callbacks.append(
            kt.callbacks.TaskWiseEarlyStopping(
                monitor=FLAGS.monitor,
                min_delta=FLAGS.min_delta,
                patience=FLAGS.patience,
                last_patience=FLAGS.last_patience,
                verbose=0 if sys.stdout.isatty() else 1,
            )
        )
    tesla.compile(
        keras.optimizers.Adam(FLAGS.learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = tesla.fit(
        data.batches(dataset.train, FLAGS.batch_size, seed=FLAGS.seed, flat=True),
        steps_per_epoch=FLAGS.steps_per_epoch,
        epochs=FLAGS.epochs,
        validation_data=flat(dataset.validation),
        validation_batch_size=500,
        callbacks=[*callbacks, keras.callbacks.LambdaCallback(None, say)],
        shuffle=False,  # the stream is shuffled
        verbose=0,  # a line of Keras' has the figures of all percentages
    )
    if sys.stdout.isatty():
        print()
    return history


def say(epoch, logs):
    """Prints the aggregated loss and the accuracy of the widest and the narrowest percentage.

    On a terminal a line takes the place of the one before, so that all fits a screen of 24 lines.
    """
    names = map(re.compile(r"val_p(\d+)_accuracy").fullmatch, logs)
    trained = sorted(int(name[1]) for name in names if name)
    ends = dict.fromkeys((trained[-1], trained[0]))
    accuracy = ", ".join(f"{p} % {100 * logs[f'val_p{p}_accuracy']:.2f}" for p in ends)
    loss = f"loss {logs['loss']:.4f}"
    start, end = ("\r\x1b[K", "") if sys.stdout.isatty() else ("", "\n")
    line = f"epoch {epoch + 1}/{FLAGS.epochs}: {loss}, validation accuracy {accuracy}"
    print(f"{start}{line}", end=end, flush=True)


def accuracies(tesla: kt.TESLA, split: data.Split, percentages) -> dict[int, float]:
    """Returns {percentage: accuracy 0..1} in Keras."""
    x, y = flat(split)
    logs = tesla.evaluate(
        x, y, batch_size=500, percentages=percentages, verbose=0, return_dict=True
    )
    return {p: float(logs[f"p{p}_accuracy"]) for p in sorted(percentages)}


def print_table(bundle, accuracy):
    """Prints the cost and accuracy of each percentage; ten of them fit a screen of 24 lines."""
    print(
        f"\n{'%':>4} {'multiply-adds':>14} {'bytes':>9} {'Keras %':>8} {'.tflite %':>9} {'us':>7}"
    )
    for entry in bundle.entries:
        p = entry.percentage
        print(
            f"{p:>4} {entry.multiply_adds:>14,} {entry.bytes:>9,} {100 * accuracy[p]:>8.2f} "
            f"{100 * entry.accuracy:>9.2f} {1e6 * entry.latency:>7.1f}"
        )


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    output = pathlib.Path(FLAGS.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    dataset = data.load(FLAGS.dataset, seed=FLAGS.seed, data_dir=FLAGS.data_dir)
    if FLAGS.train_size:
        train_split = data.Split(
            dataset.train.x[: FLAGS.train_size], dataset.train.y[: FLAGS.train_size]
        )
        dataset = data.Dataset(train_split, dataset.validation, dataset.test, dataset.classes)
    features = dataset.train.x[0].size
    model = literature.mlp(features, dataset.classes, profile=FLAGS.profile)
    percentages = [100] if FLAGS.method == "idp" else [int(p) for p in FLAGS.percentages]
    tesla = kt.TESLA(model, percentages, aggregation=FLAGS.aggregation)
    history = train(tesla, dataset)
    tesla.save(output / "tesla.keras")

    points = sorted({*tesla.percentages, *range(10, 101, 5)})
    validation = accuracies(tesla, dataset.validation, points)
    test = accuracies(tesla, dataset.test, points)
    results = {
        "flags": {k: v for k, v in FLAGS.flag_values_dict().items() if k in RECORDED},
        "epochs": len(history.epoch),
        "accuracy": {str(p): a for p, a in test.items()},
        "validation_accuracy": {str(p): a for p, a in validation.items()},
        "mean_accuracy_10_to_100": float(np.mean([test[p] for p in range(10, 101, 5)])),
    }
    if FLAGS.export:
        bundle = keras_tesla.tflite.export(
            tesla,
            output / "tflite",
            mode=FLAGS.mode,
            overwrite=True,
            validation_data=flat(dataset.test),
            labels=[str(label) for label in range(dataset.classes)],
        )
        results["tflite_accuracy"] = {str(e.percentage): e.accuracy for e in bundle.entries}
        print_table(bundle, test)
        plots.accuracy_over_cost(
            {
                FLAGS.method: [
                    (e.percentage, e.multiply_adds, test[e.percentage]) for e in bundle.entries
                ]
            },
            output / "accuracy_over_cost.png",
            f"{FLAGS.dataset}: one network, {len(bundle.entries)} budgets (test split)",
        )
    (output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    mean = results["mean_accuracy_10_to_100"]
    print(f"mean test accuracy over 10, 15, .., 100 %: {100 * mean:.2f}")
    if FLAGS.export:
        for file in bundle.files:
            print(f"file: {bundle.directory / file['file']}, {file['bytes']:,} bytes")
        print(f"plot: {output / 'accuracy_over_cost.png'}")
    print(f"model: {output / 'tesla.keras'}; all figures: {output / 'results.json'}")


RECORDED = (
    *("dataset", "train_size", "percentages", "profile", "method", "aggregation", "monitor"),
    *(
        "min_delta",
        "patience",
        "last_patience",
        "epochs",
        "steps_per_epoch",
        "batch_size",
        "learning_rate",
        "seed",
    ),
)

if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    app.run(main)
