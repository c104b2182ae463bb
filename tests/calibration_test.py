"""Recalibration: batch normalization statistics measured at percentages that were not trained."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_tesla import TESLA, active_terms, percentage_scope
from keras_tesla.calibration import recalibrate
from keras_tesla.layers import IDPBatchNormalization, IDPConv2D, IDPDense
from tests.helpers import to_numpy


def normal(*shape, seed=0):
    return (1 + 2 * np.random.default_rng(seed).normal(size=shape)).astype("float32")


def one_layer(percentages=(100, 50), **arguments):
    """Ten inputs, four channels, their statistics."""
    inputs = keras.Input((10,))
    y = IDPDense(4, name="dense")(inputs)
    y = IDPBatchNormalization(percentages, name="norm", **arguments)(y)
    return TESLA(keras.Model(inputs, y), percentages=percentages)


def statistics(tesla, percentage, name="norm"):
    return [to_numpy(v) for v in tesla.network.get_layer(name).statistics(percentage)]


def by_hand(tesla, batches, percentage):
    """The oracle: the statistics of a dot product cut at `percentage`, weighted by batch size."""
    terms = 10 * percentage // 100
    kernel, bias = map(to_numpy, (tesla.network.get_layer("dense").kernel, 0.0))
    products = [x[:, :terms] @ kernel[:terms] + bias for x in batches]
    sizes = [len(x) for x in batches]
    mean = np.average([y.mean(axis=0) for y in products], axis=0, weights=sizes)
    variance = np.average([y.var(axis=0) for y in products], axis=0, weights=sizes)
    return mean, variance


def assert_close(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # float32 sums of 10 x 128 terms


@pytest.mark.parametrize("percentage", [100, 50, 30, 10])
def test_statistics_are_the_mean_of_those_of_the_batches(percentage):
    tesla = one_layer()
    x = normal(300, 10)
    calibrated = recalibrate(tesla, x, [percentage])
    batches = [x[:128], x[128:256], x[256:]]
    assert_close(statistics(calibrated, percentage), by_hand(tesla, batches, percentage))


def test_several_percentages_from_one_pass():
    tesla = one_layer()
    x = normal(60, 10)
    calibrated = recalibrate(tesla, (batch for batch in [(x[:40],), (x[40:],)]), [70, 20, 100])
    for percentage in (100, 70, 20):
        expected = by_hand(tesla, [x[:40], x[40:]], percentage)
        assert_close(statistics(calibrated, percentage), expected)


def convolutional(norm):
    x = keras.Input((6, 6, 3))
    y = layers.ReLU()(norm(name="first")(layers.Conv2D(8, 3)(x)))
    y = layers.ReLU()(norm(name="second")(IDPConv2D(8, 3)(y)))
    y = layers.Dropout(0.5)(y)
    y = norm(name="third")(IDPConv2D(4, 1)(y))
    return keras.Model(x, IDPDense(3)(layers.GlobalAveragePooling2D()(y)))


def own_statistics(**arguments):
    return IDPBatchNormalization([100, 50], **arguments)


def test_at_100_percent_they_are_the_cumulative_average_of_plain_keras():
    network = convolutional(own_statistics)
    keras_model = convolutional(layers.BatchNormalization)
    for old, new in zip(network.layers, keras_model.layers, strict=True):
        new.set_weights(old.get_weights()[: len(new.weights)])
        if isinstance(new, layers.Dropout):
            new.rate = 0.0
    batches = normal(4, 16, 6, 6, 3)
    for i, batch in enumerate(batches):
        for name in ("first", "second", "third"):
            keras_model.get_layer(name).momentum = i / (i + 1)
        keras_model(batch, training=True)
    x = batches.reshape(64, 6, 6, 3)
    calibrated = recalibrate(TESLA(network, [100, 50]), x, [100], batch_size=16)
    for name in ("first", "second", "third"):
        layer = keras_model.get_layer(name)
        expected = [to_numpy(layer.moving_mean), to_numpy(layer.moving_variance)]
        assert_close(statistics(calibrated, 100, name), expected)


@pytest.mark.parametrize("percentage", [50, 30])
def test_below_they_are_those_of_the_scoped_network(percentage):
    """On one batch, where nothing is narrowed; the channels that are read."""
    tesla = TESLA(convolutional(own_statistics), [100, 50])
    x = normal(32, 6, 6, 3)
    calibrated = recalibrate(tesla, x, [percentage])
    outer = keras.Model(
        calibrated.network.inputs[0],
        [calibrated.network.get_layer(n).input for n in ("first", "second", "third")],
    )
    with percentage_scope(percentage):  # one batch: its statistics are now the moving ones
        inputs = [to_numpy(y) for y in outer(x, training=False)]
    for name, y in zip(("first", "second", "third"), inputs, strict=True):
        width = active_terms(y.shape[-1], percentage)
        actual = [v[:width] for v in statistics(calibrated, percentage, name)]
        assert_close(actual, [y.mean((0, 1, 2))[:width], y.var((0, 1, 2))[:width]])


def test_channels_that_are_not_read_keep_theirs():
    tesla = TESLA(convolutional(own_statistics), [100, 50])
    second = recalibrate(tesla, normal(32, 6, 6, 3), [25])
    mean, variance = statistics(second, 25, "first")
    assert np.all(mean[:2] != 0)
    assert np.all(mean[2:] == 0)
    assert np.all(variance[2:] == 1)


# What comes back.


def test_everything_else_is_kept():
    tesla = one_layer([100, 50], momentum=0.5)
    norm = tesla.network.get_layer("norm")
    for i, variable in enumerate(norm.variables):
        variable.assign(normal(4, seed=i) ** 2)
    calibrated = recalibrate(tesla, normal(20, 10), [100, 30])
    new = calibrated.network.get_layer("norm")
    assert calibrated.percentages == new.percentages == (100, 50, 30)
    assert new.momentum == 0.5
    assert calibrated.name == tesla.name
    assert calibrated.network.name == tesla.network.name
    assert not calibrated.compiled
    assert_close(statistics(calibrated, 50), statistics(tesla, 50))
    assert_close([to_numpy(new.gamma), to_numpy(new.beta)], norm.get_weights()[:2])
    kernels = [to_numpy(t.network.get_layer("dense").kernel) for t in (tesla, calibrated)]
    np.testing.assert_array_equal(*kernels)


def test_a_new_percentage_gets_gains_and_shifts_between_its_neighbours():
    tesla = one_layer((100, 50, 20), private_affine=True)
    private = tesla.network.get_layer("norm").private_variables
    for percentage, gain in [(100, 0.5), (50, 0.0), (20, -0.3)]:
        private(percentage)["gain"].assign(4 * [gain])
        private(percentage)["shift"].assign([1.0, 2.0, 3.0, percentage])
    calibrated = recalibrate(tesla, normal(60, 10), [75, 50, 30, 10])
    private = calibrated.network.get_layer("norm").private_variables
    # By hand, on straight lines from 20 over 50 to 100 %, and what the narrowest has below it.
    for percentage, gain in [(100, 0.5), (75, 0.25), (50, 0), (30, -0.2), (20, -0.3), (10, -0.3)]:
        shift = [1, 2, 3, max(percentage, 20)]
        np.testing.assert_allclose(to_numpy(private(percentage)["gain"]), 4 * [gain], atol=1e-6)
        np.testing.assert_allclose(to_numpy(private(percentage)["shift"]), shift, rtol=1e-6)


def private_layer(normalization=True):
    """Ten inputs, four channels; numbers of 100, 50 and 20 %, which read 10, 5 and 2 terms."""
    percentages = (100, 50, 20)
    inputs = keras.Input((10,))
    layer = IDPDense(
        4, percentages=percentages, private_bias=True, private_profile=True, name="dense"
    )
    y = layer(inputs)
    if normalization:
        y = IDPBatchNormalization(percentages, name="norm")(y)
    for percentage, profile in [(100, [0.1, 0.2, 0.3]), (50, [0.4, 0.5]), (20, [0.6])]:
        own = layer.private_variables(percentage)
        own["bias"].assign([1.0, 2.0, 3.0, percentage])
        own["profile"].assign(profile)
    return TESLA(keras.Model(inputs, y), percentages)


@pytest.mark.parametrize("normalization", [True, False])
def test_a_new_percentage_gets_private_numbers_between_its_neighbours(normalization):
    tesla = private_layer(normalization)
    calibrated = recalibrate(tesla, normal(60, 10), [80, 30, 10])
    layer = calibrated.network.get_layer("dense")
    old = tesla.network.get_layer("dense")
    np.testing.assert_array_equal(to_numpy(layer.kernel), to_numpy(old.kernel))
    # Cuts at 1, 2, 3, 5, 8 and 10 terms; by hand, on straight lines between the percentages that
    # read a block, and what the nearest one has where there are no two.
    expected = {
        100: [0.1, 0.1, 0.2, 0.2, 0.3, 0.3],
        80: [0.22, 0.22, 0.32, 0.32, 0.3],
        50: [0.4, 0.4, 0.5, 0.5],
        30: [0.6 - 0.2 / 3, 0.6 - 0.2 / 3, 0.5],
        20: [0.6, 0.6],
        10: [0.6],
    }
    for percentage, profile in expected.items():
        own = {k: to_numpy(v) for k, v in layer.private_variables(percentage).items()}
        np.testing.assert_allclose(own["profile"], profile, rtol=1e-6)
        np.testing.assert_allclose(own["bias"], [1, 2, 3, max(percentage, 20)], rtol=1e-6)
    for percentage in (100, 50, 20):
        if not normalization:
            x = normal(3, 10)
            actual, before = (to_numpy(t.at(percentage)(x)) for t in (calibrated, tesla))
            np.testing.assert_allclose(actual, before, rtol=1e-6)


def test_private_numbers_of_a_percentage_above_all_are_those_of_the_highest():
    inputs = keras.Input((10,))
    layer = IDPDense(4, percentages=[50], private_profile=True, name="dense")
    tesla = TESLA(keras.Model(inputs, layer(inputs)), [50])
    layer.private_variables(50)["profile"].assign([0.5])
    own = recalibrate(tesla, normal(9, 10), [100]).network.get_layer("dense").private_variables
    # Of terms that no percentage has read nothing is known.
    np.testing.assert_allclose(to_numpy(own(100)["profile"]), [0.5, 0])


def test_a_percentage_above_all_takes_the_first_place():
    """Keras' `moving_mean` serves the highest percentage: now another one than before."""
    tesla = one_layer([50, 20])
    norm = tesla.network.get_layer("norm")
    norm.moving_mean.assign(normal(4))
    calibrated = recalibrate(tesla, normal(20, 10), [80])
    assert_close(statistics(calibrated, 50), statistics(tesla, 50))
    new = calibrated.network.get_layer("norm")
    np.testing.assert_array_equal(to_numpy(new.moving_mean), statistics(calibrated, 80)[0])


