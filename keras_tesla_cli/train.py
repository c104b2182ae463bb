"""Trains a converted model at all its percentages together and saves it.

keras-tesla train tesla.keras --data=digits.npz --epochs=10 --output=trained.keras

The .npz file holds `x_train` and `y_train`, and `x_test` and `y_test` or `x_val` and `y_val`; or
`x` and `y`, of which a tenth is kept apart. The table is of the test data, else of the validation
data, else of that tenth. For several inputs or outputs train in Python, with `tesla.fit`.

At the end the statistics of batch normalization are measured on examples of the training data, at
each percentage (`keras_tesla.recalibrate`): a moving average with a momentum of .999, as in many
pretrained networks, needs thousands of steps to get there.
"""

import math

from absl import flags

from keras_tesla_cli import arrays, lists, losses, models, outputs, progress, tool

# Those of `keras_tesla.data.load`.
DATASETS = ["digits", "mnist", "fashion_mnist", "cifar10", "cifar100"]

_MEASURED = 4096  # examples for the statistics, at most

FLAGS = flags.FlagValues()
models.define_flags(FLAGS)
flags.DEFINE_string("output", None, "The .keras file to be written.", FLAGS, required=True)
flags.DEFINE_string("data", None, "The .npz file of the examples.", FLAGS)
flags.DEFINE_enum("dataset", None, DATASETS, "A known data set in place of --data.", FLAGS)
flags.DEFINE_list("percentages", None, "Default: those of the model.", FLAGS)
flags.DEFINE_integer("epochs", 10, "Passes over the data.", flag_values=FLAGS, lower_bound=1)
flags.DEFINE_integer("batch_size", 32, "Examples a step.", flag_values=FLAGS, lower_bound=1)
flags.DEFINE_float("learning_rate", 1e-3, "Of Adam.", flag_values=FLAGS, lower_bound=1e-12)
flags.DEFINE_string(
    "loss", "auto", "Name of a Keras loss, package>name of a registered one, or auto.", FLAGS
)
flags.DEFINE_bool("recalibrate", True, "Whether statistics are measured at the end.", FLAGS)
flags.DEFINE_bool("distillation", False, "Whether the highest percentage teaches.", FLAGS)
flags.DEFINE_integer(
    "seed", 0, "Of the order and of what is kept apart.", flag_values=FLAGS, lower_bound=0
)
flags.DEFINE_bool("overwrite", False, "Whether to replace the output.", FLAGS)


def main(arguments):
    """Trains a model; see the flags."""
    path = models.path_of(arguments, FLAGS)
    output = outputs.check_file(FLAGS.output, FLAGS.overwrite, ".keras")
    if bool(FLAGS.data) == bool(FLAGS.dataset):
        raise tool.UsageError("Name the examples: either --data=FILE.npz or --dataset=digits.")
    percentages = lists.percentages(FLAGS.percentages)
    splits = _of_file(FLAGS.data) if FLAGS.data else None
    model = models.load(path, FLAGS.custom)
    import keras

    keras.utils.set_random_seed(FLAGS.seed)
    tesla = _tesla(model, path, percentages)
    shape, dtype = _input_of(tesla)
    splits = {
        name: (_fitting(x, shape, dtype, name), y)
        for name, (x, y) in (splits or _of_dataset(FLAGS.dataset)).items()
    }
    chosen = losses.choose(FLAGS.loss, {name: y for name, (_, y) in splits.items()}, tesla)
    print(f"percentages: {','.join(map(str, tesla.percentages))}")
    print(chosen.said)
    adam = keras.optimizers.Adam(FLAGS.learning_rate)
    tesla.compile(adam, chosen.loss, metrics=chosen.metrics)
    _fit(tesla, splits)
    if FLAGS.recalibrate:
        _recalibrate(tesla, splits["train"][0])
    print("\n".join(_table(tesla, splits, bool(chosen.metrics))))
    outputs.save(tesla, output)
    print(f"wrote {output}; next: keras-tesla export {output} --output_dir=tflite")


def _of_file(path) -> dict:
    """Returns {split: (x, y)} of an .npz file."""
    held = arrays.read(path)
    # Keras' losses take no truth values.
    held = {k: a.astype("int8") if a.dtype.kind == "b" else a for k, a in held.items()}
    pairs = {
        split: (held[f"x{suffix}"], held[f"y{suffix}"])
        for split, suffix in {"": "", "train": "_train", "val": "_val", "test": "_test"}.items()
        if {f"x{suffix}", f"y{suffix}"} <= set(held)
    }
    if ("" in pairs) == ("train" in pairs):
        raise tool.UsageError(
            f"{path} must hold x_train and y_train, or x and y. Received: {sorted(held)}"
        )
    for split, (x, y) in pairs.items():
        if not x.ndim or not y.ndim or not len(x) or len(x) != len(y):
            raise tool.UsageError(
                f"{path} must hold a label for each example. Received: x of shape {x.shape} and y "
                f"of shape {y.shape}" + (f" for {split}" if split else "")
            )
    if "" in pairs:
        pairs["train"] = pairs.pop("")
    return pairs if len(pairs) > 1 else _kept_apart(*pairs["train"])


