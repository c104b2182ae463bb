"""Trains VGG-16 on CIFAR-10 or CIFAR-100 at several percentages.

    python examples/cifar_vgg16.py --dataset=cifar10 --width=.25 --output_dir=out/vgg
    KERAS_BACKEND=jax python examples/cifar_vgg16.py --dataset=cifar100 --epochs=200 \
        --percentages=100,90,80,70,60,50,40,30,25 --output_dir=out/vgg100
    python examples/cifar_vgg16.py --strategy=mirrored --batch_size=512 --output_dir=out/vgg_gpus

At full width on two CPU cores, in hours instead of days, with half precision, small images first
and only some percentages in each step:

    python examples/cifar_vgg16.py --policy=mixed_bfloat16 --image_sizes=16:8,24:4,32:4 \
        --method=sandwich --drawn=1 --distillation --private_affine --warmup_epochs=2 \
        --dropout=0,0,0 --output_dir=out/vgg_cpu

The output directory gets `results.json`, `calibrated.keras`, a model for each image size,
`log.csv` and logs for TensorBoard. A killed run continues where it stopped. Batch normalization
statistics are computed again for all evaluated percentages, including untrained ones
(`kt.recalibrate`).
"""

import contextlib
import dataclasses
import json
import pathlib
import time

import keras
import numpy as np
from absl import app, flags, logging

import keras_tesla as kt
from keras_tesla import data, literature
from keras_tesla.percentages import check_percentages

FLAGS = flags.FLAGS
flags.DEFINE_enum("dataset", "cifar10", ["cifar10", "cifar100"], "What to learn.")
flags.DEFINE_string("data_dir", None, "Folder of TFDS; default: that of TFDS_DATA_DIR.")
flags.DEFINE_float("width", 1.0, "Factor for all numbers of filters.")
flags.DEFINE_enum(
    "method",
    "joint",
    ["idp", "tesla", "joint", "sandwich"],
    "idp: 100 % alone; tesla: task by task; joint: all at once; sandwich: the widest, the "
    "narrowest and random ones per step.",
)
flags.DEFINE_integer("drawn", 2, "Random percentages of a step of the sandwich.")
flags.DEFINE_list(
    "probabilities",
    None,
    "How often the sandwich draws each percentage, as 70:1,50:2,30:1; default: uniform.",
)
flags.DEFINE_bool("distillation", False, "Whether the widest percentage teaches the others.")
flags.DEFINE_list("percentages", [100, 70, 50, 30, 20], "The percentages to train.")
flags.DEFINE_list("evaluate", list(range(10, 101, 10)), "Further percentages to evaluate.")
flags.DEFINE_string("profile", "all_one", "Profile of the incomplete layers.")
flags.DEFINE_bool(
    "private_affine", False, "Whether batch normalization has a gain and a shift per percentage."
)
flags.DEFINE_string("policy", "float32", "Dtype policy, for example mixed_bfloat16.")
flags.DEFINE_integer("epochs", 200, "Epochs over all tasks.")
flags.DEFINE_list(
    "image_sizes",
    None,
    "Progressive image size, as 16:8,24:4,32:4: 8 epochs on images of 16x16 pixels, and so on. "
    "Replaces --epochs. Default: all epochs on 32x32.",
)
flags.DEFINE_integer("steps_per_epoch", None, "Batches per epoch; default: one pass of the images.")
flags.DEFINE_integer("batch_size", 128, "Images per batch.")
flags.DEFINE_float("learning_rate", 0.1, "Of SGD with Nesterov momentum .9.")
flags.DEFINE_integer("warmup_epochs", 0, "In which the learning rate rises, before the cosine.")
flags.DEFINE_float("label_smoothing", 0.0, "Share of a target that is spread over all classes.")
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


def stages() -> list[tuple[int, int]]:
    """Returns (image size, epoch in which it ends) of each stage."""
    if not FLAGS.image_sizes:
        return [(32, FLAGS.epochs)]
    sizes, epochs = zip(*(map(int, stage.split(":")) for stage in FLAGS.image_sizes), strict=True)
    return list(zip(sizes, np.cumsum(epochs).tolist(), strict=True))


