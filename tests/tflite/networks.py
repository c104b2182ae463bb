"""Small networks for the tests of export: every kind of graph, quick to convert, no weight trivial.

The weights are the same on every call. Biases, scales and moving statistics are random: zeros and
ones would hide that one is lost.
"""

import sys

import keras
import numpy as np
from keras import layers, ops

import keras_tesla as kt
from keras_tesla.layers import (
    IDPBatchNormalization,
    IDPConv1DTranspose,
    IDPConv2D,
    IDPConv2DTranspose,
    IDPDense,
)

# Of the ConvNeXt of keras.applications; it has no public name.
LayerScale = vars(sys.modules[keras.applications.ConvNeXtTiny.__module__])["LayerScale"]

PERCENTAGES = (100, 70, 40, 10)


def _tesla(model, percentages):
    random = np.random.default_rng(2)
    for weight in model.weights:
        if "kernel" in weight.name:
            terms = np.prod(weight.shape[:2] if "depthwise" in weight.path else weight.shape[:-1])
            weight.assign(random.standard_normal(weight.shape) * np.sqrt(2 / terms))
        elif weight.name.startswith(("gamma", "moving_variance")):
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
        else:  # biases above zero: with one channel left, no ReLU may be shut on every example
            weight.assign(random.uniform(0.1, 0.6, weight.shape))
    return kt.TESLA(model, percentages)


def mlp(percentages=PERCENTAGES):
    """Two square layers of one size, one with a profile; no bias in one."""
    inputs = keras.Input((16,), name="features")
    x = layers.Dense(32, activation="relu")(inputs)
    x = IDPDense(32, activation="relu", profile="linear")(x)
    x = IDPDense(32, activation="relu", use_bias=False)(x)
    return _tesla(keras.Model(inputs, IDPDense(5, name="logits")(x), name="mlp"), percentages)


def cnn(percentages=PERCENTAGES, width=16):
    """Convolutions with and without a stride, pooling, global pooling before the last layer."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(width, 3, padding="same", activation="relu")(inputs)
    x = IDPConv2D(width, 3, padding="same", activation="relu")(x)
    x = layers.MaxPooling2D(2)(x)
    x = IDPConv2D(3 * width // 2, 3, strides=2, activation="relu", profile="linear")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return _tesla(keras.Model(inputs, IDPDense(5, name="logits")(x), name="cnn"), percentages)


def cnn_bn(percentages=PERCENTAGES):
    """Batch normalization with statistics for each percentage, before ReLU and without."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(inputs)
    x = IDPConv2D(16, 3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(IDPBatchNormalization(percentages)(x))
    x = layers.MaxPooling2D(2)(x)
    x = IDPBatchNormalization(percentages)(IDPConv2D(16, 3)(x))
    x = layers.GlobalAveragePooling2D()(x)
    return _tesla(keras.Model(inputs, IDPDense(5, name="logits")(x), name="cnn_bn"), percentages)


def grouped(percentages=PERCENTAGES):
    """Blocks as in ConvNeXt and ResNeXt, an array as an operand, a gate of two halves, a slice."""
    inputs = keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(inputs)
    for _ in range(2):
        y = layers.BatchNormalization()(layers.Conv2D(16, 3, groups=16, padding="same")(x))
        y = layers.Dense(32, activation="gelu")(y)
        y = layers.Conv2D(32, 3, groups=8, padding="same", activation="relu")(y)
        y = layers.Dense(16)(y) * np.linspace(0.5, 1, 16).astype("float32")
        x = x + LayerScale(0.5, 16)(y)
    first, second = ops.split(x, 2, axis=-1)
    x = layers.Conv2D(12, 1)(first * ops.sigmoid(second))[..., 2:]
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 1)(x))
    model = keras.Model(inputs, layers.Dense(5, name="logits")(x), name="grouped")
    return _tesla(kt.to_idp(model, percentages=percentages), percentages)


def private(percentages=PERCENTAGES):
    """Coefficients, statistics, gains and biases of each percentage."""
    model = kt.literature.mlp(16, 5, hidden=80, private_percentages=percentages)
    return _tesla(model, percentages)


