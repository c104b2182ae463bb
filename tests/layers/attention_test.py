"""The incomplete attention layers: at 100 % the Keras class, at p that class with fewer heads."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_tesla import percentage_scope
from keras_tesla.layers import IDPGroupQueryAttention, IDPMultiHeadAttention
from tests.helpers import normal, randomize, to_numpy

STOCK = {
    IDPMultiHeadAttention: layers.MultiHeadAttention,
    IDPGroupQueryAttention: layers.GroupQueryAttention,
}
SIZES = {
    IDPMultiHeadAttention: {"num_heads": 4, "key_dim": 3},
    IDPGroupQueryAttention: {"head_dim": 3, "num_query_heads": 8, "num_key_value_heads": 4},
}
SIZES |= {stock: SIZES[cls] for cls, stock in STOCK.items()}
OWN_CONFIG = {"query_parts", "value_parts", "key_parts", "percentages"}
CHANNELS = 6

SHARED = [
    {},
    {"use_bias": False, "use_gate": True},
    {"dropout": 0.5, "seed": 3, "kernel_regularizer": "l2", "bias_initializer": "ones"},
    {"activity_regularizer": "l2", "kernel_constraint": "non_neg"},
    {"dtype": "mixed_float16"},
]
ARGUMENTS = {
    IDPMultiHeadAttention: [
        *SHARED,
        {"value_dim": 2},
        {"output_shape": (2, 5)},
        {"attention_axes": (1, 2)},
        {"attention_axes": -2, "use_gate": True, "output_shape": 7},
        {"sliding_window": 2, "trainable": False},
        {"dtype": "bfloat16", "kernel_initializer": "he_normal"},
    ],
    IDPGroupQueryAttention: [*SHARED, {"sliding_window": 2}],
}

each_class = pytest.mark.parametrize("cls", STOCK)
each_case = pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        pytest.param(cls, case, id=f"{cls.__name__}-{case}")
        for cls, cases in ARGUMENTS.items()
        for case in cases
    ],
)


def inputs(arguments):
    """Query and value, with one axis of positions or two."""
    axes = arguments.get("attention_axes")
    query = normal(2, 5, 4, CHANNELS) if axes else normal(2, 5, CHANNELS)
    value = {None: (2, 7), 2: (2, 5, 3), (1, 2): (2, 3, 2), -2: (2, 5, 3)}[axes]
    return query, normal(*value, CHANNELS, seed=1)


def made(cls, arguments, sizes=None, shapes=None):
    keras.utils.set_random_seed(1)
    layer = cls(**{**(sizes or SIZES[cls]), "name": "layer", **arguments})
    layer.build(*(shapes or [x.shape for x in inputs(arguments)]))
    return layer


def numbers(structure):
    return [to_numpy(keras.ops.cast(x, "float32")) for x in keras.tree.flatten(structure)]


def on_slices(layer, arguments, groups, k, query, value, key=None, **call):
    """What the layer means: Keras' own one with fewer heads, on the first k channels of each."""
    cls = type(layer)
    total = SIZES[cls].get("num_key_value_heads") or SIZES[cls]["num_heads"]
    sizes = {n: v * groups // total if "heads" in n else v for n, v in SIZES[cls].items()}
    named = {"query": query, "value": value, "key": key}
    read = {n: x[..., :k] for n, x in named.items() if x is not None}
    if cls is IDPMultiHeadAttention:
        arguments = {"output_shape": CHANNELS, **arguments}
    else:  # it returns only as many channels as it reads, so those left out are zeros
        zeros = [(0, 0), (0, 0), (0, CHANNELS - k)]
        read = {n: np.pad(x, zeros) for n, x in read.items()}
    stock = made(STOCK[cls], arguments, sizes, [x.shape for x in read.values()])
    for name in ("query", "value", "key", "gate"):
        old, new = (getattr(x, f"_{name}_dense", None) for x in (layer, stock))
        if old is not None:
            channels, heads, _ = new.kernel.shape
            new._kernel.assign(to_numpy(old.kernel)[:channels, :heads])
            if old.bias is not None:
                new.bias.assign(to_numpy(old.bias)[:heads])
    old, new = layer._output_dense, stock._output_dense
    new._kernel.assign(to_numpy(old.kernel)[: new.kernel.shape[0]])
    if old.bias is not None:
        new.bias.assign(to_numpy(old.bias))
    return call_or_skip(stock, **read, **call)


def call_or_skip(layer, *args, **kwargs):
    """Calls a stock layer; what Keras itself cannot run on this backend is not asked of us."""
    try:
        return layer(*args, **kwargs)
    except Exception as error:
        pytest.skip(f"keras.layers.{type(layer).__name__} does not run here: {error}")


# At 100 %.


@each_case
def test_complete_equals_keras(cls, arguments):
    ours, theirs = (made(c, arguments) for c in (cls, STOCK[cls]))
    query, value = inputs(arguments)
    call = {"training": "dropout" in arguments}
    expected, actual = call_or_skip(theirs, query, value, **call), ours(query, value, **call)
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(*map(to_numpy, (actual, expected)))
    assert numbers(ours.losses) == numbers(theirs.losses)
    for a, b in zip(ours.weights, theirs.weights, strict=True):
        assert (a.path, a.shape, a.dtype, a.trainable) == (b.path, b.shape, b.dtype, b.trainable)
        assert type(a.regularizer) is type(b.regularizer)
        assert type(a.constraint) is type(b.constraint)
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b))
    configs = [layer.get_config() for layer in (ours, theirs)]
    assert {key: configs[0][key] for key in configs[1]} == configs[1]
    assert set(configs[0]) - set(configs[1]) == OWN_CONFIG
    shapes = [x.shape for x in (query, value)]
    with percentage_scope(30):
        assert ours.compute_output_shape(*shapes) == theirs.compute_output_shape(*shapes)
        symbols = [keras.Input(shape[1:]) for shape in shapes]
        assert ours(*symbols).shape == theirs(*symbols).shape


