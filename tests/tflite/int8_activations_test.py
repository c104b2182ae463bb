"""Activations that LiteRT takes apart are exported in int8, and equal Keras' own."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_tesla as kt
from keras_tesla.tflite import int8_activations

pytestmark = pytest.mark.tensorflow
REPLACED = ["softplus", "mish", "log_sigmoid", "selu", "celu"]


@pytest.mark.parametrize("name", REPLACED)
def test_the_forms_compute_what_keras_computes(name):
    inputs = keras.Input((1,))
    model = keras.Model(inputs, layers.Activation(name)(inputs))
    x = np.concatenate([np.linspace(-30, 30, 2001), [-1e-6, 0, 1e-6]]).astype("float32")[:, None]
    expected = model(x).numpy()
    int8_activations.replace(model)
    assert model.layers[-1].activation is not keras.activations.get(name)
    # A sum of terms of the size of x, which float32 rounds by 1e-7 of it.
    np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=5e-6)


def test_activations_inside_a_wrapper_are_replaced():
    inputs = keras.Input((3, 4))
    model = keras.Model(inputs, layers.TimeDistributed(layers.Dense(2, "softplus"))(inputs))
    int8_activations.replace(model)
    assert model.layers[-1].layer.activation is not keras.activations.softplus


def test_a_layer_may_have_anything_called_activation():
    class Own(layers.Layer):
        activation = ("relu", {})

        def call(self, x):
            return x

    inputs = keras.Input((4,))
    int8_activations.replace(keras.Model(inputs, Own()(inputs)))


@pytest.mark.parametrize("name", ["relu", "gelu", "silu", "elu", "tanh", "softmax", "linear"])
def test_other_activations_stay(name):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2, activation=name)(inputs))
    int8_activations.replace(model)
    assert model.layers[-1].activation is keras.activations.get(name)


def network(activation, convolutions):
    keras.utils.set_random_seed(0)
    if convolutions:
        inputs = keras.Input((8, 8, 3))
        x = layers.Conv2D(16, 3, activation=activation)(inputs)
        x = kt.layers.IDPConv2D(16, 3)(x)
        x = layers.GlobalAveragePooling2D()(layers.Activation(activation)(x))
    else:
        inputs = keras.Input((8,))
        x = layers.Dense(32, activation=activation)(inputs)
        x = kt.layers.IDPDense(32, activation=activation)(x)
    return kt.TESLA(keras.Model(inputs, kt.layers.IDPDense(3)(x)), [100, 50])


def typical(tesla):
    """Numbers for which exp(x) spans orders of magnitude, as after any trained layer."""
    shape = (128, *tesla.network.input_shape[1:])
    return (5 * np.random.default_rng(0).standard_normal(shape)).astype("float32")


@pytest.mark.parametrize("convolutions", [False, True])
@pytest.mark.parametrize("name", REPLACED)
@pytest.mark.slow
def test_they_are_exported_in_int8(name, convolutions, tmp_path):
    tesla = network(name, convolutions)
    x = typical(tesla)
    bundle = kt.tflite.export(
        tesla, tmp_path / "out", mode="signatures", quantization="int8", representative_data=x
    )
    for percentage in (100, 50):
        got = kt.tflite.load(bundle.directory)(x, percentage)
        expected = tesla.predict(x, percentage=percentage, verbose=0)
        # As for a ReLU: some hundredths of a standard deviation.
        assert np.sqrt(np.mean((got - expected) ** 2)) < 0.1 * expected.std()
    assert tesla.network.layers[1].activation is keras.activations.get(name)


def test_what_int8_does_not_hold_is_named_with_the_ways_out(tmp_path):
    tesla = network("exponential", False)
    with pytest.raises(kt.tflite.VerificationError) as error:
        kt.tflite.export(
            tesla,
            tmp_path / "out",
            quantization="int8",
            representative_data=typical(tesla) / 3,
        )
    message = str(error.value)
    assert "int8 has 256 equal steps, and the numbers of ['" in message
    assert "dense" in message
    assert "quantization='dynamic_range'" in message
    assert "Give more typical `representative_data`" in message
