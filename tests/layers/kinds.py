"""The incomplete layers that have a stock class, and how to make one of each for a test.

All have 6 input channels; convolutions have 6 filters.
"""

import keras
import numpy as np
import pytest
from keras import layers

from keras_tesla import active_terms, profiles
from keras_tesla.layers import (
    IDPConv1D,
    IDPConv1DTranspose,
    IDPConv2D,
    IDPConv2DTranspose,
    IDPConv3D,
    IDPDense,
    IDPEinsumDense,
    IDPSeparableConv2D,
)
from tests.helpers import normal, to_numpy

STOCK = {
    IDPDense: layers.Dense,
    IDPEinsumDense: layers.EinsumDense,
    IDPConv1D: layers.Conv1D,
    IDPConv2D: layers.Conv2D,
    IDPConv3D: layers.Conv3D,
    IDPConv1DTranspose: layers.Conv1DTranspose,
    IDPConv2DTranspose: layers.Conv2DTranspose,
    IDPSeparableConv2D: layers.SeparableConv2D,
}
# What the config of an incomplete layer has besides that of its stock class.
OWN_CONFIG = {
    *("profile", "trainable_profile", "percentages", "private_bias", "private_profile"),
    *("complete", "input_parts"),
}
FIRST = {"data_format": "channels_first"}

# A projection to heads, and the one after them: the heads are read.
HEADS = {"equation": "abc,cde->abde", "output_shape": (None, 6, 2), "bias_axes": "de"}

_OF_CONVOLUTIONS = [
    {"activation": "relu", "padding": "same"},
    {"strides": 2, "padding": "same"},
    {"dilation_rate": 2},
    {"bias_initializer": "ones", "bias_regularizer": "l2", "activity_regularizer": "l1"},
    FIRST,
]
# {class or "all": keyword arguments}
ARGUMENTS = {
    "all": [
        {},
        {"use_bias": False},
        {"activation": "softmax"},
        {"trainable": False},
        {"dtype": "mixed_float16"},
        {"dtype": "mixed_bfloat16"},
    ],
    IDPDense: [
        {"activation": "relu"},
        {"activation": layers.LeakyReLU(0.1)},
        {"kernel_initializer": "he_normal", "bias_initializer": "ones"},
        {"kernel_regularizer": "l2", "bias_regularizer": "l1", "bias_initializer": "ones"},
        {"activity_regularizer": "l2"},
        {"kernel_constraint": "non_neg", "bias_constraint": "max_norm"},
        {"dtype": "float16"},
        {"dtype": keras.DTypePolicy("bfloat16")},
    ],
    IDPEinsumDense: [
        {"activation": "relu"},
        HEADS,
        {**HEADS, "bias_axes": "e"},
        {"equation": "abcd,cde->abe", "bias_axes": "e"},
        {"equation": "...a,ab->...b", "bias_axes": "b"},
        {"kernel_regularizer": "l2", "bias_regularizer": "l1", "bias_initializer": "ones"},
        {"activity_regularizer": "l2", "kernel_constraint": "non_neg"},
    ],
    IDPConv1D: [
        *_OF_CONVOLUTIONS,
        {"padding": "causal"},
        {"padding": "causal", "dilation_rate": 2, "groups": 2},
        {"padding": "causal", "strides": 2, **FIRST},
        {"groups": 3, "strides": 2},
        {"kernel_regularizer": "l2", "kernel_constraint": "non_neg"},
    ],
    IDPConv2D: [
        *_OF_CONVOLUTIONS,
        {"activation": "relu"},
        {"kernel_size": (3, 2), "strides": (2, 1)},
        {"padding": "same", "dilation_rate": 2},
        {"dilation_rate": (1, 2)},
        {"groups": 2},
        {"groups": 2, "padding": "same", "strides": 2},
        {"padding": "same", "groups": 2, **FIRST},
        {"kernel_initializer": "he_normal", "bias_initializer": "ones"},
        {"kernel_regularizer": "l2", "bias_regularizer": "l1", "bias_initializer": "ones"},
        {"activity_regularizer": "l2"},
        {"kernel_constraint": "non_neg", "bias_constraint": "max_norm"},
    ],
    IDPConv3D: [
        *_OF_CONVOLUTIONS,
        {"groups": 3, "kernel_size": (1, 2, 2)},
        {"kernel_regularizer": "l2", "kernel_constraint": "non_neg"},
    ],
    IDPConv1DTranspose: [
        *_OF_CONVOLUTIONS,
        {"strides": 2, "output_padding": 1},
        {"kernel_regularizer": "l2", "kernel_constraint": "non_neg"},
    ],
    IDPConv2DTranspose: [
        *_OF_CONVOLUTIONS,
        {"kernel_size": (3, 2), "strides": (2, 1)},
        {"strides": 2, "output_padding": 1},
        {"kernel_regularizer": "l2", "kernel_constraint": "non_neg"},
    ],
    IDPSeparableConv2D: [
        *_OF_CONVOLUTIONS,
        {"depth_multiplier": 3},
        {"depth_multiplier": 2, **FIRST},
        {"depthwise_regularizer": "l2", "pointwise_constraint": "non_neg"},
    ],
}


