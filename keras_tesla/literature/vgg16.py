"""VGG-16 for 32x32 images, as in the papers."""

import keras
from keras import layers

from keras_tesla.layers import IDPBatchNormalization, IDPConv2D, IDPDense

# Filters of the convolutions of each block; a pool follows each block.
_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg16(
    classes,
    percentages=range(100, 0, -10),
    width=1.0,
    profile="all_one",
    trainable_profile=False,
    dropout=(0.3, 0.4, 0.5),
    weight_decay=0.0,
    input_shape=(32, 32, 3),
    private_affine=False,
):
    """Returns VGG-16 in its CIFAR form with incomplete dot products.

    Thirteen 3x3 convolutions in five blocks (64, 128, 256, 512, 512 filters), each followed by
    batch normalization and ReLU, a pool after each block, then a fully connected layer of 512 with
    batch normalization and ReLU, and one for the classes. The first convolution and the last fully
    connected layer are complete; all others are incomplete on their inputs.

    Args:
        classes: Positive int, outputs (logits).
        percentages: Those that batch normalization keeps statistics for: they must include the ones
            that are trained.
        width: Float, 0 < width, a factor of all numbers of filters; .25 trains on a CPU.
        profile: Coefficients of the incomplete layers; see `keras_tesla.layers.IDPConv2D`.
        trainable_profile: Bool, whether they are trained.
        dropout: Rates after the first convolution, after the others that no pool follows, and
            before and after the fully connected layer; zeros leave the layers out.
        weight_decay: Float, L2 regularization of all kernels.
        input_shape: `(height, width, channels)`. The weights do not depend on the size up to
            32x32, so a network may begin to train on smaller images.
        private_affine: Bool, whether batch normalization has a gain and a shift for each
            percentage; see `keras_tesla.layers.IDPBatchNormalization`.

    Returns:
        A Functional `keras.Model`, input `(batch, *input_shape)`, output `(batch, classes)`.

    Raises:
        ValueError: If `width` leaves a layer without filters, or for arguments that Keras' layers
            refuse.

    Example:

    >>> vgg16(10, percentages=[100]).count_params()
    14996682

    Reference:
        Simonyan, Zisserman: Very Deep Convolutional Networks, 2014,
        https://arxiv.org/abs/1409.1556; with batch normalization and incomplete dot products:
        McDanel, Teerapittayanon, Kung, 2017, https://arxiv.org/abs/1710.07830
    """
    sizes = [[round(filters * width) for filters in block] for block in _BLOCKS]
    if min(map(min, sizes)) < 1:
        raise ValueError(f"`width` must leave every layer a filter. Received: {width!r}")
    percentages = tuple(percentages)
    kernel = {"use_bias": False, "kernel_initializer": "he_normal"}
    incomplete = {"profile": profile, "trainable_profile": trainable_profile}
    first, between, dense = dropout

    def decayed():
        return keras.regularizers.L2(weight_decay) if weight_decay else None

    def normalized(x, name):
        norm = IDPBatchNormalization(percentages, private_affine, momentum=0.9, name=f"{name}_bn")
        x = norm(x)
        return layers.ReLU(name=f"{name}_relu")(x)

    def dropped(x, rate, name):
        return layers.Dropout(rate, name=f"{name}_dropout")(x) if rate else x

    inputs = x = keras.Input(input_shape, name="image")
    for i, block in enumerate(sizes, start=1):
        for j, filters in enumerate(block, start=1):
            name = f"block{i}_conv{j}"
            shared = {**kernel, "padding": "same", "name": name, "kernel_regularizer": decayed()}
            if i == j == 1:
                x = layers.Conv2D(filters, 3, **shared)(x)
            else:
                x = IDPConv2D(filters, 3, **shared, **incomplete)(x)
            x = normalized(x, name)
            if j < len(block):
                x = dropped(x, first if i == 1 else between, name)
        x = layers.MaxPooling2D(padding="same", name=f"block{i}_pool")(x)
    channels = x.shape[-1]
    x = dropped(layers.Flatten(name="flatten")(x), dense, "flatten")
    x = IDPDense(
        channels,
        input_channels=channels,
        name="fc1",
        kernel_regularizer=decayed(),
        **kernel,
        **incomplete,
    )(x)
    x = dropped(normalized(x, "fc1"), dense, "fc1")
    outputs = layers.Dense(classes, name="logits", kernel_regularizer=decayed())(x)
    return keras.Model(inputs, outputs, name="vgg16")
