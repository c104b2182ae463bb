"""Concatenation: the channels of the inputs, one after another, or a part of each."""

import keras
import pytest
from keras import layers

from keras_tesla.layers import IDPBatchNormalization, IDPConv2D, IDPDense
from tests.kinds.networks import branch_widths, concatenated, image, wide, width


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
