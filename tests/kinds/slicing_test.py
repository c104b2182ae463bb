"""Slices and splits of the channels: only the channels that are read are computed."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_tesla as kt
from keras_tesla.layers import IDPConv2D, IDPDense
from tests.kinds.networks import image, inputs_of, randomized, through, wide, width

to_numpy = keras.ops.convert_to_numpy

# Of 8 channels: what is taken, and how many are computed at 100, 50 and 20 %.
SLICES = {
    "first": (lambda x: x[..., :6], (6, 3, 1)),
    "last": (lambda x: x[..., 2:], (6, 3, 1)),
    "negative": (lambda x: x[..., -4:], (4, 2, 1)),
    "every second": (lambda x: x[..., 1::2], (4, 2, 1)),
    "also positions": (lambda x: x[:, None, 1:3, ..., 2:-2][:, 0], (4, 2, 1)),
    "one": (lambda x: x[..., 3:4], (1, 1, 1)),
    "of a slice": (lambda x: x[..., 2:][..., :4], (4, 2, 1)),
    "sum of two": (lambda x: x[..., :4] + x[..., 4:], (8, 4, 2)),
    "overlapping": (lambda x: x[..., :6] * x[..., 2:], (8, 5, 2)),
    "gated": (lambda x: x[..., :4] * ops.sigmoid(x[..., 4:]), (8, 4, 2)),
    "one for all": (lambda x: x[..., 3:4] * x, (8, 4, 2)),
    "one channel made eight": (lambda x: x[..., 3:4] + np.ones(8, "float32"), (1, 1, 1)),
    "halves": (lambda x: ops.add(*ops.split(x, 2, axis=-1)), (8, 4, 2)),
    "one of the pieces": (lambda x: ops.split(x, 4, axis=-1)[2], (5, 4, 4)),
    "pieces at": (lambda x: ops.subtract(*ops.split(x, [3, 6], axis=3)[:2]), (7, 3, 3)),
}


@pytest.mark.parametrize("name", SLICES)
def test_channels_that_are_read(name, check):
    take, widths = SLICES[name]
    model = through(take)
    assert tuple(width(check(model, p)) for p in (100, 50, 20)) == widths


@pytest.mark.parametrize(
    "take",
    [
        lambda x: x[..., 3:2],
        lambda x: ops.stack([x[..., 3]] * 4, axis=-1),
        lambda x: ops.split(x, [2, 2, 5], axis=-1)[2],
    ],
)
def test_what_is_not_followed_is_whole(take, check):
    x = image(2)
    model = keras.Model(x, ops.sum(take(wide(2)(x)), axis=-1))
    assert width(check(model, 50)) == 8


def test_channels_that_repeat_are_not_sliced(check):
    x = keras.Input((3, 5))
    y = layers.Flatten()(wide(1)(x))[:, :20]
    assert width(check(keras.Model(x, IDPDense(3)(y)))) == 8


def test_a_split_of_positions(check):
    model = through(lambda x: ops.concatenate(ops.split(x, 3, axis=1)[:2], axis=1))
    assert width(check(model)) == 4
    assert width(check(through(lambda x: ops.split(x, 3, axis=2)[1]))) == 4


def test_parts_go_through_a_slice(check):
    """A slice of a concatenation has the rest of its parts."""
    x = image(2)
    a, b = (layers.Conv2D(n, 1, name=f"branch_{n}")(x) for n in (6, 4))
    y = layers.Concatenate()([a, b])[..., 2:]
    z = layers.GlobalAveragePooling2D()(layers.Conv2D(5, 1, name="last")(y))
    converted = kt.to_idp(keras.Model(x, layers.Dense(3)(z)))
    assert converted.get_layer("last").input_parts == (4, 4)
    extracted = check(converted)
    assert (width(extracted, "branch_6"), width(extracted, "branch_4")) == (2, 2)


class Own(layers.Layer):
    """Slices of weights, which have no batch."""

    def build(self, shape):
        self.gamma = self.add_weight(shape=(16,), name="gamma")
        self.shift = self.add_weight(shape=(8,), name="shift")

    def call(self, x):
        first, second = ops.split(self.gamma, 2)
        return (
            x * first[None, None] + second + self.gamma[..., 4:12] - self.shift[None, None, None, :]
        )


def test_slices_of_weights(check):
    model = through(Own())
    assert width(check(model)) == 4
    x = image(2)
    model = randomized(keras.Model(x, layers.Conv2D(3, 1)(Own()(wide(2)(x)))))
    x = inputs_of(model)
    # Float32 sums in another order.
    np.testing.assert_allclose(
        to_numpy(kt.order_channels(model)(x)), to_numpy(model(x)), rtol=1e-4, atol=1e-5
    )


# PyTorch has no such slices.
@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("take", "widths"),
    [
        (lambda x: x[..., ::-1], (8, 4)),
        (lambda x: x[..., 6:1:-2], (3, 1)),
        (lambda x: x[..., ::-1] + x, (8, 8)),
        (lambda x: x[:, ::-1], (8, 4)),
    ],
)
def test_slices_from_the_end(take, widths, check):
    model = through(take)
    assert tuple(width(check(model, p)) for p in (100, 50)) == widths
    x = inputs_of(model)
    y = layers.Conv2D(3, 1)(take(wide(2)(model.input)))
    model = randomized(keras.Model(model.input, y))
    # Float32 sums in another order.
    np.testing.assert_allclose(
        to_numpy(kt.order_channels(model)(x)), to_numpy(model(x)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.tensorflow
def test_parts_from_the_end(check):
    x = image(2)
    a, b = (layers.Conv2D(n, 1, name=f"branch_{n}")(x) for n in (6, 4))
    y = layers.Concatenate()([a, b])[..., ::-1]
    model = keras.Model(x, IDPConv2D(3, 1, input_parts=(4, 6))(y))
    extracted = check(model)
    assert (width(extracted, "branch_6"), width(extracted, "branch_4")) == (3, 2)


@pytest.mark.parametrize("name", ["gated", "halves", "every second"])
def test_gradients(name, check_gradients):
    check_gradients(through(SLICES[name][0]))


def test_plain_keras_by_hand(run_three_ways):
    model = randomized(through(lambda x: x[..., 2:6], rank=0))
    x = inputs_of(model)
    result = run_three_ways(model, x, 50)
    full = model.get_layer("wide")
    y = x @ to_numpy(full.kernel)[:, 2:4] + to_numpy(full.bias)[2:4]
    head = result.model.layers[-1]
    by_hand = y @ to_numpy(head.kernel) + to_numpy(head.bias)
    # Float32 sums in another order.
    np.testing.assert_allclose(result.extracted, by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["first", "halves"])
def test_sliced_channels_keep_their_order(name):
    x = image(2)
    y = layers.Conv2D(3, 1)(SLICES[name][0](wide(2)(x)))
    model = randomized(keras.Model(x, y))
    ordered = kt.order_channels(model)
    x = inputs_of(model)
    np.testing.assert_array_equal(to_numpy(ordered(x)), to_numpy(model(x)))


def test_a_layer_after_a_split_becomes_incomplete(check):
    x = image(2)
    a, b = ops.split(wide(2)(x), 2, axis=-1)
    y = layers.Conv2D(4, 1, name="left")(a) * ops.sigmoid(b)
    model = keras.Model(x, layers.Conv2D(3, 1, name="last")(y))
    converted = kt.to_idp(model)
    assert isinstance(converted.get_layer("left"), IDPConv2D)
    assert isinstance(converted.get_layer("last"), IDPConv2D)
    assert width(check(converted)) == 4
