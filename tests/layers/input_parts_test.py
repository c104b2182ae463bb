"""`input_parts`: after a concatenation the first channels of each part are read."""

import keras
import numpy as np
import pytest

from keras_tesla import percentage_scope, profiles
from keras_tesla.layers import IDPConv1D, IDPConv2D, IDPDense, IDPSeparableConv2D
from tests.helpers import normal, to_numpy
from tests.layers import kinds

# Of 6 channels in parts of 4 and 2, by percentage.
READ = {100: [0, 1, 2, 3, 4, 5], 75: [0, 1, 2, 4], 50: [0, 1, 4], 1: [0, 4]}
each_kind = pytest.mark.parametrize("cls", kinds.STOCK)
PARTS = {"input_parts": (4, 2)}
OWN = {"percentages": [100, 75, 50], "private_bias": True, "private_profile": True}


def read_whole(layer, x, percentage):
    """What a layer computes when the channels that it does not read are zero."""
    axis = 1 if getattr(layer, "data_format", "") == "channels_first" else x.ndim - 1
    shape = [1] * x.ndim
    shape[axis] = 6
    return layer(x * np.isin(np.arange(6), READ[percentage]).reshape(shape))


@each_kind
@pytest.mark.parametrize("percentage", READ)
@pytest.mark.parametrize("profile", ["all_one", "linear"])
def test_the_first_channels_of_each_part_are_read(cls, percentage, profile):
    layer = kinds.made(cls, {**PARTS, "profile": profile, "bias_initializer": "normal"})
    x = kinds.example(cls, {})
    assert layer.active(percentage).indices().tolist() == READ[percentage]
    assert layer.active_terms(percentage) == len(READ[percentage])
    expected = to_numpy(read_whole(layer, x, percentage))
    with percentage_scope(percentage):
        # The same products without those that are zero, summed in another order.
        np.testing.assert_allclose(to_numpy(layer(x)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("arguments", [{"groups": 2}, {"data_format": "channels_first"}])
def test_convolutions_with_groups_and_channels_first(arguments):
    if "data_format" in arguments and keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow has no channels_first convolution on the CPU")
    groups = arguments.get("groups", 1)
    layer = IDPConv1D(4, 2, input_parts=(4, 2), **arguments)
    x = normal(2, 6, 8) if groups == 1 else normal(2, 8, 12)
    axis = 1 if groups == 1 else -1
    kept = [6 * group + i for group in range(groups) for i in READ[50]]
    mask = np.isin(np.arange(x.shape[axis]), kept)
    expected = to_numpy(layer(x * (mask[:, None] if axis == 1 else mask)))
    with percentage_scope(50):
        np.testing.assert_allclose(to_numpy(layer(x)), expected, rtol=1e-5, atol=1e-5)


def test_after_a_flatten_the_parts_are_those_of_each_position():
    layer = IDPDense(3, input_channels=6, input_parts=(4, 2))
    x = normal(2, 18)
    expected = to_numpy(layer(x * np.tile(np.isin(np.arange(6), READ[50]), 3)))
    with percentage_scope(50):
        np.testing.assert_allclose(to_numpy(layer(x)), expected, rtol=1e-5, atol=1e-5)


# Coefficients.


def test_each_part_has_a_profile_of_its_own():
    layer = kinds.made(IDPDense, {**PARTS, "profile": "linear"})
    of_parts = [profiles.Linear()(4), profiles.Linear()(2)]
    np.testing.assert_array_equal(layer.coefficients, np.concatenate(of_parts))


def test_an_array_has_the_coefficients_of_all_parts():
    values = np.array([1, 0.8, 0.6, 0.4, 0.2, 0.1], "float32")
    layer = kinds.made(IDPDense, {**PARTS, "profile": values})
    np.testing.assert_array_equal(layer.coefficients, values)


def test_a_trained_profile_does_not_increase_in_a_part():
    constraint = profiles.NonIncreasing((3, 2))
    projected = to_numpy(constraint(np.array([0.5, 0.7, 0.2, 0.9, 0.6], "float32")))
    np.testing.assert_array_equal(projected, np.array([0.5, 0.5, 0.2, 0.9, 0.6], "float32"))
    layer = kinds.made(IDPDense, {**PARTS, "profile": "linear", "trainable_profile": True})
    values = to_numpy(layer.coefficients)
    np.testing.assert_array_equal(to_numpy(layer.coefficients.constraint(values)), values)


@each_kind
def test_private_coefficients_are_those_of_the_narrowest_percentage(cls):
    layer = kinds.made(cls, {**PARTS, **OWN})
    for percentage, numbers in {100: [1, 2, 3], 75: [4, 5], 50: [6]}.items():
        layer.private_variables(percentage)["profile"].assign(numbers)
    assert layer.blocks(100).tolist() == [3, 1, 2]
    # Channels 0, 1 and 4 are read at 50 %, channel 2 from 75 % on, channels 3 and 5 at 100 %.
    assert to_numpy(layer.private_factors(100)).tolist() == [2, 2, 3, 4, 2, 4]
    assert to_numpy(layer.private_factors(75)).tolist() == [5, 5, 6, 5]
    assert to_numpy(layer.private_factors(50)).tolist() == [7, 7, 7]
    x = kinds.example(cls, {})
    factors = np.zeros(6)
    factors[READ[75]] = [5, 5, 6, 5]
    plain = kinds.made(cls, {})
    bias = to_numpy(layer.bias)
    plain.set_weights([*layer.get_weights()[: len(plain.weights) - 1], bias])
    expected = to_numpy(plain(x * factors))
    with percentage_scope(75):
        # Up to 54 float32 products of size 6, summed in another order.
        np.testing.assert_allclose(to_numpy(layer(x)), expected, rtol=1e-4, atol=1e-4)


# Training.


@each_kind
def test_what_is_not_read_gets_no_gradient(cls, gradients):
    layer = kinds.made(cls, {**PARTS, "profile": "harmonic", "trainable_profile": True})
    x = kinds.example(cls, {})

    def loss():
        with percentage_scope(50):
            return keras.ops.sum(layer(x) ** 2)

    *kernels, _, coefficients = gradients(loss, layer.trainable_variables)
    for kernel in kernels:
        of_terms = np.moveaxis(kernel, -1 if kinds.is_transposed(cls) else -2, 0)
        reached = [bool(of_term.any()) for of_term in of_terms]
        assert reached == [i in READ[50] for i in range(6)]
    assert [bool(g) for g in coefficients] == [i in READ[50] for i in range(6)]


def test_a_trained_range_is_that_of_each_part(gradients):
    layer, x = kinds.made(IDPDense, PARTS), kinds.example(IDPDense, {})
    layer.trained_range = (50, 75)
    (kernel,) = gradients(lambda: keras.ops.sum(layer(x) ** 2), [layer.kernel])
    # Between 50 and 75 % there is channel 2 of the first part, and none of the second.
    assert [bool(row.any()) for row in kernel] == [i == 2 for i in range(6)]


# Saving.


def test_it_is_saved(tmp_path):
    layer = IDPConv2D(3, 2, input_parts=[4, 2], profile="linear", trainable_profile=True)
    model = keras.Sequential([keras.Input((5, 5, 6)), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").layers[0]
    assert loaded.input_parts == (4, 2)
    assert loaded.get_config() == layer.get_config()
    assert loaded.coefficients.constraint.parts == (4, 2)


@each_kind
def test_a_layer_that_was_saved_without_it_reads_the_first_of_all(cls):
    config = kinds.made(cls, {}).get_config()
    del config["input_parts"]
    layer = cls.from_config(config)
    layer.build(kinds.example(cls, {}).shape)
    assert layer.active(50).indices().tolist() == [0, 1, 2]


# Bad input.


@pytest.mark.backend_free
@each_kind
@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (3, "numbers of input channels of the tensors that were concatenated.*Received: 3"),
        ((), r"numbers of input channels.*Received: \[\]"),
        ("42", "numbers of input channels.*Received: '42'"),
        ({4: 2}, "numbers of input channels.*Received: {4: 2}"),
        ((4, 0), "`input_parts` must be a positive integer. Received: 0"),
        ((4, 2.0), "`input_parts` must be a positive integer. Received: 2.0"),
        ((4, -2, 4), "`input_parts` must be a positive integer. Received: -2"),
    ],
)
def test_bad_parts_at_construction(cls, parts, message):
    with pytest.raises(ValueError, match=message):
        kinds.unbuilt(cls, {"input_parts": parts})


@pytest.mark.backend_free
@each_kind
def test_parts_that_are_not_all_of_the_input(cls):
    layer = kinds.unbuilt(cls, {"input_parts": (4, 3)})
    message = r"must sum up to its 6 input channels. Received: \(4, 3\), whose sum is 7"
    with pytest.raises(ValueError, match=message):
        layer.build(kinds.example(cls, {}).shape)


@pytest.mark.backend_free
def test_a_depth_multiplier_does_not_count():
    layer = IDPSeparableConv2D(3, 2, depth_multiplier=2, input_parts=(4, 2))
    layer.build((None, 5, 5, 6))
    assert layer.incomplete_weights(50)["pointwise_kernel"].shape == (1, 1, 6, 3)
