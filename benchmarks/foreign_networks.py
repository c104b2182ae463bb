"""Networks as people write them, for `foreign_models.py`: small, untrained, of plain Keras.

`NETWORKS` has a function for each, which returns a `keras.Model`.
"""

import keras
import numpy as np
from keras import layers, ops


def _convolution(x, width, size=3, **arguments):
    x = layers.Conv2D(width, size, padding="same", use_bias=False, **arguments)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


# Images to images.


def unet():
    inputs = x = keras.Input((32, 32, 3))
    skips = []
    for width in (16, 32):
        x = _convolution(_convolution(x, width), width)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = _convolution(_convolution(x, 64), 64)
    for width in (32, 16):
        x = layers.Conv2DTranspose(width, 3, strides=2, padding="same")(x)
        x = layers.Concatenate()([skips.pop(), x])
        x = _convolution(_convolution(x, width), width)
    return keras.Model(inputs, layers.Conv2D(3, 1, activation="softmax")(x))


def deeplab():
    """An atrous pyramid, with the mean of the image, and one skip connection."""
    inputs = keras.Input((32, 32, 3))
    early = _convolution(inputs, 16, strides=2)
    x = _convolution(_convolution(early, 32, strides=2), 32)
    mean = layers.GlobalAveragePooling2D(keepdims=True)(x)
    mean = layers.UpSampling2D(8, interpolation="bilinear")(_convolution(mean, 32, 1))
    pyramid = [mean, _convolution(x, 32, 1)]
    pyramid += [_convolution(x, 32, dilation_rate=rate) for rate in (2, 4)]
    x = _convolution(layers.Concatenate()(pyramid), 32, 1)
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    x = _convolution(layers.Concatenate()([x, _convolution(early, 8, 1)]), 32)
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    return keras.Model(inputs, layers.Conv2D(5, 1)(x))


class DepthToSpace(layers.Layer):
    """Channels become pixels."""

    def __init__(self, block, **kwargs):
        super().__init__(**kwargs)
        self.block = block

    def call(self, x):
        _, height, width, channels = x.shape
        block, left = self.block, channels // self.block**2
        x = ops.reshape(x, (-1, height, width, block, block, left))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        return ops.reshape(x, (-1, height * block, width * block, left))

    def get_config(self):
        return {**super().get_config(), "block": self.block}


def espcn():
    inputs = x = keras.Input((16, 16, 1))
    for width, size in ((32, 5), (32, 3), (16, 3)):
        x = layers.Conv2D(width, size, padding="same", activation="relu")(x)
    x = layers.Conv2D(9, 3, padding="same")(x)
    return keras.Model(inputs, DepthToSpace(3)(x))


def enhancer_of_any_size():
    """Without a fixed height and width."""
    inputs = x = keras.Input((None, None, 3))
    for width in (32, 32):
        x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
    x = layers.Conv2D(3, 3, padding="same")(x)
    return keras.Model(inputs, layers.Add()([inputs, x]))


class ReflectionPadding(layers.Layer):
    """A pixel on each side, mirrored."""

    def call(self, x):
        return ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")


def cyclegan_generator():
    def normalized(x):
        return layers.ReLU()(layers.GroupNormalization(groups=-1)(x))

    inputs = keras.Input((32, 32, 3))
    x = normalized(layers.Conv2D(16, 3, use_bias=False)(ReflectionPadding()(inputs)))
    x = normalized(layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False)(x))
    for _ in range(2):
        y = normalized(layers.Conv2D(32, 3, use_bias=False)(ReflectionPadding()(x)))
        y = layers.Conv2D(32, 3, use_bias=False)(ReflectionPadding()(y))
        x = layers.Add()([x, layers.GroupNormalization(groups=-1)(y)])
    x = normalized(layers.Conv2DTranspose(16, 3, strides=2, padding="same", use_bias=False)(x))
    x = layers.Conv2D(3, 3, activation="tanh")(ReflectionPadding()(x))
    return keras.Model(inputs, x)


def dcgan_generator():
    inputs = keras.Input((32,))
    x = layers.Reshape((4, 4, 32))(layers.Dense(4 * 4 * 32)(inputs))
    for width in (64, 32):
        x = layers.LeakyReLU(0.2)(layers.Conv2DTranspose(width, 4, strides=2, padding="same")(x))
    return keras.Model(inputs, layers.Conv2D(3, 5, padding="same", activation="sigmoid")(x))