MASKS = {
    "key": {"key": normal(2, 7, CHANNELS, seed=2)},
    "causal": {"use_causal_mask": True},
    "attention_mask": {"attention_mask": normal(2, 5, 7) > -1},
    "masks": {
        "query_mask": normal(2, 5) > -1,
        "value_mask": normal(2, 7) > -1,
        "key_mask": normal(2, 7) > -1.5,
        "use_causal_mask": True,
    },
    "scores": {"return_attention_scores": True},
    "training": {"training": True},
}


CALLS = [(50, call) for call in MASKS.values()]
CALLS += [(100, MASKS[name]) for name in ("key", "scores")]


@each_class
@pytest.mark.parametrize(("percentage", "call"), CALLS)
def test_calls(cls, percentage, call):
    """Masks, a key, scores, dropout: at each percentage what Keras does with them."""
    arguments = {"dropout": 0.3, "seed": 5} if "training" in call else {}
    shapes = [(2, 5, CHANNELS), (2, 7, CHANNELS), (2, 7, CHANNELS)][: 3 if "key" in call else 2]
    layer = randomize(made(cls, arguments, shapes=shapes))
    query, value = inputs({})
    groups = 4 if "return_attention_scores" in call else 4 * percentage // 100
    k = CHANNELS * percentage // 100
    with percentage_scope(percentage):
        actual = numbers(layer(query, value, **call))
    expected = numbers(on_slices(layer, arguments, groups, k, query, value, **call))
    assert len(actual) == 1 + ("return_attention_scores" in call)
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape
        np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-5)


def test_a_mask_of_the_inputs_is_not_lost():
    x = np.array([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0]])
    embed = layers.Embedding(5, CHANNELS, mask_zero=True)
    layer = randomize(made(IDPMultiHeadAttention, {}))
    with percentage_scope(50):
        y = embed(x)
        masked = to_numpy(layer(y, y))
        y = to_numpy(embed(x))
        given = to_numpy(layer(y, y, value_mask=x > 0, key_mask=x > 0))
        without = to_numpy(layer(y, y))
    np.testing.assert_allclose(masked[x > 0], given[x > 0], rtol=1e-5, atol=1e-5)
    assert np.abs(masked - without)[x > 0].max() > 1e-3


# At a percentage.


@each_case
def test_a_percentage_is_keras_with_fewer_heads(cls, arguments):
    layer = randomize(made(cls, arguments))
    query, value = inputs(arguments)
    expected = on_slices(layer, arguments, 2, 3, query, value)
    with percentage_scope(50):
        actual = layer(query, value)
    assert actual.dtype == expected.dtype
    rtol = {"float32": 1e-5, "float16": 1e-2, "bfloat16": 1e-1}[layer.compute_dtype]
    a, e = numbers(actual)[0], numbers(expected)[0]
    np.testing.assert_allclose(a, e, rtol=rtol, atol=rtol * np.abs(e).max())


@each_class
def test_low_percentages(cls):
    layer = randomize(made(cls, {}))
    query, value = inputs({})
    with percentage_scope(20):
        actual = numbers(layer(query, value))
    expected = numbers(on_slices(layer, {}, 1, 1, query, value))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@each_class