def _kept_apart(x, y) -> dict:
    """Returns a random tenth of the examples beside the others."""
    import numpy as np

    if len(x) < 2:
        raise tool.UsageError("One example cannot be parted into training and test data.")
    order = np.random.default_rng(FLAGS.seed).permutation(len(x))
    held, kept = np.split(order, [max(1, len(x) // 10)])
    return {"train": (x[kept], y[kept]), "a tenth kept apart": (x[held], y[held])}


def _of_dataset(name) -> dict:
    from keras_tesla import data

    loaded = data.load(name, seed=FLAGS.seed)
    splits = {"train": loaded.train, "val": loaded.validation, "test": loaded.test}
    return {key: (split.x, split.y) for key, split in splits.items()}


def _tesla(model, path, percentages):
    """Returns the model as a TESLA with what the flags ask for."""
    import keras_tesla as kt

    settings = {"percentages": percentages}
    hint = f"\nA plain model is converted first: keras-tesla convert {path}"
    if isinstance(model, kt.TESLA):
        hint = ""
        if not (percentages or FLAGS.distillation):
            return model
        settings = {**model.settings, "percentages": percentages or model.percentages}
        if type(model) is not kt.TESLA:
            raise tool.UsageError(
                f"{path} holds a {type(model).__name__}, which may train in its own way: leave out "
                "--percentages and --distillation, or make it with them in Python."
            )
        model = model.network
    if FLAGS.distillation:
        settings["distillation"] = "in_place"
    try:
        return kt.TESLA(model, **settings)
    except ValueError as error:
        raise tool.UsageError(f"{error}{hint}") from error


def _input_of(tesla):
    """Returns the shape of an example and its dtype."""
    network = tesla.network
    if len(network.inputs) != 1 or len(network.outputs) != 1:
        raise tool.UsageError(
            "This trains models with one input and one output; for others `tesla.fit` in Python. "
            f"Received: {len(network.inputs)} inputs, {len(network.outputs)} outputs"
        )
    return tuple(network.inputs[0].shape[1:]), network.inputs[0].dtype


def _fitting(x, shape, dtype, name):
    """Returns examples in the shape and dtype of the input: rows of pixels as images, and back."""
    if "int" in dtype and x.dtype.kind not in "iu":
        raise tool.UsageError(f"The model takes {dtype}. Received for {name}: {x.dtype}")
    x = x.astype(dtype)
    if len(x.shape) == 1 + len(shape) and all(
        size in (None, given) for size, given in zip(shape, x.shape[1:], strict=True)
    ):
        return x
    if None in shape or math.prod(shape) != math.prod(x.shape[1:]):
        raise tool.UsageError(
            f"The model takes examples of shape {shape}. Received for {name}: {x.shape[1:]}"
        )
    return x.reshape(len(x), *shape)


def _fit(tesla, splits):
    """Trains, with a line an epoch.

    Raises:
        RuntimeError: If the loss is not finite.
    """
    import keras

    shown = sorted({tesla.percentages[0], tesla.percentages[-1]}, reverse=True)
    split, prefix = ("validation", "val_") if "val" in splits else ("training", "")
    steps = math.ceil(len(splits["train"][0]) / FLAGS.batch_size)

    def say(epoch, logs):
        measured = ", ".join(f"{p} % {_figure(f'{prefix}p{p}', logs):.4f}" for p in shown)
        progress.clear()
        print(
            f"epoch {epoch + 1}/{FLAGS.epochs}: loss {logs['loss']:.4f}, {split} {measured}",
            flush=True,
        )

    history = tesla.fit(
        *splits["train"],
        batch_size=FLAGS.batch_size,
        epochs=FLAGS.epochs,
        validation_data=splits.get("val"),
        callbacks=[
            keras.callbacks.TerminateOnNaN(),
            keras.callbacks.LambdaCallback(
                on_epoch_end=say,
                on_train_begin=lambda logs: progress.say("the first step takes longest .."),
                on_train_batch_end=lambda step, logs: progress.say(f"step {step + 1}/{steps}"),
            ),
        ],
        verbose=0,
    )
    if not math.isfinite(history.history["loss"][-1]) or len(history.epoch) < FLAGS.epochs:
        raise RuntimeError("The loss is not finite; nothing was written. Lower --learning_rate.")


def _figure(column, logs):
    """The accuracy of a percentage, its loss if there is none."""
    return logs.get(f"{column}_accuracy", logs.get(f"{column}_loss"))


def _recalibrate(tesla, x):
    """Measures the statistics of `IDPBatchNormalization` layers that are not frozen."""
    import numpy as np

    from keras_tesla.calibration import measured_statistics
    from keras_tesla.layers import IDPBatchNormalization

    layers = [y for y in tesla.graph.layers if isinstance(y, IDPBatchNormalization)]
    trained = {id(v) for layer in layers if layer.trainable for v in layer.variables}
    if not trained:
        return
    progress.say("measuring the statistics of each percentage ..")
    chosen = x[np.random.default_rng(FLAGS.seed).permutation(len(x))[:_MEASURED]]
    for variable, value in measured_statistics(
        tesla, chosen, tesla.percentages, None, FLAGS.batch_size
    ):
        if id(variable) in trained:
            variable.assign(value)
    progress.clear()


def _table(tesla, splits, has_accuracy):
    """Yields what each percentage reaches."""
    name = next(key for key in ("test", "val", *splits) if key in splits and key != "train")
    x, y = splits[name]
    logs = tesla.evaluate(x, y, batch_size=FLAGS.batch_size, verbose=0, return_dict=True)
    yield f"{name}, {len(x):,} examples:"
    yield f"  {'%':>3} {'loss':>10}" + (f" {'accuracy, %':>12}" if has_accuracy else "")
    for p in tesla.percentages:
        accuracy = f" {100 * logs[f'p{p}_accuracy']:>12.2f}" if has_accuracy else ""
        yield f"  {p:>3} {logs[f'p{p}_loss']:>10.4f}{accuracy}"
