"""The gradient that each percentage sends to each weight is multiplied by S, and nothing else is.

One SGD step shows the gradients of TESLA. What they must be is computed by
hand in NumPy, or from the gradients of the network as it is in a percentage scope, times S from own
percentages that each test writes down.
"""

import keras
import numpy as np
import pytest
from keras import layers

import keras_tesla as kt
from keras_tesla import percentage_scope
from keras_tesla.layers import (
    IDPBatchNormalization,
    IDPConv2D,
    IDPDense,
    IDPSeparableConv2D,
    PerRange,
)
from keras_tesla.training.attenuation import GradientAttenuation
from keras_tesla.training.distillation import InPlaceDistillation

PERCENTAGES = [100, 50, 20]
RATE = 0.9  # S at a distance of 30, 50 and 80 points: .53, .35, .19
LEARNING_RATE = 1 / 16  # small enough for profiles to stay non-increasing
BACKEND = keras.backend.backend()
to_numpy = keras.ops.convert_to_numpy

# Ways to take a step. JAX has one; TensorFlow and PyTorch differentiate one percentage after the
# other unless told not to. XLA takes long to compile, so it runs those networks only that differ in
# what it is given.
WAYS = ["together"] if BACKEND == "jax" else ["sequential", "together"]
WITH_XLA = [*WAYS, "xla"] if BACKEND == "tensorflow" else WAYS


def own(size, narrow, middle):
    """Own percentages of channels of which 20 % reads `narrow` and 50 % reads `middle`."""
    return np.array([20] * narrow + [50] * (middle - narrow) + [100] * (size - middle))


def factor(percentage, own_percentages, rate=RATE):
    """S by its definition; 1 where the percentage reads no such channel."""
    distance = np.maximum(percentage - np.asarray(own_percentages), 0)
    return np.asarray(rate) ** (distance / 5)


def wider(reads, writes):
    """Own percentages of a kernel's entries."""
    return np.maximum(reads[:, None], writes)


def name(variable):
    return "/".join(variable.path.split("/")[-2:])


def step(model, x, y, monkeypatch, way="sequential", attenuation=RATE, active=None, **kwargs):
    """Returns {"layer/weight": its gradient} as one step applies it."""
    tesla = kt.TESLA(model, PERCENTAGES, gradient_attenuation=attenuation, **kwargs)
    tesla.compile(
        keras.optimizers.SGD(LEARNING_RATE), "mse", jit_compile=way == "xla" or BACKEND == "jax"
    )
    if active:
        tesla.activate(active)
    if way == "together":
        monkeypatch.setattr(kt.TESLA, "backward_is_sequential", False)
    assert tesla.backward_is_sequential is (
        way == "sequential" and len(tesla.active_percentages) > 1
    )
    before = {name(v): np.array(to_numpy(v)) for v in model.trainable_variables}
    tesla.fit(x, y, batch_size=len(x), verbose=0)
    monkeypatch.undo()
    return {
        name(v): (before[name(v)] - to_numpy(v)) / LEARNING_RATE for v in model.trainable_variables
    }


def by_scope(model, x, y, gradients, owns, percentages=PERCENTAGES, weights=None):
    """Returns the same from the gradients of the whole network at each percentage.

    Args:
        owns: {"layer/weight": narrowest percentages, of a shape that broadcasts to the weight's}; a
            weight that is not there is not attenuated.
    """
    variables = model.trainable_variables
    start = model.get_weights()
    total = {name(v): 0.0 for v in variables}
    assert owns.keys() <= total.keys()
    for percentage in percentages:

        def loss(percentage=percentage):
            with percentage_scope(percentage):
                return keras.losses.MeanSquaredError()(y, model(x, training=True))

        for v, gradient in zip(variables, gradients(loss, variables), strict=True):
            s = factor(percentage, owns[name(v)]) if name(v) in owns else 1.0
            total[name(v)] += (weights or {}).get(percentage, 1.0) * s * gradient
    model.set_weights(start)  # statistics
    return total


