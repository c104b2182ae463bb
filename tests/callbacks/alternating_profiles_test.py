"""AlternatingProfiles: what trains in which epoch, and with which optimizer."""

import gc
import weakref

import keras
import numpy as np
import pytest
from keras import layers

import keras_tesla as kt
from keras_tesla.layers import IDPDense
from tests.helpers import JIT, LOSS, examples


def compiled(trainable=True, optimizer=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(10, activation="relu"),
            IDPDense(10, activation="relu", trainable_profile=trainable, name="a"),
            IDPDense(3, trainable_profile=trainable, name="b"),
        ]
    )
    tesla = kt.TESLA(model, [100, 50, 20])
    tesla.compile(
        optimizer or keras.optimizers.Adam(0.01), LOSS, metrics=["accuracy"], jit_compile=JIT
    )
    return tesla


def profiles(tesla):
    return [
        keras.ops.convert_to_numpy(layer.coefficients).copy() for layer in tesla.network.layers[1:]
    ]


def weights(tesla):
    coefficients = {id(layer.coefficients) for layer in tesla.network.layers[1:]}
    return [
        keras.ops.convert_to_numpy(v).copy() for v in tesla.variables if id(v) not in coefficients
    ]


class Watch(keras.callbacks.Callback):
    """Notes profiles and weights before each epoch, and the learning rate in it."""

    def __init__(self):
        super().__init__()
        self.profiles, self.weights, self.rates = [], [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.profiles.append(profiles(self.model))
        self.weights.append(weights(self.model))
        rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        self.rates.append(float(rate))


def run(tesla, callback, epochs, others=()):
    watch = Watch()
    tesla.fit(
        *examples(64),
        batch_size=16,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[*others, callback, watch],
    )
    watch.profiles.append(profiles(tesla))
    watch.weights.append(weights(tesla))
    return watch


def same(before, after):
    return all((a == b).all() for a, b in zip(before, after, strict=True))


def test_weights_and_profiles_train_by_turns():
    tesla = compiled()
    watch = run(tesla, kt.callbacks.AlternatingProfiles(), 4)
    for epoch in range(4):
        profiles_stay = same(watch.profiles[epoch], watch.profiles[epoch + 1])
        weights_stay = same(watch.weights[epoch], watch.weights[epoch + 1])
        assert (profiles_stay, weights_stay) == ((True, False) if epoch % 2 == 0 else (False, True))
    assert all((np.diff(profile) <= 0).all() for profile in profiles(tesla))


def test_private_profiles_train_with_the_profiles():
    own = {"percentages": [100, 50, 20], "private_profile": True, "private_bias": True}
    layer = IDPDense(3, name="private", **own)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(10, activation="relu"), layer])
    tesla = kt.TESLA(model, own["percentages"])
    tesla.compile(keras.optimizers.Adam(0.01), LOSS, jit_compile=JIT)

    class Note(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.seen = [*getattr(self, "seen", []), layer.get_weights()]

    note = Note()
    callbacks = [kt.callbacks.AlternatingProfiles(), note]
    tesla.fit(*examples(), epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
    note.on_epoch_begin(2)
    names = [v.name for v in layer.weights]
    for epoch, (before, after) in enumerate(zip(note.seen, note.seen[1:], strict=False)):
        for name, a, b in zip(names, before, after, strict=True):
            trains = name.startswith("profile") == (epoch == 1)
            assert (a != b).any() == trains, (epoch, name)


@pytest.mark.slow
def test_the_profiles_have_half_of_the_learning_rate():
    watch = run(compiled(), kt.callbacks.AlternatingProfiles(), 3)
    assert watch.rates == pytest.approx([0.01, 0.005, 0.01])
    own = kt.callbacks.AlternatingProfiles(keras.optimizers.SGD(0.3))
    assert run(compiled(), own, 2).rates == pytest.approx([0.01, 0.3])


@pytest.mark.slow
def test_the_epochs_of_weights_are_those_of_a_run_without_it():
    """The oracle: one epoch with fixed profiles is plain training of the weights."""
    fixed = compiled(trainable=False)
    fixed.fit(*examples(64), batch_size=16, epochs=1, shuffle=False, verbose=0)
    tesla = compiled()
    run(tesla, kt.callbacks.AlternatingProfiles(), 1)
    for ours, theirs in zip(weights(tesla), fixed.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)  # float32, other compiled programs


def test_everything_trains_again_afterwards():
    tesla = compiled()
    optimizer, variables = tesla.optimizer, len(tesla.trainable_variables)
    run(tesla, kt.callbacks.AlternatingProfiles(), 2)
    assert len(tesla.trainable_variables) == variables
    assert tesla.optimizer is optimizer
    assert tesla.callback_state == {}
    before = profiles(tesla), weights(tesla)
    tesla.fit(*examples(64), verbose=0)
    assert not same(before[0], profiles(tesla))
    assert not same(before[1], weights(tesla))


@pytest.mark.slow
@pytest.mark.parametrize("reset", [True, False])
def test_with_tasks_both_optimizers_start_anew_in_each_unless_told_otherwise(reset):
    tesla = compiled()
    counts = []

    class Count(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            counts.append((self.model.active_percentages, int(self.model.optimizer.iterations)))

    tasks = kt.callbacks.TaskWiseEarlyStopping(  # 5 epochs a task
        "loss", mode="max", patience=4, reset_optimizer=reset
    )
    alternating = kt.callbacks.AlternatingProfiles(reset_optimizer=reset)
    with pytest.warns(UserWarning, match=r"before the tasks of \[20\] %"):
        run(tesla, alternating, 8, others=[Count(), tasks])
    steps = 4
    # 5 epochs of the first task: weights, profiles, weights, profiles, weights.
    assert [count for _, count in counts[:5]] == [steps, steps, 2 * steps, 2 * steps, 3 * steps]
    begun = [0, 0, steps] if reset else [2 * steps, 3 * steps, 3 * steps]
    assert counts[5:] == [((100, 50), n + steps) for n in begun]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Training ended before")  # two of three tasks are run
@pytest.mark.parametrize("killed_at", [3, 5])  # within a task, and where the next one begins
@pytest.mark.parametrize("order", [1, -1])  # each callback keeps its state for itself
def test_a_killed_run_goes_on_with_the_slots_of_both_optimizers(killed_at, order, tmp_path):
    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == killed_at:
                raise KeyboardInterrupt

    def train(directory, *others):
        tesla = compiled()
        callbacks = [
            *[
                kt.callbacks.TaskWiseEarlyStopping("loss", mode="max", patience=4),  # 5 epochs
                kt.callbacks.AlternatingProfiles(),
            ][::order],
            keras.callbacks.BackupAndRestore(str(directory)),
            *others,
        ]
        try:
            tesla.fit(
                *examples(64),
                batch_size=16,
                epochs=8,
                shuffle=False,
                verbose=0,
                callbacks=callbacks,
            )
        except KeyboardInterrupt:
            assert others
        return tesla

    whole = train(tmp_path / "whole")
    train(tmp_path / "killed", Kill())
    resumed = train(tmp_path / "killed")
    for ours, theirs in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_many_runs_compile_once():
    """Each run has fresh slots, and no steps or optimizers pile up."""
    tesla, renewed = compiled(), compiled()
    sizes, made = [], []
    make = tesla.make_train_function
    tesla.make_train_function = lambda force=False: made.append(force) or make(force)
    for _ in range(4):
        tesla.optimizer.learning_rate = renewed.optimizer.learning_rate = 0.01 / (1 + len(sizes))
        for model in (tesla, renewed):
            run(model, kt.callbacks.AlternatingProfiles(), 2)
        sizes.append((len(tesla._untracked.compiled_steps), sum(made)))
        # The oracle: the steps of this one are compiled anew.
        rate = float(keras.ops.convert_to_numpy(renewed.optimizer.learning_rate))
        renewed.compile(keras.optimizers.Adam(rate), LOSS, metrics=["accuracy"], jit_compile=JIT)
    assert sizes[0] == sizes[-1]
    for ours, theirs in zip(tesla.get_weights(), renewed.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_the_steps_of_an_optimizer_that_was_replaced_are_forgotten():
    tesla = compiled()
    sizes, optimizers = [], []
    for rate in (0.1, 0.2, 0.3):
        optimizer = keras.optimizers.SGD(rate)
        watch = run(tesla, kt.callbacks.AlternatingProfiles(optimizer), 2)
        assert watch.rates[1] == pytest.approx(rate)  # the one that was given, not a kept one
        sizes.append(len(tesla._untracked.compiled_steps))
        optimizers.append(weakref.ref(optimizer))
        del optimizer, watch
    assert len(set(sizes)) == 1
    gc.collect()
    assert [reference() is None for reference in optimizers] == [True, True, False]


@pytest.mark.parametrize(
    "change",
    [
        lambda tesla: setattr(tesla.optimizer, "beta_1", 0.5),
        lambda tesla: setattr(tesla.network.layers[0], "trainable", False),
    ],
)
@pytest.mark.slow
def test_an_optimizer_that_would_train_otherwise_is_not_taken_again(change):
    tesla = compiled()
    used = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: used.append(tesla.optimizer)
    )
    for _ in range(2):
        run(tesla, kt.callbacks.AlternatingProfiles(), 1, [note])
    assert used[0] is used[-1]
    change(tesla)
    run(tesla, kt.callbacks.AlternatingProfiles(), 1, [note])
    assert used[0] is not used[-1]


def test_a_model_without_trainable_profiles_is_refused():
    with pytest.raises(ValueError, match="with `trainable_profile=True`"):
        run(compiled(trainable=False), kt.callbacks.AlternatingProfiles(), 1)


def test_a_schedule_has_no_half():
    schedule = keras.optimizers.schedules.CosineDecay(0.01, 100)
    tesla = compiled(optimizer=keras.optimizers.Adam(schedule))
    with pytest.raises(ValueError, match="Pass `optimizer=` for the profile coefficients"):
        run(tesla, kt.callbacks.AlternatingProfiles(), 1)


def test_another_model_is_refused():
    plain = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    plain.compile("sgd", LOSS)
    with pytest.raises(ValueError, match=r"keras_tesla\.TESLA model. Received: Sequential"):
        plain.fit(*examples(64), verbose=0, callbacks=[kt.callbacks.AlternatingProfiles()])
