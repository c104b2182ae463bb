"""Taking a leading part of the channels, against NumPy."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_tesla.channels import Channels, leading, take


def expected(x, layout, have, want):
    """The same in words: of each copy of the channels keep the first `want`."""
    kept = [j * have + i for j in range(layout.repeats) for i in range(want)]
    return np.take(x, kept, axis=layout.axis)


@st.composite
def cases(draw):
    rank = draw(st.integers(2, 4))
    axis = draw(st.integers(1, rank - 1))
    have = draw(st.integers(1, 5))
    layout = Channels(axis, have + draw(st.integers(0, 3)), repeats=draw(st.integers(1, 3)))
    shape = [draw(st.integers(1, 3)) for _ in range(rank)]
    shape[axis] = layout.repeats * have
    x = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    return x, layout, have, draw(st.integers(1, have))


@given(cases())
def test_take(case):
    x, layout, have, want = case
    taken = keras.ops.convert_to_numpy(take(keras.ops.convert_to_tensor(x), layout, have, want))
    np.testing.assert_array_equal(taken, expected(x, layout, have, want))


@given(cases())
def test_take_of_a_keras_tensor(case):
    x, layout, have, want = case
    symbolic = take(keras.KerasTensor((None, *x.shape[1:])), layout, have, want)
    assert tuple(symbolic.shape[1:]) == expected(x, layout, have, want).shape[1:]


def test_all_channels_are_the_tensor_itself():
    x = keras.ops.ones((2, 6))
    assert take(x, Channels(axis=1, count=3, repeats=2), 3, 3) is x


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((None, None, 6), Channels(axis=2, count=6)),
        ((None, None, 6), Channels(axis=2, count=3, repeats=2)),
        ((None, 6, None), Channels(axis=1, count=3, repeats=2)),
        ((None, 6, None, None), Channels(axis=1, count=2, repeats=3)),
    ],
)
def test_unknown_dimensions(shape, layout):
    have, want = layout.count, max(1, layout.count - 1)
    x = keras.Input(batch_shape=shape)
    model = keras.Model(x, take(x, layout, have, want))
    concrete = [2, *(d or 4 for d in shape[1:])]
    values = np.arange(np.prod(concrete), dtype="float32").reshape(concrete)
    actual = keras.ops.convert_to_numpy(model(values))
    np.testing.assert_array_equal(actual, expected(values, layout, have, want))


@pytest.mark.parametrize("axis", [0, 1, -1, -2])
def test_leading_entries_of_an_axis(axis):
    x = np.arange(24, dtype="float32").reshape(4, 3, 2)
    taken = leading(keras.ops.convert_to_tensor(x), 1, axis)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(taken), x.take([0], axis=axis))


def test_leading_entries_without_a_number_are_all():
    x = keras.ops.ones((2, 6))
    assert leading(x, None) is x
    assert leading(x, 6, -1) is x


def test_what_is_left_out_has_a_gradient_of_zero(gradients):
    x = keras.Variable(np.ones((3, 4), "float32"))
    (gradient,) = gradients(lambda: keras.ops.sum(3 * leading(x.value, 2, -1)), [x])
    np.testing.assert_array_equal(gradient, [[3, 3, 0, 0]] * 3)
