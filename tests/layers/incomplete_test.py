"""What the incomplete layers share: numbers that belong to one percentage."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_tesla import percentage_scope
from keras_tesla.layers import (
    IDPConv1D,
    IDPConv2D,
    IDPConv2DTranspose,
    IDPDense,
    IDPSeparableConv2D,
)

to_numpy = keras.ops.convert_to_numpy

# What an incomplete layer's config has beside that of its Keras class.
PERCENTAGES = (100, 50, 20)
PRIVATE = {"percentages": PERCENTAGES, "private_bias": True, "private_profile": True}
# Of 10 terms the percentages read 2, 5 and 10.
BLOCKS = {20: [2], 50: [2, 3], 100: [2, 3, 5]}

STOCK = {
    IDPDense: layers.Dense,
    IDPConv1D: layers.Conv1D,
    IDPConv2D: layers.Conv2D,
    IDPConv2DTranspose: layers.Conv2DTranspose,
    IDPSeparableConv2D: layers.SeparableConv2D,
}
each_class = pytest.mark.parametrize("cls", STOCK)


def made(cls, **arguments):
    """A layer of 10 input channels and 3 outputs; its private numbers are random."""
    keras.utils.set_random_seed(1)
    layer = cls(3, *([] if "Dense" in cls.__name__ else [2]), name="layer", **arguments)
    layer.build(inputs(cls).shape)
    for seed, variable in enumerate(v for v in layer.weights if "_p" in v.name):
        variable.assign(np.random.default_rng(seed).normal(size=variable.shape))
    return layer


def inputs(cls):
    spatial = {"IDPDense": (), "IDPConv1D": (5,)}.get(cls.__name__, (4, 5))
    return np.random.default_rng(0).normal(size=(2, *spatial, 10)).astype("float32")


def stock_at(layer, percentage):
    """The Keras layer on the first channels, with the private numbers folded in by hand."""
    cls = type(layer)
    x = inputs(cls)[..., : sum(BLOCKS[percentage])]
    stock = STOCK[cls](3, *([] if cls is IDPDense else [2]))
    stock.build(x.shape)
    numbers = {k: to_numpy(v) for k, v in layer.private_variables(percentage).items()}
    factors = 1 + np.repeat(numbers["profile"], BLOCKS[percentage])
    weights = {v.name: to_numpy(v) for v in layer.weights if "_p" not in v.name}
    weights["bias"] = weights["bias"] + numbers["bias"]
    count = len(factors)
    if cls is IDPSeparableConv2D:
        weights["depthwise_kernel"] = weights["depthwise_kernel"][:, :, :count]
        weights["pointwise_kernel"] = weights["pointwise_kernel"][:, :, :count] * factors[:, None]
    elif cls is IDPConv2DTranspose:
        weights["kernel"] = weights["kernel"][..., :count] * factors
    else:
        weights["kernel"] = weights["kernel"][..., :count, :] * factors[:, None]
    for name, value in weights.items():
        getattr(stock, name).assign(value)
    return to_numpy(stock(x))


@each_class
@pytest.mark.parametrize("percentage", PERCENTAGES)
def test_private_numbers_are_a_factor_for_each_block_and_a_bias(cls, percentage):
    layer = made(cls, **PRIVATE)
    with percentage_scope(percentage):
        actual = to_numpy(layer(inputs(cls)))
    # float32 products in another order.
    np.testing.assert_allclose(actual, stock_at(layer, percentage), rtol=1e-4, atol=1e-5)


@each_class
def test_private_numbers_begin_at_0(cls):
    private, plain = made(cls, **PRIVATE), made(cls)
    for variable in private.weights:
        if "_p" in variable.name:
            variable.assign(0 * variable)
    for percentage in PERCENTAGES:
        with percentage_scope(percentage):
            x = inputs(cls)
            np.testing.assert_allclose(
                to_numpy(private(x)), to_numpy(plain(x)), rtol=1e-5, atol=1e-6
            )


def test_the_numbers_are_created_as_zeros_with_these_shapes():
    layer = IDPDense(3, **PRIVATE)
    layer.build((None, 10))
    private = {v.name: to_numpy(v).tolist() for v in layer.trainable_variables[2:]}
    assert private == {
        **{"bias_p100": [0, 0, 0], "profile_p100": [0, 0, 0]},
        **{"bias_p50": [0, 0, 0], "profile_p50": [0, 0]},
        **{"bias_p20": [0, 0, 0], "profile_p20": [0]},
    }
    assert [v.name for v in layer.trainable_variables[:2]] == ["kernel", "bias"]


def test_percentages_that_read_as_many_terms_share_their_blocks():
    layer = IDPDense(3, percentages=[100, 59, 50, 9, 1], private_profile=True)
    layer.build((None, 10))
    assert [layer.blocks(p).tolist() for p in layer.percentages] == [
        *([1, 4, 5], [1, 4], [1, 4], [1], [1])
    ]


def test_gradients_of_a_percentage_reach_the_shared_and_its_own_numbers(gradients):
    layer = made(IDPDense, **PRIVATE)
    x = inputs(IDPDense)

    def loss():
        with percentage_scope(50):
            return keras.ops.sum(layer(x))

    found = gradients(loss, layer.trainable_variables)
    actual = dict(zip([v.name for v in layer.trainable_variables], found, strict=True))
    factors = 1 + np.repeat(to_numpy(layer.private_variables(50)["profile"]), [2, 3])
    kernel = np.zeros((10, 3))
    kernel[:5] = (factors * x[:, :5].sum(0))[:, None]
    terms = (x[:, :5].sum(0) * to_numpy(layer.kernel)[:5].sum(1)).astype("float64")
    expected = {
        "kernel": kernel,
        "bias": np.full(3, 2.0),
        "bias_p50": np.full(3, 2.0),
        "profile_p50": [terms[:2].sum(), terms[2:].sum()],
        **{f"bias_p{p}": np.zeros(3) for p in (100, 20)},
        **{f"profile_p{p}": np.zeros(len(BLOCKS[p])) for p in (100, 20)},
    }
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        # Sums of a few numbers of size 1 that may cancel, in float32.
        np.testing.assert_allclose(actual[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_range_trains_all_numbers_of_its_percentage(gradients):
    """Another range never runs at this percentage, so it needs no protection."""
    layer = made(IDPDense, **PRIVATE)
    layer.trained_range = (20, 50)

    def loss():
        with percentage_scope(50):
            return keras.ops.sum(layer(inputs(IDPDense)))

    variables = [layer.bias, *layer.private_variables(50).values()]
    bias, own_bias, own_profile = gradients(loss, variables)
    np.testing.assert_array_equal(bias, [0, 0, 0])  # of 3 outputs, 20 and 50 % are the first
    np.testing.assert_array_equal(own_bias, [2, 2, 2])
    assert np.all(own_profile != 0)


def test_the_private_profile_multiplies_the_shared_one():
    layer = made(IDPDense, profile="linear", **PRIVATE)
    other = made(IDPDense, **PRIVATE)
    layer.set_weights(other.get_weights())
    other.kernel.assign(to_numpy(other.kernel) * (1 - np.arange(10) / 10)[:, None])
    with percentage_scope(50):
        x = inputs(IDPDense)
        np.testing.assert_allclose(
            to_numpy(layer(x)), to_numpy(other(x)), rtol=1e-5, atol=1e-6
        )  # float32


def test_channels_at_several_positions_have_one_factor():
    layer = IDPDense(
        2,
        input_channels=2,
        use_bias=False,
        percentages=[100, 50],
        private_profile=True,
        kernel_initializer="ones",
    )
    layer.build((None, 6))
    layer.private_variables(100)["profile"].assign([1.0, 2.0])
    # Twice the first channel of each position, three times the second.
    np.testing.assert_allclose(to_numpy(layer(np.eye(6)))[:, 0], [2, 3, 2, 3, 2, 3])


@pytest.mark.parametrize("percentage", PERCENTAGES)
def test_a_complete_layer_reads_all_terms_at_every_percentage(percentage):
    layer = made(IDPDense, percentages=PERCENTAGES, private_bias=True, complete=True)
    assert layer.active_terms(percentage) == 10
    stock = layers.Dense(3)
    stock.build((None, 10))
    own = to_numpy(layer.private_variables(percentage)["bias"])
    stock.set_weights([to_numpy(layer.kernel), to_numpy(layer.bias) + own])
    with percentage_scope(percentage):
        x = inputs(IDPDense)
        np.testing.assert_allclose(
            to_numpy(layer(x)), to_numpy(stock(x)), rtol=1e-5, atol=1e-6
        )  # float32


@each_class
def test_saving(cls, tmp_path):
    layer = made(cls, trainable_profile=True, **PRIVATE)
    model = keras.Sequential([keras.Input(inputs(cls).shape[1:]), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].get_config() == layer.get_config()
    for percentage in PERCENTAGES:
        with percentage_scope(percentage):
            x = inputs(cls)
            np.testing.assert_array_equal(to_numpy(loaded(x)), to_numpy(model(x)))


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "float16"])
def test_numbers_have_the_dtype_of_the_layer(dtype):
    layer = made(IDPDense, dtype=dtype, **PRIVATE)
    with percentage_scope(50):
        dtype = layer(inputs(IDPDense)).dtype
    assert keras.backend.standardize_dtype(dtype) == layer.compute_dtype


# Bad input.


@each_class
@pytest.mark.parametrize("kind", ["private_bias", "private_profile"])
def test_a_percentage_without_numbers(cls, kind):
    layer = made(cls, percentages=[100, 50], **{kind: True})
    message = (
        r"Layer 'layer' has private numbers for \[100, 50\] percent. Received: 30. "
        "Pass it in `percentages`"
    )
    with pytest.raises(ValueError, match=message), percentage_scope(30):
        layer(inputs(cls))


@each_class
@pytest.mark.parametrize("kind", ["private_bias", "private_profile"])
def test_private_numbers_need_percentages(cls, kind):
    with pytest.raises(ValueError, match=r"pass `percentages=.*Received: percentages=None"):
        made(cls, **{kind: True})


@each_class
def test_a_private_bias_needs_a_bias(cls):
    with pytest.raises(ValueError, match="it needs `use_bias=True`. Received: use_bias=False"):
        made(cls, use_bias=False, **PRIVATE)


@pytest.mark.parametrize("percentages", [[], 50, [0], [55.5], [50, 50]])
def test_bad_percentages(percentages):
    with pytest.raises(ValueError, match="`percentages` must|A percentage must"):
        IDPDense(3, percentages=percentages, private_profile=True)
