"""MultiProfile: each range trains its own block of the weights, and no other."""

import re
import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_tesla as kt
from keras_tesla.layers import IDPBatchNormalization, IDPConv2D, IDPDense, PerRange
from tests.helpers import LOSS, examples, to_numpy


def per_range(make, ranges=(30, 100), name=None):
    return PerRange({highest: make() for highest in ranges}, name=name)


def mlp(percentages=(100, 30), ranges=(30, 100), optimizer="adam", middle=None, jit_compile=False):
    """6-10-10-3 with a first and a last layer for each range."""
    keras.utils.set_random_seed(0)
    middle = {"activation": "relu", "name": "middle", **(middle or {})}
    model = keras.Sequential(
        [
            keras.Input((6,)),
            per_range(lambda: layers.Dense(10, activation="relu"), ranges, "first"),
            IDPDense(10, **middle),
            per_range(lambda: layers.Dense(3), ranges, "last"),
        ]
    )
    tesla = kt.TESLA(model, percentages)
    tesla.compile(optimizer, LOSS, metrics=["accuracy"], jit_compile=jit_compile)
    return tesla


def weights_of(tesla):
    return {v.path: to_numpy(v).copy() for v in tesla.variables}


def fit(tesla, epochs, total=None, callbacks=(), **arguments):
    x, y = examples(shape=tesla.network.input_shape[1:])
    profiles = kt.callbacks.MultiProfile(epochs)
    total = total or sum(epochs.values())
    tesla.fit(x, y, epochs=total, verbose=0, callbacks=[profiles, *callbacks], **arguments)


class Log(keras.callbacks.Callback):
    """What is active, which range trains, and the weights, at the begin of each epoch."""

    def __init__(self):
        super().__init__()
        self.active, self.ranges, self.weights = [], [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.active.append(self.model.active_percentages)
        self.ranges.append(self.model.network.get_layer("middle").trained_range)
        self.weights.append(weights_of(self.model))


# Stages.


def test_ranges_train_one_after_the_other():
    tesla = mlp(percentages=(100, 60, 30, 10))
    log = Log()
    fit(tesla, {100: 3, 30: 2}, callbacks=[log])
    assert log.active == [(30,)] * 2 + [(100,)] * 3
    assert log.ranges == [(0, 30)] * 2 + [(30, 100)] * 3
    assert tesla.active_percentages == (100, 60, 30, 10)
    assert tesla.network.get_layer("middle").trained_range is None


def test_it_ends_with_the_last_range():
    log = Log()
    fit(mlp(), {30: 1, 100: 2}, total=9, callbacks=[log])
    assert len(log.active) == 3


@pytest.mark.slow
def test_it_trains():
    tesla = mlp(optimizer=keras.optimizers.Adam(0.01))
    fit(tesla, {30: 15, 100: 15})
    results = tesla.evaluate(*examples(), verbose=0, return_dict=True)
    assert results["p30_accuracy"] > 0.6  # chance is .33
    assert results["p100_accuracy"] > results["p30_accuracy"]


# Frozen weights.


def changed(before, after, path):
    return before[path] != after[path]


@pytest.mark.parametrize("jit_compile", [False, "auto"])
@pytest.mark.slow
def test_a_stage_changes_its_block_and_nothing_else(jit_compile):
    tesla = mlp(jit_compile=jit_compile)
    log = Log()
    fit(tesla, {30: 3, 100: 3}, callbacks=[log])
    paths = {
        (layer.name, key, v.name): v.path
        for layer in tesla.network.layers
        for key, x in getattr(layer, "ranges", {None: layer}).items()
        for v in x.weights
    }
    stages = [(log.weights[0], log.weights[3]), (log.weights[3], weights_of(tesla))]
    for (before, after), own, other in zip(stages, (30, 100), (100, 30), strict=True):
        inside = np.arange(10) < 3 if own == 30 else np.arange(10) >= 3
        kernel = changed(before, after, paths["middle", None, "kernel"])
        bias = changed(before, after, paths["middle", None, "bias"])
        # Bit for bit: Adam with fresh slots does not move a weight whose gradient is zero.
        # The last layer reads all outputs at every percentage, so all of them train.
        assert not kernel[~inside].any()
        assert kernel[inside].mean() > 0.5  # some ReLUs are shut
        assert bias.any() == (own == 30)
        for name in ("first", "last"):
            assert changed(before, after, paths[name, own, "kernel"]).any()
            assert changed(before, after, paths[name, own, "bias"]).any()
            assert not changed(before, after, paths[name, other, "kernel"]).any()
            assert not changed(before, after, paths[name, other, "bias"]).any()


def cnn():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            per_range(lambda: layers.Conv2D(10, 3, activation="relu")),
            IDPConv2D(10, 3, activation="relu", name="middle"),
            IDPBatchNormalization([100, 30], center=False, scale=False),
            layers.Flatten(),
            IDPDense(10, input_channels=10, activation="relu", name="dense"),
            per_range(lambda: layers.Dense(3)),
        ]
    )
    tesla = kt.TESLA(model, [100, 30])
    tesla.compile(keras.optimizers.SGD(0.1, momentum=0.9), LOSS, jit_compile=False)
    return tesla


