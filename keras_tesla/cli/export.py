"""Exports a saved TESLA model to verified .tflite files.

keras-tesla export --model=out/digits/tesla.keras --output_dir=out/tflite --mode=percentage_input

With `--quantization=int8` or for the accuracy of every percentage it needs data: an .npz file with
an array for each input, named as the input, of typical examples, and for the accuracy `labels`.
"""

import zipfile

import keras
import numpy as np
from absl import flags

from keras_tesla.cli import lists, tool
from keras_tesla.tflite import export
from keras_tesla.tflite.settings import MODES
from keras_tesla.tflite.storages import STORAGES
from keras_tesla.training.tesla import TESLA

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "model", None, "The .keras file that `tesla.save` wrote.", flag_values=FLAGS, required=True
)
flags.DEFINE_string(
    "output_dir", None, "The folder to be written.", flag_values=FLAGS, required=True
)
flags.DEFINE_enum("mode", "per_percentage", MODES, "What the files are.", flag_values=FLAGS)
flags.DEFINE_enum(
    "storage",
    "shared",
    list(STORAGES),
    "Of one file: how it stores the weights.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "quantization", None, ["dynamic_range", "int8"], "Default: float32.", flag_values=FLAGS
)
flags.DEFINE_bool("int8_io", False, "Whether inputs and outputs are int8 too.", flag_values=FLAGS)
flags.DEFINE_string(
    "representative_data", None, "An .npz file of typical inputs, for int8.", flag_values=FLAGS
)
flags.DEFINE_string(
    "validation_data", None, "An .npz file of inputs and `labels`.", flag_values=FLAGS
)
flags.DEFINE_list(
    "labels", None, "Names of the classes, for the file's metadata.", flag_values=FLAGS
)
flags.DEFINE_list(
    "percentages", None, "Those to export; default: all that were trained.", flag_values=FLAGS
)
flags.DEFINE_integer(
    "batch_size", 1, "Fixed batch size of the files.", flag_values=FLAGS, lower_bound=1
)
flags.DEFINE_bool(
    "overwrite", False, "Whether to replace an export in the folder.", flag_values=FLAGS
)


def arrays(path: str) -> dict[str, np.ndarray]:
    """Returns the arrays of an .npz file."""
    try:
        file = np.load(path)
    except zipfile.BadZipFile as error:
        raise tool.UsageError(f"{path} is not a complete .npz file: {error}") from error
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise tool.UsageError(f"{path} must be an .npz file. Received: one array, an .npy file")
    with file:
        return dict(file)


def main(_):
    """Exports a model; see the flags."""
    tesla = keras.saving.load_model(FLAGS.model)
    if not isinstance(tesla, TESLA):
        raise tool.UsageError(f"{FLAGS.model} holds a {type(tesla).__name__}, not a TESLA model.")
    representative = validation = None
    if FLAGS.representative_data:
        representative = arrays(FLAGS.representative_data)
        representative.pop("labels", None)  # so that one file serves both flags
    if FLAGS.validation_data:
        inputs = arrays(FLAGS.validation_data)
        if "labels" not in inputs:
            raise tool.UsageError(
                f"{FLAGS.validation_data} must hold `labels` too. Received: {sorted(inputs)}"
            )
        labels = inputs.pop("labels")
        validation = inputs, labels
    bundle = export(
        tesla,
        FLAGS.output_dir,
        mode=FLAGS.mode,
        percentages=lists.percentages(FLAGS.percentages),
        batch_size=FLAGS.batch_size,
        overwrite=FLAGS.overwrite,
        storage=FLAGS.storage,
        quantization=FLAGS.quantization,
        representative_data=representative,
        int8_io=FLAGS.int8_io,
        validation_data=validation,
        labels=FLAGS.labels,
    )
    print(
        f"{'%':>4} {'multiply-adds':>14} {'bytes':>10} {'accuracy':>9} {'latency, us':>12} "
        f"{'max difference':>15}  file"
    )
    for entry in bundle.entries:
        accuracy = "" if entry.accuracy is None else f"{100 * entry.accuracy:.2f}"
        print(
            f"{entry.percentage:>4} {entry.multiply_adds:>14,} {entry.bytes:>10,} {accuracy:>9} "
            f"{1e6 * entry.latency:>12.1f} {entry.max_abs_difference:>15.2g}  {entry.file}"
        )
    for weight in bundle.unshared_weights:
        print(
            f"not shared: {weight['weight']} at {weight['percentage']} %, "
            f"{weight['bytes']:,} bytes: {weight['reason']}"
        )