def loss():
    """Softmax cross-entropy on logits; that for smoothed labels takes them as vectors."""
    if FLAGS.label_smoothing:
        return keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=FLAGS.label_smoothing
        )
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def with_targets(split: data.Split, classes: int) -> data.Split:
    """The split with its labels in the form that the loss takes."""
    return data.Split(split.x, np.eye(classes)[split.y]) if FLAGS.label_smoothing else split


def learning_rate():
    if FLAGS.schedule == "constant":
        return FLAGS.learning_rate
    steps = stages()[-1][1] * FLAGS.steps_per_epoch
    warmup = FLAGS.warmup_epochs * FLAGS.steps_per_epoch
    return keras.optimizers.schedules.CosineDecay(
        FLAGS.learning_rate / 10 if warmup else FLAGS.learning_rate,
        steps - warmup,
        warmup_target=FLAGS.learning_rate if warmup else None,
        warmup_steps=warmup,
    )


def build(classes: int, size: int) -> kt.TESLA:
    """The network with what it is trained at, compiled."""
    percentages = [100] if FLAGS.method == "idp" else [int(p) for p in FLAGS.percentages]
    network = literature.vgg16(
        classes,
        percentages,
        width=FLAGS.width,
        profile=FLAGS.profile,
        dropout=tuple(float(rate) for rate in FLAGS.dropout),
        weight_decay=FLAGS.weight_decay,
        input_shape=(size, size, 3),
        private_affine=FLAGS.private_affine,
    )
    tesla = kt.TESLA(network, percentages, distillation="in_place" if FLAGS.distillation else None)
    tesla.compile(
        keras.optimizers.SGD(learning_rate(), momentum=0.9, nesterov=True),
        loss(),
        metrics=["accuracy"],
    )
    return tesla


def train(dataset: data.Dataset, output: pathlib.Path) -> kt.TESLA:
    """Trains stage after stage; a stage that was trained to its end is only loaded."""
    tesla, begin = None, 0
    for size, end in stages():
        path = output / f"tesla_{end}.keras"  # by its last epoch: a size may come twice
        if path.exists():
            tesla = keras.saving.load_model(path)
        else:
            following = build(dataset.classes, size)
            if tesla is not None:
                hand_over(tesla, following)
            fit(following, dataset, size, begin, end, path)
            tesla = following
        begin = end
    return tesla


def hand_over(old: kt.TESLA, new: kt.TESLA):
    """Gives `new` weights and optimizer state of `old`: no shape depends on the image size."""
    new.network.set_weights(old.network.get_weights())
    new.optimizer.build(new.trainable_variables)
    for target, source in zip(new.optimizer.variables, old.optimizer.variables, strict=True):
        target.assign(source.value)


def fit(tesla: kt.TESLA, dataset: data.Dataset, size: int, begin: int, end: int, path):
    """Trains the epochs from `begin` to `end` on images of one size and saves the model."""
    validation = data.resized(dataset.validation, size)
    tesla.fit(
        data.batches(
            dataset.train, FLAGS.batch_size, seed=FLAGS.seed + begin, augment=True, size=size
        ),
        steps_per_epoch=FLAGS.steps_per_epoch,
        initial_epoch=begin,
        epochs=end,
        validation_data=(validation.x, validation.y),
        validation_batch_size=500,
        callbacks=callbacks(tesla, path),
        verbose=2,
    )


