"""IDPBatchNormalization: Keras' BatchNormalization with statistics for each percentage."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_tesla import percentage_scope
from keras_tesla.layers import IDPBatchNormalization

to_numpy = keras.ops.convert_to_numpy


def normal(*shape, seed=0):
    return (1 + 2 * np.random.default_rng(seed).normal(size=shape)).astype("float32")


ARGUMENTS = [
    {},
    {"axis": 1},
    {"momentum": 0.5, "epsilon": 0.1},
    {"center": False},
    {"scale": False},
    {"center": False, "scale": False},
    {"beta_initializer": "ones", "gamma_initializer": "normal"},
    {"moving_mean_initializer": "ones", "moving_variance_initializer": "uniform"},
    {"beta_regularizer": "l2", "gamma_regularizer": "l1"},
    {"beta_constraint": "non_neg", "gamma_constraint": "non_neg"},
    {"renorm": True},
    {"renorm": True, "renorm_clipping": {"rmax": 1.5, "dmax": 0.5}, "renorm_momentum": 0.7},
    {"trainable": False},
    {"dtype": "mixed_float16"},
    {"dtype": "mixed_bfloat16"},
]

SHAPE = (4, 5, 3)


def pair(arguments, percentages=(100, 50), private_affine=False):
    """The layer with statistics for each percentage and the Keras layer, from the same seed."""
    keras.utils.set_random_seed(1)
    ours = IDPBatchNormalization(percentages, private_affine, name="norm", **arguments)
    ours.build(SHAPE)
    keras.utils.set_random_seed(1)
    theirs = layers.BatchNormalization(name="norm", **arguments)
    theirs.build(SHAPE)
    return ours, theirs


def assert_equal_behaviour(ours, theirs, **call_arguments):
    """Both train on two batches, and then infer; Keras' own code runs, so bits are equal."""
    for seed, training in [(0, False), (1, True), (2, True), (3, False)]:
        x = normal(*SHAPE, seed=seed)
        actual = ours(x, training=training, **call_arguments)
        expected = theirs(x, training=training, **call_arguments)
        assert actual.dtype == expected.dtype
        np.testing.assert_array_equal(to_numpy(actual), to_numpy(expected))


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_highest_percentage_equals_keras(arguments):
    ours, theirs = pair(arguments)
    assert_equal_behaviour(ours, theirs)
    own = [v for v in ours.weights if "_p50" not in v.name]
    assert [v.path for v in own] == [v.path for v in theirs.weights]
    for a, b in zip(own, theirs.weights, strict=True):
        assert type(a.regularizer) is type(b.regularizer)
        assert type(a.constraint) is type(b.constraint)
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b))
    assert [to_numpy(v) for v in ours.losses] == [to_numpy(v) for v in theirs.losses]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_every_other_percentage_equals_a_keras_layer_of_its_own(arguments):
    ours, theirs = pair(arguments)
    with percentage_scope(50):
        assert_equal_behaviour(ours, theirs)
    for a, b in zip(ours.statistics(50), theirs.non_trainable_variables, strict=False):
        if arguments.get("trainable", True):
            assert a.name == f"{b.name}_p50"
            np.testing.assert_array_equal(to_numpy(a), to_numpy(b))


@pytest.mark.parametrize("percentage", [100, 50])
def test_masked_positions_do_not_count(percentage):
    ours, theirs = pair({})
    mask = np.arange(20).reshape(4, 5) % 3 != 0
    with percentage_scope(percentage):
        assert_equal_behaviour(ours, theirs, mask=keras.ops.convert_to_tensor(mask))


@pytest.mark.tensorflow
def test_synchronized_equals_keras():
    ours, theirs = pair({"synchronized": True})
    assert_equal_behaviour(ours, theirs)


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_config_has_the_words_of_keras(arguments):
    ours, theirs = (layer.get_config() for layer in pair(arguments))
    assert {key: ours[key] for key in theirs} == theirs
    assert set(ours) - set(theirs) == {"percentages", "private_affine"}


def test_statistics_of_percentages_are_independent():
    layer = IDPBatchNormalization([100, 50, 10], momentum=0.5)
    layer.build((None, 2))
    x = np.array([[1.0, 10.0], [3.0, 30.0]], "float32")
    with percentage_scope(50):
        layer(x, training=True)
    with percentage_scope(10):
        layer(10 * x, training=True)
        layer(10 * x, training=False)  # inference updates nothing
    # By hand: half of the start (mean 0, variance 1), half of the batch.
    for percentage, mean, variance in [
        (100, [0, 0], [1, 1]),
        (50, [1, 10], [1, 50.5]),
        (10, [10, 100], [50.5, 5000.5]),
    ]:
        actual = [to_numpy(v) for v in layer.statistics(percentage)]
        np.testing.assert_allclose(actual, [mean, variance], rtol=1e-6)  # float32


def test_affine_is_shared():
    layer = IDPBatchNormalization([100, 50], epsilon=0.0)
    layer.build((None, 2))
    assert [v.name for v in layer.trainable_variables] == ["gamma", "beta"]
    layer.gamma.assign([2.0, 3.0])
    layer.beta.assign([1.0, -1.0])
    for percentage in (100, 50):
        with percentage_scope(percentage):
            y = to_numpy(layer(np.ones((1, 2), "float32"), training=False))
        np.testing.assert_allclose(y, [[3.0, 2.0]], rtol=1e-6)  # float32