def residual(percentages=PERCENTAGES):
    """A residual add, and Flatten before a Dense that leaves out channels at every position."""
    inputs = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(12, 3, padding="same", activation="relu")(inputs)
    y = IDPConv2D(12, 3, padding="same", activation="relu")(x)
    y = layers.MaxPooling2D(2)(layers.Add()([x, y]))
    y = IDPConv2D(12, 3, activation="relu")(y)
    y = IDPDense(5, input_channels=12, name="logits")(layers.Flatten()(y))
    return _tesla(keras.Model(inputs, y, name="residual"), percentages)


def depthwise(percentages=PERCENTAGES):
    """A complete depthwise convolution between incomplete ones: nothing narrows before it."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(12, 3, strides=2, padding="same", activation="relu")(inputs)
    x = IDPConv2D(12, 1, activation="relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    x = IDPConv2D(16, 1, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return _tesla(keras.Model(inputs, IDPDense(5, name="logits")(x), name="depthwise"), percentages)


def two_inputs_two_outputs(percentages=PERCENTAGES):
    """An image and a vector in; outputs of unlike shapes whose names do not sort as they come."""
    image, extra = keras.Input((4, 4, 2), name="image"), keras.Input((6,), name="extra")
    x = layers.Flatten()(layers.Conv2D(4, 3, activation="relu")(image))
    x = layers.Concatenate()([x, layers.Dense(8, activation="relu")(extra)])
    x = layers.Dense(24, activation="relu")(x)
    x = IDPDense(24, activation="relu")(x)
    outputs = {
        "score": IDPDense(1, activation="sigmoid", name="score_layer")(x),
        "logits": IDPDense(5, name="logits_layer")(x),
    }
    model = keras.Model({"image": image, "extra": extra}, outputs, name="two_inputs_two_outputs")
    return _tesla(model, percentages)


def unet(percentages=PERCENTAGES, width=48):
    """Skip connections, and branches that are filtered depthwise, flattened and concatenated."""
    inputs = keras.Input((8, 8, 3), name="image")
    skip = layers.Conv2D(width, 3, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(2 * width, 3, padding="same", activation="relu")(layers.MaxPooling2D()(skip))
    x = layers.Conv2DTranspose(width, 2, strides=2)(x)
    x = layers.Concatenate()([skip, x])
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, strides=2, padding="same")(x)
    x = layers.Conv2D(width, 1, activation="relu")(x)
    y = layers.Conv2D(width, 3, activation="relu")(layers.Concatenate()([x, x]))
    x = layers.Flatten()(layers.MaxPooling2D(2)(layers.Concatenate()([y, y])))
    x = layers.Concatenate()([x, layers.GlobalAveragePooling2D()(skip)])
    model = keras.Model(inputs, layers.Dense(5, name="logits")(x), name="unet")
    return _tesla(kt.to_idp(model, percentages), percentages)


def transposed(percentages=PERCENTAGES):
    """Transposed convolutions: without a bias, with factors of the percentage, over a line."""
    inputs = keras.Input((5, 5, 3), name="image")
    x = layers.Conv2D(24, 3, activation="relu")(inputs)
    x = IDPConv2DTranspose(24, 5, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU()(IDPBatchNormalization(percentages)(x))
    x = IDPConv2DTranspose(24, 2, strides=2, activation="relu", profile="linear")(x)
    x = IDPConv1DTranspose(24, 3, activation="relu", use_bias=False)(layers.Reshape((-1, 24))(x))
    x = layers.GlobalAveragePooling1D()(x)
    return _tesla(
        keras.Model(inputs, IDPDense(5, name="logits")(x), name="transposed"), percentages
    )


ALL = {
    f.__name__: f
    for f in (
        mlp,
        cnn,
        cnn_bn,
        private,
        residual,
        depthwise,
        transposed,
        two_inputs_two_outputs,
    )
}


def recurrent(cell=layers.LSTM, percentages=PERCENTAGES, **arguments):
    """A recurrent layer, which LiteRT runs as a loop, before incomplete ones."""
    inputs = keras.Input((10, 6), name="series")
    x = IDPDense(24, activation="relu")(cell(16, **arguments)(inputs))
    return _tesla(keras.Model(inputs, IDPDense(5, name="logits")(x), name="recurrent"), percentages)
