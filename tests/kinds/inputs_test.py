"""Masks, and inputs of another form than the model was built for."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_tesla.layers import (
    IDPDense,
)
from tests.kinds.networks import randomized, width


@pytest.mark.parametrize(
    "between", [lambda: layers.Identity(), lambda: layers.BatchNormalization()]
)
def test_masks_from_an_embedding(between, assert_same_three_ways):
    x = keras.Input((5,), dtype="int32")
    y = layers.Embedding(10, 8, mask_zero=True)(x)
    y = between()(layers.Dense(8, name="wide")(y))
    y = layers.GlobalAveragePooling1D()(IDPDense(6)(y))
    model = randomized(keras.Model(x, layers.Dense(2)(y)))
    tokens = np.array([[1, 2, 3, 0, 0], [4, 5, 0, 0, 0]])
    assert width(assert_same_three_ways(model, tokens, 50)) == 4


@pytest.mark.parametrize("layer", [layers.BatchNormalization, layers.GlobalAveragePooling1D])
def test_masks_as_arguments(layer, assert_same_three_ways):
    x, mask = keras.Input((5, 4)), keras.Input((5,), dtype="bool")
    y = layer()(layers.Dense(8, name="wide")(x), mask=mask)
    model = randomized(keras.Model([x, mask], IDPDense(2)(y)))
    values = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    known = np.array([[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]], bool)
    assert_same_three_ways(model, [values, known], 50)


def test_inputs_of_another_dtype(assert_same_three_ways):
    x = keras.Input((4,))
    model = keras.Model(x, IDPDense(3)(x * 2))
    assert_same_three_ways(model, np.full((2, 4), 200, "uint8"), 50)


def test_inputs_without_their_last_axis(assert_same_three_ways):
    x = keras.Input((1,))
    model = keras.Model(x, IDPDense(3)(layers.Dense(4)(x)))
    assert_same_three_ways(model, np.ones(3, "float32"), 50)
