"""All incomplete convolutions: as Keras at 100 %, below it as Keras on slices.

IDPConv2D has a file of its own, which goes deeper into what all convolutions share.
"""

import keras
import numpy as np
import pytest
from keras import layers

from keras_tesla import active_terms, percentage_scope, profiles
from keras_tesla.layers import (
    IDPConv1D,
    IDPConv1DTranspose,
    IDPConv2DTranspose,
    IDPConv3D,
    IDPSeparableConv2D,
)
from tests.layers.incomplete_test import INCOMPLETE

to_numpy = keras.ops.convert_to_numpy
FIRST = {"data_format": "channels_first"}

STOCK = {
    IDPConv1D: layers.Conv1D,
    IDPConv3D: layers.Conv3D,
    IDPConv1DTranspose: layers.Conv1DTranspose,
    IDPConv2DTranspose: layers.Conv2DTranspose,
    IDPSeparableConv2D: layers.SeparableConv2D,
}
SHARED = [
    {},
    {"use_bias": False},
    {"activation": "relu", "padding": "same"},
    {"activation": "softmax"},
    {"strides": 2, "padding": "same"},
    {"dilation_rate": 2},
    {"bias_initializer": "ones", "bias_regularizer": "l2", "activity_regularizer": "l1"},
    {"trainable": False},
    {"dtype": "mixed_bfloat16"},
    FIRST,
]
OWN = {
    IDPConv1D: [
        {"padding": "causal"},
        {"padding": "causal", "dilation_rate": 2, "groups": 2},
        {"padding": "causal", "strides": 2, **FIRST},
        {"groups": 3, "strides": 2},
        {"kernel_regularizer": "l2", "kernel_constraint": "non_neg"},
    ],
    IDPConv3D: [
        {"groups": 3, "kernel_size": (1, 2, 2)},
        {"kernel_regularizer": "l2", "kernel_constraint": "non_neg"},
    ],
    IDPConv1DTranspose: [
        {"strides": 2, "output_padding": 1},
        {"kernel_regularizer": "l2", "kernel_constraint": "non_neg"},
    ],
    IDPConv2DTranspose: [
        {"kernel_size": (3, 2), "strides": (2, 1)},
        {"strides": 2, "output_padding": 1},
        {"kernel_regularizer": "l2", "kernel_constraint": "non_neg"},
    ],
    IDPSeparableConv2D: [
        {"depth_multiplier": 3},
        {"depth_multiplier": 2, **FIRST},
        {"depthwise_regularizer": "l2", "pointwise_constraint": "non_neg"},
    ],
}
CASES = [
    pytest.param(cls, arguments, id=f"{cls.__name__}-{arguments}")
    for cls in STOCK
    for arguments in [*SHARED, *OWN[cls]]
]
each_class = pytest.mark.parametrize("cls", STOCK)
each_case = pytest.mark.parametrize(("cls", "arguments"), CASES)


def made(cls, arguments):
    """A layer of 6 input channels and 3 filters, always of the same weights."""
    keras.utils.set_random_seed(1)
    layer = cls(**{"filters": 6, "kernel_size": 3, "name": "conv", **arguments})
    layer.build(inputs(cls, arguments).shape)
    return layer


def rank(cls):
    return next(n for n in (1, 2, 3) if f"{n}D" in cls.__name__)


def inputs(cls, arguments):
    spatial = {1: (9,), 2: (7, 8), 3: (6, 5, 5)}[rank(cls)]
    shape = (2, 6, *spatial) if arguments.get("data_format") else (2, *spatial, 6)
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def call_or_skip(layer, x):
    """Calls a stock layer; what Keras itself cannot run on this backend is not asked of us."""
    try:
        return layer(x)
    except Exception as error:
        pytest.skip(f"{type(layer).__name__} does not run here: {error}")


def is_transposed(cls):
    return "Transpose" in cls.__name__


def kernel_names(layer):
    separable = isinstance(layer, layers.SeparableConv2D)
    return ["depthwise_kernel", "pointwise_kernel"] if separable else ["kernel"]


@each_case
def test_complete_equals_keras(cls, arguments):
    ours, theirs = made(cls, arguments), made(STOCK[cls], arguments)
    x = inputs(cls, arguments)
    expected = call_or_skip(theirs, x)
    actual = ours(x)
    # Keras' own code runs in both, so the last bit is the same.
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(to_numpy(actual), to_numpy(expected))
    assert [to_numpy(v) for v in ours.losses] == [to_numpy(v) for v in theirs.losses]
    for a, b in zip(ours.weights, theirs.weights, strict=True):
        assert (a.path, a.shape, a.dtype, a.trainable) == (b.path, b.shape, b.dtype, b.trainable)
    config = ours.get_config()
    assert {key: config[key] for key in theirs.get_config()} == theirs.get_config()
    assert set(config) - set(theirs.get_config()) == INCOMPLETE
    with percentage_scope(30):
        assert tuple(ours.compute_output_shape(x.shape)) == tuple(expected.shape)


