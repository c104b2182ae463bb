"""What every incomplete layer promises: at 100 % it is its Keras class, in all that users see.

What a layer computes below 100 %, against slices, is in the test of its own file.
"""

import keras
import numpy as np
import pytest

from keras_tesla import percentage_scope, profiles
from keras_tesla.layers import (
    IDPConv1D,
    IDPConv1DTranspose,
    IDPConv2D,
    IDPConv2DTranspose,
    IDPConv3D,
    IDPDense,
    IDPSeparableConv2D,
)
from tests.helpers import to_numpy
from tests.layers import kinds

each_kind = pytest.mark.parametrize("cls", kinds.STOCK)


def of_each(arguments):
    """Parametrizes with (class, arguments): those that all share, and those of each class."""
    return pytest.mark.parametrize(
        ("cls", "arguments"),
        [
            pytest.param(cls, case, id=f"{cls.__name__}-{case}")
            for cls in kinds.STOCK
            for case in [*arguments["all"], *arguments.get(cls, [])]
        ],
    )


each_case = of_each(kinds.ARGUMENTS)


def pair(cls, arguments):
    """The incomplete and the Keras layer of the same arguments, built from the same seed."""
    return kinds.made(cls, arguments), kinds.made(kinds.STOCK[cls], arguments)


# Complete: equal to Keras.


@each_case
def test_complete_equals_keras(cls, arguments):
    ours, theirs = pair(cls, arguments)
    x = kinds.example(cls, arguments)
    expected = kinds.call_or_skip(theirs, x)
    actual = ours(x)
    # Keras' own code runs in both, so the last bit is the same.
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(to_numpy(actual), to_numpy(expected))
    assert [to_numpy(v) for v in ours.losses] == [to_numpy(v) for v in theirs.losses]


@each_case
def test_weights_are_those_of_keras(cls, arguments):
    ours, theirs = pair(cls, arguments)
    for a, b in zip(ours.weights, theirs.weights, strict=True):
        assert (a.path, a.shape, a.dtype, a.trainable) == (b.path, b.shape, b.dtype, b.trainable)
        assert type(a.regularizer) is type(b.regularizer)
        assert type(a.constraint) is type(b.constraint)
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b))


@pytest.mark.backend_free
@each_case
def test_config_has_the_words_of_keras(cls, arguments):
    ours, theirs = (layer.get_config() for layer in pair(cls, arguments))
    assert {key: ours[key] for key in theirs} == theirs
    own = {"input_channels"} if cls is IDPDense else set()
    assert set(ours) - set(theirs) == kinds.OWN_CONFIG | own


@each_case
def test_output_shape_is_that_of_keras(cls, arguments):
    ours, theirs = pair(cls, arguments)
    shape = kinds.example(cls, arguments).shape
    with percentage_scope(30):
        assert tuple(ours.compute_output_shape(shape)) == tuple(theirs.compute_output_shape(shape))
        assert ours(keras.Input(shape[1:])).shape == theirs(keras.Input(shape[1:])).shape


# Training.


@of_each({"all": [{}], IDPConv1D: [{"groups": 2}], IDPConv2D: [{"groups": 2}]})
def test_terms_left_out_get_no_gradient(cls, arguments, gradients):
    layer = kinds.made(cls, {**arguments, "profile": "harmonic", "trainable_profile": True})
    x = kinds.example(cls, arguments)

    def loss():
        with percentage_scope(50):
            return keras.ops.sum(layer(x) ** 2)

    *kernels, bias, coefficients = gradients(loss, layer.trainable_variables)
    terms = 6 // arguments.get("groups", 1)
    active = terms // 2
    for kernel in kernels:
        of_terms = np.moveaxis(kernel, -1 if kinds.is_transposed(cls) else -2, 0)
        assert len(of_terms) == terms
        assert of_terms[:active].all()
        assert not of_terms[active:].any()
    assert bias.all()
    assert coefficients[:active].all()
    assert not coefficients[active:].any()


@each_kind
def test_trainable_profile_is_trained_and_stays_non_increasing(cls):
    size = {"filters": 1, "kernel_size": 1} if "Conv" in cls.__name__ else {"units": 1}
    layer = kinds.made(cls, {**size, "profile": "half_exponential", "trainable_profile": True})
    x = kinds.example(cls, {}, batch=32)
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    assert [v.name for v in layer.trainable_variables][-2:] == ["bias", "profile"]
    np.testing.assert_array_equal(to_numpy(layer.coefficients), layer.profile(6))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    # The last channel counts most, so the gradient pulls the last coefficients up.
    model.fit(x, x @ np.arange(6.0)[:, None], epochs=3, verbose=0)
    trained = to_numpy(layer.coefficients)
    assert np.all(trained != layer.profile(6))
    assert np.all(np.diff(trained) <= 0)


