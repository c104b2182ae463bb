"""Attention with heads: channels and heads are left out, in whole networks, too."""

import re

import keras
import numpy as np
import pytest
from keras import layers

import keras_tesla as kt
from keras_tesla.analysis.cost import multiply_adds
from keras_tesla.graph import read
from keras_tesla.layers import IDPDense, IDPGroupQueryAttention, IDPMultiHeadAttention
from keras_tesla.narrowing import executor
from keras_tesla.narrowing.live import LivePlan
from keras_tesla.narrowing.narrowest import narrowest_percentages
from keras_tesla.narrowing.plan import narrow
from tests.kinds.networks import image, inputs_of, randomized, width

to_numpy = keras.ops.convert_to_numpy

ATTENTION = {
    "multi_head": lambda **a: layers.MultiHeadAttention(4, 8, dropout=0.1, **a),
    "group_query": lambda **a: layers.GroupQueryAttention(8, 4, 2, **a),
}
each_attention = pytest.mark.parametrize("attention", ATTENTION.values(), ids=ATTENTION)


def vit(attention, depth=2, positions=True, normalization=layers.BatchNormalization):
    """A small vision transformer on 16 patches, with its usual residual sums."""
    inputs = keras.Input((16, 12))
    x = layers.Dense(32, name="embed")(inputs)
    if positions:
        x = x + np.random.default_rng(0).normal(size=(16, 32)).astype("float32")
    for i in range(depth):
        y = normalization()(x)
        x = layers.Add()([x, attention(name=f"attention_{i}")(y, y)])
        y = layers.Dense(64, activation="gelu", name=f"up_{i}")(normalization()(x))
        x = layers.Add()([x, layers.Dense(32)(y)])
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


def shapes(model, name):
    """{projection: shape of its kernel} of an attention layer."""
    found = (v for v in model.get_layer(name).weights if v.name == "kernel")
    return {v.path.split("/")[-2]: tuple(v.shape) for v in found}


@each_attention
def test_a_vision_transformer(attention, check):
    """Residual stream, heads and hidden layers all shrink."""
    model = kt.to_idp(vit(attention), percentages=(100, 50, 25))
    costs = {p: multiply_adds(check(model, p)) for p in (100, 50, 25)}
    assert costs[50] <= 0.32 * costs[100]
    assert costs[25] < 0.15 * costs[100]
    small = check(model, 50)
    assert width(small, "embed") == 16
    kv = 2 if attention is ATTENTION["multi_head"] else 1
    assert shapes(small, "attention_1") == {
        "query": (16, 2, 8),
        "key": (16, kv, 8),
        "value": (16, kv, 8),
        "attention_output": (2, 8, 16),
    }


@each_attention
def test_the_summary_counts_what_the_plain_model_has(attention):
    tesla = kt.TESLA(kt.to_idp(vit(attention, 1), percentages=(100, 50)))
    lines: list[str] = []
    kt.analysis.summary(tesla, print_fn=lines.append)
    totals = re.findall(r"Total +([\d,]+) +([\d,]+)", lines[0])
    for column, percentage in enumerate((100, 50)):
        plain = tesla.at(percentage)
        expected = [multiply_adds(plain), plain.count_params()]
        assert [int(t[column].replace(",", "")) for t in totals[:2]] == expected


def test_query_key_and_value_of_their_own(check):
    x = [keras.Input((n, 5)) for n in (5, 7, 7)]
    wide = [layers.Dense(n, name=f"in_{n}")(t) for t, n in zip(x, (8, 12, 6), strict=True)]
    y = IDPMultiHeadAttention(4, 3, output_shape=10, name="attention")(*wide)
    small = check(keras.Model(x, IDPDense(3)(y)))
    assert [width(small, f"in_{n}") for n in (8, 12, 6)] == [4, 6, 3]
    assert shapes(small, "attention") == {
        "query": (4, 2, 3),
        "key": (3, 2, 3),
        "value": (6, 2, 3),
        "attention_output": (2, 3, 5),
    }


