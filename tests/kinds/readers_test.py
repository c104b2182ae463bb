"""Several readers of a tensor, and layers that are called twice."""

import keras
import pytest
from keras import layers

from keras_tesla.layers import (
    IDPBatchNormalization,
    IDPConv2D,
    IDPDense,
)
from tests.kinds.networks import branch_widths, image, wide, width


@pytest.mark.parametrize(("percentage", "expected"), [(100, 8), (50, 5), (10, 1)])
def test_the_widest_reader_decides(percentage, expected, check):
    x = image(0)
    y = wide(0)(x)
    z = layers.Concatenate()([y, layers.Dense(2)(x)])
    # Of y the first reads 8 * p / 100 channels, the second 10 * p / 100.
    model = keras.Model(x, [IDPDense(3)(y), IDPDense(2)(z)])
    assert width(check(model, percentage)) == expected


def test_a_complete_reader_needs_everything(check):
    x = image(0)
    y = wide(0)(x)
    assert width(check(keras.Model(x, [IDPDense(3)(y), layers.Dense(2)(y)]))) == 8


def test_an_output_of_the_model_is_complete(check):
    x = image(0)
    y = wide(0)(x)
    assert width(check(keras.Model(x, [IDPDense(3)(y), y]))) == 8


def test_residual_from_a_complete_layer(check):
    x = image(2)
    y = layers.Conv2D(8, 1, name="shortcut")(x)
    z = wide(2)(layers.ReLU()(y))
    extracted = check(keras.Model(x, IDPConv2D(3, 1)(layers.Add()([y, z]))))
    assert width(extracted) == 4
    assert width(extracted, "shortcut") == 8  # `wide` is complete: it reads all of the shortcut


def test_residual_chain_of_incomplete_layers(check):
    x = image(2)
    y = wide(2)(x)
    for i in range(3):
        z = IDPConv2D(8, 3, padding="same", activation="relu", name=f"branch_{i}")(y)
        y = layers.Add()([y, IDPBatchNormalization([100, 50])(z)])
    extracted = check(keras.Model(x, IDPConv2D(3, 1)(y)))
    assert width(extracted) == 4
    assert branch_widths(extracted) == [4, 4, 4]


def test_squeeze_and_excite(check):
    x = image(2)
    y = wide(2)(x)
    s = layers.GlobalAveragePooling2D(keepdims=True)(y)
    s = layers.Conv2D(2, 1, activation="relu")(s)
    s = layers.Conv2D(8, 1, activation="sigmoid", name="excite")(s)
    extracted = check(keras.Model(x, IDPConv2D(3, 1)(layers.Multiply()([y, s]))))
    assert width(extracted, "excite") == 4
    assert width(extracted) == 8  # the squeeze is complete


def test_incomplete_squeeze_and_excite(check):
    x = image(2)
    y = wide(2)(x)
    s = IDPDense(2, activation="relu")(layers.GlobalAveragePooling2D()(y))
    s = layers.Reshape((1, 1, 8))(layers.Dense(8, activation="sigmoid", name="excite")(s))
    extracted = check(keras.Model(x, IDPConv2D(3, 1)(y * s)))
    assert (width(extracted), width(extracted, "excite")) == (4, 4)


# Shared layers.


def test_a_shared_layer_with_one_width_stays_one_layer(check):
    x, y = image(0), image(0)
    dense = wide(0)
    model = keras.Model([x, y], IDPDense(3)(layers.Add()([dense(x), dense(y)])))
    extracted = check(model)
    assert width(extracted) == 4
    assert sum(type(layer) is layers.Dense for layer in extracted.layers) == 2


def test_a_shared_layer_with_two_widths_becomes_two_layers(check):
    x, y = image(0), image(0)
    dense = wide(0)
    extracted = check(keras.Model([x, y], [IDPDense(3)(dense(x)), dense(y)]))
    assert (width(extracted), width(extracted, "wide_1")) == (4, 8)


def test_a_layer_with_state_behind_itself(check):
    x = image(0)
    dense, norm = layers.Dense(5, name="wide"), layers.BatchNormalization()
    assert width(check(keras.Model(x, IDPDense(3)(norm(dense(norm(dense(x)))))))) == 5


def test_a_shared_nested_model_with_two_widths(check):
    a = keras.Input((8,))
    inner = keras.Model(a, a + a)
    x = image(0)
    y, z = inner(wide(0)(x)), inner(wide(0, "other")(x))
    extracted = check(keras.Model(x, [IDPDense(3)(y), layers.Dense(2)(z)]))
    assert (width(extracted), width(extracted, "other")) == (4, 8)
