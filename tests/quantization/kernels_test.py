"""Layers with rounded kernels: their Keras class on a rounded kernel that all percentages share."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_tesla import active_terms, percentage_scope
from keras_tesla.layers import IDPConv1D, IDPConv2D, IDPDense
from keras_tesla.quantization.kernels import FAKE_QUANTIZED

to_numpy = keras.ops.convert_to_numpy
IMAGE, STEPS, FLAT = (2, 6, 6, 8), (2, 9, 8), (2, 8)
# (class, arguments, shape of the input, axes of the kernel along which each slice has a scale)
CASES = [
    (layers.Dense, {"units": 5}, FLAT, ()),
    (layers.Conv1D, {"filters": 5, "kernel_size": 3, "padding": "causal"}, STEPS, ()),
    (layers.Conv2D, {"filters": 5, "kernel_size": 3, "strides": 2}, IMAGE, (3,)),
    (layers.Conv2D, {"filters": 4, "kernel_size": 3, "groups": 2}, IMAGE, (3,)),
    (layers.DepthwiseConv2D, {"kernel_size": 3, "depth_multiplier": 2}, IMAGE, (2, 3)),
]
INCOMPLETE = [
    (IDPDense, {"units": 5}, FLAT, ()),
    (IDPDense, {"units": 5, "profile": "linear"}, FLAT, ()),
    (IDPConv1D, {"filters": 5, "kernel_size": 3, "profile": "linear"}, STEPS, ()),
    (IDPConv2D, {"filters": 5, "kernel_size": 3, "profile": "harmonic"}, IMAGE, (3,)),
    (IDPConv2D, {"filters": 5, "kernel_size": 3, "trainable_profile": True}, IMAGE, (3,)),
]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def rounded(kernel, axes):
    others = tuple(axis for axis in range(kernel.ndim) if axis not in axes)
    scale = np.abs(kernel).max(axis=others, keepdims=True) / 127
    return scale * np.round(kernel / scale)


def made(cls, arguments, shape):
    twin = FAKE_QUANTIZED[cls](**arguments, bias_initializer="uniform", activation="relu")
    twin.build(shape)
    return twin


@pytest.mark.parametrize(("cls", "arguments", "shape", "axes"), CASES, ids=str)
def test_it_is_the_keras_class_on_a_rounded_kernel(cls, arguments, shape, axes):
    twin = made(cls, arguments, shape)
    oracle = cls.from_config(twin.get_config())
    oracle.build(shape)
    kernel, bias = (to_numpy(w) for w in twin.weights)
    oracle.set_weights([rounded(kernel, axes), bias])
    x = normal(*shape)
    # The same float32 layer; kernels differ by the last bit of a scale.
    np.testing.assert_allclose(to_numpy(twin(x)), to_numpy(oracle(x)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(to_numpy(twin.weights[0]), kernel)  # the kernel itself stays


@pytest.mark.parametrize("percentage", [100, 60, 10])
@pytest.mark.parametrize(("cls", "arguments", "shape", "axes"), INCOMPLETE, ids=str)
def test_an_incomplete_layer_reads_a_slice_of_the_whole_rounded_kernel(
    cls, arguments, shape, axes, percentage
):
    twin = made(cls, arguments, shape)
    stock = layers.Dense if cls is IDPDense else getattr(layers, cls.__name__.removeprefix("IDP"))
    config = {k: arguments[k] for k in arguments if "profile" not in k}
    oracle = stock(**config, activation="relu")
    terms = active_terms(8, percentage)
    oracle.build((*shape[:-1], terms))
    kernel, bias = to_numpy(twin.kernel), to_numpy(twin.bias)
    if twin.coefficients is not None:
        kernel = kernel * to_numpy(keras.ops.convert_to_tensor(twin.coefficients))[:, None]
    oracle.set_weights([rounded(kernel, axes)[..., :terms, :], bias])
    x = normal(*shape)
    with percentage_scope(percentage):
        actual = to_numpy(twin(x))
    np.testing.assert_allclose(actual, to_numpy(oracle(x[..., :terms])), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("cls", "arguments", "shape", "axes"), CASES + INCOMPLETE, ids=str)
def test_gradients_are_those_of_the_layer_on_the_rounded_kernel(
    cls, arguments, shape, axes, gradients
):
    """Straight through: also for the largest weights, which a clip at the range would stop."""
    twin = made(cls, arguments, shape)
    oracle = cls.from_config(twin.get_config())
    oracle.build(shape)
    oracle.set_weights(twin.get_weights())
    kernel = to_numpy(twin.weights[0])
    gamma = 1.0
    if getattr(twin, "coefficients", None) is not None:
        gamma = to_numpy(keras.ops.convert_to_tensor(twin.coefficients))[:, None]
    oracle.weights[0].assign(rounded(kernel * gamma, axes) / gamma)
    x = normal(*shape)
    found, expected = (
        gradients(lambda layer=layer: keras.ops.sum(layer(x) ** 2), [layer.weights[0]])[0]
        for layer in (twin, oracle)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_an_empty_channel_stays_empty():
    twin = made(layers.Conv2D, {"filters": 2, "kernel_size": 1}, IMAGE)
    kernel = np.ones((1, 1, 8, 2), "float32")
    kernel[..., 1] = 0
    twin.kernel.assign(kernel)
    np.testing.assert_allclose(to_numpy(twin.incomplete_kernel(100)), kernel, rtol=1e-6)