def callbacks(tesla: kt.TESLA, path: pathlib.Path) -> list:
    """What drives, logs and saves a stage; `BackupAndRestore` comes after what it saves."""
    output = path.parent

    def save(logs):
        # Before the backup goes, and whole or not at all: a kill at any moment loses no stage.
        tesla.save(output / "unfinished.keras")
        (output / "unfinished.keras").rename(path)

    driving = {
        "tesla": lambda: kt.callbacks.TaskWiseEarlyStopping(
            monitor="val_p{percentage}_accuracy",
            min_delta=FLAGS.min_delta,
            patience=FLAGS.patience,
            last_patience=FLAGS.last_patience,
            verbose=1,
        ),
        "sandwich": lambda: kt.callbacks.RandomPercentages(
            FLAGS.drawn, probabilities=probabilities(), seed=FLAGS.seed
        ),
    }
    return [
        # Task-wise training leaves the last good weights; else the last epoch's backup stays.
        keras.callbacks.TerminateOnNaN(raise_error=FLAGS.method != "tesla"),
        *([driving[FLAGS.method]()] if FLAGS.method in driving else []),
        kt.callbacks.PercentageCSVLogger(output / "log.csv"),
        keras.callbacks.TensorBoard(output / "tensorboard"),
        keras.callbacks.LambdaCallback(on_train_end=save),
        kt.callbacks.BackupAndRestore(output / f"backup_{path.stem}"),
    ]


def probabilities() -> dict[int, float] | None:
    if not FLAGS.probabilities:
        return None
    pairs = (pair.split(":") for pair in FLAGS.probabilities)
    return {int(percentage): float(weight) for percentage, weight in pairs}


def accuracies(tesla: kt.TESLA, split: data.Split) -> dict[str, float]:
    """Returns {percentage: accuracy 0..1} at all percentages of the model."""
    logs = tesla.evaluate(split.x, split.y, batch_size=500, verbose=0, return_dict=True)
    return {str(p): float(logs[f"p{p}_accuracy"]) for p in sorted(tesla.percentages)}


def main(_):
    with strategy():
        run()


def run():
    keras.utils.set_random_seed(FLAGS.seed)
    keras.mixed_precision.set_dtype_policy(FLAGS.policy)
    output = pathlib.Path(FLAGS.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    dataset = data.load(FLAGS.dataset, seed=FLAGS.seed, data_dir=FLAGS.data_dir)
    dataset = dataclasses.replace(
        dataset,
        **{
            split: with_targets(getattr(dataset, split), dataset.classes)
            for split in ("train", "validation", "test")
        },
    )
    if FLAGS.steps_per_epoch is None:
        FLAGS.steps_per_epoch = len(dataset.train) // FLAGS.batch_size
    if (output / "results.json").exists():
        print(f"{output} has the results of this run already.")
        return
    resumed = any(output.glob("*tesla_*"))
    begin = time.monotonic()
    tesla = train(dataset, output)
    seconds = None if resumed else round(time.monotonic() - begin)
    size = stages()[-1][0]  # of the images that the network has last seen
    points = check_percentages({*tesla.percentages, *(int(p) for p in FLAGS.evaluate)})
    calibrated = kt.recalibrate(
        tesla,
        data.batches(dataset.train, FLAGS.batch_size, seed=FLAGS.seed, size=size),
        points,
        steps=FLAGS.calibration_steps,
    )
    calibrated.compile(loss=loss(), metrics=["accuracy"])
    calibrated.save(output / "calibrated.keras")
    results = {
        "flags": {
            flag.name: flag.value
            for flag in FLAGS.get_key_flags_for_module(__name__)
            if not flag.name.endswith("_dir")  # where it ran is no part of the result
        },
        "parameters": tesla.network.count_params(),
        "seconds": seconds,  # of a run that was not killed
        "backend": keras.backend.backend(),
        "multiply_adds": {
            str(p): kt.analysis.multiply_adds(calibrated.at(p)) for p in sorted(points)
        },
        "validation_accuracy": accuracies(calibrated, data.resized(dataset.validation, size)),
        "accuracy": accuracies(calibrated, data.resized(dataset.test, size)),
    }
    (output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    for p in sorted(results["accuracy"], key=int):
        print(f"{p:>4} % {results['multiply_adds'][p]:>12,} {100 * results['accuracy'][p]:6.2f} %")
    print(f"written to {output}")


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    app.run(main)
