"""IDPDense: at 100 % it is keras.layers.Dense, below it is Dense on slices."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from keras_tesla import active_terms, percentage_scope, profiles
from keras_tesla.layers import IDPDense

to_numpy = keras.ops.convert_to_numpy


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


# Complete: equal to Keras.

ARGUMENTS = [
    {},
    {"use_bias": False},
    {"activation": "relu"},
    {"activation": "softmax"},
    {"activation": layers.LeakyReLU(0.1)},
    {"kernel_initializer": "he_normal", "bias_initializer": "ones"},
    {"kernel_regularizer": "l2", "bias_regularizer": "l1", "bias_initializer": "ones"},
    {"activity_regularizer": "l2"},
    {"kernel_constraint": "non_neg", "bias_constraint": "max_norm"},
    {"trainable": False},
    {"dtype": "mixed_float16"},
    {"dtype": "mixed_bfloat16"},
    {"dtype": "float16"},
    {"dtype": keras.DTypePolicy("bfloat16")},
]


def pair(arguments):
    """The incomplete and the Keras layer of the same arguments, built from the same seed."""
    built = []
    for cls in (IDPDense, layers.Dense):
        keras.utils.set_random_seed(1)
        layer = cls(3, name="dense", **arguments)
        layer.build((None, 5))
        built.append(layer)
    return built


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_complete_equals_keras(arguments):
    ours, theirs = pair(arguments)
    x = normal(4, 5)
    actual, expected = ours(x), theirs(x)
    # Keras' own code runs in both, so the last bit is the same.
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(to_numpy(actual), to_numpy(expected))
    assert [to_numpy(v) for v in ours.losses] == [to_numpy(v) for v in theirs.losses]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_weights_are_those_of_keras(arguments):
    ours, theirs = pair(arguments)
    for a, b in zip(ours.weights, theirs.weights, strict=True):
        assert (a.path, a.shape, a.dtype, a.trainable) == (b.path, b.shape, b.dtype, b.trainable)
        assert type(a.regularizer) is type(b.regularizer)
        assert type(a.constraint) is type(b.constraint)
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b))


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_config_has_the_words_of_keras(arguments):
    ours, theirs = (layer.get_config() for layer in pair(arguments))
    assert {key: ours[key] for key in theirs} == theirs
    assert set(ours) - set(theirs) == {"profile", "trainable_profile", "input_channels"}


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


# Training.


def test_terms_left_out_get_no_gradient(gradients):
    layer = IDPDense(3, profile="harmonic", trainable_profile=True)
    x = normal(4, 6)
    layer.build(x.shape)

    def loss():
        with percentage_scope(50):
            return keras.ops.sum(layer(x) ** 2)

    kernel, bias, coefficients = gradients(loss, layer.trainable_variables)
    assert np.all(kernel[:3] != 0)
    assert np.all(kernel[3:] == 0)
    assert np.all(bias != 0)
    assert np.all(coefficients[:3] != 0)
    assert np.all(coefficients[3:] == 0)


def test_trainable_profile_is_trained_and_stays_non_increasing():
    layer = IDPDense(1, profile="half_exponential", trainable_profile=True)
    model = keras.Sequential([keras.Input((6,)), layer])
    assert [v.name for v in layer.trainable_variables] == ["kernel", "bias", "profile"]
    np.testing.assert_array_equal(to_numpy(layer.coefficients), layer.profile(6))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x = normal(32, 6)
    # The last input counts most, so the gradient pulls the last coefficients up.
    model.fit(x, x @ np.arange(6.0)[:, None], epochs=3, verbose=0)
    trained = to_numpy(layer.coefficients)
    assert np.all(trained != layer.profile(6))
    assert np.all(np.diff(trained) <= 0)


def test_a_fixed_profile_is_no_weight():
    layer = IDPDense(3, profile="linear")
    layer.build((None, 4))
    assert [v.name for v in layer.weights] == ["kernel", "bias"]


# Saving.


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"profile": "linear", "activation": "relu"},
        {"profile": profiles.Step((1.0, 0.5), (0.2, 0.8))},
        pytest.param({"profile": [1.0, 0.5, 0.5, 0.5, 0.1, 0.0], "trainable_profile": True}),
        {"input_channels": 3, "use_bias": False, "dtype": "mixed_bfloat16"},
    ],
    ids=str,
)
def test_saving(arguments, tmp_path):
    model = keras.Sequential([keras.Input((6,)), IDPDense(3, **arguments)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].get_config() == model.layers[0].get_config()
    x = normal(4, 6)
    for percentage in (100, 40):
        with percentage_scope(percentage):
            actual, expected = (to_numpy(keras.ops.cast(m(x), "float32")) for m in (loaded, model))
        np.testing.assert_array_equal(actual, expected)


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


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("increasing", "Unknown profile"),
        (3, "A profile must be a name"),
        ([0.1, 1.0], "must not increase"),
        ([1.0, float("nan")], "must be finite"),
    ],
)
def test_bad_profile_at_construction(profile, message):
    with pytest.raises(ValueError, match=message):
        IDPDense(3, profile=profile)


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ([1.0, 0.5], r"for 4 terms must have shape \(4,\)"),
        (lambda n: np.ones(n + 1), r"for 4 terms must have shape \(4,\)"),
        (lambda n: np.arange(n), "must not increase"),
        (profiles.Step((0.5, 1.0)), "must not increase"),
    ],
)
@pytest.mark.parametrize("trainable", [False, True])
def test_bad_profile_when_the_number_of_terms_is_known(profile, message, trainable):
    layer = IDPDense(3, profile=profile, trainable_profile=trainable)
    with pytest.raises(ValueError, match=message):
        layer.build((None, 4))


@pytest.mark.parametrize("units", [0, -1, 2.5])
def test_what_keras_refuses_is_refused(units):
    with pytest.raises(ValueError, match="invalid value for `units`"):
        IDPDense(units)


def test_quantized_dtype():
    with pytest.raises(ValueError, match="does not run on a quantized dtype policy.*int8"):
        IDPDense(3, dtype="int8_from_float32")
