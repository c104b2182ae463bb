"""Trains VGG-16 on CIFAR-10 or CIFAR-100 at several percentages.

    python examples/cifar_vgg16.py --dataset=cifar10 --width=.25 --output_dir=out/vgg
    KERAS_BACKEND=jax python examples/cifar_vgg16.py --dataset=cifar100 --epochs=200 \
        --percentages=100,90,80,70,60,50,40,30,25 --output_dir=out/vgg100
    python examples/cifar_vgg16.py --strategy=mirrored --batch_size=512 --output_dir=out/vgg_gpus

The output directory gets `results.json`, `tesla.keras`, `log.csv` and logs for TensorBoard. A run
that was killed goes on where it was. Batch normalization statistics are computed anew for all
percentages that are evaluated, also those that were not trained (`kt.recalibrate`).
"""

import contextlib
import json
import pathlib
import time

import keras
from absl import app, flags, logging

import keras_tesla as kt
from keras_tesla import data, literature
from keras_tesla.percentages import check_percentages

FLAGS = flags.FLAGS
flags.DEFINE_enum("dataset", "cifar10", ["cifar10", "cifar100"], "What to learn.")
flags.DEFINE_string("data_dir", None, "Folder of TFDS; default: that of TFDS_DATA_DIR.")
flags.DEFINE_float("width", 1.0, "Factor of all numbers of filters.")
flags.DEFINE_enum(
    "method",
    "joint",
    ["idp", "tesla", "joint", "sandwich"],
    "idp: 100 % alone; tesla: task by task; joint: all at once; sandwich: the widest, the "
    "narrowest and two random ones a step.",
)
flags.DEFINE_bool("distillation", False, "Whether the widest percentage teaches the others.")
flags.DEFINE_list("percentages", [100, 70, 50, 30, 20], "The percentages to train.")
flags.DEFINE_list("evaluate", list(range(10, 101, 10)), "Those to evaluate, in addition.")
flags.DEFINE_string("profile", "all_one", "Profile of the incomplete layers.")
flags.DEFINE_integer("epochs", 200, "Epochs over all tasks.")
flags.DEFINE_integer("steps_per_epoch", None, "Batches an epoch; default: one pass of the images.")
flags.DEFINE_integer("batch_size", 128, "Images a batch.")
flags.DEFINE_float("learning_rate", 0.1, "Of SGD with Nesterov momentum .9.")
flags.DEFINE_enum("schedule", "cosine", ["cosine", "constant"], "Of the learning rate.")
flags.DEFINE_float("weight_decay", 5e-4, "L2 regularization.")
flags.DEFINE_list("dropout", [0.3, 0.4, 0.5], "Rates; see `kt.literature.vgg16`.")
flags.DEFINE_float("min_delta", 0.002, "Of task-wise early stopping on the validation accuracy.")
flags.DEFINE_integer("patience", 4, "Epochs without improvement after which a task ends.")
flags.DEFINE_integer("last_patience", 200, "The same for the last task, which trains all.")
flags.DEFINE_integer("calibration_steps", 50, "Batches for the batch normalization statistics.")
flags.DEFINE_enum(
    "strategy",
    "none",
    ["none", "mirrored", "data_parallel"],
    "none: one device; mirrored: all GPUs of this machine, without one all logical CPUs, by "
    "tf.distribute (TensorFlow); data_parallel: all devices by keras.distribution (JAX). They "
    "share each batch.",
)
flags.DEFINE_integer("seed", 0, "Of weights, order, augmentation and splits.")
flags.DEFINE_string("output_dir", "out/cifar_vgg16", "Where the results go.")


def strategy():
    """The context in which the model is made and trained."""
    backend = keras.backend.backend()
    needed = {"mirrored": "tensorflow", "data_parallel": "jax"}.get(FLAGS.strategy, backend)
    if backend != needed:
        raise ValueError(
            f"--strategy={FLAGS.strategy} needs KERAS_BACKEND={needed}. Received: {backend!r}"
        )
    if FLAGS.strategy == "mirrored":
        import tensorflow as tf

        # Without a list MirroredStrategy takes one CPU of several.
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices]).scope()
    if FLAGS.strategy == "data_parallel":
        return keras.distribution.DataParallel().scope()
    return contextlib.nullcontext()


