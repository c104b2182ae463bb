"""Multiply-adds, by hand."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_tesla import graph
from keras_tesla.analysis.cost import multiply_adds, not_counted
from keras_tesla.extraction import extract
from keras_tesla.kinds.registry import multiply_adds_of
from keras_tesla.layers import IDPDense
from keras_tesla.narrowing.plan import narrow


def model_of(shape, *stack):
    return keras.Sequential([keras.Input(shape), *stack])


@pytest.mark.parametrize(
    ("shape", "layer", "expected"),
    [
        ((784,), layers.Dense(10), 784 * 10),
        ((784,), layers.Dense(10, use_bias=False, activation="relu"), 784 * 10),
        ((5, 7), layers.Dense(3), 5 * 7 * 3),
        ((9, 4), layers.Conv1D(6, 3), 7 * 3 * 4 * 6),
        ((9, 4), layers.Conv1D(6, 3, padding="causal"), 9 * 3 * 4 * 6),
        ((8, 8, 3), layers.Conv2D(16, 3), 6 * 6 * 3 * 3 * 3 * 16),
        ((8, 8, 3), layers.Conv2D(16, 3, padding="same"), 8 * 8 * 3 * 3 * 3 * 16),
        ((8, 8, 3), layers.Conv2D(16, (3, 1), strides=2), 3 * 4 * 3 * 3 * 16),
        ((8, 8, 4), layers.Conv2D(16, 1, groups=2), 8 * 8 * 2 * 16),
        ((8, 8, 3), layers.Conv2D(5, 3, dilation_rate=2), 4 * 4 * 3 * 3 * 3 * 5),
        ((3, 8, 8), layers.Conv2D(16, 3, data_format="channels_first"), 6 * 6 * 9 * 3 * 16),
        ((4, 5, 6, 2), layers.Conv3D(3, 2), 3 * 4 * 5 * 8 * 2 * 3),
        ((8, 8, 3), layers.DepthwiseConv2D(3), 6 * 6 * 9 * 3),
        ((8, 8, 3), layers.DepthwiseConv2D(3, depth_multiplier=2), 6 * 6 * 9 * 3 * 2),
        ((3, 8, 8), layers.DepthwiseConv2D(3, data_format="channels_first"), 6 * 6 * 9 * 3),
        ((9, 4), layers.DepthwiseConv1D(3), 7 * 3 * 4),
        ((5, 7), layers.EinsumDense("abc,cd->abd", (None, 3)), 5 * 7 * 3),
        ((5, 7), layers.EinsumDense("...c,cde->...de", (3, 2)), 5 * 7 * 3 * 2),
        ((5, 6), layers.SimpleRNN(4), 5 * (6 + 4) * 4),
        ((5, 6), layers.GRU(4), 5 * 3 * (6 + 4) * 4),
        ((5, 6), layers.LSTM(4, return_sequences=True), 5 * 4 * (6 + 4) * 4),
        ((5, 6), layers.RNN(layers.LSTMCell(4)), 5 * 4 * (6 + 4) * 4),
        ((5, 6), layers.Bidirectional(layers.GRU(4)), 2 * 5 * 3 * (6 + 4) * 4),
        ((5, 6), layers.TimeDistributed(layers.Dense(4)), 5 * 6 * 4),
        ((5, 8, 8, 3), layers.TimeDistributed(layers.Conv2D(4, 3)), 5 * 6 * 6 * 9 * 3 * 4),
        # Four gates, each with a kernel on the 3 channels and one on the 2 of the state.
        ((5, 8, 8, 3), layers.ConvLSTM2D(2, 3), 5 * 6 * 6 * 4 * 2 * 9 * (3 + 2)),
        (
            (5, 3, 8, 8),
            layers.ConvLSTM2D(2, 3, data_format="channels_first"),
            5 * 6 * 6 * 4 * 2 * 9 * (3 + 2),
        ),
        ((8, 8, 3), layers.BatchNormalization(), 0),
        ((8, 8, 3), layers.LayerNormalization(), 0),
        ((8, 8, 3), layers.MaxPooling2D(), 0),
    ],
)
def test_one_layer(shape, layer, expected):
    assert multiply_adds(model_of(shape, layer)) == expected


# Queries of 5 steps and 8 features; keys and values of 6 steps and 10 features.
PROJECTED = 5 * 8 * 12 + 6 * 10 * 12 + 6 * 10 * 9 + 5 * 9 * 8  # in 3 heads of 4, values of 3

TWO_TENSORS = {
    "MultiHeadAttention": (
        lambda q, v: layers.MultiHeadAttention(3, key_dim=4, value_dim=3)(q, v),
        PROJECTED + 3 * 5 * 6 * (4 + 3),
    ),
    "by keyword": (
        lambda q, v: layers.MultiHeadAttention(3, key_dim=4, value_dim=3)(query=q, value=v),
        PROJECTED + 3 * 5 * 6 * (4 + 3),
    ),
    "a name with 'key' in it": (
        lambda q, v: layers.MultiHeadAttention(3, 4, value_dim=3, name="key_attention")(q, v),
        PROJECTED + 3 * 5 * 6 * (4 + 3),
    ),
    "GroupQueryAttention": (
        # Four heads of queries and two of keys and of values, all of 4.
        lambda q, v: layers.GroupQueryAttention(4, 4, 2)(q, v[..., :8]),
        2 * 5 * 8 * 16 + 2 * 6 * 8 * 8 + 4 * 5 * 6 * (4 + 4),
    ),
    "Attention": (
        lambda q, v: layers.Attention()([layers.Dense(10)(q), v]),
        5 * 8 * 10 + 5 * 6 * (10 + 10),
    ),
    "Dot": (
        lambda q, v: layers.Dot(axes=-1)([layers.Dense(10)(q), v]),
        5 * 8 * 10 + 5 * 6 * 10,
    ),
    "matmul": (lambda q, v: ops.matmul(v[:, :5, :5], q), 5 * 5 * 8),
    "einsum": (lambda q, v: ops.einsum("bqc,bkd->bqkcd", q, v), 5 * 8 * 6 * 10),
    "einsum of a sum": (lambda q, v: ops.einsum("bqc,bkc->bqk", q, v[..., :8]), 5 * 8 * 6),
}


@pytest.mark.parametrize("name", TWO_TENSORS)
def test_of_two_tensors(name):
    make, expected = TWO_TENSORS[name]
    q, v = keras.Input((5, 8)), keras.Input((6, 10))
    assert multiply_adds(keras.Model([q, v], make(q, v))) == expected


def test_a_product_with_an_array():
    x = keras.Input((5, 8))
    model = keras.Model(x, ops.tensordot(x, np.ones((8, 3), "float32"), axes=1))
    assert multiply_adds(model) == 5 * 8 * 3


class Doubled(layers.Dense):
    """A Dense that does something besides: it costs what its class costs."""

    def call(self, inputs, training=None):
        return 2 * super().call(inputs)


class Constant(layers.Dense):
    """A Dense without its kernel."""

    def build(self, input_shape):
        self.value = self.add_weight(shape=(self.units,))

    def call(self, inputs, training=None):
        return 0 * inputs[..., :1] + self.value


@pytest.mark.parametrize(("layer", "expected"), [(Doubled(5), 7 * 5), (Constant(5), 0)])
def test_a_subclass_multiplies_by_the_kernel_that_it_has(layer, expected):
    assert multiply_adds(model_of((7,), layer)) == expected


class Unknown(layers.Layer):
    def call(self, x):
        return 2 * x

    def compute_output_shape(self, input_shape):
        return input_shape


@pytest.mark.parametrize(
    "inside", [keras.Sequential([keras.Input((8,)), layers.Dense(4)]), Unknown()]
)
def test_what_nobody_can_count_inside_a_wrapper_is_not_known(inside):
    (call,) = graph.read(model_of((5, 8), layers.TimeDistributed(inside))).calls
    assert multiply_adds_of(call) is None


def test_layers_add_up():
    model = model_of((784,), layers.Dense(512, "relu"), layers.Dropout(0.5), layers.Dense(10))
    assert multiply_adds(model) == 784 * 512 + 512 * 10


def test_a_layer_called_twice_counts_twice():
    a, b = keras.Input((4,)), keras.Input((4,))
    dense = layers.Dense(3)
    assert multiply_adds(keras.Model([a, b], [dense(a), dense(b)])) == 2 * 4 * 3


def test_nested_models_count():
    inner = model_of((4,), layers.Dense(4))
    x = keras.Input((4,))
    assert multiply_adds(keras.Model(x, layers.Dense(2)(inner(inner(x))))) == 2 * 16 + 8


class Own(layers.Layer):
    def call(self, x):
        return ops.matmul(x, ops.ones((4, 4)))

    def compute_mask(self, inputs, previous_mask=None):
        return previous_mask  # a layer that decides on masks is not opened


def test_what_is_not_counted_is_named_once():
    own = Own(name="own")
    x = keras.Input((4,))
    y = own(layers.Dense(4)(own(x)))
    model = keras.Model(x, layers.Lambda(ops.tanh, name="lambda")(y))
    assert not_counted(model) == ["own", "lambda"]
    assert multiply_adds(model) == 4 * 4
    assert not_counted(model_of((4,), layers.Dense(4), layers.ReLU())) == []


@pytest.mark.parametrize(("percentage", "expected"), [(100, 6 * 10 + 10 * 4), (50, 6 * 5 + 5 * 4)])
def test_of_an_extracted_model(percentage, expected):
    model = model_of((6,), layers.Dense(10, "relu"), IDPDense(4))
    assert multiply_adds(extract(narrow(graph.read(model), percentage), "small")) == expected


@pytest.mark.parametrize(
    ("shape", "layer"),
    [
        ((None, 8, 3), layers.Conv2D(4, 3, name="late")),
        ((None, 5), layers.Dense(4, name="late")),
        ((None, 5), layers.LSTM(4, name="late")),
        ((3, None, None), layers.Conv2D(4, 1, data_format="channels_first", name="late")),
    ],
)
def test_unknown_dimensions(shape, layer):
    with pytest.raises(ValueError, match=r"of layer 'late' depend on a dimension .* full shape"):
        multiply_adds(model_of(shape, layer))


def test_unknown_dimensions_that_no_dot_product_sees():
    x = keras.Input((None, 5))
    model = keras.Model(x, layers.Dense(4)(layers.GlobalMaxPooling1D()(x)))
    assert multiply_adds(model) == 20


@pytest.mark.parametrize("bad", [None, keras.layers.Dense(3)])
def test_only_models_have_a_cost(bad):
    with pytest.raises(ValueError, match="must be a Functional or Sequential one"):
        multiply_adds(bad)


def test_not_built():
    with pytest.raises(ValueError, match="is not built"):
        multiply_adds(keras.Sequential([layers.Dense(3)]))