@pytest.mark.parametrize("cls", [IDPMultiHeadAttention, IDPGroupQueryAttention])
def test_a_call_that_returns_scores_uses_all_heads(cls, check):
    sizes = {"num_heads": 4, "key_dim": 3} if cls is IDPMultiHeadAttention else {}
    layer = cls(**(sizes or {"head_dim": 3, "num_query_heads": 4, "num_key_value_heads": 2}))
    x = image(1)
    y = layers.Dense(8, name="wide")(x)
    y, scores = layer(y, y, return_attention_scores=True)
    small = check(keras.Model(x, [IDPDense(3)(y), scores]))
    assert width(small) == 4
    assert small.outputs[1].shape[1] == 4


# Keras' grouped attention does not take the masks off before it projects.
@pytest.mark.filterwarnings("ignore:Layer '(query|key|value)'")
@each_attention
def test_masks_and_causality(attention, check):
    x = keras.Input((6,))
    ids = keras.ops.cast(keras.ops.abs(x), "int32")
    y = layers.Embedding(9, 8, mask_zero=True, name="wide")(ids)
    model = keras.Model(x, layers.Dense(3)(attention()(y, y, use_causal_mask=True)))
    assert width(check(kt.to_idp(model, percentages=(100, 50)))) == 4


def test_an_output_of_more_channels_than_are_read(check):
    """Keras' grouped attention returns what it reads: the others are read with zeros."""
    x = image(1)
    y = layers.Dense(8, name="wide")(x)
    layer = IDPGroupQueryAttention(3, 4, 2, query_parts=(4, 4), name="attention")
    small = check(keras.Model(x, layer(y, y)))
    assert width(small) == 8
    kernel = to_numpy(small.get_layer("attention")._query_dense.kernel)
    assert kernel.any((1, 2)).tolist() == [True, True, False, False] * 2


def test_gradients(check_gradients):
    x = image(1)
    y = layers.Dense(8, name="wide")(x)
    # Without biases: what is added to all scores of a query has a gradient of rounding only.
    layer = IDPMultiHeadAttention(4, 3, name="attention", use_gate=True, use_bias=False)
    y = y + layer(y, y)
    found = check_gradients(keras.Model(x, IDPDense(3)(y)))
    assert found["wide/kernel"][:, :4].all()
    assert not found["wide/kernel"][:, 4:].any()
    assert not found["attention/query/kernel"][:, 2:].any()
    assert not found["attention/attention_output/kernel"][..., 4:].any()


def test_parts_of_a_concatenation(check):
    x = image(1)
    a, b = (layers.Dense(n, name=f"branch_{n}")(x) for n in (8, 4))
    y = layers.Concatenate()([a, b])
    y = layers.MultiHeadAttention(2, 3, name="attention")(y, y)
    converted = kt.to_idp(keras.Model(x, layers.Dense(3)(y)), percentages=(100, 50))
    layer = converted.get_layer("attention")
    assert layer.query_parts == layer.value_parts == layer.key_parts == (8, 4)
    small = check(converted)
    assert (width(small, "branch_8"), width(small, "branch_4")) == (4, 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda y: layers.MultiHeadAttention(2, 3, output_shape=(2, 4))(y, y),
        lambda y: layers.MultiHeadAttention(2, 3, activity_regularizer="l2")(y, y),
        lambda y: layers.GroupQueryAttention(3, 4, 2, activity_regularizer="l2")(y, y),
    ],
)
def test_outputs_that_stay_whole(make, check):
    """Heads and the channels that are read shrink nevertheless."""
    x = image(1)
    y = make(layers.Dense(8, name="wide")(x))
    model = kt.to_idp(keras.Model(x, layers.Flatten()(y)), percentages=(100, 50))
    small = check(model)
    group = isinstance(small.layers[2], layers.GroupQueryAttention)
    assert small.layers[2].output.shape[1:] == y.shape[1:]
    assert width(small) == (8 if group else 4)


