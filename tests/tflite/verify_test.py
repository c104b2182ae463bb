"""How far a file may be from Keras."""

import math

import keras
import pytest
from keras import layers

import keras_tesla as kt
from keras_tesla.tflite import verify

pytestmark = pytest.mark.tensorflow


def test_a_few_layers_may_differ_by_1e_5():
    assert verify.tolerance(kt.literature.mlp()) == 1e-5


def test_a_deep_network_may_differ_by_the_rounding_of_its_sums():
    stack = [
        keras.Input((8, 8, 64)),
        *(layers.Conv2D(64, 3, padding="same") for _ in range(10)),
        *(layers.DepthwiseConv2D(3, padding="same") for _ in range(10)),
        layers.BatchNormalization(),  # no sums
    ]
    sums = 10 * math.sqrt(3 * 3 * 64) + 10 * math.sqrt(3 * 3)
    assert verify.tolerance(keras.Sequential(stack)) == pytest.approx(sums / 2**24)


def test_a_transposed_convolution_has_its_inputs_as_terms():
    """Of nine positions of the kernel, with strides of two, an output gets four at most."""
    stack = [keras.Input((4, 4, 32)), layers.Conv2DTranspose(4096, 3, strides=2)]
    inner = keras.Sequential([*stack, *(layers.Conv2DTranspose(1, 3) for _ in range(3))])
    model = keras.Sequential([keras.Input((4, 4, 32)), inner])
    sums = math.sqrt(4 * 32) + math.sqrt(9 * 4096) + 2 * math.sqrt(9)
    assert verify.tolerance(model) == pytest.approx(sums / 2**24)


def test_a_table_loses_nothing():
    stack = [keras.Input((4,)), layers.Embedding(1_000_000, 4), layers.Flatten(), layers.Dense(2)]
    assert verify.tolerance(keras.Sequential(stack)) == 1e-5


def test_mixed_precision_may_differ_by_its_own_rounding():
    with_half = keras.Sequential([keras.Input((4,)), layers.Dense(2, dtype="mixed_bfloat16")])
    assert verify.tolerance(with_half) == 0.1
