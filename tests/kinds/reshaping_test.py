"""Reshapes of channels: split into blocks, joined, and positions in front of them and behind."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_tesla as kt
from keras_tesla.layers import IDPConv1D, IDPConv2D, IDPDense
from tests.kinds.networks import image, inputs_of, randomized, wide, width

to_numpy = keras.ops.convert_to_numpy


def reshaped(*steps, rank=1, head=None):
    """8 channels -> steps -> a layer that reads a part of the last axis."""
    x = image(rank)
    y = wide(rank)(x)
    for step in steps:
        y = step(y)
    heads = {2: IDPDense(3), 3: IDPConv1D(3, 1), 4: IDPConv2D(3, 1), 5: IDPDense(3)}
    return keras.Model(x, (head or heads[len(y.shape)])(y))


def transposed(*order):
    return lambda x: ops.transpose(x, order)


JOINED = layers.Reshape((6, 8))
PATCHES = layers.Reshape((3, 2, 3, 2, 8))
READ_AT_EACH_PLACE = [lambda x: IDPDense(3, input_channels=8)(x)]

# Of a sequence of 6 positions and 8 channels, or an image of 6 x 6: how many of the channels are
# computed at 100, 50 and 20 %.
WAYS = {
    "positions merged": (2, [layers.Reshape((36, 8))], (8, 4, 1)),
    "positions split": (1, [layers.Reshape((3, 2, -1))], (8, 4, 1)),
    "a function": (2, [lambda x: ops.reshape(x, (-1, 36, 8))], (8, 4, 1)),
    "there and back": (2, [layers.Reshape((36, 8)), layers.Reshape((6, 6, 8))], (8, 4, 1)),
    "into the batch": (2, [lambda x: ops.reshape(x, (-1, 6, 8))], (8, 4, 1)),
    "a new axis": (1, [layers.Reshape((1, 6, 1, 8)), layers.Reshape((6, 8))], (8, 4, 1)),
    "heads of two": (1, [layers.Reshape((6, 4, 2)), layers.Reshape((6, 8))], (8, 4, 2)),
    "heads of four": (1, [layers.Reshape((6, 2, 4)), layers.Reshape((-1, 8))], (8, 4, 4)),
    "heads over positions": (
        1,
        [layers.Reshape((6, 4, 2)), transposed(0, 2, 1, 3), transposed(0, 2, 1, 3), JOINED],
        (8, 4, 2),
    ),
    "a matrix of heads": (
        1,
        [lambda x: ops.reshape(x, (-1, 8)), lambda x: ops.reshape(x, (-1, 6, 4, 2)), JOINED],
        (8, 4, 2),
    ),
    "shuffled": (
        2,
        [layers.Reshape((6, 6, 4, 2)), transposed(0, 1, 2, 4, 3), layers.Reshape((6, 6, 8))],
        (8, 4, 4),
    ),
    "a vector as an image": (0, [layers.Reshape((2, 2, 2))], (8, 4, 4)),
    "patches": (
        2,
        [PATCHES, transposed(0, 1, 3, 2, 4, 5), layers.Reshape((9, 32)), *READ_AT_EACH_PLACE],
        (8, 4, 1),
    ),
}


@pytest.mark.parametrize("name", WAYS)
def test_channels_that_are_read(name, check):
    rank, steps, widths = WAYS[name]
    head = layers.Identity() if name == "patches" else None
    model = reshaped(*steps, rank=rank, head=head)
    assert tuple(width(check(model, p)) for p in (100, 50, 20)) == widths


@pytest.mark.parametrize(
    ("rank", "steps"),
    [
        (1, [layers.Reshape((8, 6))]),
        (1, [layers.Reshape((4, 12))]),
        (1, [layers.Reshape((16, 3))]),
        (1, [layers.Reshape((6, 2, 4)), lambda x: x[:, :, 0] * x[:, :, 1]]),  # of some heads
        (2, [layers.Reshape((-1,)), layers.Reshape((6, 48)), layers.Reshape((48, 6))]),
        (1, [layers.Reshape((6, 8), activity_regularizer="l2")]),
    ],
)
def test_what_is_not_followed_is_whole(rank, steps, check):
    assert width(check(reshaped(*steps, rank=rank))) == 8


def test_a_length_that_is_open(check):
    x = keras.Input((None, 5))
    y = layers.Reshape((-1, 4, 2))(layers.Dense(8, name="wide")(x))
    model = keras.Model(x, IDPDense(3)(layers.Reshape((-1, 8))(y)))
    randomized(model)
    small = check_open(model)
    assert width(small) == 4


def check_open(model):
    x = np.random.default_rng(0).normal(size=(2, 7, 5)).astype("float32")
    small = kt.TESLA(model, [100, 50]).at(50)
    with kt.percentage_scope(50):
        expected = to_numpy(model(x))
    # Float32 sums in another order.
    np.testing.assert_allclose(to_numpy(small(x)), expected, rtol=1e-4, atol=1e-5)
    return small


def test_parts_go_through_blocks(check):
    """A part that ends within a head is one with the next."""
    x = image(1)
    a, b = (layers.Dense(n, name=f"branch_{n}")(x) for n in (4, 8))
    y = layers.Reshape((6, 6, 2))(layers.Concatenate()([a, b]))
    y = layers.Reshape((6, 12))(layers.ReLU()(y))
    z = layers.GlobalAveragePooling1D()(layers.Dense(5, name="last")(y))
    converted = kt.to_idp(keras.Model(x, layers.Dense(3)(z)))
    assert converted.get_layer("last").input_parts == (4, 8)
    extracted = check(converted)
    assert (width(extracted, "branch_4"), width(extracted, "branch_8")) == (2, 4)


@pytest.mark.parametrize("name", ["heads over positions", "shuffled", "a vector as an image"])
def test_gradients(name, check_gradients):
    rank, steps, _ = WAYS[name]
    check_gradients(reshaped(*steps, rank=rank))


@pytest.mark.parametrize("name", ["positions merged", "heads over positions", "shuffled"])
def test_the_order_of_channels(name):
    """Channels that go through as they are may be permuted; those in blocks keep their places."""
    rank, steps, _ = WAYS[name]
    head = layers.Dense(3, name="head")
    model = randomized(reshaped(*steps, rank=rank, head=head))
    ordered, x = kt.order_channels(model), inputs_of(model)
    # Float32 sums in another order.
    np.testing.assert_allclose(to_numpy(ordered(x)), to_numpy(model(x)), rtol=1e-4, atol=1e-5)
    same = np.array_equal(
        to_numpy(ordered.get_layer("wide").kernel), to_numpy(model.get_layer("wide").kernel)
    )
    assert same == (name != "positions merged")