def assert_equal(actual, expected):
    assert actual.keys() == expected.keys()
    for path, value in expected.items():
        # Float32 sums in another order; a wrong S changes the first digit of some entry.
        largest = max(np.abs(value).max(), 0.1)
        np.testing.assert_allclose(
            actual[path], value, rtol=1e-3, atol=1e-4 * largest, err_msg=path
        )


def data(*shape, outputs=3):
    random = np.random.default_rng(1)
    return random.normal(size=(6, *shape)).astype("float32"), random.normal(
        size=(6, outputs)
    ).astype("float32")


def randomized(model):
    """Biases, gammas and betas that are not all equal."""
    random = np.random.default_rng(2)
    for v in model.trainable_variables:
        v.assign(to_numpy(v) + random.uniform(0.05, 0.2, v.shape))
    return model


# A network by hand.


def mlp(policy=None, regularizer=None):
    keras.utils.set_random_seed(0)
    return randomized(
        keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(10, activation="relu", name="a", dtype=policy),
                IDPDense(
                    6, activation="relu", name="b", dtype=policy, kernel_regularizer=regularizer
                ),
                layers.Dense(3, name="c", dtype=policy),
            ]
        )
    )


def by_hand(model, x, y, s):
    """The gradients of a 4-10-6-3 network whose second layer reads 2, 5 or 10 units.

    Args:
        s: Function from a percentage to S of the ten hidden units.
    """
    w1, b1, w2, b2, w3, b3 = model.get_weights()
    total = [np.zeros_like(w) for w in (w1, b1, w2, b2, w3, b3)]
    for percentage, k in [(100, 10), (50, 5), (20, 2)]:
        z = x @ w1[:, :k] + b1[:k]
        h = np.maximum(z, 0)
        u = h @ w2[:k] + b2
        r = np.maximum(u, 0)
        d_out = 2 * (r @ w3 + b3 - y) / y.size
        d_u = (d_out @ w3.T) * (u > 0)
        d_z = (d_u @ w2[:k].T) * (z > 0)
        si = s(percentage)[:k]
        total[0][:, :k] += si * (x.T @ d_z)
        total[1][:k] += si * d_z.sum(0)
        total[2][:k] += si[:, None] * (h.T @ d_u)
        total[3] += d_u.sum(0)
        total[4] += r.T @ d_out
        total[5] += d_out.sum(0)
    return dict(zip([name(v) for v in model.trainable_variables], total, strict=True))


@pytest.mark.parametrize("way", WITH_XLA)
def test_every_weight_of_a_network_by_hand(way, monkeypatch):
    model, (x, y) = mlp(), data(4)
    expected = by_hand(model, x, y, lambda p: factor(p, own(10, 2, 5)))
    assert_equal(step(model, x, y, monkeypatch, way), expected)


@pytest.mark.parametrize("way", WAYS)
def test_rates_of_the_channels(way, monkeypatch):
    model, (x, y) = mlp(), data(4)
    # .5 up to 10 %, 1 from 60 % on.
    rates = np.array([0.6] * 2 + [0.9] * 3 + [1.0] * 5)
    expected = by_hand(model, x, y, lambda p: factor(p, own(10, 2, 5), rates))
    assert_equal(step(model, x, y, monkeypatch, way, GradientAttenuation()), expected)


@pytest.mark.parametrize("way", WAYS)
def test_own_percentages_are_those_of_the_model_not_of_the_active_ones(way, monkeypatch, gradients):
    model, (x, y) = mlp(), data(4)
    hidden = own(10, 2, 5)
    owns = {"a/kernel": hidden, "a/bias": hidden, "b/kernel": hidden[:, None]}
    expected = by_scope(model, x, y, gradients, owns, [100, 50])
    assert_equal(step(model, x, y, monkeypatch, way, active=[100, 50]), expected)
    model = mlp()
    expected = by_scope(model, x, y, gradients, owns, [50])
    assert_equal(step(model, x, y, monkeypatch, way, active=[50]), expected)


