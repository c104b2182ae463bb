"""Layers of the user's that Keras cannot make from their config."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_tesla as kt
from keras_tesla import cloning
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


def test_a_layer_of_keras_without_a_config():
    """Keras writes none of an Identity that was made with a dtype policy."""
    layer = layers.Identity(dtype=keras.DTypePolicy("float32"), name="same")
    copy = cloning.copy_of(layer)
    assert type(copy) is layers.Identity
    assert copy.name == "same"


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


# Functions and objects that a name or a config would not find again.


def relu(x):
    """Has the name of Keras' own."""
    return keras.ops.leaky_relu(x, 0.3)


class Forgetful(keras.Layer):
    """Its config lacks an argument."""

    def __init__(self, slope=0.0, **kwargs):
        super().__init__(**kwargs)
        self.slope = slope

    def build(self, shape):
        self.shift = self.add_weight(name="shift", shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return keras.ops.leaky_relu(x, self.slope) + self.shift

    def get_config(self):
        return super().get_config()


class Incapable(keras.Layer):
    """Made from its config, it cannot run."""

    def __init__(self, width=None, **kwargs):
        super().__init__(**kwargs)
        self.width = width

    def call(self, x):
        return x * keras.ops.ones((self.width,))

    def get_config(self):
        return super().get_config()


class Sampled(keras.Layer):
    """Its results are random."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seeds)


def between(*stack):
    """The layers between two Dense ones, and one more, which becomes incomplete."""
    x = inputs = keras.Input((8,))
    for layer in (layers.Dense(16), *stack, layers.Dense(6), layers.Dense(3)):
        x = layer(x)
    return keras.Model(inputs, x)


def sequence(layer):
    inputs = keras.Input((8,))
    x = layer(layers.Reshape((4, 4))(layers.Dense(16)(inputs)))
    return keras.Model(inputs, layers.Dense(3)(layers.Dense(6)(layers.Flatten()(x))))


SAME_FUNCTION = {
    "own activation with Keras' name": lambda: between(layers.Activation(relu)),
    "of a layer that becomes incomplete": lambda: between(layers.Dense(16, activation=relu)),
    "of a layer that is narrowed": lambda: between(
        layers.Reshape((4, 4)), layers.DepthwiseConv1D(2, activation=relu), layers.Flatten()
    ),
    "keras.ops' of the same name": lambda: between(layers.Dense(16, activation=keras.ops.gelu)),
    "of a layer inside another": lambda: sequence(
        layers.TimeDistributed(layers.Dense(4, activation=relu))
    ),
    "of a recurrent layer": lambda: sequence(layers.GRU(4, activation=relu)),
    "an argument that is not in the config": lambda: between(Forgetful(0.4)),
    "an argument without which the layer does not run": lambda: between(Incapable(16)),
    "an operation made with a function": lambda: between(
        lambda x: keras.ops.vectorized_map(lambda row: row * 2, x)
    ),
}


@pytest.mark.parametrize("make", SAME_FUNCTION.values(), ids=SAME_FUNCTION)
def test_a_copy_computes_the_same_function(make):
    model = make()
    expected = to_numpy(model(X))
    # Float32 sums in another order.
    np.testing.assert_allclose(
        to_numpy(kt.order_channels(model)(X)), expected, rtol=1e-5, atol=1e-5
    )
    tesla = kt.TESLA(kt.to_idp(model, [100, 50]), [100, 50])
    for network in (tesla.network, tesla.at(100)):
        np.testing.assert_allclose(to_numpy(network(X)), expected, rtol=1e-5, atol=1e-5)
    of_tesla = tesla.predict(X, percentage=50, verbose=0)
    np.testing.assert_allclose(to_numpy(tesla.at(50)(X)), of_tesla, rtol=1e-5, atol=1e-5)


def test_a_layer_whose_results_are_random_is_made_from_its_config():
    copy = kt.to_idp(between(Sampled(name="own")), [100, 50])
    assert type(copy.get_layer("own")) is Sampled


def test_regularizers_without_a_config_are_carried():
    model = between(layers.Dense(16, kernel_regularizer=MildRegularizer(), name="mild"))
    converted = kt.to_idp(model, [100, 50])
    assert (
        converted.get_layer("mild").kernel_regularizer is model.get_layer("mild").kernel_regularizer
    )
    assert to_numpy(converted.losses[0]) == to_numpy(model.losses[0]) > 0
    kt.TESLA(converted, [100, 50]).at(50)
    kt.order_channels(model)


def test_the_layer_that_a_config_copies_is_not_changed():
    model = between(layers.Dense(16, activation=relu, name="own"))
    kt.to_idp(model, [100, 50])
    assert model.get_layer("own").activation is relu


class Spectral(keras.layers.Dense):
    """Has an argument that its config lacks, and a kind."""

    def __init__(self, units, factor=1.0, **kwargs):
        super().__init__(units, **kwargs)
        self.factor = factor

    def call(self, inputs, training=None):
        return self.factor * super().call(inputs, training=training)


def test_a_narrowed_layer_whose_config_lacks_something_is_named():
    kt.register_kind(Spectral, like=keras.layers.Dense)
    inputs = keras.Input((8,))
    model = keras.Model(inputs, kt.layers.IDPDense(3)(Spectral(16, 3.0, name="own")(inputs)))
    with pytest.raises(ValueError, match=r"'own' \(Spectral\).* another function .*`get_config`"):
        kt.TESLA(model, [100, 50])


# Layers as people write them, none of which Keras can make from a config.


class Patches(keras.Layer):
    """An image in patches; no `get_config`, no `**kwargs`."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def call(self, images):
        patches = keras.ops.image.extract_patches(images, self.size)
        return keras.ops.reshape(
            patches, (-1, patches.shape[1] * patches.shape[2], patches.shape[3])
        )


class PatchEncoder(keras.Layer):
    """Holds layers, makes one in the constructor from a number that the config has not."""

    def __init__(self, count, width):
        super().__init__()
        self.projection = layers.Dense(width)
        self.position = layers.Embedding(count, width)
        self.places = np.arange(count)

    def build(self, shape):
        self.projection.build(shape)
        self.position.build((None,))

    def call(self, x):
        return self.projection(x) + self.position(self.places)

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.projection.units)


