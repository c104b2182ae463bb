"""Every family of kinds with the channels in front."""

import keras
import pytest
from keras import layers

import keras_tesla as kt
from keras_tesla.layers import (
    IDPBatchNormalization,
    IDPConv2D,
    IDPDense,
)
from tests.kinds.networks import FIRST, branch_widths, image, inputs_of, wide, width

CHANNELS_FIRST = {
    "batch normalization": lambda: layers.BatchNormalization(axis=1),
    "own statistics": lambda: IDPBatchNormalization([100, 50], axis=1),
    "padding": lambda: layers.ZeroPadding2D(data_format=FIRST),
    "cropping": lambda: layers.Cropping2D(1, data_format=FIRST),
    "up-sampling": lambda: layers.UpSampling2D(data_format=FIRST),
    "max pooling": lambda: layers.MaxPooling2D(data_format=FIRST),
    "average pooling": lambda: layers.AveragePooling2D(2, data_format=FIRST),
    "global pooling": lambda: layers.GlobalMaxPooling2D(FIRST, keepdims=True),
    "spatial dropout": lambda: layers.SpatialDropout2D(0.5, data_format=FIRST),
    "activation": lambda: layers.ReLU(),
    "two": lambda: lambda x: layers.Concatenate(axis=2)([x, layers.ReLU()(x)]),
}


def skip_if_keras_cannot(model):
    try:
        model(inputs_of(model))
    except Exception as error:
        pytest.skip(f"Keras does not run channels_first here: {error}")


@pytest.mark.parametrize("between", CHANNELS_FIRST)
def test_channels_first(between, check):
    x = image(2, FIRST)
    y = CHANNELS_FIRST[between]()(wide(2, data_format=FIRST)(x))
    model = keras.Model(x, IDPConv2D(2, 1, data_format=FIRST)(y))
    skip_if_keras_cannot(model)
    assert width(check(model)) == 4


def test_channels_first_through_global_pooling(check):
    x = image(2, FIRST)
    y = layers.GlobalAveragePooling2D(FIRST)(wide(2, data_format=FIRST)(x))
    model = keras.Model(x, IDPDense(3)(y))
    skip_if_keras_cannot(model)
    assert width(check(model)) == 4


def test_channels_first_through_flatten(check):
    x = image(2, FIRST)
    y = layers.Flatten(data_format=FIRST)(wide(2, data_format=FIRST)(x))
    model = keras.Model(x, IDPDense(3, input_channels=8)(y))
    skip_if_keras_cannot(model)
    assert width(check(model)) == 4


def test_channels_first_flattened_as_channels_last_is_right(check):
    # Keras then leaves the axes as they are: a channel's positions lie together.
    x = image(2, FIRST)
    y = layers.Flatten(data_format="channels_last")(wide(2, data_format=FIRST)(x))
    model = keras.Model(x, IDPDense(3, input_channels=8)(y))
    skip_if_keras_cannot(model)
    assert width(check(model)) == 8


def test_channels_first_concatenated(check):
    x = image(2, FIRST)
    y = layers.Concatenate(axis=1)(
        [layers.Conv2D(4, 1, data_format=FIRST, name=f"branch_{i}")(x) for i in range(3)]
    )
    model = keras.Model(x, IDPConv2D(2, 1, data_format=FIRST)(y))
    skip_if_keras_cannot(model)
    assert branch_widths(check(model)) == [4, 2]


def _convolutions(kind, filters):
    """Two convolutions of images 4 high and wide."""
    arguments = {"padding": "same", "data_format": FIRST, "bias_initializer": "normal"}
    x = keras.Input((3, 4, 4))
    y = layers.Conv2D(filters, 3, **arguments)(x)
    if kind is not layers.Conv2D:
        sizes = (3,) if kind is layers.DepthwiseConv2D else (filters, 3)
        y = kind(*sizes, **arguments)(y)
    return keras.Model(x, IDPConv2D(5, 1, data_format=FIRST, bias_initializer="normal")(y))


_KINDS = [layers.Conv2D, layers.Conv2DTranspose, layers.SeparableConv2D, layers.DepthwiseConv2D]


@pytest.mark.parametrize("kind", _KINDS)
def test_a_narrowed_bias_is_not_added_to_an_axis_of_its_length(kind, check):
    """At 50 % four of eight channels are read, and the images are four wide."""
    model = _convolutions(kind, 8)
    skip_if_keras_cannot(model)
    check(model)


@pytest.mark.tensorflow
@pytest.mark.parametrize("kind", _KINDS)
def test_a_bias_that_keras_itself_adds_to_another_axis_is_refused(kind):
    with pytest.raises(ValueError, match="adds the bias along the last axis"):
        kt.TESLA(_convolutions(kind, 4), [100, 50])