def build(classes: int) -> kt.TESLA:
    """The network with what it is trained at, compiled."""
    percentages = [100] if FLAGS.method == "idp" else [int(p) for p in FLAGS.percentages]
    network = literature.vgg16(
        classes,
        percentages,
        width=FLAGS.width,
        profile=FLAGS.profile,
        dropout=tuple(float(rate) for rate in FLAGS.dropout),
        weight_decay=FLAGS.weight_decay,
    )
    tesla = kt.TESLA(network, percentages, distillation="in_place" if FLAGS.distillation else None)
    rate = FLAGS.learning_rate
    if FLAGS.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, FLAGS.epochs * FLAGS.steps_per_epoch)
    tesla.compile(
        keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return tesla


def callbacks(output: pathlib.Path) -> list:
    """What drives, logs and saves the run; `BackupAndRestore` comes behind what it saves."""
    driving = {
        "tesla": lambda: kt.callbacks.TaskWiseEarlyStopping(
            monitor="val_p{percentage}_accuracy",
            min_delta=FLAGS.min_delta,
            patience=FLAGS.patience,
            last_patience=FLAGS.last_patience,
            verbose=1,
        ),
        "sandwich": lambda: kt.callbacks.RandomPercentages(seed=FLAGS.seed),
    }
    return [
        keras.callbacks.TerminateOnNaN(),
        *([driving[FLAGS.method]()] if FLAGS.method in driving else []),
        kt.callbacks.PercentageCSVLogger(output / "log.csv"),
        keras.callbacks.TensorBoard(output / "tensorboard"),
        kt.callbacks.BackupAndRestore(output / "backup"),
    ]


def accuracies(tesla: kt.TESLA, split: data.Split) -> dict[str, float]:
    """Returns {percentage: accuracy 0..1} at all percentages of the model."""
    logs = tesla.evaluate(split.x, split.y, batch_size=500, verbose=0, return_dict=True)
    return {str(p): float(logs[f"p{p}_accuracy"]) for p in sorted(tesla.percentages)}


def main(_):
    with strategy():
        run()


def run():
    keras.utils.set_random_seed(FLAGS.seed)
    output = pathlib.Path(FLAGS.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    dataset = data.load(FLAGS.dataset, seed=FLAGS.seed, data_dir=FLAGS.data_dir)
    if FLAGS.steps_per_epoch is None:
        FLAGS.steps_per_epoch = len(dataset.train) // FLAGS.batch_size
    begin = time.monotonic()
    if (output / "tesla.keras").exists():
        tesla = keras.saving.load_model(output / "tesla.keras")
    else:
        tesla = build(dataset.classes)
        tesla.fit(
            data.batches(dataset.train, FLAGS.batch_size, seed=FLAGS.seed, augment=True),
            steps_per_epoch=FLAGS.steps_per_epoch,
            epochs=FLAGS.epochs,
            validation_data=(dataset.validation.x, dataset.validation.y),
            validation_batch_size=500,
            callbacks=callbacks(output),
            verbose=2,
        )
        tesla.save(output / "tesla.keras")
    seconds = time.monotonic() - begin
    points = check_percentages({*tesla.percentages, *(int(p) for p in FLAGS.evaluate)})
    calibrated = kt.recalibrate(
        tesla,
        data.batches(dataset.train, FLAGS.batch_size, seed=FLAGS.seed),
        points,
        steps=FLAGS.calibration_steps,
    )
    calibrated.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    calibrated.save(output / "calibrated.keras")
    results = {
        "flags": {
            flag.name: flag.value
            for flag in FLAGS.get_key_flags_for_module(__name__)
            if not flag.name.endswith("_dir")  # where it ran is no part of the result
        },
        "parameters": tesla.network.count_params(),
        "seconds": round(seconds),
        "backend": keras.backend.backend(),
        "multiply_adds": {
            str(p): kt.analysis.multiply_adds(calibrated.at(p)) for p in sorted(points)
        },
        "validation_accuracy": accuracies(calibrated, dataset.validation),
        "accuracy": accuracies(calibrated, dataset.test),
    }
    (output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    for p in sorted(results["accuracy"], key=int):
        print(f"{p:>4} % {results['multiply_adds'][p]:>12,} {100 * results['accuracy'][p]:6.2f} %")
    print(f"written to {output}")


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    app.run(main)