@pytest.mark.parametrize("axes", [1, 2, (1, 2)])
def test_attention_along_some_axes(axes, check):
    x = keras.Input((3, 4, 5))
    y = layers.Dense(8, name="wide")(x)
    y = layers.MultiHeadAttention(4, 2, attention_axes=axes, name="attention")(y, y)
    model = keras.Model(x, layers.Dense(2)(y))
    pairs = {1: 4 * 3 * 3, 2: 3 * 4 * 4, (1, 2): 12 * 12}[axes]
    attention = 12 * 4 * 8 * 8 + 4 * pairs * (2 + 2)
    assert multiply_adds(model) == 12 * 5 * 8 + attention + 12 * 8 * 2
    small = check(kt.to_idp(model, percentages=(100, 50)))
    attention = 12 * 4 * 4 * 4 + 2 * pairs * (2 + 2)
    assert multiply_adds(small) == 12 * 5 * 4 + attention + 12 * 4 * 2


def test_dropout_draws_the_same_numbers_narrowed():
    x = image(1)
    y = layers.Dense(8)(x)
    layer = IDPMultiHeadAttention(4, 3, dropout=0.5, seed=7)
    model = keras.Model(x, IDPDense(3)(layer(y, y)))
    live = LivePlan(narrow(read(model), 50))
    data = np.random.default_rng(0).normal(size=(2, *x.shape[1:])).astype("float32")
    seed = layer._dropout_layer.seed_generator.state
    start, found = to_numpy(seed), []
    for _ in range(2):
        inputs = executor.bind_inputs(live.plan.graph, data)
        values = live.run(inputs, live.plan.steps, lambda loss: None, training=True)
        found.append(to_numpy(executor.outputs_of(live.plan, values)))
    assert (found[0] != found[1]).any()
    end = to_numpy(seed)
    assert (start != end).any()
    seed.assign(start)
    for expected in found:
        with kt.percentage_scope(50):
            actual = to_numpy(model(data, training=True))
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(to_numpy(seed), end)


# Conversion.


def row_of(model, name="attention", **arguments):
    converted = kt.to_idp(model, percentages=(100, 50), **arguments)
    return next(row for row in converted.conversion_report if row.name == name)


def attending(wide=None, **arguments):
    x = image(1)
    y = (wide or layers.Dense(8))(x)
    layer = layers.MultiHeadAttention(2, 3, name="attention", **arguments)
    return keras.Model(x, layers.Dense(3)(layer(y, y)))


def test_the_report_says_what_is_left_out():
    row = row_of(attending())
    assert row.became == "IDPMultiHeadAttention"
    assert row.reason == "reads a part of its 8 input channels, uses a part of its heads"
    for arguments in ({"profile": "linear"}, {"trainable_profile": True}):
        assert row_of(attending(), **arguments).reason.endswith("its heads; has no profile")


def test_attention_of_the_inputs_of_the_model_is_kept():
    assert row_of(attending(layers.ReLU())).reason == "reads the model's inputs, which are kept"
    row = row_of(attending(layers.ReLU()), input_complete=False)
    assert row.became == "IDPMultiHeadAttention"


def test_lora_weights_are_refused():
    """Keras does not write them into the layer's config, so no copy has them."""
    model = attending()
    model.get_layer("attention").query_dense.enable_lora(2)
    with pytest.raises(ValueError, match="'attention'.*length 10.*expecting 8"):
        row_of(model)


def test_a_subclass_stays_whole(check):
    class Own(layers.MultiHeadAttention):
        pass

    x = image(1)
    y = layers.Dense(8, name="wide")(x)
    y = Own(2, 3, name="attention")(y, y)
    model = keras.Model(x, layers.Dense(3)(layers.Dense(8)(y)))
    converted = kt.to_idp(model, percentages=(100, 50), input_complete=False)
    assert type(converted.get_layer("attention")) is Own
    assert width(check(converted)) == 8


def test_the_flash_attention_of_the_layer_is_kept():
    model = attending(flash_attention=True)
    converted = kt.to_idp(model, percentages=(100, 50))
    for m in (converted, kt.TESLA(converted).at(50)):
        assert m.get_layer("attention")._flash_attention


