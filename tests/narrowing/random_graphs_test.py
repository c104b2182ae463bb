"""Random small graphs: scoped, live and extracted, a model computes the same at any percentage."""

import hypothesis
import keras
import numpy as np
from hypothesis import strategies as st
from keras import layers

from keras_tesla.layers import IDPBatchNormalization, IDPConv2D, IDPDense

WIDTHS = st.sampled_from([8, 5, 4, 1])
PROFILES = st.sampled_from(["all_one", "linear", "harmonic"])
ACTIVATIONS = st.sampled_from([None, "relu", "tanh", "softmax"])

PROJECTIONS = ["plain", "incomplete"]
CHANNELWISE = ["relu", "softmax", "dropout", "norm", "own_norm"]
MERGES = ["add", "multiply", "operator", "concatenate", "concatenate_rows"]


def random_model(draw, percentage):
    """A model of 3 to 8 nodes between an input and an incomplete head."""
    images = draw(st.booleans())

    def projection(x, units, incomplete):
        arguments = {"activation": draw(ACTIVATIONS) if units > 1 else None}
        if incomplete:
            arguments["profile"] = draw(PROFILES)
        if not images:
            return (IDPDense if incomplete else layers.Dense)(units, **arguments)(x)
        conv = IDPConv2D if incomplete else layers.Conv2D
        return conv(units, draw(st.integers(1, 2)), padding="same", **arguments)(x)

    def norm(own):
        if own and percentage < 100:
            return IDPBatchNormalization([100, percentage])
        return layers.BatchNormalization()

    x = keras.Input((3, 3, draw(WIDTHS)) if images else (draw(WIDTHS),))
    tensors = [x]
    kinds = PROJECTIONS + CHANNELWISE + MERGES + (["pool"] if images else [])
    for _ in range(draw(st.integers(3, 8))):
        kind = draw(st.sampled_from(kinds))
        # Mostly the last tensor, so that graphs are deep; now and then an earlier one.
        a = draw(st.sampled_from([tensors[-1], tensors[-1], *tensors]))
        if kind in PROJECTIONS:
            y = projection(a, draw(WIDTHS), kind == "incomplete")
        elif kind == "relu":
            y = layers.ReLU()(a)
        elif kind == "softmax":
            y = layers.Softmax()(a) if a.shape[-1] > 1 else a
        elif kind == "dropout":
            y = layers.Dropout(0.5)(a)
        elif kind in ("norm", "own_norm"):
            y = norm(kind == "own_norm")(a)
        elif kind == "pool":
            y = layers.MaxPooling2D(2, strides=1, padding="same")(a)
        elif kind == "concatenate":
            y = layers.Concatenate()([a, draw(st.sampled_from(tensors))])
        else:
            equal = [t for t in tensors if t.shape[-1] == a.shape[-1]]
            b = draw(st.sampled_from([*equal, None]))
            b = projection(x, a.shape[-1], draw(st.booleans())) if b is None else b
            if kind == "concatenate_rows":
                # Rows are cut again, so that all images keep their size.
                y = layers.Concatenate(axis=1)([a, b])
                y = layers.Cropping2D(((1, 2), (0, 0)))(y) if images else layers.Add()([a, b])
            elif kind == "operator":
                y = 1 - a * b
            else:
                y = {"add": layers.Add, "multiply": layers.Multiply}[kind]()([a, b])
        tensors.append(y)

    y, channels = tensors[-1], tensors[-1].shape[-1]
    if images:
        y = draw(st.sampled_from([layers.Flatten, layers.GlobalAveragePooling2D]))()(y)
    head = IDPDense(3, profile=draw(PROFILES), input_channels=channels)(y)
    # Now and then a tensor on the way is an output, too.
    outputs = [head, draw(st.sampled_from(tensors[1:]))] if draw(st.booleans()) else head
    return keras.Model(x, outputs)


def randomize(model, rng):
    for variable in model.variables:
        if variable.name in ("kernel", "bias", "beta") or "mean" in variable.name:
            variable.assign(rng.normal(size=variable.shape) * 0.5)
        elif variable.name == "gamma" or "variance" in variable.name:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))


@hypothesis.given(data=st.data(), percentage=st.integers(1, 100), seed=st.integers(0, 99))
def test_scoped_live_and_extracted_are_equal(data, percentage, seed, assert_same_three_ways):
    model = random_model(data.draw, percentage)
    rng = np.random.default_rng(seed)
    randomize(model, rng)
    x = rng.normal(size=(2, *model.input.shape[1:])).astype("float32")
    # The tolerance is explained there: float32 sums in another order.
    extracted = assert_same_three_ways(model, x, percentage)
    assert all(type(layer).__module__.startswith("keras.") for layer in extracted.layers)
    assert extracted.count_params() <= 2 * model.count_params()
