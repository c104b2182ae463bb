"""Makes a Keras model incomplete and saves it as a TESLA model; nothing is trained.

keras-tesla convert --model=trained.keras --output=tesla.keras --percentages=100,75,50,25

Prints what became of each layer and what each percentage costs. At 100 % the network computes what
it did; fine-tune it for the others, see docs/converting.md of keras_tesla.
"""

import os
import pathlib
import tempfile

import keras
from absl import flags

from keras_tesla.analysis import summary
from keras_tesla.cli import lists
from keras_tesla.conversion import to_idp
from keras_tesla.ordering import order_channels
from keras_tesla.tflite.measure import textfile
from keras_tesla.training.tesla import TESLA

FLAGS = flags.FlagValues()
flags.DEFINE_string("model", None, "The .keras file of the model.", FLAGS, required=True)
flags.DEFINE_string("output", None, "The .keras file to be written.", FLAGS, required=True)
flags.DEFINE_list("percentages", ["100", "75", "50", "25"], "Those to be trained.", FLAGS)
flags.DEFINE_bool("order_channels", True, "Whether important channels come first.", FLAGS)
flags.DEFINE_string("profile", "all_one", "Profile of the incomplete layers.", FLAGS)
flags.DEFINE_list("skip", [], "Names of layers to leave as they are.", FLAGS)
flags.DEFINE_bool("overwrite", False, "Whether to replace the output.", FLAGS)


def main(_):
    """Converts a model; see the flags."""
    output = textfile.check(FLAGS.output, FLAGS.overwrite)
    if output.suffix != ".keras":
        raise ValueError(f"--output must end in .keras. Received: {FLAGS.output}")
    percentages = lists.percentages(FLAGS.percentages)
    model = keras.saving.load_model(FLAGS.model)
    if isinstance(model, TESLA):
        raise ValueError(f"{FLAGS.model} is already a TESLA model.")
    if FLAGS.order_channels:
        model = order_channels(model)
    model = to_idp(model, percentages, profile=FLAGS.profile, skip=FLAGS.skip)
    print(model.conversion_report)
    tesla = TESLA(model, percentages)
    summary(tesla)
    _save(tesla, output)
    print(f"wrote {output}")


def _save(tesla, output: pathlib.Path):
    """Writes the file whole or not at all."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as folder:
        unfinished = pathlib.Path(folder) / output.name
        tesla.save(unfinished)
        os.replace(unfinished, output)
