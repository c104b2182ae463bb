"""EinsumDense: it reads and computes channels where its equation has them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_tesla as kt
from keras_tesla import profiles
from keras_tesla.layers import IDPDense, IDPEinsumDense
from tests.kinds.networks import image, inputs_of, randomized, wide

to_numpy = keras.ops.convert_to_numpy


def kernel(model, name="einsum"):
    return tuple(model.get_layer(name).kernel.shape)


# Of 6 positions and 8 channels, or 4 heads of 2: the equation, its arguments, what stands before it
# and after it, and the shape of the kernel at 50 %.
HEADS = layers.Reshape((6, 4, 2))
LAYERS = {
    "dense": ("abc,cd->abd", {"output_shape": (None, 8), "bias_axes": "d"}, [], [], (4, 4)),
    "ellipsis": ("...c,cd->...d", {"output_shape": 8, "bias_axes": "d"}, [], [], (4, 4)),
    "heads": (
        "abc,cde->abde",
        {"output_shape": (None, 4, 2), "bias_axes": "de"},
        [],
        [layers.Reshape((6, 8))],
        (4, 2, 2),
    ),
    "heads with one bias": (
        "abc,cde->adbe",
        {"output_shape": (4, None, 2), "bias_axes": "e", "activation": "relu"},
        [],
        [layers.Permute((2, 1, 3)), layers.Reshape((6, 8))],
        (4, 2, 2),
    ),
    "of heads": ("abcd,cde->abe", {"output_shape": (None, 8)}, [HEADS], [], (2, 2, 4)),
    "another order": (
        "acb,dc->abd",
        {"output_shape": (None, 8), "bias_axes": "d"},
        [layers.Permute((2, 1))],
        [],
        (4, 4),
    ),
    "for each position": (
        "abc,bcd->abd",
        {"output_shape": (6, 8), "bias_axes": "bd"},
        [],
        [],
        (6, 4, 4),
    ),
}

SOME = [
    "of heads",
    *(pytest.param(name, marks=pytest.mark.slow) for name in LAYERS if name != "of heads"),
]


def network(cls, name, head=None, **more):
    equation, arguments, before, after, _ = LAYERS[name]
    x = image(1)
    y = wide(1)(x)
    for layer in [*before, cls(equation, **arguments, name="einsum", **more), *after]:
        y = layer(y)
    return keras.Model(x, (head or IDPDense(3, name="head"))(y))


@pytest.mark.parametrize("name", LAYERS)
def test_incomplete(name, check):
    model = network(IDPEinsumDense, name, profile="linear")
    assert kernel(check(model)) == LAYERS[name][-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_as_it_is(name, check):
    """It reads all, and computes the channels that are read."""
    model = network(layers.EinsumDense, name)
    extracted = check(model)
    assert np.prod(kernel(extracted)) == np.prod(kernel(model)) // 2


@pytest.mark.parametrize("name", SOME)
def test_it_becomes_incomplete(name, check):
    model = randomized(network(layers.EinsumDense, name, head=layers.Dense(3, name="head")))
    converted = kt.to_idp(model, percentages=[100, 50], profile="linear")
    assert isinstance(converted.get_layer("einsum"), IDPEinsumDense)
    x = inputs_of(model)
    # A profile is divided out and multiplied in again.
    np.testing.assert_allclose(to_numpy(converted(x)), to_numpy(model(x)), rtol=1e-4, atol=1e-5)
    assert kernel(check(converted)) == LAYERS[name][-1]


@pytest.mark.parametrize(
    ("equation", "axis", "shape"),
    [("abc,cd->abd", 2, (None, 5)), ("acbd,dec->abe", 1, (None, 5)), ("abc,ecd->abed", 2, None)],
)
def test_incomplete_equals_keras_on_slices(equation, axis, shape):
    shape = shape or (None, 2, 3)
    arguments = {"bias_axes": equation[-1], "bias_initializer": "normal", "activation": "tanh"}
    layer = IDPEinsumDense(equation, shape, profile="linear", **arguments)
    full = (2, 3, 4, 7)[: len(equation.split(",")[0])]
    x = np.random.default_rng(0).normal(size=full).astype("float32")
    layer.build(x.shape)
    k = full[axis] // 2
    cut = np.take(x, range(k), axis)
    stock = layers.EinsumDense(equation, shape, **arguments)
    stock.build(cut.shape)
    of_terms = equation.split("->")[0].split(",")[1].index("c")
    weights = np.moveaxis(to_numpy(layer.kernel), of_terms, -1)
    weights = (weights * profiles.get("linear")(full[axis]))[..., :k]
    stock.kernel.assign(np.moveaxis(weights, -1, of_terms))
    stock.bias.assign(to_numpy(layer.bias))
    with kt.percentage_scope(100 * k // full[axis] + 1):
        actual = to_numpy(layer(x))
    # Float32 sums in another order.
    np.testing.assert_allclose(actual, to_numpy(stock(cut)), rtol=1e-4, atol=1e-5)


def test_private_numbers(check):
    private = {"private_bias": True, "private_profile": True, "percentages": [100, 50, 20]}
    for name in ("heads", "heads with one bias"):
        model = network(IDPEinsumDense, name, **private)
        assert kernel(check(model)) == LAYERS[name][-1]


@pytest.mark.parametrize("name", ["dense", "heads", "heads with one bias"])
def test_gradients(name, check_gradients):
    found = check_gradients(network(IDPEinsumDense, name))
    of_kernel = found["einsum/kernel"]
    assert of_kernel[:4, ..., :1].any()
    assert not of_kernel[4:].any()


@pytest.mark.parametrize("name", ["dense", "heads", "heads with one bias"])
def test_the_range_that_is_trained(name, gradients):
    """Of the kernel the terms and outputs from 50 to 100 %, and of the bias those outputs."""
    model = randomized(network(IDPEinsumDense, name))
    layer, x = model.get_layer("einsum"), inputs_of(model)
    layer.trained_range = (50, 100)
    of_kernel, of_bias = gradients(lambda: ops.sum(model(x) ** 2), [layer.kernel, layer.bias])
    half = of_kernel.shape[1] // 2
    assert of_kernel[4:, half:].all()
    assert not of_kernel[:4].any()
    assert not of_kernel[:, :half].any()
    whole = name == "heads with one bias"
    assert whole or not of_bias[:half].any()
    assert of_bias.all() if whole else of_bias[half:].all()


@pytest.mark.parametrize("name", ["dense", "heads", "another order"])
def test_channels_are_ordered(name):
    model = randomized(network(layers.EinsumDense, name, head=layers.Dense(3, name="head")))
    ordered, x = kt.order_channels(model), inputs_of(model)
    # Float32 sums in another order.
    np.testing.assert_allclose(to_numpy(ordered(x)), to_numpy(model(x)), rtol=1e-4, atol=1e-5)
    rows = np.moveaxis(np.abs(to_numpy(ordered.get_layer("einsum").kernel)), -(name[0] == "a"), 0)
    assert (np.diff(rows.reshape(8, -1).sum(1)) <= 0).all()


OTHERS = [
    ("abc,bd->adc", (7, 8), (6, 7)),
    ("abc,c->ab", (6,), (8,)),
    ("ab...,bc->ac...", (7,), (6, 7)),
]


@pytest.mark.parametrize(("equation", "shape", "of_kernel"), OTHERS)
def test_other_equations(equation, shape, of_kernel, check):
    """Those that an incomplete dot product has no meaning for stay whole."""
    x = image(1)
    y = layers.EinsumDense(equation, shape, name="einsum")(wide(1)(x))
    y = layers.EinsumDense("...c,cd->...d", 8, name="wide_2")(y)
    small = check(keras.Model(x, IDPDense(3)(y)))
    assert kernel(small) == of_kernel
    if equation != "abc,bd->adc":
        with pytest.raises(ValueError, match=r"`equation` must sum up an axis.*Received"):
            IDPEinsumDense(equation, shape)


def test_the_axis_of_positions_is_no_axis_of_channels():
    """A layer along the positions is left alone by `to_idp`."""
    x = image(1)
    y = layers.EinsumDense("abc,bd->adc", (7, 8), name="einsum")(wide(1)(x))
    model = keras.Model(x, layers.Dense(3, name="head")(layers.Dense(4)(y[:, 0])))
    converted = kt.to_idp(model)
    assert type(converted.get_layer("einsum")) is layers.EinsumDense
    assert isinstance(converted.get_layer("head"), IDPDense)
