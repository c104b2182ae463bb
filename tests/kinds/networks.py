"""Small networks in which a layer can be narrowed, and what is asked of them."""

import keras
import numpy as np
from keras import layers

from keras_tesla.layers import (
    IDPConv2D,
    IDPDense,
)

FIRST = "channels_first"
FEATURES = {0: (5,), 1: (6, 5), 2: (6, 6, 5), 3: (4, 4, 4, 5)}


def image(rank, data_format="channels_last"):
    """An input of `rank` spatial dimensions and 5 channels."""
    *spatial, channels = FEATURES[rank]
    first = data_format == "channels_first"
    return keras.Input((channels, *spatial) if first else (*spatial, channels))


def wide(rank, name="wide", **arguments):
    """A layer with 8 output channels, of which a later layer may need a part."""
    if rank == 0:
        return layers.Dense(8, name=name, **arguments)
    conv = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}[rank]
    return conv(8, 2, padding="same", name=name, **arguments)


def through(layer, rank=2):
    """input -> 8 channels -> layer -> an incomplete layer that reads half of what it gets."""
    x = image(rank)
    y = layer(wide(rank)(x))
    head = IDPConv2D(3, 1, profile="linear") if len(y.shape) == 4 else IDPDense(3, profile="linear")
    return keras.Model(x, head(y))


def merging(merge, rank=2):
    """Two branches of 8 channels and an incomplete layer that reads half of their merge."""
    x = image(rank)
    merged = merge(wide(rank)(x), wide(rank, "other")(x))
    head = IDPConv2D(3, 1) if len(merged.shape) == 4 else IDPDense(3)
    return keras.Model(x, head(merged))


def randomized(model):
    """The model with weights of all kinds: biases, statistics and scales that are not 0 or 1."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.dtype != "float32":
            continue  # the state of a seed generator
        value = rng.uniform(0.5, 1.5, variable.shape)
        signed = variable.name in ("kernel", "bias", "beta") or "mean" in variable.name
        variable.assign(value * rng.choice([-1, 1], variable.shape) if signed else value)
    return model


def inputs_of(model):
    rng = np.random.default_rng(1)
    values = [rng.normal(size=(3, *t.shape[1:])).astype("float32") for t in model.inputs]
    return values if len(values) > 1 else values[0]


def width(model, name="wide"):
    """The output channels of a layer of the extracted model."""
    layer = model.get_layer(name)
    first = getattr(layer, "data_format", None) == FIRST
    return layer.output.shape[1 if first else -1]


def projection(layer):
    """The layer kind itself is the one that is narrowed."""
    x = image(layer.rank if hasattr(layer, "rank") else 0)
    y = layer(x)
    head = IDPConv2D(3, 1) if len(y.shape) == 4 else IDPDense(3)
    return keras.Model(x, head(y))


def concatenated(*widths, **arguments):
    x = image(2)
    branches = [layers.Conv2D(w, 1, name=f"branch_{i}")(x) for i, w in enumerate(widths)]
    return keras.Model(x, IDPConv2D(3, 1, name="head", **arguments)(layers.Concatenate()(branches)))


def branch_widths(model):
    return [v.kernel.shape[-1] for v in model.layers if v.name.startswith("branch_")]
