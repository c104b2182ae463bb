"""Exports a saved TESLA model to verified .tflite files.

keras-tesla export --model=out/digits/tesla.keras --output_dir=out/tflite --mode=percentage_input

Every file is compared with Keras, on random examples unless `--inputs` or `--representative_data`
names typical ones: an .npz file with an array for each input, named as the input, or an .npy file
for a model with one input. `--quantization=int8` needs `--representative_data`. The accuracy of
every percentage takes an .npz file with `labels` too.
"""

import textwrap

from absl import flags

from keras_tesla_cli import arrays, lists, models, outputs, progress, tool

# Those of `keras_tesla.tflite.settings` and `keras_tesla.tflite.storages`.
MODES = ["per_percentage", "signatures", "percentage_input"]
STORAGES = ["shared", "plain"]

FLAGS = flags.FlagValues()
models.define_flags(FLAGS)
flags.DEFINE_string(
    "output_dir", None, "The folder to be written.", flag_values=FLAGS, required=True
)
flags.DEFINE_enum("mode", "per_percentage", MODES, "What the files are.", flag_values=FLAGS)
flags.DEFINE_enum(
    "storage",
    "shared",
    STORAGES,
    "Of one file: how it stores the weights.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "quantization", None, ["dynamic_range", "int8"], "Default: float32.", flag_values=FLAGS
)
flags.DEFINE_bool("int8_io", False, "Whether inputs and outputs are int8 too.", flag_values=FLAGS)
flags.DEFINE_string(
    "inputs", None, "An .npz or .npy file of inputs to compare on.", flag_values=FLAGS
)
flags.DEFINE_string(
    "representative_data",
    None,
    "An .npz or .npy file of typical inputs, for int8.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "validation_data", None, "An .npz file of inputs and `labels`.", flag_values=FLAGS
)
flags.DEFINE_list(
    "labels", None, "Names of the classes, or a .txt file with one a line.", flag_values=FLAGS
)
flags.DEFINE_list(
    "percentages", None, "Those to export; default: all of the model's.", flag_values=FLAGS
)
flags.DEFINE_integer(
    "batch_size", 1, "Fixed batch size of the files.", flag_values=FLAGS, lower_bound=1
)
flags.DEFINE_list(
    "input_shapes",
    None,
    "Sizes of inputs that the model leaves open: image:224x224x3,ids:64.",
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "tolerance",
    None,
    "Largest difference from Keras, relative to the largest output; default: 1e-5, more for deep "
    "networks and those of mixed precision.",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "overwrite", False, "Whether to replace an export in the folder.", flag_values=FLAGS
)

_LINE = 80  # characters


def main(arguments):
    """Exports a model; see the flags."""
    path = models.path_of(arguments, FLAGS)
    outputs.check_export(FLAGS.output_dir, FLAGS.overwrite)
    percentages = lists.percentages(FLAGS.percentages)
    input_shapes = lists.shapes(FLAGS.input_shapes)
    compared, representative = _inputs(FLAGS.inputs), _inputs(FLAGS.representative_data)
    validation = None
    if FLAGS.validation_data:
        inputs = arrays.read(FLAGS.validation_data)
        if "labels" not in inputs:
            raise tool.UsageError(
                f"{FLAGS.validation_data} must hold `labels` too. Received: {sorted(inputs)}"
            )
        labels = inputs.pop("labels")
        validation = inputs, labels
    tesla = models.load(path, FLAGS.custom)
    import keras_tesla as kt

    if not isinstance(tesla, kt.TESLA):
        raise tool.UsageError(
            f"{path} holds a {type(tesla).__name__}, not a TESLA model. `keras-tesla convert "
            f"{path}` makes one of it, and `keras-tesla train` trains that."
        )
    bundle = kt.tflite.export(
        tesla,
        FLAGS.output_dir,
        mode=FLAGS.mode,
        percentages=percentages,
        batch_size=FLAGS.batch_size,
        inputs=compared,
        overwrite=FLAGS.overwrite,
        storage=FLAGS.storage,
        quantization=FLAGS.quantization,
        representative_data=representative,
        int8_io=FLAGS.int8_io,
        validation_data=validation,
        labels=lists.labels(FLAGS.labels),
        tolerance=FLAGS.tolerance,
        input_shapes=input_shapes,
        progress=progress.say,
    )
    progress.clear()
    print("\n".join(_summary(bundle)))


def _inputs(path):
    """Returns the inputs of a file, None if no file is named."""
    if not path:
        return None
    held = arrays.read_inputs(path)
    if isinstance(held, dict):
        held.pop("labels", None)  # so that one file serves all flags
    return held


def _summary(bundle):
    """Yields a table of the percentages, then the files and what could not be shared."""
    measured = bundle.entries[0].accuracy is not None  # with `validation_data`
    yield (
        f"{'%':>3} {'multiply-adds':>14} {'bytes':>11} {' accuracy' if measured else ''} "
        f"{'latency, us':>11} {'difference':>10}  file"
    )
    for entry in bundle.entries:
        accuracy = f" {100 * entry.accuracy:>8.2f}" if measured else ""
        yield (
            f"{entry.percentage:>3} {entry.multiply_adds:>14,} {entry.bytes:>11,} {accuracy} "
            f"{1e6 * entry.latency:>11.1f} {entry.max_abs_difference:>10.2g}  {entry.file}"
        )
    if uncounted := bundle.entries[0].not_counted:
        text = f"multiply-adds without these layers, of which nobody knows: {', '.join(uncounted)}"
        yield textwrap.shorten(text, _LINE, placeholder=" ..")
    total = sum(file["bytes"] for file in bundle.files)
    if len(bundle.files) == 1:
        yield f"file: {bundle.directory / bundle.files[0]['file']}"
    else:
        yield f"files: {len(bundle.files)} in {bundle.directory}"
    yield f"bytes: {total:,}"
    yield f"percentages: {','.join(str(entry.percentage) for entry in bundle.entries)}"
    if unshared := bundle.unshared_weights:
        reasons = {weight["reason"] for weight in unshared}
        their_bytes = sum(weight["bytes"] for weight in unshared)
        text = f"not shared: {len(unshared)} weights, {their_bytes:,} bytes: "
        yield textwrap.shorten(text + "; ".join(sorted(reasons)), _LINE, placeholder=" ..")