def unbuilt(cls, arguments):
    """A layer of 6 outputs, or as the arguments say."""
    if issubclass(cls, layers.EinsumDense):
        return _einsum_dense(cls, **arguments)
    dense = issubclass(cls, layers.Dense)
    defaults = {"units": 6} if dense else {"filters": 6, "kernel_size": 3}
    return cls(**{**defaults, "name": "layer", **arguments})


def _einsum_dense(cls, equation="abc,cd->abd", units=6, use_bias=True, **arguments):
    shape = (units,) if "..." in equation else (None, units)
    return cls(
        equation,
        **{
            "output_shape": shape,
            "bias_axes": "d" if use_bias else None,
            "name": "layer",
            **arguments,
        },
    )


def made(cls, arguments):
    """A built layer, always of the same weights."""
    keras.utils.set_random_seed(1)
    layer = unbuilt(cls, arguments)
    layer.build(example(cls, arguments).shape)
    return layer


def example(cls, arguments, batch=2):
    """Standard normal inputs of the layer's rank, with 6 channels."""
    if issubclass(cls, layers.Dense):
        return normal(batch, 6)
    if issubclass(cls, layers.EinsumDense):
        return normal(
            batch, 5, 6, *[3] * (len(arguments.get("equation", "abc").split(",")[0]) == 4)
        )
    (rank,) = (n for n in (1, 2, 3) if f"{n}D" in cls.__name__)
    # No output is 6 wide: there Keras on TensorFlow would add a bias of 6 channels.
    spatial = {1: (9,), 2: (7, 9), 3: (6, 5, 5)}[rank]
    first = arguments.get("data_format") == "channels_first"
    return normal(batch, *((6, *spatial) if first else (*spatial, 6)))


def call_or_skip(layer, x):
    """Calls a stock layer; what Keras itself cannot run on this backend is not asked of us."""
    try:
        return layer(x)
    except Exception as error:
        pytest.skip(f"keras.layers.{type(layer).__name__} does not run here: {error}")


def is_transposed(cls):
    return "Transpose" in cls.__name__


def kernel_names(layer):
    separable = isinstance(layer, layers.SeparableConv2D)
    return ["depthwise_kernel", "pointwise_kernel"] if separable else ["kernel"]


def on_slices(layer, x, percentage):
    """What a convolution means: the stock layer on the active channels of each group."""
    groups, axis = getattr(layer, "groups", 1), x.ndim - 1
    if layer.data_format == "channels_first":
        axis = 1
    terms = x.shape[axis] // groups
    k = active_terms(terms, percentage)
    gamma = profiles.get(layer.profile)(terms)
    active = np.concatenate([np.take(g, range(k), axis) for g in np.split(x, groups, axis)], axis)
    config = layer.get_config()
    stock = STOCK[type(layer)].from_config(
        {key: v for key, v in config.items() if key not in OWN_CONFIG}
    )
    stock.build(active.shape)
    weights = {name: to_numpy(getattr(layer, name)) for name in kernel_names(layer)}
    if isinstance(layer, IDPSeparableConv2D):
        multiplier = layer.depth_multiplier
        weights["depthwise_kernel"] = weights["depthwise_kernel"][:, :, :k]
        pointwise = weights["pointwise_kernel"] * np.repeat(gamma, multiplier)[:, None]
        weights["pointwise_kernel"] = pointwise[:, :, : k * multiplier]
    elif is_transposed(type(layer)):
        weights["kernel"] = (weights["kernel"] * gamma)[..., :k]
    else:
        weights["kernel"] = (weights["kernel"] * gamma[:, None])[..., :k, :]
    for name, value in weights.items():
        getattr(stock, name).assign(value)
    if layer.use_bias:
        stock.bias.assign(to_numpy(layer.bias))
    return call_or_skip(stock, active)