@pytest.mark.slow
def test_channels_of_convolutions_and_behind_flatten():
    tesla = cnn()
    log = Log()
    fit(tesla, {30: 2, 100: 2}, callbacks=[log])
    middle, dense = tesla.network.get_layer("middle"), tesla.network.get_layer("dense")
    stages = [(log.weights[0], log.weights[2]), (log.weights[2], weights_of(tesla))]
    for (before, after), inside in zip(
        stages, (np.arange(10) < 3, np.arange(10) >= 3), strict=True
    ):
        block = inside[:, None] & inside
        kernel = changed(before, after, middle.kernel.path)  # (3, 3, 10, 10)
        assert not kernel[:, :, ~block].any()
        assert kernel[:, :, block].any()
        assert not changed(before, after, middle.bias.path)[~inside].any()
        kernel = changed(before, after, dense.kernel.path).reshape(4, 10, 10)  # 2 x 2 positions
        assert not kernel[:, ~inside].any()
        assert kernel[:, inside].any()


@pytest.mark.parametrize("make", [mlp, cnn])
@pytest.mark.slow
def test_a_later_range_leaves_the_earlier_one_as_it_is(make):
    tesla = make()
    x, _ = examples(shape=tesla.network.input_shape[1:])
    outputs = []

    class Predictions(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            outputs.append(self.model.at(30)(x))

    fit(tesla, {30: 2, 100: 2}, callbacks=[Predictions()])
    assert (to_numpy(outputs[0]) != to_numpy(outputs[1])).any()
    np.testing.assert_array_equal(*map(to_numpy, outputs[1:4:2]))


def test_a_trainable_profile_is_trained_in_its_range():
    tesla = mlp(middle={"trainable_profile": True})
    log = Log()
    fit(tesla, {30: 3, 100: 3}, callbacks=[log])
    path = tesla.network.get_layer("middle").coefficients.path
    second = changed(log.weights[3], weights_of(tesla), path)
    assert not second[:3].any()
    assert second[3:].any()
    assert changed(log.weights[0], log.weights[3], path)[:3].any()


@pytest.mark.slow
def test_three_ranges():
    tesla = mlp(percentages=(100, 60, 30), ranges=(30, 60, 100))
    log = Log()
    fit(tesla, {30: 1, 60: 1, 100: 1}, callbacks=[log])
    assert log.ranges == [(0, 30), (30, 60), (60, 100)]
    kernel = changed(log.weights[1], log.weights[2], tesla.network.get_layer("middle").kernel.path)
    assert kernel[3:6].any()
    kernel[3:6] = False
    assert not kernel.any()


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_float16"])
def test_mixed_precision(policy):
    """Keras wraps the optimizer to scale the loss."""
    keras.config.set_dtype_policy(policy)
    try:
        tesla = mlp()
    finally:
        keras.config.set_dtype_policy("float32")
    log = Log()
    fit(tesla, {30: 2, 100: 2}, callbacks=[log])
    kernel = changed(
        log.weights[2], weights_of(tesla), tesla.network.get_layer("middle").kernel.path
    )
    assert not kernel[:3].any()
    assert kernel[3:, 3:].any()


def concatenated():
    x = keras.Input((6,))
    a, b = (IDPDense(8, name=name)(per_range(lambda: layers.Dense(8))(x)) for name in "ab")
    y = IDPDense(8, name="middle")(layers.Concatenate()([a, b]))
    return keras.Model(x, per_range(lambda: layers.Dense(3))(y))


def normalized_in_groups():
    x = keras.Input((6,))
    y = IDPDense(9, name="a")(per_range(lambda: layers.Dense(9))(x))
    y = layers.GroupNormalization(3, center=False, scale=False)(y)
    y = IDPDense(8, name="middle")(y)
    return keras.Model(x, per_range(lambda: layers.Dense(3))(y))


@pytest.mark.parametrize("make", [concatenated, normalized_in_groups])
def test_outputs_that_only_a_later_range_would_train_are_refused(make):
    tesla = kt.TESLA(make(), [100, 30])
    tesla.compile("adam", LOSS, jit_compile=False)
    with pytest.raises(ValueError, match="At 30 % the model reads .* outputs of layer 'a'"):
        fit(tesla, {30: 1, 100: 1})


@pytest.mark.slow
def test_ranges_of_the_parts_of_a_concatenation():
    """The second range changes nothing that the first one reads."""
    x = keras.Input((6,))
    a, b = (
        IDPDense(n, name=name)(per_range(lambda: layers.Dense(8))(x))
        for name, n in [("a", 8), ("b", 4)]
    )
    y = IDPDense(8, name="middle", input_parts=(8, 4))(layers.Concatenate()([a, b]))
    tesla = kt.TESLA(keras.Model(x, per_range(lambda: layers.Dense(3))(y)), [100, 30])
    tesla.compile("adam", LOSS, jit_compile=False)
    log = Log()
    fit(tesla, {30: 2, 100: 2}, callbacks=[log])
    kernel = changed(
        log.weights[2], weights_of(tesla), tesla.network.get_layer("middle").kernel.path
    )
    # At 30 % the layer reads 2 of 8 and 1 of 4 channels and computes 2 of 8.
    first = np.isin(np.arange(12), [0, 1, 8])
    assert not kernel[first][:, :2].any()
    assert not kernel[first].any()
    assert kernel[~first][:, 2:].any()


# The range of a layer by itself.


@pytest.mark.parametrize("percentage", [100, 50])
@pytest.mark.parametrize("kind", ["dense", "conv", "channels_first"])
def test_gradients_of_a_layer_are_those_without_a_range_in_its_block(kind, percentage, gradients):
    if kind == "dense":
        layer, x = IDPDense(10, bias_initializer="normal"), np.ones((2, 10))
    elif kind == "conv":
        layer, x = IDPConv2D(10, 2, bias_initializer="normal"), np.ones((2, 4, 4, 10))
    elif keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow has no channels_first convolution on the CPU")
    else:
        layer = IDPConv2D(10, 2, bias_initializer="normal", data_format="channels_first")
        x = np.ones((2, 10, 4, 4))
    x = keras.ops.convert_to_tensor(x * np.random.default_rng(0).normal(size=x.shape), "float32")
    layer.build(x.shape)

    def loss():
        with kt.percentage_scope(percentage):
            return keras.ops.sum(layer(x) ** 2)

    value, (kernel, bias) = to_numpy(loss()), gradients(loss, [layer.kernel, layer.bias])
    layer.trained_range = (30, 70)
    # The same products in the same order, but for the way to 100 %: it leaves Keras' own call.
    np.testing.assert_allclose(to_numpy(loss()), value, rtol=1e-6)
    inside = (np.arange(10) >= 3) & (np.arange(10) < 7)
    expected = [kernel * (inside[:, None] & inside), bias * inside]
    for got, want in zip(gradients(loss, [layer.kernel, layer.bias]), expected, strict=True):
        # float32 rounding of sums of up to 36 products of the size of 10.
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)
        assert not got[want == 0].any()


