"""IDPConv2D: at 100 % it is keras.layers.Conv2D, below it is Conv2D on slices."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from keras_tesla import active_terms, percentage_scope, profiles
from keras_tesla.layers import IDPConv2D
from tests.layers.incomplete_test import INCOMPLETE

to_numpy = keras.ops.convert_to_numpy


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def call_or_skip(layer, x):
    """Calls a stock layer; what Keras itself cannot run on this backend is not asked of us."""
    try:
        return layer(x)
    except Exception as error:
        pytest.skip(f"keras.layers.Conv2D does not run here: {error}")


# Complete: equal to Keras.

ARGUMENTS = [
    {},
    {"use_bias": False},
    {"activation": "relu"},
    {"activation": "softmax"},
    {"kernel_size": (3, 2), "strides": (2, 1)},
    {"strides": 2, "padding": "same"},
    {"padding": "same", "dilation_rate": 2},
    {"dilation_rate": (1, 2)},
    {"groups": 2},
    {"groups": 2, "padding": "same", "strides": 2},
    {"data_format": "channels_first"},
    {"data_format": "channels_first", "padding": "same", "groups": 2},
    {"kernel_initializer": "he_normal", "bias_initializer": "ones"},
    {"kernel_regularizer": "l2", "bias_regularizer": "l1", "bias_initializer": "ones"},
    {"activity_regularizer": "l2"},
    {"kernel_constraint": "non_neg", "bias_constraint": "max_norm"},
    {"trainable": False},
    {"dtype": "mixed_float16"},
    {"dtype": "mixed_bfloat16"},
]


def pair(arguments):
    """The incomplete and the Keras layer of the same arguments, built from the same seed."""
    built = []
    for cls in (IDPConv2D, layers.Conv2D):
        keras.utils.set_random_seed(1)
        layer = cls(**{"filters": 4, "kernel_size": 3, "name": "conv", **arguments})
        layer.build(image_shape(arguments))
        built.append(layer)
    return built


def image_shape(arguments):
    first = arguments.get("data_format") == "channels_first"
    return (2, 6, 7, 8) if first else (2, 7, 8, 6)


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_complete_equals_keras(arguments):
    ours, theirs = pair(arguments)
    x = normal(*image_shape(arguments))
    expected = call_or_skip(theirs, x)
    actual = ours(x)
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
    assert set(ours) - set(theirs) == INCOMPLETE


def test_arguments_by_position_are_those_of_keras():
    layer = IDPConv2D(3, 2, 2, "same")
    assert (layer.kernel_size, layer.strides, layer.padding) == ((2, 2), (2, 2), "same")


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_output_shape_is_that_of_keras(arguments):
    ours, theirs = pair(arguments)
    shape = image_shape(arguments)
    with percentage_scope(30):
        assert ours.compute_output_shape(shape) == theirs.compute_output_shape(shape)
        assert ours(keras.Input(shape[1:])).shape == theirs(keras.Input(shape[1:])).shape


# Incomplete: equal to Keras on slices.


def plain(layer, x, percentage, profile):
    """What the layer means: keras.layers.Conv2D on the active channels of each group."""
    groups, axis = layer.groups, 1 if layer.data_format == "channels_first" else 3
    terms = x.shape[axis] // groups
    k = active_terms(terms, percentage)
    of_groups = np.split(x, groups, axis)
    sliced_x = np.concatenate([np.take(g, range(k), axis) for g in of_groups], axis)
    config = layer.get_config()
    conv = layers.Conv2D.from_config({key: v for key, v in config.items() if key not in INCOMPLETE})
    conv.build(sliced_x.shape)
    kernel = to_numpy(layer.kernel) * profiles.get(profile)(terms)[:, None]
    bias = [to_numpy(layer.bias)] if layer.use_bias else []
    conv.set_weights([kernel[:, :, :k], *bias])
    return to_numpy(call_or_skip(conv, sliced_x))


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
    expected = plain(layer, x, percentage, profile)
    # Up to 54 float32 products; only the order of their sum is the convolution's own.
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_channels_first_equals_keras_on_slices(groups):
    layer = IDPConv2D(6, 3, groups=groups, data_format="channels_first", profile="linear")
    x = normal(2, 6, 5, 5)
    layer.build(x.shape)
    expected = plain(layer, x, 50, "linear")
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
    np.testing.assert_allclose(y, plain(full, x, 50, "linear"), atol=4 * 3 * 2**-8)


# Training.


@pytest.mark.parametrize("groups", [1, 2])
def test_terms_left_out_get_no_gradient(gradients, groups):
    layer = IDPConv2D(4, 3, groups=groups, profile="harmonic", trainable_profile=True)
    x = normal(2, 5, 5, 6 * groups)
    layer.build(x.shape)

    def loss():
        with percentage_scope(50):
            return keras.ops.sum(layer(x) ** 2)

    kernel, bias, coefficients = gradients(loss, layer.trainable_variables)
    assert np.all(kernel[:, :, :3] != 0)
    assert np.all(kernel[:, :, 3:] == 0)
    assert np.all(bias != 0)
    assert np.all(coefficients[:3] != 0)
    assert np.all(coefficients[3:] == 0)


def test_trainable_profile_is_trained_and_stays_non_increasing():
    layer = IDPConv2D(1, 1, profile="half_exponential", trainable_profile=True)
    model = keras.Sequential([keras.Input((2, 2, 6)), layer])
    assert [v.name for v in layer.trainable_variables] == ["kernel", "bias", "profile"]
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x = normal(32, 2, 2, 6)
    # The last channel counts most, so the gradient pulls the last coefficients up.
    model.fit(x, x @ np.arange(6.0)[:, None], epochs=3, verbose=0)
    trained = to_numpy(layer.coefficients)
    assert np.all(trained != layer.profile(6))
    assert np.all(np.diff(trained) <= 0)


# Saving.


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"profile": "linear", "activation": "relu", "padding": "same"},
        pytest.param({"profile": [1.0, 0.5, 0.0], "trainable_profile": True, "groups": 2}),
        {"profile": profiles.Step((1.0, 0.5)), "use_bias": False, "dtype": "mixed_bfloat16"},
    ],
    ids=str,
)
def test_saving(arguments, tmp_path):
    model = keras.Sequential([keras.Input((5, 5, 6)), IDPConv2D(4, 3, **arguments)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].get_config() == model.layers[0].get_config()
    x = normal(2, 5, 5, 6)
    for percentage in (100, 40):
        with percentage_scope(percentage):
            actual, expected = (to_numpy(keras.ops.cast(m(x), "float32")) for m in (loaded, model))
        np.testing.assert_array_equal(actual, expected)


# Bad input.


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("increasing", "Unknown profile"),
        (3, "A profile must be a name"),
        ([0.1, 1.0], "must not increase"),
        ([1.0, float("inf")], "must be finite"),
    ],
)
def test_bad_profile_at_construction(profile, message):
    with pytest.raises(ValueError, match=message):
        IDPConv2D(3, 1, profile=profile)


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ([1.0, 0.5], r"for 3 terms must have shape \(3,\)"),
        (lambda n: np.arange(n), "must not increase"),
        (lambda n: np.full(n, np.nan), "must be finite"),
    ],
)
def test_bad_profile_when_the_number_of_terms_is_known(profile, message):
    layer = IDPConv2D(4, 1, profile=profile, groups=2)  # 6 channels: 3 terms in each of 2 groups
    with pytest.raises(ValueError, match=message):
        layer.build((None, 4, 4, 6))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": 0}, "Invalid value for argument `filters`"),
        ({"filters": 4, "groups": 3}, "must be evenly divisible by the number of groups"),
        ({"strides": 2, "dilation_rate": 2}, "not supported in conjunction"),
        ({"kernel_size": 0}, "kernel_size"),
        ({"padding": "sometimes"}, "padding"),
    ],
    ids=str,
)
def test_what_keras_refuses_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        IDPConv2D(**{"filters": 4, "kernel_size": 3, **arguments})


def test_quantized_dtype():
    with pytest.raises(ValueError, match="does not run on a quantized dtype policy.*int8"):
        IDPConv2D(3, 1, dtype="int8_from_float32")
