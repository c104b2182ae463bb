"""Layers of the user's that Keras cannot make from their config."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_tesla as kt
from tests.helpers import to_numpy

X = np.random.default_rng(0).normal(size=(6, 8)).astype("float32")


class Scale(keras.Layer):
    """Has an argument and no `get_config`."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return x * self.factor


class Bare(keras.Layer):
    """Its constructor takes nothing that every layer takes."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, x):
        return x * self.factor


class Opaque(keras.Layer):
    """Has a weight, a statistic, and an argument that no config can hold."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def build(self, shape):
        self.shift = self.add_weight(name="shift", shape=(shape[-1],), initializer="ones")
        self.count = self.add_weight(name="count", shape=(), initializer="zeros", trainable=False)

    def call(self, x, training=None):
        if training:
            self.count.assign(self.count + 1)
        return self.function(x) + self.shift


class MildRegularizer(keras.regularizers.Regularizer):
    """Has no `get_config`."""

    def __call__(self, weight):
        return 0.01 * keras.ops.sum(keras.ops.square(weight))


def network(layer):
    inputs = keras.Input((8,))
    x = layer(layers.Dense(16, activation="relu")(inputs))
    x = layers.Dense(16, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(3)(x))


OWN = {
    "no get_config": lambda: Scale(3.0),
    "no kwargs": lambda: Bare(3.0),
    "no config at all": lambda: Opaque(lambda x: x * x),
}


@pytest.mark.parametrize("make", OWN.values(), ids=OWN)
def test_every_function_that_copies_a_model_copies_the_layer(make):
    model = network(make())
    expected = to_numpy(model(X))
    np.testing.assert_allclose(
        to_numpy(kt.order_channels(model)(X)), expected, rtol=1e-5, atol=1e-6
    )
    tesla = kt.TESLA(kt.to_idp(model, [100, 50]), [100, 50])
    np.testing.assert_allclose(to_numpy(tesla.network(X)), expected, rtol=1e-5, atol=1e-6)
    tesla.compile("sgd", "mse")
    tesla.fit(X, np.zeros((6, 3)), verbose=0)
    for percentage in (100, 50):
        small = tesla.at(percentage)
        of_tesla = tesla.predict(X, percentage=percentage, verbose=0)
        np.testing.assert_allclose(to_numpy(small(X)), of_tesla, rtol=1e-5, atol=1e-6)


def test_a_copy_has_weights_of_its_own_and_trains():
    layer = Opaque(lambda x: x * x)
    tesla = kt.TESLA(kt.to_idp(network(layer), [100, 50]), [100, 50])
    tesla.compile(keras.optimizers.SGD(0.1), "mse")
    before = [to_numpy(v).copy() for v in layer.variables]
    tesla.fit(X, np.zeros((6, 3)), verbose=0)
    for old, variable in zip(before, layer.variables, strict=True):
        np.testing.assert_array_equal(to_numpy(variable), old)
    (shift,) = [v for v in tesla.trainable_variables if v.name == "shift"]
    (count,) = [v for v in tesla.non_trainable_variables if v.name == "count"]
    assert not (to_numpy(shift) == 1).all()
    assert to_numpy(count) > 0


def test_a_layer_that_must_be_built_again_is_named():
    inputs = keras.Input((8,))
    x = layers.Dense(16, kernel_regularizer=MildRegularizer(), name="mild")(inputs)
    model = keras.Model(inputs, kt.layers.IDPDense(3)(x))
    with pytest.raises(ValueError, match=r"'mild' \(Dense\) must be built again.*get_config"):
        kt.TESLA(model, [100, 50])
    with pytest.raises(ValueError, match=r"'mild' \(Dense\) must be built again.*get_config"):
        kt.order_channels(model)