def dcgan_discriminator():
    inputs = x = keras.Input((32, 32, 3))
    for width in (32, 64, 64):
        x = layers.LeakyReLU(0.2)(layers.Conv2D(width, 4, strides=2, padding="same")(x))
    x = layers.Dropout(0.2)(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))


class Sampling(layers.Layer):
    """Draws from a normal distribution of each example."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, inputs):
        mean, log_variance = inputs
        noise = keras.random.normal(ops.shape(mean), seed=self.seed_generator)
        return mean + ops.exp(0.5 * log_variance) * noise


def vae_encoder():
    """Ends in a layer that draws random numbers, which no file can agree with."""
    mean, log_variance, inputs = _encoded()
    return keras.Model(inputs, [mean, log_variance, Sampling(name="z")([mean, log_variance])])


def vae_encoder_without_sampling():
    mean, log_variance, inputs = _encoded()
    return keras.Model(inputs, [mean, log_variance])


def _encoded():
    inputs = x = keras.Input((28, 28, 1))
    for width in (32, 64):
        x = layers.Conv2D(width, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Dense(16, activation="relu")(layers.Flatten()(x))
    return layers.Dense(2, name="mean")(x), layers.Dense(2, name="log_variance")(x), inputs


def vae_decoder():
    inputs = keras.Input((2,))
    x = layers.Reshape((7, 7, 64))(layers.Dense(7 * 7 * 64, activation="relu")(inputs))
    for width in (64, 32):
        x = layers.Conv2DTranspose(width, 3, strides=2, padding="same", activation="relu")(x)
    return keras.Model(inputs, layers.Conv2DTranspose(1, 3, padding="same")(x))


# Images to classes.


def convmixer():
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(64, 2, strides=2, activation="gelu")(layers.Rescaling(1 / 255)(inputs))
    x = layers.BatchNormalization()(x)
    for _ in range(3):
        y = layers.DepthwiseConv2D(5, padding="same", activation="gelu")(x)
        x = layers.Add()([layers.BatchNormalization()(y), x])
        x = layers.BatchNormalization()(layers.Conv2D(64, 1, activation="gelu")(x))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def _patches(inputs, width, size=8):
    x = layers.Conv2D(width, size, strides=size)(inputs)
    return layers.Reshape((-1, width))(x)


def _perceptron(x, hidden):
    width = x.shape[-1]
    return layers.Dense(width)(layers.Dense(hidden, activation="gelu")(x))


class MixerBlock(layers.Layer):
    """A perceptron over the patches, then one over the channels."""

    def __init__(self, patches, width, **kwargs):
        super().__init__(**kwargs)
        self.patches, self.width = patches, width
        self.over_patches = keras.Sequential(
            [layers.Dense(2 * patches, activation="gelu"), layers.Dense(patches)]
        )
        self.over_channels = keras.Sequential(
            [layers.Dense(2 * width, activation="gelu"), layers.Dense(width)]
        )
        self.normalizations = [layers.LayerNormalization(), layers.LayerNormalization()]

    def build(self, shape):
        self.over_patches.build((None, self.width, self.patches))
        self.over_channels.build((None, self.patches, self.width))
        for normalization in self.normalizations:
            normalization.build(shape)

    def call(self, x):
        y = ops.transpose(self.normalizations[0](x), (0, 2, 1))
        x = x + ops.transpose(self.over_patches(y), (0, 2, 1))
        return x + self.over_channels(self.normalizations[1](x))

    def get_config(self):
        return {**super().get_config(), "patches": self.patches, "width": self.width}


def mlp_mixer():
    inputs = keras.Input((32, 32, 3))
    x = _patches(inputs, 64)
    for _ in range(2):
        x = MixerBlock(16, 64)(x)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(10)(x))


class Positions(layers.Layer):
    """Adds what is learned of each position."""

    def build(self, shape):
        self.embedding = self.add_weight(shape=shape[1:], name="embedding")

    def call(self, x):
        return x + self.embedding


def _encoder(x, heads=2):
    y = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(heads, x.shape[-1] // heads)(y, y)])
    return layers.Add()([x, _perceptron(layers.LayerNormalization()(x), 2 * x.shape[-1])])


def vit():
    inputs = keras.Input((32, 32, 3))
    x = Positions()(_patches(inputs, 32))
    for _ in range(2):
        x = _encoder(x)
    x = layers.Flatten()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(10)(_perceptron(x, 64)))


class SequencePooling(layers.Layer):
    """A mean over positions, with learned weights."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.Dense(1)

    def build(self, shape):
        self.attention.build(shape)

    def call(self, x):
        weights = ops.softmax(self.attention(x), axis=1)
        return ops.squeeze(ops.matmul(ops.transpose(weights, (0, 2, 1)), x), 1)


