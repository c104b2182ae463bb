"""Products of tensors: the heads of hand-written attention, and axes that are not summed up."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_tesla as kt
from keras_tesla.analysis.cost import multiply_adds
from keras_tesla.layers import IDPDense
from tests.kinds.networks import image, inputs_of, merging, randomized, wide, width

to_numpy = keras.ops.convert_to_numpy


def split(x, heads=4):
    """(T, C) -> (heads, T, size)"""
    return ops.transpose(layers.Reshape((x.shape[1], heads, -1))(x), (0, 2, 1, 3))


def joined(x):
    """(heads, T, size) -> (T, C)"""
    return layers.Reshape((x.shape[2], -1))(ops.transpose(x, (0, 2, 1, 3)))


def by_matmul(q, k, v):
    q, k, v = split(q), split(k), split(v)
    scores = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) / 2
    return joined(ops.matmul(layers.Dropout(0.5)(ops.softmax(scores, axis=-1)), v))


def masked(q, k, v):
    q, k, v = split(q), split(k), split(v)
    scores = ops.matmul(q, ops.swapaxes(k, -1, -2)) + np.triu(np.full((6, 6), -9, "float32"), 1)
    return joined(
        ops.softmax(ops.where(ops.mean(q, axis=-1) > 9, 0.0, 1.0)[..., None] * scores) @ v
    )


def by_einsum(q, k, v):
    q, k, v = (layers.Reshape((6, 4, 2))(x) for x in (q, k, v))
    scores = ops.softmax(ops.einsum("bthd,bshd->bhts", q, k))
    return layers.Reshape((6, 8))(ops.einsum("bhts,bshd->bthd", scores, v))


def by_layers(q, k, v):
    """Each head by a slice of the channels, as small examples do."""
    found = []
    for i in range(0, 8, 4):
        a, b, c = (x[..., i : i + 4] for x in (q, k, v))
        scores = layers.Softmax()(layers.Dot(axes=2)([a, b]))
        found.append(layers.Dot(axes=(2, 1))([scores, c]))
    return layers.Concatenate()(found)


def one_head(q, k, v):
    return ops.matmul(ops.softmax(ops.matmul(q, ops.transpose(k, (0, 2, 1)))), v)


# What attention is written with: at 100, 50 and 20 %, the channels of the query and of the value.
WAYS = {
    "matmul": (by_matmul, [(8, 8), (4, 4), (2, 2)]),
    "masked": (masked, [(8, 8), (4, 4), (2, 2)]),
    "einsum": (by_einsum, [(8, 8), (4, 4), (2, 2)]),
    "layers": (by_layers, [(8, 8), (4, 4), (4, 1)]),
    "one head": (one_head, [(8, 8), (8, 4), (8, 1)]),
}


def attention(way):
    x = image(1)
    # Softmax takes a bias of the keys away: its gradient would be rounding alone.
    q, k, v = (layers.Dense(8, use_bias=n != "key", name=n)(x) for n in ("query", "key", "value"))
    return keras.Model(x, IDPDense(3, name="head")(way(q, k, v)))


@pytest.mark.parametrize("name", WAYS)
def test_heads_that_are_read(name, check):
    way, widths = WAYS[name]
    found = [check(attention(way), p) for p in (100, 50, 20)]
    assert [(width(m, "query"), width(m, "value")) for m in found] == widths
    assert [width(m, "key") for m in found] == [q for q, _ in widths]


def packed(take):
    """Query, key and value of one Dense, by heads."""
    x = image(1)
    y = layers.Dense(24, name="wide")(x)
    q, k, v = take(layers.Reshape((6, 3, 4, 2))(y))
    scores = ops.softmax(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))))
    return keras.Model(x, IDPDense(3)(joined(ops.matmul(scores, v))))


def by_number(x):
    x = ops.transpose(x, (2, 0, 3, 1, 4))
    return x[0], x[1], x[2]


@pytest.mark.parametrize(
    "take",
    [
        by_number,
        lambda x: ops.unstack(ops.transpose(x, (2, 0, 3, 1, 4)), axis=0),
        lambda x: ops.unstack(ops.transpose(x, (0, 3, 2, 1, 4)), axis=2),
        lambda x: [
            ops.squeeze(y, 0) for y in ops.split(ops.transpose(x, (2, 0, 3, 1, 4)), 3, axis=0)
        ],
    ],
)
def test_query_key_and_value_of_one_layer(take, check):
    assert [width(check(packed(take), p)) for p in (100, 50, 20)] == [24, 12, 6]


@pytest.mark.parametrize(
    ("product", "widths"),
    [
        (lambda a, b: ops.einsum("btc,bsc->btsc", a, b)[:, :, 0], (4, 4)),
        (lambda a, b: ops.einsum("b...c,bsd->b...c", a, b), (4, 8)),
        (lambda a, b: ops.einsum("btc,bsd->btd", a, b), (8, 4)),
        (lambda a, b: ops.matmul(np.ones((6, 6), "float32"), a) + 0 * b, (4, 4)),
        (lambda a, b: ops.matmul(a, np.ones((8, 8), "float32")) + 0 * b, (8, 8)),
        (lambda a, b: ops.einsum("btc,bsc->bts", a, b), (8, 8)),
        (lambda a, b: ops.einsum("btt->bt", ops.einsum("btc,bsc->bts", a, b))[..., None], (8, 8)),
        (lambda a, b: layers.Dot(axes=1)([a, b]), (8, 4)),
        (lambda a, b: layers.Dot(axes=(1, 1), normalize=True)([a, b]), (8, 4)),
        (lambda a, b: layers.Dot(axes=1)([a[:, 0], b[:, 0]]), (8, 8)),
        (lambda a, b: ops.matmul(a[:, :1], ops.transpose(b, (0, 2, 1))), (8, 8)),
        (lambda a, b: ops.matmul(ops.transpose(a, (0, 2, 1)), b[:, :, :1])[..., 0], (4, 1)),
    ],
)
def test_axes_that_are_not_summed_up(product, widths, check):
    extracted = check(merging(product, rank=1))
    assert (width(extracted), width(extracted, "other")) == widths


@pytest.mark.parametrize("name", ["matmul", "one head"])
def test_gradients(name, check_gradients):
    check_gradients(attention(WAYS[name][0]))


def test_the_cost_of_products_falls_with_the_heads(check, capsys):
    model = attention(by_matmul)
    tesla = kt.TESLA(model, [100, 50])
    costs = [multiply_adds(tesla.at(p)) for p in (100, 50)]
    assert costs == [3 * 6 * 5 * 8 + 2 * 4 * 6 * 6 * 2 + 6 * 8 * 3, costs[0] // 2]
    kt.summary(tesla)
    total = next(line for line in capsys.readouterr().out.split("\n") if "Total" in line)
    assert [int(x.replace(",", "")) for x in total.split()[1:]] == costs


@pytest.mark.parametrize("name", ["matmul", "one head"])
def test_channels_are_ordered_or_keep_their_order(name):
    x = image(1)
    q, k, v = (layers.Dense(8, name=name)(x) for name in ("query", "key", "value"))
    model = randomized(keras.Model(x, layers.Dense(3)(WAYS[name][0](q, k, v))))
    ordered, x = kt.order_channels(model), inputs_of(model)
    # Float32 sums in another order.
    np.testing.assert_allclose(to_numpy(ordered(x)), to_numpy(model(x)), rtol=1e-4, atol=1e-5)


class Attention(layers.Layer):
    """As examples write it: layers and operations in one layer."""

    def __init__(self, channels, heads, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads
        self.projections = [layers.Dense(channels, name=name) for name in ("q", "k", "v", "o")]

    def build(self, shape):
        for layer in self.projections:
            layer.build(shape)

    def call(self, x):
        *qkv, out = self.projections
        shape = (-1, x.shape[1], self.heads, x.shape[2] // self.heads)
        q, k, v = (ops.transpose(ops.reshape(f(x), shape), (0, 2, 1, 3)) for f in qkv)
        scores = ops.softmax(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) / 3, axis=-1)
        y = ops.transpose(ops.matmul(scores, v), (0, 2, 1, 3))
        return out(ops.reshape(y, (-1, x.shape[1], x.shape[2])))


def test_an_own_layer_becomes_incomplete(check):
    x = image(1)
    y = wide(1)(x)
    y = y + Attention(8, 4, name="attention")(y)
    converted = kt.to_idp(keras.Model(x, layers.Dense(3)(y)), percentages=[100, 50])
    extracted = check(converted)
    assert width(extracted, "attention_q") == width(extracted, "attention_v") == 4
    assert multiply_adds(extracted) < 0.4 * multiply_adds(converted)