class SequencePooling(keras.Layer):
    def __init__(self):
        super().__init__()
        self.attention = layers.Dense(1)

    def build(self, shape):
        self.attention.build(shape)

    def call(self, x):
        weights = keras.ops.softmax(self.attention(x), axis=1)
        return keras.ops.squeeze(keras.ops.matmul(keras.ops.transpose(weights, (0, 2, 1)), x), 1)


class DepthToSpace(keras.Layer):
    def __init__(self, block_size):
        super().__init__()
        self.block_size = block_size

    def call(self, x):
        b = self.block_size
        _, height, width, depth = x.shape
        x = keras.ops.reshape(x, (-1, height, width, b, b, depth // b**2))
        x = keras.ops.transpose(x, (0, 1, 3, 2, 4, 5))
        return keras.ops.reshape(x, (-1, height * b, width * b, depth // b**2))


class Involution(keras.Layer):
    """Builds its layers late, and takes the name alone."""

    def __init__(self, channels, name):
        super().__init__(name=name)
        self.channels = channels

    def build(self, shape):
        self.kernel_gen = keras.Sequential([keras.Input(shape[1:]), layers.Conv2D(9, 1)])
        self.kernel_gen.build(shape)

    def call(self, x):
        kernel = keras.ops.softmax(self.kernel_gen(x))
        return x * keras.ops.sum(kernel, axis=-1, keepdims=True)


class EndpointLoss(keras.Layer):
    """Adds a loss of its inputs, as a CTC layer does, and takes `**kw`."""

    def __init__(self, weight, **kw):
        super().__init__(**kw)
        self.weight = weight

    def call(self, x):
        self.add_loss(self.weight * keras.ops.mean(x**2))
        return x


class OrthogonalRegularizer(keras.regularizers.Regularizer):
    def __init__(self, size, factor=0.001):
        self.size, self.factor = size, factor

    def __call__(self, x):
        x = keras.ops.reshape(x, (-1, self.size, self.size))
        product = keras.ops.matmul(x, keras.ops.transpose(x, (0, 2, 1)))
        return keras.ops.sum(self.factor * keras.ops.square(product - keras.ops.eye(self.size)))


class MILAttention(keras.Layer):
    """Takes objects that its automatic config cannot hold; returns a list."""

    def __init__(self, width, regularizer, **kwargs):
        super().__init__(**kwargs)
        self.width, self.regularizer = width, regularizer

    def build(self, shape):
        self.v = self.add_weight(
            name="v", shape=(shape[0][-1], self.width), regularizer=self.regularizer
        )
        self.w = self.add_weight(name="w", shape=(self.width, 1))

    def call(self, bags):
        scores = [
            keras.ops.matmul(keras.ops.tanh(keras.ops.matmul(x, self.v)), self.w) for x in bags
        ]
        return [bag * score for bag, score in zip(bags, scores, strict=True)]

    def compute_output_spec(self, bags):
        return [keras.KerasTensor(x.shape, x.dtype) for x in bags]


def image_network(*stack):
    x = inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(8, 3, padding="same")(x)
    for layer in stack:
        x = layer(x)
    x = layers.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else x
    x = layers.GlobalAveragePooling1D()(x) if len(x.shape) == 3 else x
    return keras.Model(inputs, layers.Dense(3)(layers.Dense(6)(x)))


def bags():
    a, b = keras.Input((8,)), keras.Input((8,))
    embed = layers.Dense(8, activation="relu")
    found = MILAttention(4, keras.regularizers.L2(0.01))([embed(a), embed(b)])
    x = layers.Dense(6)(layers.Concatenate()(found))
    return keras.Model([a, b], layers.Dense(3)(x))


AS_PEOPLE_WRITE_THEM = {
    "patches": lambda: image_network(Patches(2), PatchEncoder(9, 8), SequencePooling()),
    "depth to space": lambda: image_network(DepthToSpace(2)),
    "involution": lambda: image_network(Involution(8, "inv_1")),
    "a loss of its own": lambda: image_network(EndpointLoss(0.1)),
    "a regularizer without a config": lambda: image_network(
        layers.Reshape((-1,)), layers.Dense(9, activity_regularizer=OrthogonalRegularizer(3))
    ),
    "a list in and out": bags,
}


@pytest.mark.parametrize("make", AS_PEOPLE_WRITE_THEM.values(), ids=AS_PEOPLE_WRITE_THEM)
@pytest.mark.slow
def test_layers_as_people_write_them_are_copied_trained_and_extracted(make):
    model = make()
    random = np.random.default_rng(0)
    x = [random.normal(size=(4, *t.shape[1:])).astype("float32") for t in model.inputs]
    x = x if len(x) > 1 else x[0]
    expected = to_numpy(model(x))
    losses = [to_numpy(loss) for loss in model.losses]
    tesla = kt.TESLA(kt.to_idp(model, [100, 50]), [100, 50])
    for network in (kt.order_channels(model), tesla.network, tesla.at(100)):
        # Float32 sums in another order.
        np.testing.assert_allclose(to_numpy(network(x)), expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose([to_numpy(v) for v in network.losses], losses, rtol=1e-5)
    tesla.compile("sgd", "mse")
    tesla.fit(x, np.zeros((4, 3)), verbose=0)
    of_tesla = tesla.predict(x, percentage=50, verbose=0)
    np.testing.assert_allclose(to_numpy(tesla.at(50)(x)), of_tesla, rtol=1e-5, atol=1e-5)
