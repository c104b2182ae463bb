"""BackupAndRestore: after a kill at any moment, the next run continues or starts again."""

import os
import pathlib
import shutil

import keras
import numpy as np
import pytest

import keras_tesla as kt
from keras_tesla.layers import IDPDense
from tests.helpers import LOSS, examples

EPOCHS = 4


class Killed(BaseException):
    pass


def train(directory, callbacks=()):
    """Trains, with the epochs that this run had, and the accumulated weights."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((6,)), keras.layers.Dense(8, activation="relu"), IDPDense(3)]
    tesla = kt.TESLA(keras.Sequential(layers), [100, 50])
    tesla.compile("adam", LOSS, run_eagerly=True)
    x, y = examples(32)
    epochs = []
    note = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epochs.append(epoch))
    backup = kt.callbacks.BackupAndRestore(directory)
    try:
        tesla.fit(
            x,
            y,
            epochs=EPOCHS,
            shuffle=False,
            verbose=0,
            callbacks=[note, *callbacks, backup],
        )
    except Killed:
        return epochs, None
    return epochs, tesla.get_weights()


def kill_at(number, monkeypatch):
    """Raises at the n-th change of the file system; it is caught nowhere, as a kill is not."""
    left = [number]

    def counted(what):
        def call(*arguments, **kwargs):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return what(*arguments, **kwargs)

        return call

    for where, name in (
        (os, "rename"),
        (os, "mkdir"),
        (os, "rmdir"),
        (os, "unlink"),
        (shutil, "rmtree"),
    ):
        monkeypatch.setattr(where, name, counted(getattr(where, name)))
    return left


@pytest.mark.slow
def test_a_kill_at_any_step_ends_with_the_weights_of_a_run_without_one(tmp_path, monkeypatch):
    _, right = train(tmp_path / "whole")
    assert list(tmp_path.iterdir()) == []
    resumed = set()
    for number in range(0, 400, 5):
        with monkeypatch.context() as patched:
            left = kill_at(number, patched)
            _, weights = train(tmp_path / "backup")
        if weights is not None:
            assert left[0] > 0
            break
        again, weights = train(tmp_path / "backup")
        resumed.add(again[0] if again else EPOCHS)
        for ours, theirs in zip(weights, right, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert not (tmp_path / "backup").exists()
    else:
        pytest.fail("the run was killed at every step that was tried")
    assert resumed >= {0, 1, EPOCHS}


def test_an_unfinished_backup_is_not_restored_and_goes(tmp_path):
    directory = tmp_path / "backup"

    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise Killed

    assert train(directory, [Kill()]) == ([0, 1, 2], None)
    assert [p.name for p in directory.iterdir()] == ["epoch-000000002"]
    (directory / ".unfinished").mkdir()
    (directory / ".unfinished" / "training_metadata.json").write_text('{"epoch": 4}')
    epochs, _ = train(directory)
    assert epochs == [2, 3]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_has_a_name():
    with pytest.raises(ValueError, match="`backup_dir` must name a folder. Received: ''"):
        kt.callbacks.BackupAndRestore("")


def test_the_last_task_keeps_its_best_weights_after_a_kill_behind_the_last_epoch(tmp_path):
    """No epoch is left for the next run: it must still end the task as the killed run would."""

    def run(kill):
        stopping = kt.callbacks.TaskWiseEarlyStopping("loss", patience=1, mode="max")
        directory = pathlib.Path(tmp_path / "backup")
        if not kill:
            return train(directory, [stopping])
        killing = keras.callbacks.LambdaCallback(on_train_end=lambda logs: _raise())
        return train(directory, [killing, stopping])

    def _raise():
        raise Killed

    _, right = run(kill=False)
    assert run(kill=True) == ([0, 1, 2, 3], None)
    epochs, weights = run(kill=False)
    assert epochs == []
    for ours, theirs in zip(weights, right, strict=True):
        np.testing.assert_array_equal(ours, theirs)