@pytest.mark.slow
def test_training():
    """TESLA trains heads and channels, at the percentages of the layer."""
    model = kt.to_idp(attending(dropout=0.1), percentages=(100, 50))
    tesla = kt.TESLA(model)
    assert list(tesla.percentages) == [100, 50]
    tesla.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(8, *model.input_shape[1:])).astype("float32")
    before = to_numpy(model.get_layer("attention").query_dense.kernel)
    tesla.fit(x, x[..., :3], verbose=0, batch_size=4)
    after = to_numpy(model.get_layer("attention").query_dense.kernel)
    assert (before != after).all()
    with kt.percentage_scope(50):
        expected = to_numpy(model(x))
    np.testing.assert_allclose(to_numpy(tesla.at(50)(x)), expected, rtol=1e-5, atol=1e-5)


def test_attention_alone_can_be_trained():
    """The percentages are those of the attention layer, and it counts as an incomplete one."""
    model = kt.to_idp(attending(), percentages=(100, 40), skip=lambda x: x.name != "attention")
    assert list(kt.TESLA(model).percentages) == [100, 40]


def test_inside_of_another_layer_it_is_refused():
    class Hidden(layers.Layer):
        def __init__(self):
            super().__init__(name="hidden")
            self.attention = IDPMultiHeadAttention(2, 3)

        def call(self, x):
            return self.attention(x, x) if float(keras.ops.sum(x)) else x

        def compute_output_spec(self, x):
            return keras.KerasTensor(x.shape, x.dtype)

    x = keras.Input((6, 5))
    hidden = Hidden()
    hidden.attention.build((None, 6, 5), (None, 6, 5))
    with pytest.raises(ValueError, match=r"'hidden'.*contains the IDP layer"):
        kt.TESLA(keras.Model(x, IDPDense(3)(hidden(x))), percentages=(100, 50))


def test_quantization_aware_training_is_refused():
    model = kt.to_idp(attending(), percentages=(100, 50))
    with pytest.raises(ValueError, match=r"'attention' \(IDPMultiHeadAttention\) has no int8 form"):
        kt.quantization_aware(model, percentages=(100, 50))


# The order of channels and heads.


@each_attention
@pytest.mark.parametrize("before", [True, False])
def test_ordering_changes_no_output(attention, before):
    model = randomized(vit(attention, 1, positions=False))  # an array keeps its channels in order
    if not before:
        model = kt.to_idp(model, percentages=(100, 50))
    ordered = kt.order_channels(model)
    x = inputs_of(model)
    expected = to_numpy(model(x))
    np.testing.assert_allclose(
        to_numpy(ordered(x)), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()
    )
    if before and attention is ATTENTION["group_query"]:
        return  # as many outputs as inputs: ordered once it is incomplete
    old, new = (to_numpy(m.get_layer("embed").kernel) for m in (model, ordered))
    assert (np.sort(old, 1) == np.sort(new, 1)).all()
    assert (old != new).any()


def test_channels_are_ordered_by_all_that_reads_them():
    """The first ones are those with the largest weights in query, key and value."""
    x = image(1)
    a, b = (layers.Dense(n, name=f"in_{n}")(x) for n in (4, 6))
    y = layers.MultiHeadAttention(2, 3, name="attention")(a, b)
    model = randomized(keras.Model(x, layers.Dense(2, name="head")(y)))
    ordered = kt.order_channels(model)
    attention = ordered.get_layer("attention")

    def norms(*kernels):
        return sum(np.abs(to_numpy(kernel)).sum((1, 2)) for kernel in kernels)

    of_value = norms(attention.key_dense.kernel, attention.value_dense.kernel)
    for found in (norms(attention.query_dense.kernel), of_value):
        assert (np.diff(found) <= 0).all()
    heads = np.abs(to_numpy(attention.output_dense.kernel)).sum((1, 2))
    assert (np.diff(heads) <= 0).all()
    np.testing.assert_allclose(
        to_numpy(ordered(inputs_of(model))), to_numpy(model(inputs_of(model))), rtol=1e-4, atol=1e-4
    )


