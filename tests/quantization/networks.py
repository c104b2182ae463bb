"""Small networks with every kind of layer that has an int8 form here."""

import keras
import numpy as np
from keras import layers

from keras_tesla.layers import IDPBatchNormalization, IDPConv1D, IDPConv2D, IDPDense

PERCENTAGES = (100, 30)


def mlp():
    inputs = keras.Input((16,), name="features")
    x = layers.Dense(32, activation="relu")(inputs)
    x = IDPDense(32, activation="relu", profile="linear")(x)
    return keras.Model(inputs, IDPDense(5, name="logits")(x), name="mlp")


def private():
    """Biases of each percentage, in the middle and after a complete layer."""
    own = {"percentages": PERCENTAGES, "private_bias": True}
    inputs = keras.Input((16,), name="features")
    x = layers.Dense(32, activation="relu")(inputs)
    x = IDPDense(32, activation="relu", **own)(x)
    model = keras.Model(inputs, IDPDense(5, complete=True, name="logits", **own)(x), name="private")
    for seed, variable in enumerate(v for v in model.weights if v.name.startswith("bias_p")):
        variable.assign(np.random.default_rng(seed).normal(size=variable.shape))
    return model


def cnn():
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(inputs)
    x = IDPConv2D(16, 3, padding="same", activation="relu6")(x)
    x = layers.MaxPooling2D(2)(x)
    x = IDPConv2D(12, 3, profile="harmonic", activation="relu")(x)
    x = layers.Flatten()(x)
    return keras.Model(inputs, IDPDense(5, input_channels=12, name="logits")(x), name="cnn")


def normalized():
    """Batch normalization after a stock, an incomplete and a depthwise convolution."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = IDPConv2D(16, 1, use_bias=False)(x)
    x = layers.ReLU(6.0)(IDPBatchNormalization(PERCENTAGES)(x))
    x = layers.DepthwiseConv2D(3, use_bias=False)(x)
    x = layers.Activation("relu")(IDPBatchNormalization(PERCENTAGES)(x))
    x = IDPBatchNormalization(PERCENTAGES)(IDPConv2D(16, 1)(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, IDPDense(5, name="logits")(x), name="normalized")


def merged():
    """Add with ReLU, concatenation, pooling, padding, an activation apart, softmax."""
    inputs = keras.Input((8, 8, 3), name="image")
    a = layers.Conv2D(12, 3, padding="same", activation="relu")(inputs)
    x = layers.ReLU()(layers.Add()([a, IDPConv2D(12, 3, padding="same")(a)]))
    x = layers.Concatenate()([x, IDPConv2D(6, 1, activation="relu")(x)])
    x = layers.ZeroPadding2D(1)(layers.AveragePooling2D(2)(x))
    x = layers.Dropout(0.1)(IDPConv2D(10, 3, activation="leaky_relu")(x))
    x = layers.Flatten()(x)
    outputs = IDPDense(5, input_channels=10, activation="softmax", name="probabilities")(x)
    return keras.Model(inputs, outputs, name="merged")


def parts():
    """A part of each of two concatenated tensors, also through a depthwise convolution."""
    inputs = keras.Input((8, 8, 3), name="image")
    a = layers.Conv2D(12, 3, padding="same", activation="relu")(inputs)
    x = layers.Concatenate()([a, IDPConv2D(6, 1, activation="leaky_relu")(a)])
    x = layers.DepthwiseConv2D(3, activation="relu")(x)
    x = IDPConv2D(10, 3, activation="leaky_relu", input_parts=(12, 6))(x)
    x = layers.Concatenate()([layers.Flatten()(x), layers.GlobalAveragePooling2D()(a)])
    outputs = IDPDense(5, input_parts=[10] * 16 + [12], name="logits")(x)
    return keras.Model(inputs, outputs, name="parts")


def steps():
    inputs = keras.Input((16, 4), name="steps")
    x = layers.Conv1D(12, 3, padding="causal", activation="relu")(inputs)
    x = IDPConv1D(12, 3, activation="relu")(x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, IDPDense(5, name="logits")(x), name="steps")


def two_outputs():
    a, b = keras.Input((6,), name="a"), keras.Input((4,), name="b")
    x = layers.Dense(16, activation="relu")(layers.Concatenate()([a, b]))
    y = IDPDense(16, activation="tanh")(x)
    outputs = {
        "score": IDPDense(1, activation="sigmoid", name="score")(y),
        "logits": IDPDense(5, name="logits")(x - y),
    }
    return keras.Model({"a": a, "b": b}, outputs, name="two_outputs")


ALL = {f.__name__: f for f in (mlp, private, cnn, normalized, merged, parts, steps, two_outputs)}


def example(model, count, seed=0):
    """Standard normal inputs: an array, or a dict for a model with several inputs."""
    random = np.random.default_rng(seed)
    made = {
        t.name: random.standard_normal((count, *t.shape[1:])).astype("float32")
        for t in model.inputs
    }
    return made if len(made) > 1 else next(iter(made.values()))
