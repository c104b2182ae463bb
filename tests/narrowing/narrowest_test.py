"""The narrowest percentage that reads each entry of a weight, by hand."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_tesla import graph
from keras_tesla.layers import IDPConv2D, IDPDense, IDPSeparableConv2D
from keras_tesla.narrowing.narrowest import narrowest_percentages
from keras_tesla.narrowing.plan import narrow

pytestmark = pytest.mark.backend_free


def narrowest(model, percentages=(100, 50)):
    found = narrowest_percentages([narrow(graph.read(model), p) for p in percentages])
    return {
        "/".join(v.path.split("/")[-2:]): {a: n.tolist() for a, n in found[id(v)].items()}
        for v in model.variables
        if id(v) in found
    }


def own(*channels, size):
    """100, but 50 at some channels."""
    return np.where(np.isin(np.arange(size), channels), 50, 100).tolist()


def test_parts_of_a_concatenation():
    x = keras.Input((5, 5, 3))
    parts = [layers.Conv2D(n, 1, name=f"conv_{n}")(x) for n in (4, 2)]
    y = layers.BatchNormalization(name="norm")(layers.Concatenate()(parts))
    y = layers.DepthwiseConv2D(2, depth_multiplier=2, name="depthwise")(y)
    own_profile = {"profile": "linear", "trainable_profile": True}
    y = IDPSeparableConv2D(
        4, 2, depth_multiplier=2, input_parts=(8, 4), name="separable", **own_profile
    )(y)
    model = keras.Model(x, IDPConv2D(3, 1, name="last")(y))
    both = own(0, 1, 4, size=6)
    twice, four_times = np.repeat(both, 2).tolist(), np.repeat(both, 4).tolist()
    half = own(0, 1, size=4)
    assert narrowest(model) == {
        "conv_4/kernel": {3: half},
        "conv_4/bias": {0: half},
        "conv_2/kernel": {3: own(0, size=2)},
        "conv_2/bias": {0: own(0, size=2)},
        "norm/gamma": {0: both},
        "norm/beta": {0: both},
        "depthwise/kernel": {2: both},
        "depthwise/bias": {0: twice},
        "separable/depthwise_kernel": {2: twice},
        "separable/pointwise_kernel": {2: four_times, 3: half},
        "separable/bias": {0: half},
        "separable/profile": {0: twice},
        "last/kernel": {2: half},
    }


def test_after_a_flatten_the_channels_repeat():
    x = keras.Input((2, 2, 3))
    parts = [layers.Conv2D(n, 1, name=f"conv_{n}")(x) for n in (4, 2)]
    y = layers.Flatten()(layers.Concatenate()(parts))
    model = keras.Model(x, IDPDense(3, input_channels=6, input_parts=(4, 2), name="last")(y))
    assert narrowest(model)["last/kernel"] == {0: own(0, 1, 4, size=6) * 4}