def compact_transformer():
    inputs = x = keras.Input((32, 32, 3))
    for width in (32, 64):
        x = layers.MaxPooling2D(3, 2, padding="same")(layers.Conv2D(width, 3, activation="relu")(x))
    x = Positions()(layers.Reshape((-1, 64))(x))
    for _ in range(2):
        x = _encoder(x)
    x = SequencePooling()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(10)(x))


def siamese():
    """Two pictures through one network, and the squared distance of what comes out."""
    x = inputs = keras.Input((28, 28, 1))
    for width in (16, 32):
        x = layers.MaxPooling2D()(layers.Conv2D(width, 5, activation="tanh")(x))
    x = layers.BatchNormalization()(layers.Dense(64, activation="tanh")(layers.Flatten()(x)))
    embed = keras.Model(inputs, layers.Dense(32)(x), name="embed")
    a, b = keras.Input((28, 28, 1), name="a"), keras.Input((28, 28, 1), name="b")
    distance = ops.sum(ops.square(embed(a) - embed(b)), axis=-1, keepdims=True)
    return keras.Model([a, b], layers.Dense(1, activation="sigmoid")(distance))


# Sound, series and points.


def keywords():
    """A keyword spotter: convolutions over a spectrogram, then a GRU over time."""
    inputs = keras.Input((40, 32))
    x = layers.Conv1D(64, 5, padding="same", activation="relu")(inputs)
    x = layers.BatchNormalization()(layers.MaxPooling1D()(x))
    x = layers.Dense(32, activation="relu")(layers.GRU(32)(x))
    return keras.Model(inputs, layers.Dense(12)(x))


def wavenet():
    """Gated causal convolutions, dilated, with skip connections to the end."""
    inputs = keras.Input((128, 1))
    x = layers.Conv1D(32, 2, padding="causal")(inputs)
    skips = []
    for rate in (1, 2, 4, 8):
        filtered = layers.Conv1D(32, 2, padding="causal", dilation_rate=rate, activation="tanh")(x)
        gate = layers.Conv1D(32, 2, padding="causal", dilation_rate=rate, activation="sigmoid")(x)
        gated = layers.Multiply()([filtered, gate])
        skips.append(layers.Conv1D(32, 1)(gated))
        x = layers.Add()([x, layers.Conv1D(32, 1)(gated)])
    x = layers.Conv1D(32, 1, activation="relu")(layers.ReLU()(layers.Add()(skips)))
    return keras.Model(inputs, layers.Conv1D(16, 1)(x))


def series_convolutions():
    inputs = x = keras.Input((64, 4))
    for width, size in ((32, 8), (64, 5), (32, 3)):
        x = layers.Conv1D(width, size, padding="same")(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    return keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling1D()(x)))


def series_transformer():
    inputs = x = keras.Input((32, 8))
    for _ in range(2):
        x = _encoder(x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(5)(layers.Dense(64, activation="relu")(x)))


def series_lstm():
    inputs = keras.Input((24, 6))
    x = layers.LSTM(32, return_sequences=True)(inputs)
    x = layers.Dense(32, activation="relu")(layers.LSTM(16)(x))
    return keras.Model(inputs, layers.Dense(1)(x))


def series_autoencoder():
    inputs = x = keras.Input((32, 1))
    for width in (32, 16):
        x = layers.Conv1D(width, 7, strides=2, padding="same", activation="relu")(x)
    for width in (16, 32):
        x = layers.Conv1DTranspose(width, 7, strides=2, padding="same", activation="relu")(x)
    return keras.Model(inputs, layers.Conv1DTranspose(1, 7, padding="same")(x))


