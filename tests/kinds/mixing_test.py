"""A Dense along another axis than that of the channels, as in an MLP-Mixer, treats each alike."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_tesla as kt
from keras_tesla.analysis.cost import multiply_adds
from keras_tesla.layers import IDPDense, PerRange
from tests.kinds.networks import image, inputs_of, randomized, wide, width

to_numpy = keras.ops.convert_to_numpy


def mixed(*between, head=None):
    """8 channels at 6 positions -> layers along the positions -> a layer that reads half."""
    x = image(1)
    y = wide(1)(x)
    z = layers.Permute((2, 1))(y)
    for layer in between:
        z = layer(z)
    z = layers.Add()([y, layers.Permute((2, 1))(z)])
    return keras.Model(x, (head or IDPDense(3, profile="linear", name="head"))(z))


def mixer(normalization=layers.BatchNormalization, depth=2, channels=64, tokens=16):
    """An MLP-Mixer: Dense layers along the positions and along the channels in turn."""
    inputs = keras.Input((16, 16, 3))
    x = layers.Reshape((tokens, channels))(layers.Conv2D(channels, 4, 4)(inputs))
    for _ in range(depth):
        y = layers.Permute((2, 1))(normalization()(x))
        y = layers.Dense(tokens)(layers.Dense(2 * tokens, activation="gelu")(y))
        x = layers.Add()([x, layers.Permute((2, 1))(y)])
        y = layers.Dense(4 * channels, activation="gelu")(normalization()(x))
        x = layers.Add()([x, layers.Dense(channels)(y)])
    return keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling1D()(x)))


def test_only_the_channels_that_are_read_are_mixed(check):
    model = mixed(layers.Dense(7, activation="gelu"), layers.Dense(6, name="last"))
    extracted = check(model)
    assert width(extracted) == 4
    assert extracted.get_layer("last").output.shape == (None, 4, 6)
    assert multiply_adds(extracted) < 0.52 * multiply_adds(check(model, 100))


@pytest.mark.parametrize(
    "layer",
    [
        layers.Dense(6, activation="softmax"),
        layers.Dense(6, activity_regularizer="l2"),
        layers.Conv1D(6, 2, padding="same"),
    ],
)
def test_what_may_mix_channels_is_whole(layer, check):
    assert width(check(mixed(layer))) == 8


def test_a_layer_for_each_range_of_percentages(check):
    layer = PerRange({50: layers.Dense(6), 100: layers.Dense(6)})
    assert width(check(mixed(layer))) == 4


def test_gradients(check_gradients):
    found = check_gradients(mixed(layers.Dense(6, name="mix")))
    assert found["mix/kernel"].all()
    assert not found["wide/kernel"][..., 4:].any()


def test_a_layer_that_is_called_along_both_axes(check):
    """Its kernel mixes positions in one call and channels in the other: no order of them fits."""
    x = keras.Input((6, 5))
    shared = layers.Dense(6, name="shared")
    for first in (True, False):
        y = layers.Conv1D(6, 2, padding="same", name="wide")(x)
        y = shared(y) if first else layers.Permute((2, 1))(shared(layers.Permute((2, 1))(y)))
        y = layers.Permute((2, 1))(shared(layers.Permute((2, 1))(y))) if first else shared(y)
        model = randomized(keras.Model(x, layers.Dense(3)(y)))
        ordered, values = kt.order_channels(model), inputs_of(model)
        # Float32 sums in another order.
        np.testing.assert_allclose(
            to_numpy(ordered(values)), to_numpy(model(values)), rtol=1e-4, atol=1e-5
        )
        check(keras.Model(x, IDPDense(3)(y)))


def test_channels_are_ordered_through_it():
    model = randomized(mixed(layers.Dense(6, name="mix"), head=layers.Dense(3, name="head")))
    ordered, x = kt.order_channels(model), inputs_of(model)
    # Float32 sums in another order.
    np.testing.assert_allclose(to_numpy(ordered(x)), to_numpy(model(x)), rtol=1e-4, atol=1e-5)
    norms = np.abs(to_numpy(ordered.get_layer("head").kernel)).sum(1)
    assert (np.diff(norms) <= 0).all()
    np.testing.assert_array_equal(
        to_numpy(ordered.get_layer("mix").kernel), to_numpy(model.get_layer("mix").kernel)
    )


def test_a_mixer_costs_little_more_than_the_square(check, capsys):
    model = kt.to_idp(mixer(), percentages=[100, 50])
    tesla = kt.TESLA(model)
    costs = [multiply_adds(tesla.at(p)) for p in (100, 50)]
    assert costs[1] < 0.30 * costs[0]
    check(model, 50)
    kt.summary(tesla)
    total = next(line for line in capsys.readouterr().out.split("\n") if "Total" in line)
    assert [int(x.replace(",", "")) for x in total.split()[1:]] == costs
