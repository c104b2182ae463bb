"""Inputs of other types than float32, and examples on which a network gives no numbers."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_tesla as kt

pytestmark = pytest.mark.tensorflow


def network(dtype):
    inputs = keras.Input((6,), dtype=dtype, name="ids")
    # A bool has two values, of which an Embedding makes rows, too.
    x = layers.Flatten()(layers.Embedding(50, 4)(inputs))
    x = kt.layers.IDPDense(16, activation="relu")(layers.Dense(16)(x))
    return kt.TESLA(keras.Model(inputs, kt.layers.IDPDense(3, name="y")(x)), [100, 50])


@pytest.mark.parametrize("mode", ["signatures", "percentage_input"])
@pytest.mark.parametrize("dtype", ["int64", "int32", "int16", "uint8"])
@pytest.mark.slow
def test_integers_of_each_size_are_exported_and_loaded(dtype, mode, tmp_path):
    tesla = network(dtype)
    bundle = kt.tflite.export(tesla, tmp_path / "out", mode=mode)
    x = np.random.default_rng(0).integers(0, 50, (3, 6))
    expected = tesla.predict(x.astype(dtype), percentage=50, verbose=0)
    for cache in (None, tmp_path / "cache"):
        model = kt.tflite.load(bundle.path(50), cache_dir=cache)
        np.testing.assert_allclose(model(x, percentage=50), expected, atol=1e-5)
    assert model.header["inputs"]["ids"]["dtype"] == dtype
    with pytest.raises(ValueError, match=f"must be a {dtype} array.*does not hold"):
        model(x + 0.5)


def test_a_network_without_numbers_on_the_random_examples_names_inputs(tmp_path):
    inputs = keras.Input((8,))
    x = keras.ops.log(inputs - 1)
    tesla = kt.TESLA(keras.Model(inputs, kt.layers.IDPDense(3)(layers.Dense(8)(x))), [100, 50])
    with pytest.raises(
        ValueError, match="Keras itself gives NaN.*random examples.*pass typical `inputs`"
    ):
        kt.tflite.export(tesla, tmp_path / "out")
    positive = np.random.default_rng(0).uniform(1.1, 2, (8, 8))
    kt.tflite.export(tesla, tmp_path / "out", inputs=positive)


def test_an_int8_input_of_the_network_is_refused(tmp_path):
    """In a file int8 means a quantized float."""
    with pytest.raises(ValueError, match="is a quantized float.*'ids', 'int8'"):
        kt.tflite.export(network("int8"), tmp_path / "out")


def test_examples_are_not_cut_to_the_type_of_the_input(tmp_path):
    with pytest.raises(ValueError, match="must be a uint8 array.*does not hold"):
        kt.tflite.export(network("uint8"), tmp_path / "out", inputs=np.full((2, 6), 0.5))
