"""PercentageCSVLogger: the table of a run."""

import csv

import keras
import numpy as np
import pytest
from keras import layers

import keras_tesla as kt
from keras_tesla.layers import IDPDense

pytestmark = pytest.mark.backend_free


def fitted(path, epochs=2, initial_epoch=0):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8), IDPDense(3)])
    tesla = kt.TESLA(model, [100, 50])
    tesla.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    x, y = np.ones((8, 6), "float32"), np.zeros(8, "int64")
    tasks = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: tesla.activate([100, 50][: epoch + 1])
    )
    history = tesla.fit(
        x,
        y,
        validation_data=(x, y),
        epochs=epochs,
        initial_epoch=initial_epoch,
        verbose=0,
        callbacks=[tasks, kt.callbacks.PercentageCSVLogger(path)],
    )
    return history.history


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_for_each_percentage_and_metric_also_of_later_tasks(tmp_path):
    history = fitted(tmp_path / "log.csv")
    table = rows(tmp_path / "log.csv")
    assert list(table[0]) == ["epoch", "split", "percentage", "metric", "value"]
    by_key = {
        (r["epoch"], r["split"], r["percentage"], r["metric"]): float(r["value"]) for r in table
    }
    assert len(by_key) == len(table)
    assert by_key["0", "train", "", "loss"] == history["loss"][0]
    assert by_key["1", "validation", "50", "accuracy"] == history["val_p50_accuracy"][0]
    assert ("0", "validation", "50", "accuracy") not in by_key  # its task had not begun


def test_a_new_run_starts_the_file_and_one_that_goes_on_appends(tmp_path):
    path = tmp_path / "log.csv"
    fitted(path, epochs=1)
    first = rows(path)
    fitted(path, epochs=1)
    assert len(rows(path)) == len(first)
    fitted(path, epochs=2, initial_epoch=1)
    assert {row["epoch"] for row in rows(path)} == {"0", "1"}
