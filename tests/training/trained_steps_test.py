"""Which percentages were trained, and for how many steps: counted, saved, and asked by export."""

import warnings

import keras
import numpy as np
import pytest

import keras_tesla as kt
from keras_tesla.layers import IDPBatchNormalization, IDPDense
from tests.helpers import JIT, LOSS, examples


def compiled(percentages=(100, 50, 40), trainable_profile=False, **arguments):
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((6,)),
        keras.layers.Dense(8, activation="relu"),
        IDPDense(8, activation="relu", trainable_profile=trainable_profile),
        IDPDense(3),
    ]
    tesla = kt.TESLA(keras.Sequential(layers), percentages)
    tesla.compile("sgd", LOSS, **{"jit_compile": JIT, **arguments})
    return tesla


def fit(tesla, epochs=1, callbacks=(), count=32):
    tesla.fit(
        *examples(count), batch_size=8, epochs=epochs, verbose=0, callbacks=list(callbacks) or None
    )


def test_nothing_is_counted_before_training_nor_by_what_does_not_train():
    tesla = compiled()
    assert tesla.trained_steps == {100: 0, 50: 0, 40: 0}
    tesla.evaluate(*examples(16), verbose=0)
    tesla.predict(examples(16)[0], verbose=0)
    tesla.test_on_batch(*examples(16))
    assert tesla.trained_steps == {100: 0, 50: 0, 40: 0}


def test_each_step_counts_for_the_percentages_that_are_active():
    tesla = compiled()
    fit(tesla, epochs=2)  # of 4 batches
    assert tesla.trained_steps == {100: 8, 50: 8, 40: 8}
    tesla.activate([100, 50])
    fit(tesla)
    tesla.train_on_batch(*examples(8))
    tesla.activate([50])
    tesla.train_on_batch(*examples(8))
    assert tesla.trained_steps == {100: 13, 50: 14, 40: 8}
    tesla.compile("sgd", LOSS, jit_compile=JIT)
    fit(tesla)
    assert tesla.trained_steps == {100: 13, 50: 18, 40: 8}


def test_eager_steps_count():
    tesla = compiled(run_eagerly=True, jit_compile=False)
    fit(tesla)
    assert tesla.trained_steps == {100: 4, 50: 4, 40: 4}


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras refuses it on PyTorch")
def test_an_execution_of_several_steps_counts_as_those():
    tesla = compiled(steps_per_execution=2)
    fit(tesla)
    assert tesla.trained_steps == {100: 4, 50: 4, 40: 4}
    fit(tesla, count=24)  # the last of two executions has one batch
    assert tesla.trained_steps == {100: 8, 50: 8, 40: 8}


def test_random_percentages_are_counted_as_they_are_drawn():
    tesla = compiled(range(10, 101, 10))
    draws = kt.callbacks.RandomPercentages(count=1, sets=4)
    active = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: active.extend(tesla.active_percentages)
    )
    fit(tesla, 2, [draws, note])
    assert tesla.trained_steps == {p: active.count(p) for p in tesla.percentages}
    assert tesla.trained_steps[100] == tesla.trained_steps[10] == 8


def test_tasks_that_begin_later_have_fewer_steps():
    tesla = compiled()
    # The loss falls, so after two epochs a task has not become "better".
    tasks = kt.callbacks.TaskWiseEarlyStopping(monitor="loss", mode="max")
    with pytest.warns(UserWarning, match=r"before the tasks of \[40\] %"):
        fit(tesla, 3, [tasks])
    assert tesla.trained_steps == {100: 12, 50: 4, 40: 0}


def test_a_step_that_fails_is_not_counted():
    tesla = compiled()
    x, y = examples(8)
    with pytest.raises(ValueError):  # noqa: PT011
        tesla.train_on_batch(x[:, :5], y)
    assert tesla.trained_steps == {100: 0, 50: 0, 40: 0}


def test_counts_are_saved_with_the_model_and_with_its_weights(tmp_path):
    tesla = compiled()
    fit(tesla)
    tesla.activate([100])
    fit(tesla)
    tesla.save(tmp_path / "tesla.keras")
    tesla.save_weights(tmp_path / "tesla.weights.h5")
    expected = {100: 8, 50: 4, 40: 4}
    loaded = keras.saving.load_model(tmp_path / "tesla.keras")
    assert loaded.trained_steps == expected
    fit(loaded)
    assert loaded.trained_steps == {100: 12, 50: 8, 40: 8}
    loaded.load_weights(tmp_path / "tesla.weights.h5")
    assert loaded.trained_steps == expected
    untrained = compiled()
    untrained.save(tmp_path / "untrained.keras")
    assert not any(keras.saving.load_model(tmp_path / "untrained.keras").trained_steps.values())


def test_a_run_that_continues_has_the_counts_of_its_backup(tmp_path):
    class Killed(Exception):
        pass

    def kill(epoch, logs):
        if epoch == 2:
            raise Killed

    backup = kt.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(Killed):
        fit(compiled(), 3, [keras.callbacks.LambdaCallback(on_epoch_begin=kill), backup])
    tesla = compiled()
    fit(tesla, 3, [kt.callbacks.BackupAndRestore(tmp_path / "backup")])
    assert tesla.trained_steps == {100: 12, 50: 12, 40: 12}


# What export makes of it.


def exported(tesla, directory, **arguments):
    """The warnings of an export."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kt.tflite.export(tesla, directory, **arguments)
    return [str(w.message) for w in caught if w.category is UserWarning]


@pytest.mark.tensorflow
def test_export_names_percentages_that_were_never_trained(tmp_path):
    tesla = compiled((100, 50, 40, 10))
    tesla.activate([100, 50])
    fit(tesla)
    tesla.save(tmp_path / "tesla.keras")
    for model in (tesla, keras.saving.load_model(tmp_path / "tesla.keras")):
        (message,) = exported(model, tmp_path / "out", overwrite=True)
        assert message.startswith("No known step trained [40, 10] %, but [100, 50] % were trained")
        assert "percentages=[40, 10]" in message
        assert exported(model, tmp_path / "out", percentages=[50], overwrite=True) == []


@pytest.mark.tensorflow
def test_export_does_not_warn_of_a_model_without_any_training(tmp_path):
    """It is exported for its latency, or trained elsewhere."""
    assert exported(compiled(), tmp_path / "out") == []


@pytest.mark.tensorflow
def test_recalibration_is_no_training(tmp_path):
    layers = [
        keras.Input((6,)),
        keras.layers.Dense(8),
        IDPDense(8),
        IDPBatchNormalization([100, 50]),
        IDPDense(3),
    ]
    tesla = kt.TESLA(keras.Sequential(layers), [100, 50])
    tesla.compile("sgd", LOSS, jit_compile=JIT)
    fit(tesla)
    assert exported(tesla, tmp_path / "out") == []
    tesla = kt.recalibrate(tesla, np.ones((8, 6)), [30])
    assert tesla.trained_steps == {100: 4, 50: 4, 30: 0}
    (message,) = exported(tesla, tmp_path / "recalibrated")
    assert message.startswith("No known step trained [30] %")