def plain(layer, x, percentage):
    """What the layer means: the stock layer on the active channels of each group."""
    groups, axis = getattr(layer, "groups", 1), x.ndim - 1
    if layer.data_format == "channels_first":
        axis = 1
    terms = x.shape[axis] // groups
    k = active_terms(terms, percentage)
    gamma = profiles.get(layer.profile)(terms)
    active = np.concatenate([np.take(g, range(k), axis) for g in np.split(x, groups, axis)], axis)
    config = layer.get_config()
    stock = STOCK[type(layer)].from_config(
        {key: v for key, v in config.items() if key not in INCOMPLETE}
    )
    stock.build(active.shape)
    weights = {name: to_numpy(getattr(layer, name)) for name in kernel_names(layer)}
    if isinstance(layer, IDPSeparableConv2D):
        multiplier = layer.depth_multiplier
        weights["depthwise_kernel"] = weights["depthwise_kernel"][:, :, :k]
        pointwise = weights["pointwise_kernel"] * np.repeat(gamma, multiplier)[:, None]
        weights["pointwise_kernel"] = pointwise[:, :, : k * multiplier]
    elif is_transposed(type(layer)):
        weights["kernel"] = (weights["kernel"] * gamma)[..., :k]
    else:
        weights["kernel"] = (weights["kernel"] * gamma[:, None])[..., :k, :]
    for name, value in weights.items():
        getattr(stock, name).assign(value)
    if layer.use_bias:
        stock.bias.assign(to_numpy(layer.bias))
    return call_or_skip(stock, active)


@each_case
@pytest.mark.parametrize(("percentage", "profile"), [(50, "linear"), (1, "all_one"), (100, "step")])
def test_incomplete_equals_keras_on_slices(cls, arguments, percentage, profile):
    arguments = {"bias_initializer": "normal", **arguments, "profile": profiles.get("linear")}
    layer, x = made(cls, arguments), inputs(cls, arguments)
    expected = plain(layer, x, percentage)
    with percentage_scope(percentage):
        actual = layer(x)
    assert actual.dtype == expected.dtype
    actual, expected = (to_numpy(keras.ops.cast(v, "float32")) for v in (actual, expected))
    # Up to 54 float32 products, summed in another order; bfloat16 keeps 8 bits of a kernel and its
    # coefficient, which are rounded together here and apart there.
    tolerance = 0.1 if "dtype" in arguments else 1e-5
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


@each_class
def test_terms_left_out_get_no_gradient(cls, gradients):
    layer = made(cls, {"profile": "harmonic", "trainable_profile": True})
    x = inputs(cls, {})

    def loss():
        with percentage_scope(50):
            return keras.ops.sum(layer(x) ** 2)

    *kernels, bias, coefficients = gradients(loss, layer.trainable_variables)
    for kernel in kernels:
        terms = np.moveaxis(kernel, -1 if is_transposed(cls) else -2, 0)
        assert terms[:3].all()
        assert not terms[3:].any()
    assert bias.all()
    assert coefficients[:3].all()
    assert not coefficients[3:].any()


@each_class
@pytest.mark.parametrize("complete_outputs", [False, True])
def test_gradients_stay_in_the_trained_range(cls, complete_outputs, gradients):
    layer, x = made(cls, {}), inputs(cls, {})
    trained = [getattr(layer, name) for name in kernel_names(layer)]

    def loss():
        return keras.ops.sum(layer(x) ** 2)

    before, whole = to_numpy(layer(x)), gradients(loss, [*trained, layer.bias])
    layer.trained_range, layer.complete_outputs = (50, 100), complete_outputs
    np.testing.assert_allclose(to_numpy(layer(x)), before, rtol=1e-4, atol=1e-5)
    inside = np.arange(6) >= 3
    outputs = np.ones(6, bool) if complete_outputs else inside
    block = inside[:, None] & outputs
    masks = {
        IDPConv1D: [block],
        IDPConv3D: [block],
        IDPConv1DTranspose: [block.T],
        IDPConv2DTranspose: [block.T],
        IDPSeparableConv2D: [inside[:, None], block],
    }[cls] + [np.zeros(6, bool) if complete_outputs else inside]
    for got, want, mask in zip(gradients(loss, [*trained, layer.bias]), whole, masks, strict=True):
        np.testing.assert_allclose(got, want * mask, rtol=1e-4, atol=1e-3)
        assert not got[~np.broadcast_to(mask, got.shape)].any()


@each_class
@pytest.mark.parametrize("trainable_profile", [False, True])
def test_saving(cls, trainable_profile, tmp_path):
    layer = made(cls, {"profile": "linear", "trainable_profile": trainable_profile})
    x = inputs(cls, {})
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    if trainable_profile:
        layer.coefficients.assign([1.0, 0.9, 0.5, 0.5, 0.2, 0.1])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].get_config() == layer.get_config()
    with percentage_scope(40):
        np.testing.assert_array_equal(to_numpy(loaded(x)), to_numpy(model(x)))


@each_class
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"profile": "increasing"}, "Unknown profile"),
        ({"profile": [1.0, 0.5]}, r"for 6 terms must have shape \(6,\)"),
        ({"filters": 0}, "filters"),
        ({"padding": "sometimes"}, "padding"),
        ({"dtype": "int8_from_float32"}, "does not run on a quantized dtype policy"),
    ],
    ids=str,
)
def test_bad_input(cls, arguments, message):
    with pytest.raises(ValueError, match=message):
        made(cls, arguments)
