"""register_kind: the library learns a layer of the user's, and then treats it as its own."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_tesla as kt
from keras_tesla.kinds import Channelwise, Kind
from keras_tesla.layers import IDPDense
from tests.kinds.networks import inputs_of, randomized

to_numpy = keras.ops.convert_to_numpy
PERCENTAGES = [100, 50, 25]


@keras.saving.register_keras_serializable("registry_test")
class Swish(layers.Layer):
    """Treats each number alone and has no weights."""

    def call(self, x):
        return x * keras.ops.sigmoid(1.5 * x)


@keras.saving.register_keras_serializable("registry_test")
class Shifted(layers.Layer):
    """Has a weight for each channel."""

    def build(self, input_shape):
        self.shift = self.add_weight(shape=input_shape[-1:], name="shift")

    def call(self, x):
        return x + self.shift


@keras.saving.register_keras_serializable("registry_test")
class Modulated(layers.Layer):
    """Multiplies each channel by what a sub-layer makes of a second input."""

    def build(self, x_shape, condition_shape):
        self.factors = layers.Dense(x_shape[-1], activation="sigmoid")
        self.factors.build(condition_shape)

    def call(self, x, condition):
        return x * self.factors(condition)


@keras.saving.register_keras_serializable("registry_test")
class Doubled(layers.Dense):
    """A Dense with another result for each unit."""

    def call(self, inputs, training=None):
        return 2 * super().call(inputs, training=training)


@keras.saving.register_keras_serializable("registry_test")
class Scheduled(layers.Layer):
    """Its result differs between percentages."""

    def call(self, x):
        return x * (kt.current_percentage() / 100)


class ShiftedKind(Channelwise):
    weight_axes = {"shift": (None, 0)}  # noqa: RUF012


class ModulatedKind(Channelwise):
    weight_axes = {"factors.kernel": (None, -1), "factors.bias": (None, 0)}  # noqa: RUF012


class ScheduledKind(Channelwise):
    depends = True


@pytest.fixture(autouse=True)
def _registered():
    kt.register_kind(Swish, like=layers.ReLU)
    kt.register_kind(Shifted, ShiftedKind())
    kt.register_kind(Modulated, ModulatedKind())
    kt.register_kind(Doubled, like=layers.Dense)
    kt.register_kind(Scheduled, ScheduledKind())


def network(between):
    """input -> Dense of 8 -> the layer -> an incomplete layer."""
    x = keras.Input((5,), name="x")
    y = layers.Dense(8, name="wide")(x)
    return keras.Model(x, IDPDense(3, name="head")(between(x, y)))


NETWORKS = {
    "without weights": lambda: network(lambda x, y: Swish(name="own")(y)),
    "with a weight": lambda: network(lambda x, y: Shifted(name="own")(y)),
    "with a sub-layer and two inputs": lambda: network(lambda x, y: Modulated(name="own")(y, x)),
    "like a Dense": lambda: network(lambda x, y: Doubled(8, name="own")(x)),
}
each_network = pytest.mark.parametrize("name", NETWORKS)


@each_network
@pytest.mark.parametrize("percentage", PERCENTAGES)
def test_it_is_narrowed(name, percentage, check):
    extracted = check(NETWORKS[name](), percentage)
    assert extracted.get_layer("own").output.shape[-1] == 8 * percentage // 100


@each_network
def test_its_weights_are_those_of_the_full_layer(name):
    model = randomized(NETWORKS[name]())
    small = kt.TESLA(model, PERCENTAGES).at(25).get_layer("own")
    full = model.get_layer("own")
    for narrowed, weight in zip(small.weights, full.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(narrowed), to_numpy(weight)[..., :2])


@each_network
def test_its_channels_are_ordered(name):
    model = randomized(NETWORKS[name]())
    copy = kt.order_channels(model)
    x = inputs_of(model)
    # The same float32 terms summed in another order.
    np.testing.assert_allclose(to_numpy(copy(x)), to_numpy(model(x)), rtol=1e-4, atol=1e-5)
    places = np.argsort(-np.abs(to_numpy(model.get_layer("head").kernel)).sum(1), stable=True)
    assert list(places) != list(range(8))
    for moved, weight in zip(
        copy.get_layer("own").weights, model.get_layer("own").weights, strict=True
    ):
        np.testing.assert_array_equal(to_numpy(moved), to_numpy(weight)[..., places])


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "without weights"])
@pytest.mark.parametrize("percentage", PERCENTAGES)
def test_a_percentage_trains_what_the_scoped_model_trains(name, percentage, gradients):
    model = randomized(NETWORKS[name]())
    tesla, x = kt.TESLA(model, PERCENTAGES), inputs_of(model)
    weights = model.get_layer("own").trainable_weights
    tesla.activate([percentage])

    def scoped():
        with kt.percentage_scope(percentage):
            return keras.ops.sum(model(x, training=True) ** 2)

    expected = gradients(scoped, weights)
    actual = gradients(
        lambda: keras.ops.sum(tesla(x, training=True)[f"p{percentage}"] ** 2), weights
    )
    for a, b in zip(actual, expected, strict=True):
        # Float32 sums of up to 24 terms in another order.
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())
        assert np.any(b != 0)


@pytest.mark.parametrize("weights", ["weight", "seed"])
def test_a_kind_that_does_not_name_all_weights_is_refused(weights):
    """Below 100 % the narrowed layer would have the others at their initial values."""

    class Scaled(Shifted):
        def build(self, input_shape):
            super().build(input_shape)
            if weights == "weight":
                self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
            else:
                self.seed = keras.random.SeedGenerator(0)

        def call(self, x):
            return super().call(x)

    kt.register_kind(Scaled, ShiftedKind())
    model = network(lambda x, y: Scaled(name="own")(y))
    with pytest.raises(ValueError, match=r"layer 'own' \(Scaled\) does not say where its channels"):
        kt.TESLA(model, PERCENTAGES)


@pytest.mark.tensorflow
@each_network
@pytest.mark.slow
def test_it_is_exported(name, tmp_path):
    tesla = kt.TESLA(randomized(NETWORKS[name]()), PERCENTAGES)
    bundle = kt.tflite.export(tesla, tmp_path / "out")  # runs what it writes and compares
    assert [entry.percentage for entry in bundle.entries] == PERCENTAGES


def test_to_idp_leaves_it_and_cuts_what_reads_it():
    x = keras.Input((5,))
    y = Doubled(8, name="own")(layers.Dense(8, name="first")(x))
    model = kt.to_idp(keras.Model(x, layers.Dense(3, name="head")(Shifted(name="shift")(y))))
    became = {row.name: row.became for row in model.conversion_report}
    assert became == {"first": "Dense", "own": "Doubled", "shift": "Shifted", "head": "IDPDense"}


def test_what_depends_on_the_percentage_runs_at_each():
    x = keras.Input((5,))
    y = Scheduled()(layers.Dense(8)(x))
    model = keras.Model(x, IDPDense(3)(y))
    inputs = np.ones((2, 5), "float32")
    outputs = kt.TESLA(model, PERCENTAGES)(inputs)
    for percentage in PERCENTAGES:
        with kt.percentage_scope(percentage):
            expected = to_numpy(model(inputs))
        np.testing.assert_allclose(to_numpy(outputs[f"p{percentage}"]), expected, rtol=1e-4)


def test_what_depends_on_the_percentage_is_no_stock_layer_by_itself():
    x = keras.Input((5,))
    tesla = kt.TESLA(keras.Model(x, IDPDense(3)(Scheduled(name="own")(x))), PERCENTAGES)
    with pytest.raises(ValueError, match="'own'.*does not say what it is at 50 %"):
        tesla.at(50)


class Unregistered(layers.Layer):
    """Reads the percentage beside a layer that it holds."""

    def __init__(self, inner=None, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def call(self, x):
        x = x if self.inner is None else self.inner(x)
        return x * (kt.current_percentage() / 100)


class OfKnownShape(Unregistered):
    def compute_output_shape(self, input_shape):
        return input_shape


@pytest.mark.parametrize("cls", [Unregistered, OfKnownShape])
@pytest.mark.parametrize("inner", [None, layers.Dense])
def test_what_depends_on_the_percentage_must_be_registered(cls, inner):
    """Else all percentages would share its result."""
    x = keras.Input((5,))
    own = cls(inner and inner(5), name="own")
    model = keras.Model(x, IDPDense(3)(own(layers.Dense(5)(x))))
    with pytest.raises(ValueError, match="'own'.*reads `current_percentage.*register_kind"):
        kt.TESLA(model, PERCENTAGES)


def test_a_subclass_is_not_registered_with_it(check):
    class Reversed(Swish):
        def call(self, x):
            return keras.ops.flip(super().call(x), axis=-1)

    extracted = check(network(lambda x, y: Reversed(name="own")(y)))
    assert extracted.get_layer("own").output.shape[-1] == 8


def test_it_may_be_registered_again():
    kt.register_kind(Swish, Kind())
    model = network(lambda x, y: Swish(name="own")(y))
    small = kt.TESLA(model, [100, 50]).at(50)
    assert small.get_layer("own").output.shape[-1] == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Shifted,), "Give either `kind` or `like`"),
        ((Shifted, ShiftedKind(), layers.ReLU), "Give either `kind` or `like`"),
        ((Shifted, ShiftedKind), "an object of a subclass of .*Kind"),
        ((Shifted, "channelwise"), "an object of a subclass of .*Kind"),
        ((Shifted, None, layers.LSTM), "that the library understands.*LSTM"),
        ((Shifted, None, "ReLU"), "that the library understands.*'ReLU'"),
        ((Shifted, None, []), r"that the library understands.*\[\]"),
        ((Shifted, None, IDPDense), "No layer can be like IDPDense"),
        ((Shifted(), ShiftedKind()), "`cls` must be a subclass of `keras.layers.Layer`"),
        ((Channelwise, ShiftedKind()), "`cls` must be a subclass of `keras.layers.Layer`"),
        ((None, ShiftedKind()), "`cls` must be a subclass of `keras.layers.Layer`"),
        ((layers.ReLU, ShiftedKind()), "What ReLU does is already known"),
        ((IDPDense, ShiftedKind()), "What IDPDense does is already known"),
    ],
)
def test_bad_input(arguments, message):
    cls, kind, like = (*arguments, None, None)[:3]
    with pytest.raises(ValueError, match=message):
        kt.register_kind(cls, kind, like=like)
