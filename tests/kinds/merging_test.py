"""Concatenation: a prefix of the output is a prefix of the inputs, one after another."""

import keras
import pytest
from keras import layers

from keras_tesla.layers import (
    IDPConv2D,
)
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
