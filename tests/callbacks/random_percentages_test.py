"""RandomPercentages: which percentages train together, and how often."""

import collections

import keras
import numpy as np
import pytest
from keras import layers

import keras_tesla as kt
from keras_tesla.layers import IDPBatchNormalization, IDPDense
from tests.helpers import JIT, LOSS, examples


def compiled(percentages=(100, 80, 60, 40, 20), run_eagerly=True):
    """Eager where only the draws matter: every set of percentages would compile for seconds."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(10, activation="relu"),
            IDPDense(10),
            IDPBatchNormalization(percentages),
            IDPDense(3),
        ]
    )
    tesla = kt.TESLA(model, percentages)
    tesla.compile("adam", LOSS, metrics=["accuracy"], run_eagerly=run_eagerly, jit_compile=JIT)
    return tesla


class Watch(keras.callbacks.Callback):
    """Notes the percentages of each step and of each validation."""

    def __init__(self):
        super().__init__()
        self.trained, self.validated = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.trained.append(self.model.active_percentages)

    def on_test_end(self, logs=None):
        self.validated.append(self.model.active_percentages)


def run(tesla, callback, epochs=4, others=(), **arguments):
    watch = Watch()
    history = tesla.fit(
        *examples(),
        batch_size=8,
        epochs=epochs,
        verbose=0,
        callbacks=[callback, watch, *others],
        **arguments,
    )
    return watch, history.history


@pytest.mark.slow
@pytest.mark.backend_free
def test_the_sandwich_rule():
    tesla = compiled()
    watch, _ = run(tesla, kt.callbacks.RandomPercentages(count=1))
    for active in watch.trained:
        assert active[0] == 100
        assert active[-1] == 20
        assert len(active) == 3
    assert {active[1] for active in watch.trained} == {80, 60, 40}
    assert tesla.active_percentages == (100, 80, 60, 40, 20)


@pytest.mark.slow
@pytest.mark.backend_free
def test_a_random_task_each_step():
    watch, _ = run(compiled(), kt.callbacks.RandomPercentages(count=1, always=()))
    assert {len(active) for active in watch.trained} == {1}
    assert {active[0] for active in watch.trained} == {100, 80, 60, 40, 20}


@pytest.mark.backend_free
def test_without_probabilities_all_come_equally_often():
    """Every deck holds each percentage once, so the menu does, whatever the seed."""
    callback = kt.callbacks.RandomPercentages(count=1, always=(), sets=20)
    callback.set_model(compiled())
    callback.on_train_begin()
    counts = collections.Counter(p for active in callback._menu for p in active)
    assert counts == dict.fromkeys((100, 80, 60, 40, 20), 4)


@pytest.mark.backend_free
def test_probabilities_are_those_of_the_menu():
    weights = {100: 7.0, 40: 2.0, 20: 1.0}
    callback = kt.callbacks.RandomPercentages(
        count=1, always=(), probabilities=weights, sets=2000, seed=1
    )
    callback.set_model(compiled())
    callback.on_train_begin()
    counts = collections.Counter(p for active in callback._menu for p in active)
    # 4 standard deviations of a share of .7 in 2000 draws are .041.
    for percentage, weight in weights.items():
        assert counts[percentage] / 2000 == pytest.approx(weight / 10, abs=0.041)
    assert set(counts) == set(weights)


@pytest.mark.slow
@pytest.mark.backend_free
def test_validation_runs_at_all_percentages_or_at_those_named():
    data = {"validation_data": examples()}
    watch, history = run(compiled(), kt.callbacks.RandomPercentages(), epochs=2, **data)
    assert watch.validated == [(100, 80, 60, 40, 20)] * 2
    assert len(history["val_p60_accuracy"]) == 2
    named = kt.callbacks.RandomPercentages(validation_percentages=[20, 100])
    watch, history = run(compiled(), named, epochs=2, **data)
    assert watch.validated == [(100, 20)] * 2
    assert "val_p60_accuracy" not in history


def test_metrics_are_of_the_steps_of_their_epoch():
    """A percentage that trained in few steps logs the mean of those, not of earlier epochs."""
    tesla = compiled((100, 50), run_eagerly=False)
    seen = []

    class Look(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            views = [tesla._tasks.view(p) for p in (100, 50)]
            seen.append([float(view.loss_tracker.count) for view in views])

    run(tesla, kt.callbacks.RandomPercentages(count=1, always=()), others=[Look()])
    assert seen == [[0.0, 0.0]] * 4


@pytest.mark.slow
def test_a_step_at_a_set_is_the_step_of_an_activated_set():
    """The oracle: the same sets activated by hand."""
    tesla, by_hand = compiled(run_eagerly=False), compiled(run_eagerly=False)
    watch, _ = run(tesla, kt.callbacks.RandomPercentages(), epochs=1, shuffle=False)
    x, y = examples()
    for i, active in enumerate(watch.trained):
        by_hand.activate(active)
        batch = slice(8 * i, 8 * i + 8)
        by_hand.train_on_batch(x[batch], y[batch])
    for ours, theirs in zip(tesla.get_weights(), by_hand.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)  # float32, other compiled programs


@pytest.mark.nightly
def test_the_same_seed_draws_the_same_also_after_a_kill(tmp_path):
    whole, _ = run(compiled(), kt.callbacks.RandomPercentages(seed=3), epochs=4)

    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    backup = [keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))]
    callback = kt.callbacks.RandomPercentages(seed=3)
    with pytest.raises(KeyboardInterrupt):
        run(compiled(), callback, epochs=4, others=[*backup, Kill()])
    rest, _ = run(compiled(), kt.callbacks.RandomPercentages(seed=3), epochs=4, others=backup)
    assert rest.trained == whole.trained[24:]
    other, _ = run(compiled(), kt.callbacks.RandomPercentages(seed=4), epochs=4)
    assert other.trained != whole.trained


@pytest.mark.parametrize("name", ["count", "sets"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
def test_numbers_are_positive_integers(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be a positive integer"):
        kt.callbacks.RandomPercentages(**{name: value})


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_probabilities_are_positive(weight):
    with pytest.raises(ValueError, match="`probabilities` must be positive and finite"):
        kt.callbacks.RandomPercentages(probabilities={50: weight})


@pytest.mark.backend_free
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"always": (100, 33)}, r"Received in addition: \[33\]"),
        ({"probabilities": {33: 1.0}}, r"Received in addition: \[33\]"),
        ({"validation_percentages": [33]}, r"Received in addition: \[33\]"),
        ({"count": 4}, r"4 percentages must be drawn from \[40, 60, 80\]"),
        ({"probabilities": {100: 1.0}}, r"2 percentages must be drawn from \[\]"),
    ],
)
def test_percentages_are_those_of_the_model(arguments, message):
    with pytest.raises(ValueError, match=message):
        run(compiled(), kt.callbacks.RandomPercentages(**arguments))


def test_another_model_is_refused():
    plain = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    plain.compile("sgd", LOSS)
    with pytest.raises(ValueError, match=r"keras_tesla\.TESLA model. Received: Sequential"):
        plain.fit(*examples(), verbose=0, callbacks=[kt.callbacks.RandomPercentages()])
