"""IDPDense below 100 %: keras.layers.Dense on slices. For all layers: contract_test.py."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from keras_tesla import TESLA, active_terms, percentage_scope, profiles
from keras_tesla.layers import IDPDense
from tests.helpers import normal, to_numpy


def test_arguments_by_position_are_those_of_keras():
    layer = IDPDense(3, "relu", False, "ones")
    assert (layer.activation, layer.use_bias) == (keras.activations.relu, False)
    assert isinstance(layer.kernel_initializer, keras.initializers.Ones)


@pytest.mark.parametrize("shape", [(2, 5), (2, 4, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("percentage", [100, 40])
def test_output_shape_is_that_of_keras(shape, percentage):
    with percentage_scope(percentage):
        assert IDPDense(3)(np.zeros(shape)).shape == (*shape[:-1], 3)
        assert IDPDense(3)(keras.Input(shape[1:])).shape == (None, *shape[1:-1], 3)
        assert IDPDense(3).compute_output_shape(shape) == (*shape[:-1], 3)


# Incomplete: equal to Keras on slices.


def plain(layer, x, percentage, positions, profile):
    """What the layer means: keras.layers.Dense on the active terms, its kernel profile-scaled."""
    features = x.shape[-1]
    terms = features // positions
    k = active_terms(terms, percentage)
    sliced_x = x.reshape(*x.shape[:-1], positions, terms)[..., :k].reshape(*x.shape[:-1], -1)
    kernel = to_numpy(layer.kernel).reshape(positions, terms, layer.units)
    kernel = (kernel * profiles.get(profile)(terms)[:, None])[:, :k]
    dense = layers.Dense(layer.units, layer.activation, use_bias=layer.use_bias)
    dense.build(sliced_x.shape)
    bias = [to_numpy(layer.bias)] if layer.use_bias else []
    dense.set_weights([kernel.reshape(-1, layer.units), *bias])
    return to_numpy(dense(sliced_x))


@given(
    units=st.integers(1, 5),
    terms=st.integers(1, 12),
    positions=st.integers(1, 3),
    leading=st.lists(st.integers(1, 3), min_size=1, max_size=2),
    percentage=st.integers(1, 100),
    profile=st.sampled_from(["all_one", "linear", "harmonic", "half_exponential", "impulse"]),
    activation=st.sampled_from([None, "relu", "tanh", "sigmoid"]),
    use_bias=st.booleans(),
)
def test_incomplete_equals_keras_on_slices(
    units, terms, positions, leading, percentage, profile, activation, use_bias
):
    layer = IDPDense(
        units,
        activation=activation,
        use_bias=use_bias,
        bias_initializer="normal",
        profile=profile,
        input_channels=terms if positions > 1 else None,
    )
    x = normal(*leading, positions * terms)
    with percentage_scope(percentage):
        actual = to_numpy(layer(x))
    expected = plain(layer, x, percentage, positions, profile)
    # The same float32 products; only the order of the sums is the matmul's own.
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("percentage", "active"), [(100, 4), (99, 3), (75, 3), (50, 2), (25, 1), (24, 1), (1, 1)]
)
def test_by_hand(percentage, active):
    layer = IDPDense(1, kernel_initializer="ones", profile=[1.0, 0.5, 0.25, 0.125])
    with percentage_scope(percentage):
        y = to_numpy(layer(np.array([[1.0, 20.0, 400.0, 8000.0]])))
    np.testing.assert_array_equal(y, [[sum([1.0, 10.0, 100.0, 1000.0][:active])]])


def test_input_channels_leaves_out_channels_at_every_position():
    layer = IDPDense(1, kernel_initializer="ones", input_channels=2)
    pixels = np.array([[1.0, 1000.0, 2.0, 1000.0, 4.0, 1000.0]])  # three pixels of two channels
    with percentage_scope(50):
        assert to_numpy(layer(pixels)).item() == 7.0


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_low_precision(dtype):
    layer = IDPDense(3, dtype=dtype, profile="linear")
    x = normal(4, 8)
    with percentage_scope(50):
        y = layer(x)
    assert keras.backend.standardize_dtype(y.dtype) == dtype.removeprefix("mixed_")
    # bfloat16 has 8 bits: four terms of size 1, each off by at most 3 roundings of 2**-9.
    y = to_numpy(keras.ops.cast(y, "float32"))
    np.testing.assert_allclose(y, plain(layer, x, 50, 1, "linear"), atol=4 * 3 * 2**-8)


# Bad input.


@pytest.mark.parametrize("channels", [0, -1, 2.0, True, "3", [3]])
def test_input_channels_is_a_positive_integer(channels):
    message = "`input_channels` must be a positive integer. Received: "
    with pytest.raises(ValueError, match=message):
        IDPDense(3, input_channels=channels)


def test_input_channels_divides_the_features():
    layer = IDPDense(3, input_channels=4, name="late")
    message = r"of layer 'late' must divide its input features. Received: input_channels=4, .*10\)"
    with pytest.raises(ValueError, match=message):
        layer.build((None, 10))


@pytest.mark.tensorflow
@pytest.mark.parametrize("parts", [None, (4, 2)])
def test_sparse_inputs_are_cut_as_dense_ones(parts):
    import tensorflow as tf

    x = np.random.default_rng(0).normal(size=(8, 6)).astype("float32") * (np.arange(6) % 2)
    sparse = tf.sparse.from_dense(x)
    inputs = keras.Input((6,), sparse=True)
    first = IDPDense(8, activation="relu", input_parts=parts)
    model = keras.Model(inputs, IDPDense(3)(first(inputs)))
    for percentage in (100, 50):
        with percentage_scope(percentage):
            # The same sums in another order.
            np.testing.assert_allclose(model(sparse), model(x), rtol=1e-5, atol=1e-6)
    tesla = TESLA(model, [100, 50])
    tesla.compile("sgd", "mse", jit_compile=False)
    tesla.fit(sparse, np.zeros((8, 3)), batch_size=4, verbose=0)
    expected, got = tesla(x), tesla(sparse)
    for name, y in expected.items():
        np.testing.assert_allclose(got[name], y, rtol=1e-5, atol=1e-6)