@each_kind
def test_a_fixed_profile_is_no_weight(cls):
    assert "profile" not in [v.name for v in kinds.made(cls, {"profile": "linear"}).weights]


# Saving.


@of_each(
    {
        "all": [
            {},
            {"profile": "linear", "activation": "relu"},
            {"profile": profiles.Step((1.0, 0.5), (0.2, 0.8))},
            {"profile": [1.0, 0.5, 0.5, 0.5, 0.1, 0.0], "trainable_profile": True},
            {"use_bias": False, "dtype": "mixed_bfloat16"},
        ],
        IDPDense: [{"input_channels": 3}],
        IDPConv2D: [{"profile": [1.0, 0.5, 0.0], "trainable_profile": True, "groups": 2}],
    }
)
def test_saving(cls, arguments, tmp_path):
    layer = kinds.made(cls, arguments)
    x = kinds.example(cls, arguments)
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    if layer.trainable_profile:  # not at its initial value
        layer.coefficients.assign(to_numpy(layer.coefficients) / 2)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].get_config() == layer.get_config()
    for percentage in (100, 40):
        with percentage_scope(percentage):
            actual, expected = (to_numpy(keras.ops.cast(m(x), "float32")) for m in (loaded, model))
        np.testing.assert_array_equal(actual, expected)


# Bad input.


@pytest.mark.backend_free
@each_kind
@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("increasing", "Unknown profile"),
        (3, "A profile must be a name"),
        ([0.1, 1.0], "must not increase"),
        ([1.0, float("nan")], "must be finite"),
        ([1.0, float("inf")], "must be finite"),
    ],
)
def test_bad_profile_at_construction(cls, profile, message):
    with pytest.raises(ValueError, match=message):
        kinds.unbuilt(cls, {"profile": profile})


@pytest.mark.backend_free
@of_each({"all": [{}], IDPConv1D: [{"groups": 2}], IDPConv2D: [{"groups": 2}]})
@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ([1.0, 0.5], r"for {terms} terms must have shape \({terms},\)"),
        (lambda n: np.ones(n + 1), r"for {terms} terms must have shape \({terms},\)"),
        (lambda n: np.arange(n), "must not increase"),
        (lambda n: np.full(n, np.nan), "must be finite"),
        (profiles.Step((0.5, 1.0)), "must not increase"),
    ],
)
@pytest.mark.parametrize("trainable", [False, True])
def test_bad_profile_when_the_number_of_terms_is_known(cls, arguments, profile, message, trainable):
    layer = kinds.unbuilt(cls, {**arguments, "profile": profile, "trainable_profile": trainable})
    terms = 6 // arguments.get("groups", 1)
    with pytest.raises(ValueError, match=message.format(terms=terms)):
        layer.build(kinds.example(cls, arguments).shape)


REFUSED = [{"filters": 0}, {"kernel_size": 0}, {"padding": "sometimes"}]


@pytest.mark.backend_free
@of_each(
    {
        "all": [],
        IDPDense: [{"units": 0}, {"units": -1}, {"units": 2.5}],
        IDPConv1D: REFUSED,
        IDPConv2D: [*REFUSED, {"groups": 4}, {"strides": 2, "dilation_rate": 2}],
        **dict.fromkeys([IDPConv3D, IDPConv1DTranspose, IDPConv2DTranspose], REFUSED),
        IDPSeparableConv2D: REFUSED,
    }
)
def test_what_keras_refuses_is_refused_in_its_words(cls, arguments):
    with pytest.raises(ValueError, match=r".") as theirs:
        kinds.unbuilt(kinds.STOCK[cls], arguments)
    with pytest.raises(ValueError, match=r".") as ours:
        kinds.unbuilt(cls, arguments)
    assert str(ours.value).replace(cls.__name__, kinds.STOCK[cls].__name__) == str(theirs.value)


@pytest.mark.backend_free
@each_kind
def test_quantized_dtype(cls):
    with pytest.raises(ValueError, match=r"does not run on a quantized dtype policy.*int8"):
        kinds.unbuilt(cls, {"dtype": "int8_from_float32"})