def test_one_head_stays(cls):
    sizes = {k: 1 if "heads" in k else v for k, v in SIZES[cls].items()}
    layer = made(cls, {}, sizes)
    weights = layer.incomplete_weights(10, layer.active_groups(10))
    assert weights["query"]["kernel"].shape == (1, 1, 3)


@each_class
def test_parts_after_a_concatenation(cls):
    """The first channels of each part: the order of the channels is all that differs."""
    layer = randomize(made(cls, {"query_parts": (4, 2), "value_parts": [2, 4]}))
    query, value = inputs({})
    order = {"query": [0, 1, 4, 2, 3, 5], "value": [0, 2, 3, 1, 4, 5]}
    with percentage_scope(50):
        actual = to_numpy(layer(query, value))
        plain = made(cls, {})
        for name, old in (("query", "query"), ("value", "value"), ("key", "value")):
            a, b = (getattr(x, f"_{name}_dense") for x in (layer, plain))
            b._kernel.assign(to_numpy(a.kernel)[order[old]])
            b.bias.assign(to_numpy(a.bias))
        plain._output_dense.set_weights(layer._output_dense.get_weights())
        expected = to_numpy(plain(query[..., order["query"]], value[..., order["value"]]))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@each_class
def test_what_is_left_out_gets_no_gradient(cls, gradients):
    layer = randomize(made(cls, {"use_gate": True}))
    query, value = inputs({})

    def loss():
        with percentage_scope(50):
            return keras.ops.sum(layer(query, value) ** 2)

    found = dict(
        zip(
            [v.path.removeprefix("layer/") for v in layer.trainable_variables],
            gradients(loss, layer.trainable_variables),
            strict=True,
        )
    )
    for name in ("query", "key", "value", "gate"):
        kernel, bias = found[f"{name}/kernel"], found[f"{name}/bias"]
        heads = len(bias) // 2
        assert kernel[:3, :heads].all()
        assert not kernel[3:].any()
        assert not kernel[:, heads:].any()
        # Softmax does not see what is added to all scores of a query.
        assert name == "key" or bias[:heads].all()
        assert not bias[heads:].any()
    kernel = found["attention_output/kernel"]
    assert kernel[: len(kernel) // 2].all()
    assert not kernel[len(kernel) // 2 :].any()
    assert found["attention_output/bias"].all()


# Saving.


@each_class
@pytest.mark.parametrize(
    "arguments",
    [{}, {"query_parts": (4, 2), "percentages": (100, 50), "use_bias": False}],
)
def test_saving(cls, arguments, tmp_path):
    query, value, key = (keras.Input(s) for s in [(5, CHANNELS), (7, CHANNELS), (7, 4)])
    layer = cls(**SIZES[cls], **arguments)
    model = keras.Model([query, value, key], layer(query, value, key=key))
    x = [normal(2, *t.shape[1:]) for t in model.inputs]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[-1].get_config() == layer.get_config()
    for percentage in (100, 40):
        with percentage_scope(percentage):
            np.testing.assert_array_equal(*(to_numpy(m(x)) for m in (loaded, model)))


# Bad input.


@pytest.mark.backend_free
@each_class
def test_parts_that_do_not_fit(cls):
    with pytest.raises(ValueError, match=r"`query_parts` of layer 'layer' must sum up to the 6"):
        made(cls, {"query_parts": (4, 3)})
    with pytest.raises(ValueError, match=r"`value_parts` must be None or the numbers"):
        made(cls, {"value_parts": ()})
    with pytest.raises(ValueError, match=r"`key_parts` must be a positive integer"):
        made(cls, {"key_parts": (6, 0)})
    layer = made(cls, {"value_parts": (4, 2), "key_parts": (2, 4)})
    with pytest.raises(ValueError, match=r"without a key.*\(4, 2\), key_parts=\(2, 4\)"):
        layer(*inputs({}))


@pytest.mark.backend_free
@each_class
def test_what_is_refused_at_construction(cls):
    with pytest.raises(ValueError, match="does not run on a quantized dtype policy"):
        made(cls, {"dtype": "int8_from_float32"})
    with pytest.raises(ValueError, match="must be distinct"):
        made(cls, {"percentages": (50, 50)})
    refused = {"num_heads": 0} if cls is IDPMultiHeadAttention else {"num_query_heads": 3}
    messages = []
    for c in (cls, STOCK[cls]):
        with pytest.raises(ValueError, match="num_") as error:
            made(c, {}, {**SIZES[cls], **refused})
        messages.append(str(error.value))
    assert messages[0] == messages[1]