# Networks of other layers, by their gradients at each percentage.


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "norm", [layers.BatchNormalization, lambda **k: IDPBatchNormalization(PERCENTAGES, **k)]
)
def test_convolutions_and_batch_normalization(way, norm, monkeypatch, gradients):
    """Both axes of the second kernel are cut; the Flatten has two positions for each channel."""

    def make():
        inputs = keras.Input((4, 3, 2))
        x = layers.Conv2D(10, 3, padding="same", use_bias=False, name="a")(inputs)
        x = layers.ReLU()(layers.BatchNormalization(name="a_norm")(x))
        x = IDPConv2D(20, 3, padding="same", name="b")(x)
        x = layers.ReLU()(norm(name="b_norm")(x))
        x = layers.Flatten()(layers.MaxPooling2D((2, 3))(x))
        return randomized(keras.Model(inputs, IDPDense(3, input_channels=20, name="c")(x)))

    model, (x, y) = make(), data(4, 3, 2)
    first, second = own(10, 2, 5), own(20, 4, 10)
    owns = {
        "a/kernel": first,
        "a_norm/gamma": first,
        "a_norm/beta": first,
        "b/kernel": wider(first, second),
        "b/bias": second,
        "b_norm/gamma": second,
        "b_norm/beta": second,
        "c/kernel": np.tile(second, 2)[:, None],
    }
    expected = by_scope(model, x, y, gradients, owns)
    assert_equal(step(model, x, y, monkeypatch, way), expected)


@pytest.mark.parametrize("way", WITH_XLA)
def test_two_running_layers_of_which_one_is_cut_on_both_axes(way, monkeypatch, gradients):
    """The product of kernel and input sends each of them another gradient."""
    model = randomized(
        keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(10, activation="relu", name="a"),
                IDPDense(20, activation="relu", profile="linear", name="b"),
                IDPDense(3, name="c"),
            ]
        )
    )
    x, y = data(4)
    first, second = own(10, 2, 5), own(20, 4, 10)
    owns = {
        "a/kernel": first,
        "a/bias": first,
        "b/kernel": wider(first, second),
        "b/bias": second,
        "c/kernel": second[:, None],
    }
    expected = by_scope(model, x, y, gradients, owns)
    assert_equal(step(model, x, y, monkeypatch, way), expected)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("next_outputs", [IDPDense, layers.Dense])
def test_trainable_profiles(way, next_outputs, monkeypatch, gradients):
    """A coefficient belongs to its input channel."""
    model = randomized(
        keras.Sequential(
            [
                keras.Input((10,)),
                IDPDense(10, profile="linear", trainable_profile=True, name="b"),
                next_outputs(3, name="c"),
            ]
        )
    )
    x, y = data(10)
    channels = own(10, 2, 5)
    owns = {"b/kernel": channels[:, None], "b/profile": channels}
    if next_outputs is IDPDense:
        owns |= {"b/kernel": wider(channels, channels), "b/bias": channels}
        owns["c/kernel"] = channels[:, None]
    model.get_layer("b").coefficients.assign(np.linspace(10, 1, 10))
    expected = by_scope(model, x, y, gradients, owns)
    assert_equal(step(model, x, y, monkeypatch, way), expected)


@pytest.mark.parametrize("way", WITH_XLA)
def test_layers_before_those_that_are_cut_are_not_attenuated(way, monkeypatch, gradients):
    """The gradient of their outputs is that of all percentages; statistics move once a step."""
    model = randomized(
        keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(8, activation="tanh", name="first"),
                layers.Dense(10, name="a"),
                layers.BatchNormalization(name="norm"),
                layers.ReLU(),
                IDPDense(6, activation="relu", name="b"),
                layers.Dense(3, name="c"),
            ]
        )
    )
    x, y = data(4)
    hidden = own(10, 2, 5)
    owns = dict.fromkeys(["a/kernel", "a/bias", "norm/gamma", "norm/beta"], hidden)
    owns["b/kernel"] = hidden[:, None]
    expected = by_scope(model, x, y, gradients, owns)
    norm = model.get_layer("norm")
    mean = to_numpy(keras.ops.mean(model.layers[1](model.layers[0](x)), axis=0))
    assert_equal(step(model, x, y, monkeypatch, way), expected)
    # Momentum .99, from 0.
    np.testing.assert_allclose(to_numpy(norm.moving_mean), 0.01 * mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("way", WITH_XLA)
def test_channels_that_move_before_the_percentages_part(way, monkeypatch, gradients):
    """The channels of the second layer are others of the concatenation's."""
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="a")(inputs)
    y = layers.Dense(6, name="b")(inputs)
    x = layers.ReLU()(layers.Concatenate()([x, y]))
    model = randomized(keras.Model(inputs, IDPDense(3, name="c")(x)))
    x, y = data(4)
    both = own(10, 2, 5)
    owns = {"a/kernel": both[:4], "a/bias": both[:4], "c/kernel": both[:, None]}
    owns |= {"b/kernel": both[4:], "b/bias": both[4:]}
    expected = by_scope(model, x, y, gradients, owns)
    assert_equal(step(model, x, y, monkeypatch, way), expected)