@pytest.mark.parametrize("percentage", [100, 50])
def test_gradient_of_the_affine(gradients, percentage):
    ours, theirs = pair({})
    x = normal(*SHAPE)

    def loss(layer):
        with percentage_scope(percentage):
            return keras.ops.sum(layer(x, training=True) ** 3)

    actual = gradients(lambda: loss(ours), ours.trainable_variables)
    expected = gradients(lambda: loss(theirs), theirs.trainable_variables)
    for a, b in zip(actual, expected, strict=True):
        # A sum of 20 float32 numbers that may cancel.
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


def private(percentages=(100, 50), **arguments):
    """A layer whose gains and shifts are trained to random values."""
    layer = IDPBatchNormalization(percentages, private_affine=True, name="norm", **arguments)
    layer.build(SHAPE)
    for seed, percentage in enumerate(percentages):
        for i, variable in enumerate(layer.private_variables(percentage).values()):
            variable.assign(normal(3, seed=10 * seed + i))
    return layer


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
@pytest.mark.parametrize("percentage", [100, 50])
def test_private_affine_begins_as_keras(arguments, percentage):
    ours, theirs = pair(arguments, private_affine=True)
    with percentage_scope(percentage):
        assert_equal_behaviour(ours, theirs)


def test_private_affine_equals_a_keras_layer_with_that_gamma_and_beta():
    ours = private()
    for percentage in (100, 50):
        theirs = layers.BatchNormalization()
        theirs.build(SHAPE)
        gain, shift = map(to_numpy, ours.private_variables(percentage).values())
        theirs.gamma.assign(to_numpy(ours.gamma) * (1 + gain))
        theirs.beta.assign(to_numpy(ours.beta) + shift)
        with percentage_scope(percentage):
            assert_equal_behaviour(ours, theirs)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [({"center": False}, ["gain"]), ({"scale": False}, ["shift"]), ({"renorm": True}, None)],
)
def test_private_affine_has_what_the_layer_has(arguments, names):
    layer = private(**arguments)
    assert list(layer.private_variables(50)) == (names or ["gain", "shift"])
    with percentage_scope(50):
        assert layer(normal(*SHAPE)).shape == SHAPE


def test_gradients_of_a_percentage_reach_the_shared_and_its_own_affine(gradients):
    layer = private()
    x = normal(*SHAPE)
    normalized = (x - x.mean((0, 1))) / np.sqrt(x.var((0, 1)) + layer.epsilon)

    def loss():
        with percentage_scope(50):
            return keras.ops.sum(layer(x, training=True))

    found = gradients(loss, layer.trainable_variables)
    actual = dict(zip([v.name for v in layer.trainable_variables], found, strict=True))
    gain = to_numpy(layer.private_variables(50)["gain"])
    gamma = to_numpy(layer.gamma)
    expected = {
        "gamma": (1 + gain) * normalized.sum((0, 1)),
        "beta": np.full(3, 20.0),
        "gain_p100": np.zeros(3),
        "shift_p100": np.zeros(3),
        "gain_p50": gamma * normalized.sum((0, 1)),
        "shift_p50": np.full(3, 20.0),
    }
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        # Sums of 20 numbers of size 1 that cancel, in float32.
        np.testing.assert_allclose(actual[name], value, rtol=1e-4, atol=1e-4, err_msg=name)


def test_private_affine_is_saved(tmp_path):
    model = keras.Sequential([keras.Input(SHAPE[1:]), private()])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for percentage in (100, 50):
        with percentage_scope(percentage):
            x = normal(*SHAPE)
            np.testing.assert_array_equal(to_numpy(loaded(x)), to_numpy(model(x)))


def test_fit_updates_the_statistics_of_the_highest_percentage():
    layer = IDPBatchNormalization([100, 50])
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile("sgd", "mse")
    model.fit(normal(8, 3), normal(8, 3), verbose=0)
    assert np.all(to_numpy(layer.moving_mean) != 0)
    assert np.all(to_numpy(layer.statistics(50)[0]) == 0)


def test_saving(tmp_path):
    model = keras.Sequential([keras.Input((3,)), IDPBatchNormalization([10, 100, 50])])
    for i, percentage in enumerate((100, 50, 10)):
        with percentage_scope(percentage):
            model(normal(6, 3, seed=i), training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].percentages == (100, 50, 10)
    x = normal(4, 3)
    for percentage in (100, 50, 10):
        with percentage_scope(percentage):
            np.testing.assert_array_equal(to_numpy(loaded(x)), to_numpy(model(x)))


@pytest.mark.parametrize("percentages", [[100, 50], [50, 20]])
@pytest.mark.parametrize("percentage", [30, 1, 99])
def test_a_percentage_without_statistics(percentages, percentage):
    layer = IDPBatchNormalization(percentages, name="norm")
    message = (
        rf"Layer 'norm' has statistics for \[{percentages[0]}, {percentages[1]}\] percent. "
        f"Received: {percentage}. Pass it in `percentages`"
    )
    with pytest.raises(ValueError, match=message), percentage_scope(percentage):
        layer(normal(2, 3))


@pytest.mark.parametrize(
    ("percentages", "message"),
    [
        ([], "must hold at least one"),
        (50, "must be an iterable"),
        ("50", "must be an iterable"),
        ([0], "from 1 to 100"),
        ([101], "from 1 to 100"),
        ([55.5], "must be an integer"),
        ([True], "must be an integer"),
        ([50, 50], "must be distinct"),
    ],
)
def test_bad_percentages(percentages, message):
    with pytest.raises(ValueError, match=message):
        IDPBatchNormalization(percentages)


def test_what_keras_refuses_is_refused():
    with pytest.raises(ValueError, match="invalid keys for `renorm_clipping`"):
        IDPBatchNormalization([100], renorm=True, renorm_clipping={"max": 1})
