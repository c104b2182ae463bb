"""IDPConv2D below 100 %: keras.layers.Conv2D on slices. For all layers: contract_test.py."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_tesla import percentage_scope
from keras_tesla.layers import IDPConv2D
from tests.helpers import normal, to_numpy
from tests.layers.kinds import on_slices


def test_arguments_by_position_are_those_of_keras():
    layer = IDPConv2D(3, 2, 2, "same")
    assert (layer.kernel_size, layer.strides, layer.padding) == ((2, 2), (2, 2), "same")


# Incomplete: equal to Keras on slices.


@st.composite
def arguments_of_convolutions(draw):
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    strides = draw(st.integers(1, 2))
    # Keras refuses strides and dilation together.
    dilation = draw(st.integers(1, 2)) if strides == 1 else 1
    # TensorFlow on a CPU has no channels_first convolution; the tests above skip it there.
    formats = ["channels_last"]
    if keras.backend.backend() != "tensorflow":
        formats.append("channels_first")
    arguments = {
        "filters": groups * draw(st.integers(1, 3)),
        "kernel_size": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "strides": strides,
        "dilation_rate": dilation,
        "groups": groups,
        "padding": draw(st.sampled_from(["valid", "same"])),
        "data_format": draw(st.sampled_from(formats)),
        "activation": draw(st.sampled_from([None, "relu", "tanh"])),
        "use_bias": draw(st.booleans()),
    }
    return arguments, groups * draw(st.integers(1, 6))


@given(
    case=arguments_of_convolutions(),
    percentage=st.integers(1, 100),
    profile=st.sampled_from(["all_one", "linear", "harmonic", "half_exponential", "impulse"]),
)
def test_incomplete_equals_keras_on_slices(case, percentage, profile):
    arguments, channels = case
    layer = IDPConv2D(bias_initializer="normal", profile=profile, **arguments)
    first = arguments["data_format"] == "channels_first"
    x = normal(*((2, channels, 7, 6) if first else (2, 7, 6, channels)))
    with percentage_scope(percentage):
        actual = to_numpy(layer(x))
    expected = to_numpy(on_slices(layer, x, percentage))
    # Up to 54 float32 products; only the order of their sum is the convolution's own.
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_channels_first_equals_keras_on_slices(groups):
    layer = IDPConv2D(6, 3, groups=groups, data_format="channels_first", profile="linear")
    x = normal(2, 6, 5, 5)
    layer.build(x.shape)
    expected = to_numpy(on_slices(layer, x, 50))
    with percentage_scope(50):
        actual = to_numpy(layer(x))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_by_hand():
    layer = IDPConv2D(1, 2, kernel_initializer="ones", profile=[1.0, 0.5, 0.25])
    x = np.ones((1, 2, 2, 3)) * [1.0, 20.0, 400.0]
    for percentage, expected in [(100, 444.0), (99, 44.0), (67, 44.0), (66, 4.0), (1, 4.0)]:
        with percentage_scope(percentage):
            assert to_numpy(layer(x)).item() == expected


def test_each_group_keeps_its_first_channels():
    layer = IDPConv2D(2, 1, groups=2, kernel_initializer="ones")
    x = np.array([1.0, 2.0, 4.0, 8.0]).reshape(1, 1, 1, 4)
    with percentage_scope(50):
        np.testing.assert_array_equal(to_numpy(layer(x)).ravel(), [1.0, 4.0])


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_low_precision(dtype):
    layer = IDPConv2D(3, 1, dtype=dtype, profile="linear")
    x = normal(2, 4, 4, 8)
    with percentage_scope(50):
        y = layer(x)
    assert keras.backend.standardize_dtype(y.dtype) == dtype.removeprefix("mixed_")
    full = IDPConv2D(3, 1, profile="linear")
    full.build(x.shape)
    full.set_weights(layer.get_weights())
    # bfloat16 has 8 bits: four terms of size 1, each off by at most 3 roundings of 2**-9.
    y = to_numpy(keras.ops.cast(y, "float32"))
    np.testing.assert_allclose(y, to_numpy(on_slices(full, x, 50)), atol=4 * 3 * 2**-8)
