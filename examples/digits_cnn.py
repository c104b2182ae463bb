"""Trains a CNN on scikit-learn's digits, large enough that a browser shows what a percentage saves.

    python examples/digits_cnn.py --output_dir=out/cnn
    python export/web/serve.py --model_dir=out/cnn/tflite

Three 3x3 convolutions of 64, 128 and 128 channels on 8x8 pixels take 14 million multiply-adds. All
percentages are trained together, which takes about two minutes on two cores.
"""

import pathlib

import keras
from absl import app, flags, logging

import keras_tesla as kt
import keras_tesla.tflite

FLAGS = flags.FLAGS
flags.DEFINE_list("percentages", [100, 75, 50, 25], "The percentages to train.")
flags.DEFINE_integer("epochs", 30, "Passes over the images.")
flags.DEFINE_integer("width", 64, "Channels of the first convolution.", lower_bound=8)
flags.DEFINE_integer("seed", 0, "Of weights, order and splits.")
flags.DEFINE_string("output_dir", "out/cnn", "Where tesla.keras and tflite/ go.")


def network(width: int) -> keras.Model:
    """Only the first convolution, which reads the image, is complete."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(width, 3, padding="same", activation="relu"),
            kt.layers.IDPConv2D(2 * width, 3, padding="same", activation="relu"),
            kt.layers.IDPConv2D(2 * width, 3, padding="same", activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            kt.layers.IDPDense(10, name="logits"),
        ],
        name="digits_cnn",
    )


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    output = pathlib.Path(FLAGS.output_dir)
    digits = kt.data.load("digits", seed=FLAGS.seed)
    tesla = kt.TESLA(network(FLAGS.width), [int(p) for p in FLAGS.percentages])
    steps = FLAGS.epochs * -(-len(digits.train) // 32)
    tesla.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    validation = digits.validation.x, digits.validation.y
    tesla.fit(
        *(digits.train.x, digits.train.y),
        validation_data=validation,
        batch_size=32,
        epochs=FLAGS.epochs,
        verbose=2,
    )
    output.mkdir(parents=True, exist_ok=True)
    tesla.save(output / "tesla.keras")
    bundle = keras_tesla.tflite.export(
        tesla,
        output / "tflite",
        mode="percentage_input",
        overwrite=True,
        validation_data=validation,
        labels=["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    )
    print(kt.tflite.load(bundle.path(100)).describe())


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    app.run(main)
