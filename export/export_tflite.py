"""Exports a saved TESLA model to verified .tflite files.

python export/export_tflite.py --model=out/digits/tesla.keras --output_dir=out/tflite
"""

import keras
from absl import app, flags, logging

import keras_tesla.tflite
from keras_tesla import TESLA

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "The .keras file that `tesla.save` wrote.", required=True)
flags.DEFINE_string("output_dir", None, "The folder to be written.", required=True)
flags.DEFINE_enum("mode", "per_percentage", ["per_percentage"], "What the files are.")
flags.DEFINE_list("percentages", None, "Those to export; default: all that were trained.")
flags.DEFINE_integer("batch_size", 1, "Fixed batch size of the files.", lower_bound=1)
flags.DEFINE_bool("overwrite", False, "Whether to replace an export in the folder.")


def main(_):
    tesla = keras.saving.load_model(FLAGS.model)
    if not isinstance(tesla, TESLA):
        raise app.UsageError(f"{FLAGS.model} holds a {type(tesla).__name__}, not a TESLA model.")
    bundle = keras_tesla.tflite.export(
        tesla,
        FLAGS.output_dir,
        mode=FLAGS.mode,
        percentages=FLAGS.percentages and [int(p) for p in FLAGS.percentages],
        batch_size=FLAGS.batch_size,
        overwrite=FLAGS.overwrite,
    )
    print(f"{'%':>4} {'multiply-adds':>14} {'bytes':>10} {'max difference':>15}  file")
    for entry in bundle.entries:
        print(
            f"{entry.percentage:>4} {entry.multiply_adds:>14,} {entry.bytes:>10,} "
            f"{entry.max_abs_difference:>15.2g}  {entry.file}"
        )


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    app.run(main)
