"""Layers as people write them: their `call` consists of other layers and of operations."""

import keras
from keras import layers, ops

from keras_tesla.layers import IDPBatchNormalization, IDPConv2D, IDPDense


class Scale(layers.Layer):
    """Weights of its own, on either side of an operator."""

    def build(self, shape):
        self.gamma = self.add_weight(shape=(shape[-1],), initializer="random_normal", name="gamma")
        self.shift = self.add_weight(shape=(1, shape[-1]), initializer="normal", name="shift")
        self.alpha = self.add_weight(shape=(), initializer="ones", name="alpha")

    def call(self, x):
        return self.gamma * x * self.alpha + self.shift


class Token(layers.Layer):
    """Operations on a weight before it meets the input."""

    def build(self, shape):
        self.token = self.add_weight(shape=(1, shape[-1]), initializer="normal", name="token")
        self.dense = layers.Dense(shape[-1], name="dense")
        self.dense.build(shape)

    def call(self, x):
        token = ops.reshape(ops.cast(self.token, x.dtype), (1, 1, -1))
        return self.dense(x) + ops.repeat(token, x.shape[1], axis=1)


class Perceptron(layers.Layer):
    """Two layers, of which the second can be incomplete, and dropout."""

    def __init__(self, units, outputs, first=layers.Dense, last=layers.Dense, **kwargs):
        super().__init__(**kwargs)
        self.first = first(units, activation="relu", name="dense")
        self.dropout = layers.Dropout(0.5, seed=3, name="dropout")
        self.last = last(outputs, name="out")
        self.units = units

    def build(self, shape):
        self.first.build(shape)
        self.last.build((*shape[:-1], self.units))

    def call(self, x, training=None):
        return self.last(self.dropout(self.first(x), training=training))


class Residual(layers.Layer):
    """Convolutions, batch normalization, a sum."""

    def __init__(self, filters, convolution=layers.Conv2D, norm=layers.BatchNormalization):
        super().__init__()
        self.convolutions = [convolution(filters, 3, padding="same") for _ in range(2)]
        self.norms = {"first": norm(), "second": norm()}
        self.relu = layers.ReLU()

    def build(self, shape):
        for layer in (*self.convolutions, *self.norms.values()):
            layer.build(shape)

    def call(self, x):
        y = self.relu(self.norms["first"](self.convolutions[0](x)))
        return self.relu(x + self.norms["second"](self.convolutions[1](y)))


class Mixer(layers.Layer):
    """MLP-Mixer: over positions, then over channels, with layers inside that consist of others."""

    def build(self, shape):
        _, positions, channels = shape
        self.of_positions = Perceptron(8, positions, name="of_positions")
        self.of_channels = Perceptron(8, channels, name="of_channels")
        self.norm = layers.LayerNormalization()
        self.of_positions.build((None, channels, positions))
        self.of_channels.build(shape)
        self.norm.build(shape)

    def call(self, x):
        y = ops.transpose(self.of_positions(ops.transpose(self.norm(x), (0, 2, 1))), (0, 2, 1))
        return self.of_channels(x + y)