def test_the_original_is_not_changed():
    tesla, x = one_layer(), normal(8, 10)
    before = tesla.network.get_weights()
    calibrated = recalibrate(tesla, x, [100, 50, 30])
    calibrated.compile("sgd", "mse")
    calibrated.fit(x, np.zeros((8, 4)), verbose=0)
    assert tesla.percentages == (100, 50)
    for actual, expected in zip(tesla.network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.fixture(scope="module")
def trained():
    """A network trained at 100 and 50 percent to tell which of four images is in the noise."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 512)
    x = (2 * rng.normal(size=(4, 6, 6, 3))[y] + rng.normal(size=(512, 6, 6, 3))).astype("float32")
    inputs = keras.Input((6, 6, 3))
    z = layers.Conv2D(20, 3)(inputs)
    for _ in range(2):
        z = layers.ReLU()(IDPBatchNormalization([100, 50], momentum=0.8)(z))
        z = IDPConv2D(20, 3, padding="same")(z)
    z = layers.ReLU()(IDPBatchNormalization([100, 50], momentum=0.8)(z))
    z = IDPDense(4, input_channels=20)(layers.Flatten()(z))
    tesla = TESLA(keras.Model(inputs, z), [100, 50])
    compiled(tesla).fit(x, y, epochs=4, batch_size=32, verbose=0)
    return tesla, x, y


def compiled(tesla):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    tesla.compile(keras.optimizers.Adam(0.01), loss)
    return tesla


@pytest.mark.slow
def test_statistics_of_its_own_are_better_than_those_of_the_next_percentage(trained):
    tesla, x, y = trained
    calibrated = compiled(recalibrate(tesla, x, [30]))
    own = calibrated.evaluate(x, y, percentages=[30], verbose=0, return_dict=True)["p30_loss"]
    for layer in calibrated.network.layers:
        if isinstance(layer, IDPBatchNormalization):
            for target, source in zip(layer.statistics(30), layer.statistics(50), strict=True):
                target.assign(to_numpy(source).copy())
    borrowed = calibrated.evaluate(x, y, percentages=[30], verbose=0, return_dict=True)
    assert own < borrowed["p30_loss"]


@pytest.mark.slow
def test_the_result_is_used_and_saved_like_any_tesla_model(trained, tmp_path):
    tesla, x, _ = trained
    with pytest.raises(ValueError, match="has statistics for"):
        tesla.at(30)
    calibrated = recalibrate(tesla, x, [30])
    expected = calibrated.predict(x, percentage=30, verbose=0)
    # The same float32 terms in another order; outputs are of size 1 to 10.
    np.testing.assert_allclose(
        calibrated.at(30).predict(x, verbose=0), expected, rtol=1e-3, atol=1e-3
    )
    calibrated.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.percentages == (100, 50, 30)
    np.testing.assert_allclose(
        loaded.predict(x, percentage=30, verbose=0), expected, rtol=1e-5, atol=1e-5
    )


# Kinds of networks.


def test_plain_batch_normalizations_infer():
    inputs = keras.Input((10,))
    y = layers.BatchNormalization(name="plain")(inputs)
    y = IDPBatchNormalization([100, 50], name="norm")(IDPDense(4, name="dense")(y))
    tesla = TESLA(keras.Model(inputs, y), [100, 50])
    plain = tesla.network.get_layer("plain")
    plain.moving_mean.assign(normal(10))
    x = normal(20, 10)
    calibrated = recalibrate(tesla, x, [50])
    after = calibrated.network.get_layer("plain")
    np.testing.assert_array_equal(to_numpy(after.moving_mean), to_numpy(plain.moving_mean))
    assert_close(statistics(calibrated, 50), by_hand(tesla, [to_numpy(plain(x))], 50))


def test_frozen_and_renormalized_layers_are_measured_like_others():
    x = normal(20, 10)
    for arguments in ({"trainable": False}, {"renorm": True}):
        tesla = one_layer(**arguments)
        calibrated = recalibrate(tesla, x, [30])
        norm = calibrated.network.get_layer("norm")
        assert norm.trainable is arguments.get("trainable", True)
        mean, variance = by_hand(tesla, [x], 30)
        assert_close(statistics(calibrated, 30)[:2], [mean, variance])
        if norm.renorm:
            stddev = np.sqrt(variance + norm.epsilon)
            assert_close(statistics(calibrated, 30)[2:], [stddev, mean, stddev])


def test_renormalization_normalizes_by_the_batch():
    """Seen in what a second layer measures: channels of mean 0 and variance 1."""
    inputs = keras.Input((10,))
    y = IDPBatchNormalization([100], renorm=True)(IDPDense(4)(inputs))
    y = IDPBatchNormalization([100], name="second")(y)
    calibrated = recalibrate(TESLA(keras.Model(inputs, y), [100]), normal(50, 10), [100])
    mean, variance = statistics(calibrated, 100, "second")
    np.testing.assert_allclose(mean, 0, atol=1e-5)  # float32
    np.testing.assert_allclose(variance, 1, atol=2e-3)  # epsilon is .001


def test_a_layer_called_twice_has_the_mean_of_its_calls():
    inputs = {n: keras.Input((10,), name=n) for n in ("a", "b")}
    dense, norm = IDPDense(4, name="dense"), IDPBatchNormalization([100], name="norm")
    network = keras.Model(
        inputs, layers.Add()([norm(dense(inputs["a"])), norm(dense(inputs["b"]))])
    )
    tesla = TESLA(network, [100])
    a, b = normal(20, 10), 3 * normal(20, 10, seed=1)
    calibrated = recalibrate(tesla, {"a": a, "b": b}, [100, 40])
    for percentage in (100, 40):
        assert_close(statistics(calibrated, percentage), by_hand(tesla, [a, b], percentage))


def test_nested_models_and_functions_with_globals():
    inner = keras.Sequential(
        [keras.Input((10,)), IDPDense(4, name="dense"), own_statistics(name="norm")], name="inner"
    )
    inputs = keras.Input((10,))
    outputs = layers.Lambda(lambda y: to_scale(y))(inner(inputs))
    tesla = TESLA(keras.Model(inputs, outputs), [100, 50])
    x = normal(20, 10)
    calibrated = recalibrate(tesla, x, [30])
    nested = calibrated.network.get_layer("inner").get_layer("norm")
    assert nested.percentages == (100, 50, 30)
    outputs = to_numpy(calibrated.predict(x, percentage=30, verbose=0))
    np.testing.assert_allclose(outputs.mean(axis=0), 0, atol=1e-4)  # float32, times 2
    np.testing.assert_allclose(outputs.std(axis=0), 2, atol=0.02)  # epsilon is .001


def to_scale(y):
    return 2 * y


def test_layers_that_do_not_run_at_a_percentage_keep_theirs():
    inputs = keras.Input((10,))
    a, b = (own_statistics(name=f"norm_{n}")(layers.Dense(4)(inputs)) for n in "ab")
    tesla = TESLA(keras.Model(inputs, IDPDense(3)(layers.Concatenate()([a, b]))), [100, 50])
    calibrated = recalibrate(tesla, normal(20, 10), [30])  # 2 of the 8 channels: those of a
    assert np.all(statistics(calibrated, 30, "norm_a")[0][:2] != 0)
    assert np.all(statistics(calibrated, 30, "norm_b")[0] == 0)


def test_a_compiled_network():
    tesla = one_layer()
    tesla.network.compile("sgd", lambda y_true, y_pred: y_pred)  # cannot be serialized
    assert recalibrate(tesla, normal(20, 10), [30]).percentages == (100, 50, 30)


@pytest.mark.parametrize("aggregation", ["sum", "exponential", {100: 0.7, 50: 0.3}])
def test_the_aggregation_is_kept(aggregation):
    tesla = TESLA(one_layer().network, [100, 50], aggregation)
    calibrated = recalibrate(tesla, normal(20, 10), [50, 30])
    losses = {100: 1.0, 50: 2.0}
    assert calibrated.aggregation(losses) == tesla.aggregation(losses)
    if isinstance(aggregation, dict):
        assert calibrated.aggregation.weights == {100: 0.7, 50: 0.3, 30: 0}


# Data.


class Batches(keras.utils.PyDataset):
    def __init__(self, x, size, **kwargs):
        super().__init__(**kwargs)
        self.x, self.size = x, size

    def __len__(self):
        return len(self.x) // self.size

    def __getitem__(self, index):
        batch = self.x[index * self.size : (index + 1) * self.size]
        return batch, np.zeros(len(batch)), np.ones(len(batch))


def dataset(x, size):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(x).batch(size)


SOURCES = {
    "array": lambda x: x,
    "generator": lambda x: ((b, np.zeros(len(b))) for b in np.split(x, [16, 32, 48])),
    "dataset of x": lambda x: dataset(x, 16),
    "dataset of (x, y)": lambda x: dataset((x, x[:, 0]), 16),
    "PyDataset": lambda x: Batches(x, 16),
    "function": lambda x: lambda: dataset(x, 16),
    "generator function": lambda x: lambda: ([b] for b in np.split(x, [16, 32, 48])),
    "iterator of arrays": lambda x: iter(np.split(x, [16, 32, 48])),
}


@pytest.mark.parametrize("steps", [None, 2])
@pytest.mark.parametrize("source", SOURCES)
def test_data_are_what_keras_takes(source, steps):
    tesla, x = one_layer(), normal(64, 10)
    calibrated = recalibrate(tesla, SOURCES[source](x), [30], steps=steps, batch_size=16)
    batches = [x[:16], x[16:32], x[32:48], x[48:]][:steps]
    assert_close(statistics(calibrated, 30), by_hand(tesla, batches, 30))


@pytest.mark.parametrize(
    "batch",
    [
        lambda a, b: [a, b],
        lambda a, b: (a, b),
        lambda a, b: {"a": a, "b": b},
        lambda a, b: ({"a": a, "b": b}, a),
        lambda a, b: ([a, b], a),
        lambda a, b: ((a, b), a, np.ones(len(a))),
    ],
)
@pytest.mark.slow
def test_batches_of_several_inputs_are_those_of_representative_data(batch):
    """The oracle: the same arrays, in batches as large."""
    inputs = [keras.Input((4,), name=name) for name in "ab"]
    x = IDPDense(8)(layers.Concatenate()([layers.Dense(6)(x) for x in inputs]))
    x = IDPDense(1)(IDPBatchNormalization([100, 50], name="norm")(x))
    tesla = TESLA(keras.Model(inputs, x), [100, 50])
    a, b = normal(32, 4), normal(32, 4, seed=1)
    halves = [batch(a[i : i + 16], b[i : i + 16]) for i in (0, 16)]
    expected = recalibrate(tesla, [a, b], [30], batch_size=16).network.get_layer("norm")
    for data in (iter(halves), lambda: iter(halves)):
        norm = recalibrate(tesla, data, [30]).network.get_layer("norm")
        for ours, theirs in zip(norm.get_weights(), expected.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: np.zeros((0, 10)), "must hold at least one batch. Received: array"),
        (lambda: dataset(np.zeros((0, 10)), 8), "must hold at least one batch. Received: <_Batch"),
        (lambda: Batches(np.zeros((0, 10)), 8), "at least one batch|PyDataset has length 0"),
        (lambda: (batch for batch in ()), "must yield at least one batch"),
        (lambda: None, "must hold the inputs of the network. Received: None"),
        (lambda: "images", "Unrecognized data type"),
        (lambda: [np.zeros((8, 10))] * 2, "The model takes 1 inputs. Received: 2"),
    ],
)
def test_bad_data(data, message):
    with pytest.raises(ValueError, match=message):
        recalibrate(one_layer(), data(), [30])


# Bad input.


def test_only_a_tesla_model():
    with pytest.raises(ValueError, match="takes a `keras_tesla.TESLA` model; wrap the network"):
        recalibrate(one_layer().network, normal(8, 10), [30])


@pytest.mark.parametrize("norm", [[], [layers.BatchNormalization()]], ids=["none", "plain"])
def test_nothing_to_recalibrate(norm):
    network = keras.Sequential([keras.Input((10,)), IDPDense(4, name="dense"), *norm])
    message = r"nothing to recalibrate: the network has no `IDPBatchNormalization`.*'dense'"
    with pytest.raises(ValueError, match=message):
        recalibrate(TESLA(network, [100, 50]), normal(8, 10), [30])


@pytest.mark.parametrize(
    ("percentages", "message"),
    [
        ([], "at least one percentage"),
        (30, "must be an iterable of integers"),
        ([0], "must be from 1 to 100"),
        ([30.0], "must be an integer"),
        ([30, 30], "must be distinct"),
    ],
)
def test_bad_percentages(percentages, message):
    with pytest.raises(ValueError, match=message):
        recalibrate(one_layer(), normal(8, 10), percentages)


@pytest.mark.parametrize("name", ["steps", "batch_size"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True, "2"])
def test_bad_steps_and_batch_size(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be a positive integer. Received: "):
        recalibrate(one_layer(), normal(8, 10), [30], **{name: value})


class Own(TESLA):
    """What a user derives to train in another way."""


def test_a_subclass_stays_one():
    tesla = Own(one_layer().network, [100, 50])
    assert type(recalibrate(tesla, normal(8, 10), [100, 50])) is Own
