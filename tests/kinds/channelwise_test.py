"""Layers between channels and positions: Flatten."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_tesla.layers import (
    IDPDense,
)
from tests.kinds.networks import image, randomized, through, wide, width


def test_flatten_without_input_channels_cuts_positions(check):
    # Right, though rarely meant: TESLA refuses it. The first half of the features has all channels.
    assert width(check(through(layers.Flatten()))) == 8


@pytest.mark.parametrize("between", [layers.ReLU, lambda: layers.Dropout(0.5), layers.Flatten])
def test_layers_behind_flatten_narrow(between, check):
    x = image(2)
    y = between()(layers.Flatten()(wide(2)(x)))
    assert width(check(keras.Model(x, IDPDense(3, input_channels=8)(y)))) == 4


def test_batch_normalization_behind_flatten_is_right(check):
    x = image(2)
    y = layers.BatchNormalization()(layers.Flatten()(wide(2)(x)))
    check(keras.Model(x, IDPDense(3, input_channels=8)(y)))


def test_flatten_of_an_unknown_size_is_right(assert_same_three_ways):
    x = keras.Input((None, 5))
    y = layers.Conv1D(8, 2, padding="same")(x)
    y = layers.Flatten()(y[:, :4])
    model = randomized(keras.Model(x, layers.Dense(2)(layers.GlobalMaxPooling1D()(IDPDense(3)(x)))))
    assert_same_three_ways(model, np.ones((2, 7, 5), "float32"), 50)
