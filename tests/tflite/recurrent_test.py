"""Recurrent layers: loops, whose conditions and bodies are subgraphs of their own."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_tesla as kt
from keras_tesla.tflite import verify
from tests.tflite import networks

pytestmark = pytest.mark.tensorflow
PERCENTAGES = (100, 50)


def assert_runs(tesla, directory, **arguments):
    """Exports; then every percentage is opened as a standalone file, and compared with Keras."""
    bundle = kt.tflite.export(tesla, directory, **arguments)
    x = verify.example_inputs(tesla.network, 1, seed=4)["series"]
    for percentage in PERCENTAGES:
        expected = tesla.predict(x, percentage=percentage, verbose=0)
        got = kt.tflite.load(bundle.path(percentage))(x, percentage=percentage)
        # float32 sums in another order; the outputs are of the size of 1.
        np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("storage", ["shared", "plain"])
@pytest.mark.parametrize("mode", ["per_percentage", "signatures", "percentage_input"])
@pytest.mark.slow
def test_a_loop_runs_in_every_mode(mode, storage, tmp_path):
    tesla = networks.recurrent(layers.LSTM, PERCENTAGES)
    assert_runs(tesla, tmp_path / "out", mode=mode, storage=storage)


@pytest.mark.parametrize(
    "cell",
    [
        layers.GRU,
        lambda units: layers.Bidirectional(layers.LSTM(units)),
        lambda units: keras.Sequential([layers.GRU(units, return_sequences=True), layers.GRU(4)]),
    ],
)
@pytest.mark.slow
def test_several_loops_run(cell, tmp_path):
    assert_runs(networks.recurrent(cell, PERCENTAGES), tmp_path / "out", mode="signatures")


def test_the_weights_of_a_loop_are_stored_once(tmp_path):
    def size(percentages, directory):
        tesla = networks.recurrent(layers.LSTM, percentages)
        kt.tflite.export(tesla, tmp_path / directory, mode="signatures")
        return (tmp_path / directory / "model.tflite").stat().st_size

    kernels = 4 * (6 + 16) * 4 * 16  # bytes
    # A percentage costs a description of its operators, which takes more than these few weights.
    assert size((100, 50, 25), "three") - size((100, 50), "two") < 3 * kernels


def test_int8_is_refused_and_says_what_to_take(tmp_path):
    tesla = networks.recurrent(layers.LSTM, PERCENTAGES)
    x = verify.example_inputs(tesla.network, 32)["series"]
    name = next(x.name for x in tesla.network.layers if isinstance(x, layers.LSTM))
    message = rf"\['{name}'\] has a loop.*dynamic_range.*unroll=True"
    with pytest.raises(ValueError, match=message):
        kt.tflite.export(tesla, tmp_path / "out", quantization="int8", representative_data=x)
    kt.tflite.export(tesla, tmp_path / "out", quantization="dynamic_range", mode="signatures")


def stacked(unroll):
    def cells(x):
        x = layers.GRU(8, return_sequences=True, unroll=unroll, name="lower")(x)
        return layers.GRU(8, unroll=unroll, name="upper")(x)

    inputs = keras.Input((5, 4), name="series")
    x = layers.Dense(8, activation="relu")(cells(inputs))
    return kt.TESLA(keras.Model(inputs, kt.layers.IDPDense(3)(x)), PERCENTAGES)


def test_a_loop_that_collects_is_refused_in_the_branch_of_an_if(tmp_path):
    """CompiledModel fails there: "Failed to set custom allocation for output"."""
    message = r"\['lower'\] has return_sequences=True.*'signatures'.*unroll=True"
    with pytest.raises(ValueError, match=message):
        kt.tflite.export(stacked(unroll=False), tmp_path / "out", mode="percentage_input")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_unrolled_it_runs_there(tmp_path):
    assert_runs(stacked(unroll=True), tmp_path / "out", mode="percentage_input")
