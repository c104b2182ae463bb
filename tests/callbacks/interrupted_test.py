"""After an interruption a model trains as before; only BackupAndRestore goes on with a run."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_tesla as kt
from keras_tesla.layers import IDPDense, PerRange
from tests.helpers import JIT, LOSS, examples

PERCENTAGES = (100, 50)


class Interrupt(keras.callbacks.Callback):
    """Ctrl-C in the middle of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch
        self.now = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.now == self.epoch:
            raise KeyboardInterrupt


def compiled(of_ranges=False):
    keras.utils.set_random_seed(0)
    first, last = (
        PerRange({p: layers.Dense(units, activation=activation) for p in (50, 100)})
        if of_ranges
        else layers.Dense(units, activation=activation)
        for units, activation in ((8, "relu"), (3, None))
    )
    middle = IDPDense(8, activation="relu", trainable_profile=not of_ranges)
    model = keras.Sequential([keras.Input((6,)), first, middle, last])
    tesla = kt.TESLA(model, PERCENTAGES)
    tesla.compile("adam", LOSS, jit_compile=JIT)
    return tesla


def tasks():
    return kt.callbacks.TaskWiseEarlyStopping("loss", mode="max", patience=1)  # 2 epochs a task


CALLBACKS = {
    "tasks": lambda: [tasks()],
    "profiles": lambda: [kt.callbacks.AlternatingProfiles()],
    "both": lambda: [kt.callbacks.AlternatingProfiles(), tasks()],
    "random": lambda: [kt.callbacks.RandomPercentages(count=1, always=())],
    "ranges": lambda: [kt.callbacks.MultiProfile({50: 2, 100: 2})],
}


def what_trains(tesla):
    ranges = [getattr(layer, "trained_range", None) for layer in tesla.graph.layers]
    trainable = [v.path for v in tesla.trainable_variables]
    return tesla.active_percentages, tesla.optimizer, trainable, ranges, tesla.callback_state


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("name", CALLBACKS)
@pytest.mark.slow
def test_everything_trains_again(name, epoch):
    tesla = compiled(of_ranges=name == "ranges")
    before = what_trains(tesla)
    with pytest.raises(KeyboardInterrupt):
        tesla.fit(
            *examples(), epochs=4, verbose=0, callbacks=[*CALLBACKS[name](), Interrupt(epoch)]
        )
    assert what_trains(tesla) == before
    logs = tesla.fit(*examples(), epochs=1, verbose=0).history
    assert {"p100_loss", "p50_loss"} <= set(logs)


def test_a_new_run_on_a_checkpoint_begins_with_the_first_task(tmp_path):
    """The checkpoint is of the second task, with that task's best weights."""
    path = tmp_path / "checkpoint.keras"
    tesla = compiled()
    saved = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: tesla.save(path) if epoch == 2 else None
    )
    with pytest.raises(KeyboardInterrupt):
        tesla.fit(*examples(), epochs=9, verbose=0, callbacks=[tasks(), saved, Interrupt(3)])
    loaded = keras.saving.load_model(path)
    assert int(loaded.callback_state["TaskWiseEarlyStopping"]["task"]) == 1
    active = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: active.append(loaded.active_percentages)
    )
    loaded.fit(*examples(seed=1), epochs=4, verbose=0, callbacks=[tasks(), note])
    assert active == [(100,), (100,), PERCENTAGES, PERCENTAGES]


@pytest.mark.slow
def test_only_a_backup_goes_on_with_the_task(tmp_path):
    """The oracle is the uninterrupted run; bits are equal."""

    def train(directory, *others):
        tesla = compiled()
        backup = kt.callbacks.BackupAndRestore(directory)
        tesla.fit(
            *examples(),
            epochs=4,
            shuffle=False,
            verbose=0,
            callbacks=[tasks(), backup, *others],
        )
        return tesla

    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "interrupted", Interrupt(3))
    resumed = train(tmp_path / "interrupted")
    for ours, theirs in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
