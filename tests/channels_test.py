"""Taking some of the channels, against NumPy and by hand."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_tesla.channels import Channels, Selection, common_parts, pick, put, take


def expected(x, layout, have, want):
    """The same in words: of each copy of the channels keep those that are wanted."""
    of_copy = have.indices().tolist()
    places = [of_copy.index(channel) for channel in want.indices()]
    kept = [j * len(have) + i for j in range(layout.repeats) for i in places]
    return np.take(x, kept, axis=layout.axis)


def selection(channels):
    return Selection.of((i, i + 1) for i in channels)


@st.composite
def cases(draw):
    rank = draw(st.integers(2, 4))
    axis = draw(st.integers(1, rank - 1))
    have = draw(st.sets(st.integers(0, 7), min_size=1))
    want = draw(st.sets(st.sampled_from(sorted(have)), min_size=1))
    layout = Channels(axis, 8, repeats=draw(st.integers(1, 3)))
    shape = [draw(st.integers(1, 3)) for _ in range(rank)]
    shape[axis] = layout.repeats * len(have)
    x = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    return x, layout, selection(have), selection(want)


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


def test_take_of_a_tensor_without_a_batch():
    x = np.arange(12, dtype="float32").reshape(6, 2)
    case = Channels(axis=0, count=3, repeats=2), Selection.first(3), selection([0, 2])
    taken = keras.ops.convert_to_numpy(take(keras.ops.convert_to_tensor(x), *case))
    np.testing.assert_array_equal(taken, expected(x, *case))


def test_all_channels_are_the_tensor_itself():
    x = keras.ops.ones((2, 6))
    full = Selection.first(3)
    assert take(x, Channels(axis=1, count=3, repeats=2), full, full) is x


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((None, None, 6), Channels(axis=2, count=6)),
        ((None, None, 6), Channels(axis=2, count=3, repeats=2)),
        ((None, 6, None), Channels(axis=1, count=3, repeats=2)),
        ((None, 6, None, None), Channels(axis=1, count=2, repeats=3)),
    ],
)
@pytest.mark.parametrize("channels", [[0], [0, 1], [1]])
def test_unknown_dimensions(shape, layout, channels):
    have, want = Selection.first(layout.count), selection(channels)
    x = keras.Input(batch_shape=shape)
    model = keras.Model(x, take(x, layout, have, want))
    concrete = [2, *(d or 4 for d in shape[1:])]
    values = np.arange(np.prod(concrete), dtype="float32").reshape(concrete)
    actual = keras.ops.convert_to_numpy(model(values))
    np.testing.assert_array_equal(actual, expected(values, layout, have, want))


@pytest.mark.parametrize("axis", [0, 1, -1, -2])
@pytest.mark.parametrize("channels", [[0], [1], [0, 2], [0, 1, 2]])
def test_some_entries_of_an_axis(axis, channels):
    x = np.arange(36, dtype="float32").reshape(4, 3, 3)
    picked = pick(keras.ops.convert_to_tensor(x), selection(channels), axis)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(picked), x.take(channels, axis=axis))


def test_entries_without_a_selection_are_all():
    x = keras.ops.ones((2, 6))
    assert pick(x, None) is x
    assert pick(x, Selection.first(6), -1) is x


# The last one of each: so many runs are gathered.
_CHOICES = [[0, 1], [1], [0, 2, 3], [12], [0, 2, 4, 6, 8, 11, 12]]


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("channels", _CHOICES)
def test_what_is_left_out_has_a_gradient_of_zero(channels, axis, gradients):
    x = np.arange(1, 40, dtype="float32").reshape((3, 13) if axis else (13, 3))
    variable, chosen = keras.Variable(x), selection(channels)

    def loss(x):
        return keras.ops.sum(pick(x, chosen, axis) ** 2)

    kept = np.isin(np.arange(13), channels)
    for tensor in (lambda: variable.value, lambda: variable + 0):  # a variable of the backend, too
        (gradient,) = gradients(lambda of=tensor: loss(of()), [variable])
        np.testing.assert_array_equal(gradient, 2 * x * (kept if axis else kept[:, None]))


@pytest.mark.parametrize("channels", [*_CHOICES, [0, 2, 4], [3, 4]])
def test_put_replaces_what_pick_takes(channels):
    x, chosen = keras.ops.arange(13.0), selection(channels)
    result = keras.ops.convert_to_numpy(put(x, 10 + pick(x, chosen), chosen))
    np.testing.assert_array_equal(result, [i + 10 * (i in channels) for i in range(13)])


@pytest.mark.tensorflow
@pytest.mark.parametrize("channels", [[1], [0, 2, 4, 6, 8]])
def test_the_gradient_of_a_choice_is_two_operations(channels):
    """TensorFlow's own ones are about fifteen, of each weight and percentage."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        x = tf.zeros((2, 9, 4))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = pick(x, selection(channels), 1)
        before = len(graph.get_operations())
        tape.gradient(y, x)
        made = [operation.type for operation in graph.get_operations()[before:]]
    # That of the sum of all entries, and Identity in which TensorFlow wraps it.
    kinds = [kind for kind in made if kind not in ("Const", "Shape", "Fill", "Identity")]
    assert sorted(kinds) in (["Pad"], ["GatherV2", "Pad"])


# Selections, as sets.

_sets = st.sets(st.integers(0, 12))


@given(_sets, _sets)
def test_selections_are_sets(a, b):
    one, other = selection(a), selection(b)
    assert one.indices().tolist() == sorted(a)
    assert (len(one), bool(one)) == (len(a), bool(a))
    assert one | other == selection(a | b)
    assert one - other == selection(a - b)
    assert one.between(3, 8) == selection({i - 3 for i in a if 3 <= i < 8})
    assert one.times(3) == selection({3 * i + j for i in a for j in range(3)})
    assert one.over(3) == selection({i // 3 for i in a})
    assert (one == other) == (a == b)


@given(_sets, _sets)
def test_places_among_others(a, b):
    have = sorted(a | b)
    assert selection(a).places(selection(have)) == selection({have.index(i) for i in a})


def test_places_of_what_is_not_there():
    with pytest.raises(ValueError, match=r"The channels \(\(0, 3\),\) are not among \(\(0, 2\),"):
        Selection.first(3).places(Selection.first(2))


# Layouts.


def test_layouts_that_differ_in_parts_only_are_equal():
    assert Channels(1, 8, parts=(5, 3)) == Channels(1, 8)
    assert Channels(1, 8).parts == (8,)


def test_a_part_ends_where_one_of_any_layout_ends():
    layouts = [Channels(1, 9, parts=(5, 4)), Channels(1, 9, parts=(2, 3, 4)), Channels(1, 9)]
    assert common_parts(layouts) == (2, 3, 4)
    assert common_parts(layouts[2:]) == (9,)


def test_parts_of_another_number_of_channels():
    with pytest.raises(ValueError, match=r"must sum up to the 8 channels. Received: \(5, 4\)"):
        Channels(1, 8, parts=(5, 4))