def pointnet():
    """A transform of the points, learned, and perceptrons that each point shares."""

    def shared(x, width):
        return layers.ReLU()(layers.BatchNormalization()(layers.Conv1D(width, 1)(x)))

    inputs = keras.Input((64, 3))
    t = layers.GlobalMaxPooling1D()(shared(shared(inputs, 32), 64))
    t = layers.Dense(9, bias_initializer=keras.initializers.Constant(np.eye(3).ravel()))(t)
    x = layers.Dot(axes=(2, 1))([inputs, layers.Reshape((3, 3))(t)])
    x = layers.GlobalMaxPooling1D()(shared(shared(x, 32), 128))
    x = layers.Dropout(0.3)(layers.Dense(64, activation="relu")(x))
    return keras.Model(inputs, layers.Dense(10)(x))


# Tables and text.


def tabular_with_lookups():
    color = keras.Input((1,), dtype="string", name="color")
    size = keras.Input((1,), dtype="int64", name="size")
    numbers = keras.Input((3,), name="numbers")
    encoded = [
        layers.StringLookup(vocabulary=["r", "g", "b"], output_mode="one_hot")(color),
        layers.IntegerLookup(vocabulary=[36, 38, 40], output_mode="one_hot")(size),
        layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 9.0])(numbers),
    ]
    x = layers.Dense(64, activation="relu")(layers.Concatenate()(encoded))
    x = layers.Dense(32, activation="relu")(layers.Dropout(0.5)(x))
    return keras.Model(
        {"color": color, "size": size, "numbers": numbers}, layers.Dense(1, "sigmoid")(x)
    )


def wide_and_deep():
    ids, numbers = keras.Input((2,), dtype="int32", name="ids"), keras.Input((4,), name="numbers")
    x = layers.Concatenate()([layers.Flatten()(layers.Embedding(50, 8)(ids)), numbers])
    deep = x
    for width in (64, 64):
        deep = layers.ReLU()(layers.BatchNormalization()(layers.Dense(width)(deep)))
    x = layers.Concatenate()([layers.BatchNormalization()(x), deep])
    return keras.Model([ids, numbers], layers.Dense(3, activation="softmax")(x))


def text_convolutions():
    """Token ids in floats, as they come without a `dtype` of the input."""
    inputs = keras.Input((40,))
    x = layers.Dropout(0.5)(layers.Embedding(500, 32)(inputs))
    for _ in range(2):
        x = layers.Conv1D(64, 7, strides=3, activation="relu")(x)
    x = layers.Dense(64, activation="relu")(layers.GlobalMaxPooling1D()(x))
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))


def text_from_strings():
    inputs = keras.Input((1,), dtype="string", name="text")
    vectorize = layers.TextVectorization(
        vocabulary=["a", "few", "words", "of", "text"], output_sequence_length=16
    )
    x = layers.Embedding(7, 32)(vectorize(inputs))
    x = layers.GlobalAveragePooling1D()(layers.Conv1D(64, 3, activation="relu")(x))
    return keras.Model(inputs, layers.Dense(2)(layers.Dense(64, activation="relu")(x)))


def two_heads():
    inputs = keras.Input((32, 32, 3))
    x = _convolution(_convolution(inputs, 16, strides=2), 32, strides=2)
    x = layers.GlobalAveragePooling2D()(_convolution(x, 64))
    boxes = layers.Dense(4, name="boxes")(layers.Dense(32, activation="relu")(x))
    classes = layers.Dense(5, activation="softmax", name="classes")(x)
    return keras.Model(inputs, {"boxes": boxes, "classes": classes})


NETWORKS = {
    f.__name__: f
    for f in (
        *(unet, deeplab, espcn, enhancer_of_any_size, cyclegan_generator, dcgan_generator),
        *(dcgan_discriminator, vae_encoder, vae_encoder_without_sampling, vae_decoder),
        *(convmixer, mlp_mixer, vit, compact_transformer, siamese, two_heads),
        *(keywords, wavenet, series_convolutions, series_transformer, series_lstm),
        *(series_autoencoder, pointnet, tabular_with_lookups, wide_and_deep),
        *(text_convolutions, text_from_strings),
    )
}
# Of networks with open dimensions: the shapes that they are exported with.
INPUT_SHAPES = {"enhancer_of_any_size": (16, 16, 3)}