class Encoder(layers.Layer):
    """A ViT encoder as KerasHub writes it, with a scale of its own."""

    def __init__(self, heads, hidden, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.hidden = heads, hidden
        self.supports_masking = True

    def build(self, shape):
        dim = shape[-1]
        self.norm1 = layers.LayerNormalization(epsilon=1e-5, name="norm1")
        self.norm1.build(shape)
        self.attention = layers.MultiHeadAttention(
            self.heads, dim // self.heads, dropout=0.2, seed=5
        )
        self.attention.build(shape, shape)
        self.norm2 = layers.LayerNormalization(epsilon=1e-5, name="norm2")
        self.norm2.build(shape)
        self.mlp = Perceptron(self.hidden, dim, name="mlp")
        self.mlp.build(shape)
        self.gamma = self.add_weight(shape=(dim,), initializer="ones", name="gamma")
        self.built = True

    def call(self, hidden_states, mask=None, training=None):
        x = self.norm1(hidden_states)
        x = self.attention(x, x, training=training) * self.gamma + hidden_states
        return x + self.mlp(self.norm2(x), training=training)


class Chain(layers.Layer):
    """Layers one after the other, times a weight; added to the input where it has their shape."""

    def __init__(self, *inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def build(self, shape):
        for layer in self.inner:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)
        self.gamma = self.add_weight(shape=shape[-1:], initializer="ones", name="gamma")

    def compute_output_shape(self, shape):
        for layer in self.inner:
            shape = layer.compute_output_shape(shape)
        return shape

    def call(self, x):
        y = x
        for layer in self.inner:
            y = layer(y)
        y = y * self.gamma
        return x + y if y.shape == x.shape else ops.tanh(y)


class Positions(layers.Layer):
    """An embedding of places, which are no input."""

    def __init__(self, count, dim):
        super().__init__()
        self.count = count
        self.projection, self.embedding = layers.Dense(dim), layers.Embedding(count, dim)

    def call(self, x):
        return self.projection(x) + self.embedding(ops.arange(self.count))


class Several(layers.Layer):
    """Several tensors in and out, and arguments that are no tensors."""

    def __init__(self):
        super().__init__()
        self.dense, self.other = layers.Dense(4), layers.Dense(4)

    def call(self, inputs, further, factor=1.0, flip=False):
        a, b = inputs
        sums = self.dense(a) * factor + self.other(further["c"])
        return {"first": sums, "rest": [b - sums if flip else b + sums, self.dense(b)]}


class Tied(layers.Layer):
    """A kernel of a layer, used by an operator, too."""

    def __init__(self, units=6):
        super().__init__()
        self.dense = layers.Dense(units, use_bias=False)

    def call(self, x):
        return ops.matmul(ops.relu(self.dense(x)), ops.transpose(self.dense.kernel))


def tokens(*blocks, features=6, positions=5, prefix=""):
    """input -> Dense -> the blocks -> Dense, on (positions, features)."""
    x = keras.Input((positions, features))
    y = layers.Dense(8, name=f"{prefix}wide")(x)
    for block in blocks:
        y = block(y)
    return keras.Model(x, layers.Dense(3, name=f"{prefix}head")(y))


def images(*blocks):
    """input -> Conv2D -> the blocks -> pooling -> Dense."""
    x = keras.Input((6, 6, 3))
    y = layers.Conv2D(8, 1, name="wide")(x)
    for block in blocks:
        y = block(y)
    return keras.Model(x, layers.Dense(3, name="head")(layers.GlobalAveragePooling2D()(y)))


def twice():
    block = Perceptron(8, 8)
    return tokens(block, Scale(), block)


def nested():
    return tokens(tokens(Perceptron(8, 6), features=8, prefix="inner_"), layers.Dense(8), Scale())


def several():
    a, b, c = (keras.Input((5,), name=name) for name in "abc")
    outputs = Several()(
        [layers.Dense(4)(a), layers.Dense(4)(b)], further={"c": c}, factor=0.5, flip=True
    )
    return keras.Model([a, b, c], [outputs["first"], *outputs["rest"]])


def in_a_subclassed_model():
    return tokens(Net(8))


class Net(keras.Model):
    def __init__(self, outputs):
        super().__init__()
        self.block, self.last = Perceptron(8, 8), layers.Dense(outputs)

    def call(self, x, training=None):
        return self.last(self.block(x, training=training))


# Functions that make a model; what each consists of can be seen.
MODELS = {
    "perceptron": lambda: tokens(Perceptron(8, 8)),
    "own weights": lambda: tokens(Scale(), Perceptron(8, 8)),
    "operations on a weight": lambda: tokens(Token(), Perceptron(8, 8)),
    "residual": lambda: images(Residual(8), Residual(8)),
    "mixer": lambda: tokens(Mixer(), Mixer()),
    "encoder": lambda: tokens(Encoder(2, 16), Encoder(2, 16)),
    "positions": lambda: tokens(Positions(5, 8), Perceptron(8, 8)),
    "several": several,
    "twice": twice,
    "in a nested model": nested,
    "in a subclassed model": in_a_subclassed_model,
}


def incomplete_perceptron(outputs=8):
    return Perceptron(16, outputs, first=IDPDense, last=IDPDense)


def incomplete_residual():
    return Residual(8, IDPConv2D, lambda: IDPBatchNormalization([100, 50]))


# The same with incomplete layers inside.
INCOMPLETE = {
    "perceptron": lambda: tokens(Scale(), incomplete_perceptron()),
    "residual": lambda: images(incomplete_residual(), incomplete_residual()),
    "twice": lambda: tokens(*[incomplete_perceptron()] * 2),
    "nested": lambda: tokens(
        tokens(incomplete_perceptron(), features=8, prefix="inner_"), IDPDense(8), Scale()
    ),
}