def test_joint_training_with_a_range():
    """The prefix sum over several percentages respects it too."""
    tesla = mlp(percentages=(100, 50), ranges=(100,))
    middle = tesla.network.get_layer("middle")
    middle.trained_range = (50, 100)
    before = weights_of(tesla)
    tesla.fit(*examples(), verbose=0)
    after = weights_of(tesla)
    kernel, bias = (changed(before, after, v.path) for v in (middle.kernel, middle.bias))
    assert kernel[5:, 5:].any()
    assert not kernel[:5].any()
    assert not kernel[:, :5].any()
    assert bias[5:].any()
    assert not bias[:5].any()


@pytest.mark.parametrize("bad", [(30, 30), (50, 30), (-1, 30), (0, 101), (0, 0.3), (0, 30.0)])
def test_a_range_goes_from_low_to_high(bad):
    layer = IDPDense(3)
    with pytest.raises(ValueError, match="percentage"):
        layer.trained_range = bad
    assert layer.trained_range is None


# Optimizer, kill, end.


def test_a_stage_starts_with_fresh_slots_and_keeps_the_learning_rate():
    tesla = mlp(optimizer=keras.optimizers.Adam(0.01))
    seen = []

    class Slots(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            optimizer = self.model.optimizer
            # Before its first step an optimizer may not have made its slots.
            slots = [to_numpy(v) for v in optimizer.variables if "momentum" in v.path]
            seen.append((int(optimizer.iterations), any(slot.any() for slot in slots)))

    for _ in range(2):  # a second fit starts fresh as well
        fit(tesla, {30: 2, 100: 2}, callbacks=[Slots()], batch_size=48)
    assert seen == [(0, False), (2, True)] * 4
    assert float(tesla.optimizer.learning_rate) == pytest.approx(0.01)


@pytest.mark.slow
def test_a_killed_run_goes_on_in_its_stage(tmp_path):
    """Killed in the first stage, as the second begins, and in the second: the same weights."""

    class Kill(keras.callbacks.Callback):
        def __init__(self, epoch):
            super().__init__()
            self.epoch = epoch

        def on_epoch_begin(self, epoch, logs=None):
            if epoch == self.epoch:
                raise KeyboardInterrupt

    def train(directory, *others):
        tesla, log = mlp(), Log()
        backup = keras.callbacks.BackupAndRestore(str(directory))
        try:
            fit(tesla, {30: 2, 100: 2}, callbacks=[backup, *others, log], shuffle=False)
        except KeyboardInterrupt:
            assert others
        return tesla, log.ranges

    whole, ranges = train(tmp_path / "whole")
    for epoch in (1, 2, 3):
        _, before = train(tmp_path / f"killed_{epoch}", Kill(epoch))
        resumed, after = train(tmp_path / f"killed_{epoch}")
        assert before + after == ranges
        assert len(before) == epoch
        for ours, theirs in zip(resumed.get_weights(), whole.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_it_says_which_ranges_were_not_trained():
    tesla = mlp(percentages=(100, 60, 30), ranges=(30, 60, 100))
    with pytest.warns(UserWarning, match=r"before the ranges \['60-100'\] %. Give `fit` 6 epochs"):
        fit(tesla, {30: 2, 60: 2, 100: 2}, total=3)
    with pytest.warns(UserWarning, match=r"before the ranges \['30-60', '60-100'\] %"):
        fit(tesla, {30: 2, 60: 2, 100: 2}, total=2)
    assert tesla.active_percentages == (100, 60, 30)
    assert tesla.network.get_layer("middle").trained_range is None


def test_no_warning_about_the_layers_of_other_ranges():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(mlp(), {30: 1, 100: 1})
    assert not [str(w.message) for w in caught if "radient" in str(w.message)]


def test_an_epoch_after_the_last_range():
    with pytest.raises(ValueError, match="take 2 epochs in total. Received: a run that begins"):
        fit(mlp(), {30: 1, 100: 1}, total=5, initial_epoch=2)


# Bad input.


@pytest.mark.backend_free
@pytest.mark.parametrize(
    ("epochs", "message"),
    [
        ([30, 100], "must be a dict {highest percentage of the range: epochs}"),
        ({}, "at least one percentage"),
        ({"30": 1}, "must be an integer from 1 to 100"),
        ({0: 1, 100: 1}, "from 1 to 100. Received: 0"),
        ({30: 0, 100: 1}, "`epochs[30]` must be a positive integer"),
        ({30: 1.5, 100: 1}, "`epochs[30]` must be a positive integer"),
        ({30: True, 100: 1}, "`epochs[30]` must be a positive integer"),
    ],
    ids=str,
)
def test_bad_epochs(epochs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        kt.callbacks.MultiProfile(epochs)


def network(*middle):
    model = keras.Sequential(
        [keras.Input((6,)), per_range(lambda: layers.Dense(10), name="first"), *middle]
    )
    tesla = kt.TESLA(model, [100, 30])
    tesla.compile("adam", LOSS, jit_compile=False)
    return tesla


def head():
    return per_range(lambda: layers.Dense(3))


@pytest.mark.backend_free
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: mlp(percentages=(100, 50)),
            r"trained at the end of each range. Received: ranges up to \[30, 100\], "
            r"TESLA\(percentages=\[100, 50\]\)",
        ),
        (
            lambda: mlp(ranges=(50, 100)),
            r"layer 'first' must be those of MultiProfile. Received: \[50, 100\] and \[30, 100\]",
        ),
        (
            lambda: network(IDPDense(3, name="logits")),
            "'logits' is an output of the model",
        ),
        (
            lambda: network(layers.Dense(10, name="plain"), IDPDense(10), head()),
            r"weights of layer 'plain' \(Dense\)",
        ),
        (
            lambda: network(IDPDense(10), IDPBatchNormalization([100, 30], name="bn"), head()),
            r"weights of layer 'bn' \(IDPBatchNormalization\)",
        ),
        (
            lambda: network(IDPDense(10, kernel_regularizer="l2", name="middle"), head()),
            r"a regularizer of \['[a-z_0-9]+/middle/kernel'\]",
        ),
        (
            lambda: network(IDPDense(10, bias_constraint="non_neg", name="middle"), head()),
            r"a constraint of \['[a-z_0-9]+/middle/bias'\]",
        ),
        (
            lambda: network(
                IDPDense(10), per_range(lambda: layers.Dense(3, kernel_regularizer="l2"))
            ),
            "Make the layers without it. Received: a regularizer of",
        ),
        (
            lambda: mlp(optimizer=keras.optimizers.AdamW()),
            "Received: AdamW, weight_decay=0.004",
        ),
        (
            lambda: mlp(optimizer=keras.optimizers.SGD(weight_decay=1e-4)),
            "Received: SGD, weight_decay=0.0001",
        ),
        (
            lambda: mlp(optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.AdamW())),
            "Received: AdamW, weight_decay=0.004",
        ),
        (
            lambda: mlp(optimizer=keras.optimizers.Adam(use_ema=True)),
            "Received: Adam, use_ema=True",
        ),
        (lambda: mlp(optimizer="ftrl"), "Received: Ftrl"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_before_it_trains(make, message):
    tesla = make()
    before = tesla.get_weights()
    with pytest.raises(ValueError, match=message):
        fit(tesla, {30: 1, 100: 1})
    for old, new in zip(before, tesla.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_another_model_is_refused():
    plain = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    plain.compile("sgd", LOSS)
    with pytest.raises(ValueError, match=r"keras_tesla\.TESLA model. Received: Sequential"):
        plain.fit(*examples(), verbose=0, callbacks=[kt.callbacks.MultiProfile({100: 1})])