def test_heads_whose_scores_are_an_output_keep_their_order():
    x = image(1)
    y = layers.Dense(4)(x)
    outputs = layers.MultiHeadAttention(4, 3)(y, y, return_attention_scores=True)
    model = randomized(keras.Model(x, list(outputs)))
    ordered = kt.order_channels(model)
    for actual, expected in zip(ordered(inputs_of(model)), model(inputs_of(model)), strict=True):
        np.testing.assert_allclose(to_numpy(actual), to_numpy(expected), rtol=1e-4, atol=1e-4)


def test_own_percentages_of_the_weights():
    """Of each entry the narrowest percentage that reads it: by its own input, and by its head."""
    x = image(1)
    a, b, c = (layers.Dense(n)(x) for n in (8, 8, 4))
    layer = IDPMultiHeadAttention(4, 3, query_parts=(8,), value_parts=(8, 4), key_parts=(8, 4))
    y = layer(a, layers.Concatenate()([b, c]))
    graph = read(keras.Model(x, IDPDense(3)(y)))
    found = narrowest_percentages([narrow(graph, p) for p in (100, 50)])
    rows = {"query": [4, 4], "value": [4, 4, 2, 2], "key": [4, 4, 2, 2]}
    for name, counts in rows.items():
        percentages = np.resize([50, 100], len(counts)).repeat(counts).tolist()
        axes = found[id(getattr(layer, f"_{name}_dense").kernel)]
        assert axes[0].tolist() == percentages
        assert axes[1].tolist() == [50, 50, 100, 100]
    assert found[id(layer._output_dense.kernel)][0].tolist() == [50, 50, 100, 100]


# In the layers of users.


class Block(layers.Layer):
    """A transformer block as people write it."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(4, units // 4, name="attention")
        self.up = layers.Dense(2 * units, activation="gelu", name="up")
        self.down = layers.Dense(units, name="down")

    def call(self, x, attention_mask=None):
        x = x + self.attention(x, x, attention_mask=attention_mask)
        return x + self.down(self.up(x))


def test_a_block_is_opened(check):
    x = keras.Input((6, 5))
    y = Block(8, name="block")(layers.Dense(8, name="wide")(x))
    converted = kt.to_idp(keras.Model(x, layers.Dense(3)(y)), percentages=(100, 50))
    assert IDPMultiHeadAttention in map(type, converted.layers)
    small = check(converted)
    assert width(small) == 4
    (attention,) = (v for v in small.layers if isinstance(v, layers.MultiHeadAttention))
    assert attention.num_heads == 2


def test_a_mask_that_is_an_input_is_read_whole(check):
    x, mask = keras.Input((6, 5)), keras.Input((6, 6))
    y = layers.Dense(8, name="wide")(x)
    allowed = mask > -1
    y = layers.MultiHeadAttention(4, 2)(attention_mask=allowed, key=y, value=y, query=y)
    converted = kt.to_idp(keras.Model([x, mask], layers.Dense(3)(y)), percentages=(100, 50))
    assert width(check(converted)) == 4
    kt.order_channels(converted)


@pytest.mark.parametrize("heads", [1, 4])
def test_a_mask_for_each_head_needs_all_of_them(heads, check):
    x, mask = keras.Input((6, 5)), keras.Input((heads, 6, 6))
    y = layers.Dense(8, name="wide")(x)
    y = layers.MultiHeadAttention(4, 2, name="attention")(y, y, attention_mask=mask > -1)
    model = randomized(keras.Model([x, mask], layers.Dense(3)(y)))
    small = check(kt.to_idp(model, percentages=(100, 50)))
    assert width(small) == 4
    assert small.get_layer("attention").num_heads == (4 if heads == 4 else 2)
    values = inputs_of(model)
    np.testing.assert_allclose(
        to_numpy(kt.order_channels(model)(values)), to_numpy(model(values)), rtol=1e-4, atol=1e-4
    )
