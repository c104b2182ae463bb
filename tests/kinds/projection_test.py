"""Layers with a kernel: groups, precision, quantized weights, LoRA."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_tesla.layers import (
    IDPConv2D,
    IDPDense,
)
from tests.kinds.networks import image, inputs_of, randomized, wide, width


def test_a_grouped_convolution_reads_a_part_of_each_group(check):
    x = image(2)
    y = wide(2)(x)
    head = IDPConv2D(4, 1, groups=2, name="head", profile="linear")
    extracted = check(keras.Model(x, IDPConv2D(3, 1)(head(y))))
    # Channels 0, 1, 4, 5 are no prefix: all are computed. The groups stay whole.
    assert width(extracted) == 8
    assert extracted.get_layer("head").kernel.shape == (1, 1, 2, 4)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(dtype, run_three_ways):
    x = keras.Input((5,))
    y = layers.Dense(8, activation="relu", dtype=dtype, name="wide")(x)
    model = keras.Model(x, layers.Dense(2)(IDPDense(3, profile="linear", dtype=dtype)(y)))
    result = run_three_ways(model, inputs_of(model), 50)
    assert width(result.model) == 4
    assert result.model.get_layer("wide").dtype_policy.name == dtype
    # The profile is folded in before rounding to 8 bits or after it: a few times 2**-8.
    np.testing.assert_allclose(result.live, result.scoped, atol=0.05)
    np.testing.assert_allclose(result.extracted, result.scoped, atol=0.05)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_a_quantized_stock_layer_in_between(check):
    x = image(0)
    model = randomized(keras.Model(x, IDPDense(3)(wide(0)(x))))
    model.get_layer("wide").quantize("int8")
    check(model)


def test_lora_is_folded_in(assert_same_three_ways):
    x = image(0)
    model = randomized(keras.Model(x, IDPDense(3)(wide(0)(x))))
    dense = model.get_layer("wide")
    dense.enable_lora(2)
    dense.lora_kernel_b.assign(np.ones(dense.lora_kernel_b.shape))
    assert width(assert_same_three_ways(model, inputs_of(model), 50)) == 4
