"""Writes the golden files: small files of each kind, with inputs and the outputs that they gave.

    python -m tests.golden.make tests/golden/format_1

`tests/golden_test.py` opens them with today's code. They stay as they are while readers promise to
read their format: this script is for the first files of another format.
"""

import pathlib
import sys

import keras
import numpy as np
from keras import layers

import keras_tesla as kt
from keras_tesla.layers import IDPBatchNormalization, IDPConv2D, IDPDense

# {name: (percentages, channels, options of `export`)}. With fewer channels, leading blocks would
# not be stored nested.
EXPORTS = {
    "percentage_input_shared": ((100, 50, 20), 18, {"mode": "percentage_input"}),
    "signatures_plain": ((100, 50), 6, {"mode": "signatures", "storage": "plain"}),
    "signatures_shared_int8": ((100, 50), 34, {"mode": "signatures", "quantization": "int8"}),
}


def network(percentages, width: int) -> kt.TESLA:
    """A small CNN with a profile, and statistics for each percentage; its weights are fixed."""
    inputs = keras.Input((5, 5, 1), name="image")
    x = layers.Conv2D(width, 2, activation="relu")(inputs)
    x = IDPConv2D(width, 2, profile="linear", use_bias=False)(x)
    x = layers.ReLU()(IDPBatchNormalization(percentages)(x))
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, IDPDense(3, name="logits")(x), name="golden")
    random = np.random.default_rng(0)
    for weight in model.weights:
        if "kernel" in weight.name:
            deviation = np.sqrt(2 / np.prod(weight.shape[:-1]))
            weight.assign(deviation * random.standard_normal(weight.shape))
        else:
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    return kt.TESLA(model, percentages)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 5, 5, 1)).astype("float32")


def main(directory):
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True)
    x = images(4)
    arrays = {"images": x}
    tesla = network((100, 50), width=6)
    tesla.save(directory / "tesla.keras")
    for percentage in tesla.percentages:
        outputs = tesla.predict(x, percentage=percentage, verbose=0)
        arrays[f"tesla/{percentage}"] = outputs
    for name, (percentages, width, options) in EXPORTS.items():
        representative = images(64) if "quantization" in options else None
        bundle = kt.tflite.export(
            network(percentages, width),
            directory / name,
            representative_data=representative,
            **options,
        )
        model = kt.tflite.load(bundle.path(100))
        for percentage in percentages:
            arrays[f"{name}/{percentage}"] = np.concatenate([model(i[None], percentage) for i in x])
    np.savez_compressed(directory / "arrays.npz", **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
