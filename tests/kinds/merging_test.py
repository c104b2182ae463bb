"""Concatenation: the channels of the inputs, one after another, or a part of each."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_tesla as kt
from keras_tesla.layers import IDPBatchNormalization, IDPConv2D, IDPDense
from tests.kinds.networks import (
    branch_widths,
    concatenated,
    image,
    inputs_of,
    merging,
    randomized,
    through,
    wide,
    width,
)


@pytest.mark.parametrize(
    ("percentage", "widths"),
    [(100, [4, 4, 2]), (90, [4, 4, 1]), (70, [4, 3]), (40, [4]), (30, [3]), (10, [1])],
)
def test_concatenation_fills_its_inputs_in_order_and_drops_the_rest(percentage, widths, check):
    assert branch_widths(check(concatenated(4, 4, 2), percentage)) == widths


def test_concatenation_of_one_tensor_with_itself(check):
    x = image(2)
    y = layers.Conv2D(4, 1, name="branch_0")(x)
    model = keras.Model(x, IDPConv2D(3, 1)(layers.Concatenate()([y, layers.ReLU()(y), y])))
    assert branch_widths(check(model, 10)) == [1]
    assert branch_widths(check(model, 50)) == [4]


def test_a_dropped_input_still_serves_another_reader(check):
    x = image(2)
    a, b = layers.Conv2D(4, 1, name="branch_0")(x), layers.Conv2D(4, 1, name="branch_1")(x)
    y = IDPConv2D(3, 1)(layers.Concatenate()([a, b]))
    model = keras.Model(x, [y, IDPConv2D(2, 1)(b)])
    assert branch_widths(check(model, 25)) == [2, 1]


def test_concatenation_on_a_spatial_axis_of_different_widths_is_right(check):
    x = image(2)
    a, b = wide(2)(x), layers.Conv2D(8, 2, padding="same", name="other")(x)
    model = keras.Model(x, IDPConv2D(3, 1)(layers.Concatenate(axis=2)([a, layers.ReLU()(b)])))
    assert width(check(model)) == width(check(model), "other") == 4


def test_concatenation_with_the_input_of_the_model_is_right(check):
    x = image(2)
    model = keras.Model(x, IDPConv2D(3, 1)(layers.Concatenate()([wide(2)(x), x])))
    assert width(check(model)) == 8
    check(model, 10)


def test_concatenation_by_keyword(check):
    x = image(2)
    a, b = wide(2)(x), wide(2, "other")(x)
    check(keras.Model(x, IDPConv2D(3, 1)(layers.Concatenate()(inputs=[a, b]))), 30)


# A part of each input.


def reads_parts(y, parts, **arguments):
    return IDPConv2D(3, 1, input_parts=parts, profile="linear", **arguments)(y)


@pytest.mark.parametrize(
    ("percentage", "widths"), [(100, [4, 4, 2]), (50, [2, 2, 1]), (25, [1, 1, 1])]
)
def test_no_input_is_dropped(percentage, widths, check):
    model = concatenated(4, 4, 2, input_parts=(4, 4, 2))
    assert branch_widths(check(model, percentage)) == widths


@pytest.mark.parametrize(
    "between",
    [
        layers.BatchNormalization,
        lambda: IDPBatchNormalization([100, 50, 1]),
        layers.ReLU,
        lambda: layers.Dropout(0.5),
        lambda: layers.MaxPooling2D(),
        lambda: layers.DepthwiseConv2D(2),
        lambda: layers.DepthwiseConv2D(2, depth_multiplier=2, activation="relu"),
        lambda: layers.GroupNormalization(5),
        lambda: layers.GroupNormalization(10),
    ],
)
def test_what_works_channel_by_channel_follows_the_parts(between, check):
    x = image(2)
    a, b = (layers.Conv2D(n, 1, name=f"branch_{i}")(x) for i, n in enumerate((6, 4)))
    y = between()(layers.Concatenate()([a, b]))
    scale = y.shape[-1] // 10
    model = keras.Model(x, reads_parts(y, (6 * scale, 4 * scale)))
    # Groups of two channels are computed whole: 4 of 6 instead of 3.
    grouped = getattr(model.layers[-2], "groups", 10) == 5
    assert branch_widths(check(model)) == [4 if grouped else 3, 2]
    check(model, 1)


def test_groups_of_channels_of_two_parts(check):
    """The second of four groups of three channels has one of the second part."""
    x = image(2)
    a, b = (layers.Conv2D(n, 1, name=f"branch_{i}")(x) for i, n in enumerate((5, 7)))
    y = layers.GroupNormalization(4)(layers.Concatenate()([a, b]))
    model = keras.Model(x, reads_parts(y, (5, 7)))
    assert branch_widths(check(model, 20)) == [5, 1]


def test_nested_concatenations_have_one_list_of_parts(check):
    x = image(2)
    a, b, c = (layers.Conv2D(n, 1, name=f"branch_{i}")(x) for i, n in enumerate((4, 6, 2)))
    inner = layers.ReLU()(layers.Concatenate()([a, b]))
    model = keras.Model(x, reads_parts(layers.Concatenate()([c, inner]), (2, 4, 6)))
    assert branch_widths(check(model)) == [2, 3, 1]


def test_what_is_added_to_a_concatenation_computes_the_same_channels(check):
    x = image(2)
    a, b = (layers.Conv2D(n, 1, name=f"branch_{i}")(x) for i, n in enumerate((6, 4)))
    c = layers.Conv2D(10, 1, name="branch_2")(x)
    y = layers.Add()([c, layers.Concatenate()([a, b])])
    model = keras.Model(x, reads_parts(y, (6, 4)))
    assert branch_widths(check(model)) == [3, 2, 5]


def widths_of(model):
    return {f"branch_{i}": width(model, f"branch_{i}") for i in range(2)}


def test_readers_of_parts_and_of_the_first_channels(check):
    x = image(2)
    a, b = (layers.Conv2D(n, 1, name=f"branch_{i}")(x) for i, n in enumerate((6, 4)))
    y = layers.Concatenate()([a, b])
    z = [reads_parts(y, (6, 4)), IDPConv2D(2, 1)(y), layers.Conv2D(2, 1)(layers.ReLU()(b))]
    model = keras.Model(x, z)
    assert widths_of(check(model, 30)) == {"branch_0": 3, "branch_1": 4}
    assert widths_of(check(keras.Model(x, z[:2]), 80)) == {"branch_0": 6, "branch_1": 3}


@pytest.mark.parametrize("pool", [layers.Flatten, layers.GlobalAveragePooling2D])
def test_a_flattened_or_pooled_concatenation(pool, check):
    x = image(2)
    a, b = (layers.Conv2D(n, 1, name=f"branch_{i}")(x) for i, n in enumerate((6, 4)))
    y = pool()(layers.Concatenate()([a, b]))
    channels = 10 if pool is layers.Flatten else None
    model = keras.Model(x, IDPDense(3, input_channels=channels, input_parts=(6, 4))(y))
    assert branch_widths(check(model)) == [3, 2]


def flattened_and_concatenated(input_parts):
    x = image(2)
    a = layers.Conv2D(6, 1, name="branch_0")(x)
    b = layers.Conv2D(4, 5, name="branch_1")(x)
    y = layers.Concatenate()([layers.Flatten()(a), layers.Flatten()(b)])
    return keras.Model(x, IDPDense(3, input_parts=input_parts)(y))


def test_each_position_of_a_flattened_map_is_a_part(check):
    model = flattened_and_concatenated((6,) * 36 + (4,) * 4)
    assert branch_widths(check(model)) == [3, 2]


def test_the_first_features_of_flattened_maps_need_all_channels_of_a_position(check):
    assert branch_widths(check(flattened_and_concatenated(None))) == [6]
    assert branch_widths(check(flattened_and_concatenated(None), 96)) == [6, 4]


# The functions of `keras.ops`, and what a class token in front of a sequence needs.


def of_branches(merge, *widths, **arguments):
    x = image(2)
    found = [layers.Conv2D(w, 1, name=f"branch_{i}")(x) for i, w in enumerate(widths)]
    return keras.Model(x, IDPConv2D(3, 1, name="head", **arguments)(merge(found)))


@pytest.mark.parametrize("structure", [list, tuple])
def test_a_function_concatenates_as_the_layer_does(structure, check):
    def merge(x):
        return ops.concatenate(structure(x), axis=-1)

    assert branch_widths(check(of_branches(merge, 4, 4, 2), 40)) == [4]
    model = of_branches(merge, 4, 4, 2, input_parts=(4, 4, 2))
    assert branch_widths(check(model)) == [2, 2, 1]


def test_to_idp_keeps_a_part_of_what_a_function_concatenates(check):
    x = image(2)
    y = ops.concatenate([layers.Conv2D(n, 1, name=f"branch_{n}")(x) for n in (6, 4)], axis=3)
    y = layers.GlobalAveragePooling2D()(layers.Conv2D(5, 1, name="last")(y))
    converted = kt.to_idp(keras.Model(x, layers.Dense(3)(y)))
    assert converted.get_layer("last").input_parts == (6, 4)
    assert branch_widths(check(converted)) == [3, 2]


def test_a_function_drops_a_mask_also_of_one_input_that_is_left(check):
    x = keras.Input((6, 5))
    y = layers.Masking()(x)
    a, b = layers.Dense(4, name="branch_0")(y), layers.Dense(4, name="branch_1")(y)
    y = IDPDense(4)(ops.concatenate([a, b], axis=-1))
    model = keras.Model(x, layers.GlobalAveragePooling1D()(y))
    x = inputs_of(randomized(model))
    x[:, 3:] = 0
    small = check(model, 50)
    with kt.percentage_scope(50):
        expected = ops.convert_to_numpy(model(x))
    # Float32 sums in another order.
    np.testing.assert_allclose(ops.convert_to_numpy(small(x)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "merge",
    [
        lambda a, b: ops.concatenate([a, b], axis=1),
        lambda a, b: ops.concatenate([a, b, a], axis=-2),
        lambda a, b: ops.max(ops.stack([a, b], axis=1), axis=1),
        lambda a, b: ops.stack([a, b], axis=-2)[:, :, :, 0],
        lambda a, b: ops.transpose(ops.stack([a, b], axis=-1), (0, 1, 2, 4, 3))[:, :, :, 1],
    ],
)
def test_positions_of_equal_channels_side_by_side(merge, check):
    extracted = check(merging(merge))
    assert width(extracted) == 4
    assert "other" not in [layer.name for layer in extracted.layers] or (
        width(extracted, "other") == 4
    )


@pytest.mark.parametrize(
    "merge",
    [
        lambda a, b: ops.concatenate([a + b, np.ones((3, 6, 6, 8), "float32")], axis=0),
        lambda a, b: ops.stack([a, ops.softmax(b)], axis=1)[:, 0],
    ],
)
def test_what_is_not_known_of_one_input_is_whole(merge, check):
    x = keras.Input((6, 6, 5), batch_size=3)
    y = merge(wide(2)(x), wide(2, "other")(x))
    assert width(check(keras.Model(x, IDPConv2D(3, 1)(y)))) == 8


@pytest.mark.parametrize(
    "copies",
    [
        lambda x: ops.tile(x, (1, 2, 1, 1)),
        lambda x: ops.tile(x, 1),
        lambda x: ops.tile(x, (1, 1, 3, 1, 1))[:, 0],
        lambda x: ops.repeat(x, 2, axis=1),
        # Keras (3.15) takes no list of a graph on PyTorch.
        pytest.param(
            lambda x: ops.repeat(x, [1, 0, 2, 1, 1, 1], axis=-2), marks=pytest.mark.tensorflow
        ),
        lambda x: ops.repeat(x, 1, axis=0),
    ],
)
def test_copies_of_positions(copies, check):
    assert width(check(through(copies))) == 4


def test_copies_of_all_channels(check):
    x = image(1)
    y = ops.tile(wide(1)(x), (1, 1, 3))
    assert width(check(keras.Model(x, IDPDense(3, input_channels=8)(y)))) == 4
    assert width(check(keras.Model(x, IDPDense(3)(y)))) == 8


class ClassToken(layers.Layer):
    """A weight in front of each sequence, as in a ViT."""

    def __init__(self, copies, **kwargs):
        super().__init__(**kwargs)
        self.copies = copies

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[-1]), name="token")
        self.places = self.add_weight(shape=(1, shape[1] + 1, shape[-1]), name="places")
        self.dense = layers.Dense(shape[-1], name="inner")
        self.dense.build(shape)

    def call(self, x):
        tokens = self.copies(self.token, x)
        return ops.concatenate([tokens, self.dense(x)], axis=1) + self.places


TOKENS = {
    "broadcast_to": lambda w, x: ops.broadcast_to(w, (ops.shape(x)[0], 1, x.shape[-1])),
    "tile": lambda w, x: ops.tile(w, (ops.shape(x)[0], 1, 1)),
    "repeat": lambda w, x: ops.repeat(w, ops.shape(x)[0], axis=0),
    "sum with zeros": lambda w, x: w + ops.zeros_like(x[:, :1]),
}


@pytest.mark.parametrize("copies", TOKENS)
def test_a_class_token(copies, check):
    batch = None if copies == "sum with zeros" else 3
    x = keras.Input((6, 5), batch_size=batch)
    y = ClassToken(TOKENS[copies], name="tokens")(wide(1)(x))
    extracted = check(keras.Model(x, IDPDense(3)(y)))
    assert width(extracted, "tokens_inner") == 4