@pytest.mark.parametrize("way", WITH_XLA)
@pytest.mark.slow
def test_parts_of_a_concatenation(way, monkeypatch, gradients):
    """Two percentages read 2 and 5 of the 10 channels of a, and 1 and 2 of the 5 of b."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    a, b = layers.Dense(10, name="a")(inputs), IDPDense(5, name="b")(inputs)
    x = layers.BatchNormalization(name="norm")(layers.Concatenate()([a, b]))
    c = IDPDense(3, name="c", input_parts=(10, 5), profile="linear")
    model = randomized(keras.Model(inputs, c(x)))
    x, y = data(4)
    of_a, of_b = own(10, 2, 5), own(5, 1, 2)
    both = np.concatenate([of_a, of_b])
    owns = {"a/kernel": of_a, "a/bias": of_a, "c/kernel": both[:, None]}
    owns |= {"norm/gamma": both, "norm/beta": both}
    owns |= {"b/kernel": wider(own(4, 1, 2), of_b), "b/bias": of_b}
    expected = by_scope(model, x, y, gradients, owns)
    assert_equal(step(model, x, y, monkeypatch, way), expected)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_depthwise_and_separable_convolutions(way, monkeypatch, gradients):
    inputs = keras.Input((5, 5, 3))
    x = layers.Conv2D(10, 1, name="first")(inputs)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="a")(x)
    x = IDPSeparableConv2D(10, 2, depth_multiplier=2, name="b")(x)
    x = IDPConv2D(3, 2, name="c")(x)
    model = randomized(keras.Model(inputs, layers.GlobalAveragePooling2D()(x)))
    x, y = data(5, 5, 3)
    ten, twenty = own(10, 2, 5), own(20, 4, 10)
    owns = {
        "first/kernel": ten,
        "first/bias": ten,
        "a/kernel": ten[:, None],
        "a/bias": twenty,
        "b/depthwise_kernel": twenty[:, None],
        "b/pointwise_kernel": wider(np.repeat(twenty, 2), ten),
        "b/bias": ten,
        "c/kernel": ten[:, None],
    }
    expected = by_scope(model, x, y, gradients, owns)
    assert_equal(step(model, x, y, monkeypatch, way), expected)


@pytest.mark.parametrize("way", WAYS)
def test_weights_of_some_percentages_only(way, monkeypatch, gradients):
    """A weight of one percentage is not attenuated, one of two begins at the narrower of them."""
    model = randomized(
        keras.Sequential(
            [
                keras.Input((4,)),
                PerRange({20: layers.Dense(10, name="low"), 100: layers.Dense(10, name="high")}),
                layers.ReLU(),
                IDPDense(3, name="c"),
            ]
        )
    )
    x, y = data(4)
    high = own(10, 0, 5)
    owns = {"high/kernel": high, "high/bias": high, "c/kernel": own(10, 2, 5)[:, None]}
    expected = by_scope(model, x, y, gradients, owns)
    assert_equal(step(model, x, y, monkeypatch, way), expected)


def test_a_layer_called_twice(monkeypatch, gradients):
    """Once for all percentages, and once after an incomplete layer."""
    inputs = keras.Input((4,))
    twice = layers.Dense(10, activation="tanh", name="twice")
    x = twice(layers.Dense(10, name="first")(inputs))
    x = twice(IDPDense(10, name="b")(x))
    model = randomized(keras.Model(inputs, IDPDense(3, name="c")(x)))
    x, y = data(4)
    hidden = own(10, 2, 5)
    owns = {"twice/kernel": hidden, "twice/bias": hidden}
    owns |= {"b/kernel": hidden[:, None], "c/kernel": hidden[:, None]}
    expected = by_scope(model, x, y, gradients, owns)
    assert_equal(step(model, x, y, monkeypatch, WAYS[0]), expected)


def test_a_range_that_trains(monkeypatch, gradients):
    model, (x, y) = mlp(), data(4)
    model.get_layer("b").trained_range = (20, 50)
    hidden = own(10, 2, 5)
    owns = {"a/kernel": hidden, "a/bias": hidden, "b/kernel": hidden[:, None]}
    expected = by_scope(model, x, y, gradients, owns)
    assert not expected["b/kernel"][:2].any()
    assert_equal(step(model, x, y, monkeypatch, WAYS[0]), expected)


def test_frozen_layers(monkeypatch, gradients):
    model, (x, y) = mlp(), data(4)
    model.get_layer("a").trainable = False
    owns = {"b/kernel": own(10, 2, 5)[:, None]}
    expected = by_scope(model, x, y, gradients, owns)
    assert_equal(step(model, x, y, monkeypatch, WAYS[0]), expected)


@pytest.mark.parametrize("way", WAYS)
def test_aggregation_and_regularization(way, monkeypatch, gradients):
    """Percentages are attenuated after they are weighed; regularization is of no percentage."""
    model, (x, y) = mlp(regularizer=keras.regularizers.L2(0.1)), data(4)
    hidden = own(10, 2, 5)
    owns = {"a/kernel": hidden, "a/bias": hidden, "b/kernel": hidden[:, None]}
    weights = {100: 0.5, 50: 2.0, 20: 3.0}
    expected = by_scope(model, x, y, gradients, owns, weights=weights)
    expected["b/kernel"] += 0.2 * to_numpy(model.get_layer("b").kernel)
    assert_equal(step(model, x, y, monkeypatch, way, aggregation=weights), expected)


@pytest.mark.skipif(len(WAYS) == 1, reason="JAX has one way")
def test_all_ways_agree_with_dropout_and_distillation(monkeypatch):
    """The second run of the layers before the cut draws what the first drew."""

    def gradients_by(way):
        keras.utils.set_random_seed(5)
        model = randomized(
            keras.Sequential(
                [
                    keras.Input((4,)),
                    layers.Dense(8, activation="tanh", name="first"),
                    layers.Dense(10, name="a"),
                    layers.Dropout(0.5, seed=3),
                    IDPDense(6, activation="relu", name="b"),
                    layers.Dropout(0.5, seed=4),
                    layers.Dense(3, activation="softmax", name="c"),
                ]
            )
        )
        distillation = InPlaceDistillation(0.5, divergence="mean_squared_error")
        return step(model, *data(4), monkeypatch, way, distillation=distillation)

    first, *others = [gradients_by(way) for way in WAYS]
    for other in others:
        assert_equal(other, first)


def test_dropout_before_the_cut_draws_once(monkeypatch):
    """What a unit that was dropped sends back is nothing, in both runs."""
    model = randomized(
        keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(4, name="first"),
                layers.Dense(10, name="a"),
                layers.Dropout(0.6, seed=3),
                IDPDense(3, name="b"),
            ]
        )
    )
    x, y = data(4)
    found = step(model, x[:1], y[:1], monkeypatch, WAYS[0])
    dropped = found["a/bias"] == 0
    assert 0 < dropped.sum() < 10
    np.testing.assert_array_equal(found["b/kernel"][dropped], 0)
    assert np.all(found["b/kernel"][~dropped] != 0)


@pytest.mark.parametrize("way", WAYS)
def test_mixed_precision(way, monkeypatch, gradients):
    model, (x, y) = mlp("mixed_bfloat16"), data(4)
    hidden = own(10, 2, 5)
    owns = {"a/kernel": hidden, "a/bias": hidden, "b/kernel": hidden[:, None]}
    expected = by_scope(model, x, y, gradients, owns)
    plain = by_scope(model, x, y, gradients, {})
    found = step(model, x, y, monkeypatch, way)
    for path, value in expected.items():
        # Sums of numbers of 8 bits; without attenuation they would be much farther off.
        largest = np.abs(value).max()
        np.testing.assert_allclose(found[path], value, atol=0.02 * largest, err_msg=path)
        if path in owns:
            assert np.abs(plain[path] - value).max() > 0.2 * largest


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rate", [1, GradientAttenuation(1.0, 1.0)])
def test_a_rate_of_one_is_none_at_all_bit_for_bit(way, rate, monkeypatch):
    x, y = data(4)
    plain = step(mlp(), x, y, monkeypatch, way, attenuation=None)
    for path, value in step(mlp(), x, y, monkeypatch, way, attenuation=rate).items():
        np.testing.assert_array_equal(value, plain[path], err_msg=path)


def test_outputs_are_those_of_the_network():
    model, (x, _) = mlp(), data(4)
    plain = kt.TESLA(model, PERCENTAGES)
    attenuated = kt.TESLA(model, PERCENTAGES, gradient_attenuation=0.5)
    for training in (False, True):
        expected, found = plain(x, training=training), attenuated(x, training=training)
        for key, value in expected.items():
            # The prefix sum adds the bias last.
            np.testing.assert_allclose(to_numpy(found[key]), to_numpy(value), rtol=1e-5, atol=1e-6)


# The argument.


@pytest.mark.parametrize("bad", [0, -0.5, 1.5, True, "half", [0.5], float("nan")])
def test_what_is_no_attenuation(bad):
    message = "must be None, a number above 0 and at most 1"
    with pytest.raises(ValueError, match=message):
        kt.TESLA(mlp(), PERCENTAGES, gradient_attenuation=bad)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": 0}, "0 < start <= end <= 1"),
        ({"start": 0.9, "end": 0.5}, "0 < start <= end <= 1"),
        ({"end": 1.1}, "0 < start <= end <= 1"),
        ({"start": "x"}, "must be numbers with"),
        ({"start": float("nan")}, "0 < start <= end <= 1"),
        ({"from_percentage": 60}, "from_percentage < to_percentage"),
        ({"from_percentage": -1}, "from_percentage < to_percentage"),
        ({"to_percentage": 101}, "from_percentage < to_percentage"),
        ({"to_percentage": None}, "Received: .*None"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        GradientAttenuation(**arguments)


def test_the_schedule_of_the_recipe():
    """rates .5 up to 10 %, .9 at 50 %, 1 from 60 % on."""
    attenuation = GradientAttenuation()
    channels = np.array([5, 10, 50, 60, 90])
    np.testing.assert_allclose(
        attenuation.factors(100, channels), [0.5**19, 0.5**18, 0.9**10, 1, 1], rtol=1e-6
    )


def test_is_saved_with_the_model(tmp_path):
    x, y = data(4)
    tesla = kt.TESLA(mlp(), PERCENTAGES, gradient_attenuation=GradientAttenuation(0.6, 0.9, 5, 50))
    tesla.compile("sgd", "mse")
    tesla.fit(x, y, verbose=0)
    tesla.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.gradient_attenuation.get_config() == tesla.gradient_attenuation.get_config()
    for model in (tesla, loaded):
        model.fit(x, y, verbose=0)
    for a, b in zip(tesla.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)  # the same step, compiled again
    tesla = kt.TESLA(mlp(), PERCENTAGES)
    assert kt.TESLA.from_config(tesla.get_config()).gradient_attenuation is None


def test_is_kept_by_recalibrate():
    model = keras.Sequential(
        [keras.Input((8,)), IDPDense(4), IDPBatchNormalization(PERCENTAGES), IDPDense(3)]
    )
    tesla = kt.TESLA(model, PERCENTAGES, gradient_attenuation=0.8)
    more = kt.recalibrate(tesla, np.ones((6, 8)), [30])
    assert more.gradient_attenuation.get_config() == tesla.gradient_attenuation.get_config()


def test_evaluation_at_other_percentages():
    model, (x, y) = mlp(), data(4)
    plain = kt.TESLA(model, PERCENTAGES)
    attenuated = kt.TESLA(model, PERCENTAGES, gradient_attenuation=0.5)
    for tesla in (plain, attenuated):
        tesla.compile("sgd", "mse")
    arguments = {"percentages": [70, 10], "verbose": 0, "return_dict": True}
    assert attenuated.evaluate(x, y, **arguments) == plain.evaluate(x, y, **arguments)


# Private numbers.


@pytest.mark.parametrize("way", WAYS)
def test_private_numbers_are_not_attenuated_and_what_they_weigh_is(way, gradients, monkeypatch):
    """The recipe's network: first layer and middle kernel are attenuated, nothing else is."""
    keras.utils.set_random_seed(0)
    model = randomized(kt.literature.mlp(4, 3, hidden=10, private_percentages=PERCENTAGES))
    channels = own(10, 2, 5)
    owns = {
        "first/kernel": channels,
        "first_bn/gamma": channels,
        "first_bn/beta": channels,
        "middle/kernel": channels[:, None],
    }
    x, y = data(4)
    expected = by_scope(model, x, y, gradients, owns)
    assert_equal(step(model, x, y, monkeypatch, way), expected)


@pytest.mark.parametrize("way", WAYS)
def test_a_private_bias_in_the_running_sum(way, gradients, monkeypatch):
    keras.utils.set_random_seed(0)
    private = {"percentages": PERCENTAGES, "private_bias": True}
    model = randomized(
        keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(10, activation="relu", name="a"),
                IDPDense(10, activation="relu", name="b", **private),
                IDPDense(3, name="c", private_profile=True, **private),
            ]
        )
    )
    channels = own(10, 2, 5)
    owns = {
        "a/kernel": channels,
        "a/bias": channels,
        "b/kernel": wider(channels, channels),
        "b/bias": channels,
        "c/kernel": channels[:, None],
    }
    x, y = data(4)
    expected = by_scope(model, x, y, gradients, owns)
    assert_equal(step(model, x, y, monkeypatch, way), expected)


# Weights of a layer of the user's.


@keras.saving.register_keras_serializable("attenuation_test")
class Gated(layers.Layer):
    """Weights under another name than Keras', and in a sub-layer."""

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1],), name="w", initializer="ones")
        self.gate = layers.Dense(input_shape[-1], name="gate")
        self.gate.build((None, 1))

    def call(self, x):
        return x * self.kernel * self.gate(x[..., :1])


class GatedKind(kt.kinds.Channelwise):
    weight_axes = {  # noqa: RUF012
        "kernel": (None, 0),
        "gate.kernel": (None, -1),
        "gate.bias": (None, 0),
    }


def test_weights_are_told_apart_by_their_path(gradients, monkeypatch):
    kt.register_kind(Gated, GatedKind())
    keras.utils.set_random_seed(0)
    model = randomized(
        keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(10, activation="relu", name="a"),
                Gated(name="own"),
                IDPDense(3, name="c"),
            ]
        )
    )
    channels = own(10, 2, 5)
    owns = {
        "a/kernel": channels,
        "a/bias": channels,
        "own/w": channels,
        "gate/kernel": channels,
        "gate/bias": channels,
        "c/kernel": channels[:, None],
    }
    x, y = data(4)
    # The first channel is read by the gates of all others: by name it is not a channel's own.
    expected = by_scope(model, x, y, gradients, {k: v for k, v in owns.items() if k[:2] != "a/"})
    actual = step(model, x, y, monkeypatch, "together")  # of a layer from elsewhere
    for path in ("own/w", "gate/kernel", "gate/bias", "c/kernel"):
        assert_equal({path: actual[path]}, {path: expected[path]})
