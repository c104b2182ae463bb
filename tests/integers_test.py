"""One meaning of "integer": every argument that counts something takes Python's and NumPy's."""

import json

import keras
import numpy as np
import pytest

import keras_tesla as kt
from keras_tesla.integers import check_integer, is_integer
from keras_tesla.layers import IDPDense


@pytest.mark.parametrize("value", [1, 7, np.int8(3), np.uint16(300), np.int64(1 << 40)])
def test_integers_of_python_and_numpy_become_those_of_python(value):
    checked = check_integer("count", value)
    assert checked == value
    assert type(checked) is int


@pytest.mark.parametrize(
    "value", [1.0, np.float64(1), True, False, np.True_, "1", None, [1], np.array(1)]
)
def test_nothing_else_is_an_integer(value):
    assert not is_integer(value)
    message = (
        rf"`count` must be a positive integer. Received: .* \(of type {type(value).__name__}\)"
    )
    with pytest.raises(ValueError, match=message):
        check_integer("count", value)


@pytest.mark.parametrize(
    ("value", "least", "message"),
    [
        (0, 1, "`count` must be a positive integer. Received: 0"),
        (np.int64(-1), 0, "`count` must be an integer, 0 or more. Received: "),
        (1, 2, "`count` must be an integer, 2 or more. Received: 1"),
    ],
)
def test_a_smaller_one_is_refused(value, least, message):
    assert check_integer("count", least, least) == least
    with pytest.raises(ValueError, match=message):
        check_integer("count", value, least)


# Arguments of the library that count something.


def test_layers_and_callbacks_take_integers_of_numpy():
    layer = IDPDense(2, input_channels=np.int64(3))
    assert json.loads(json.dumps(layer.get_config()["input_channels"])) == 3
    callback = kt.callbacks.RandomPercentages(count=np.int64(2), sets=np.int32(4))
    assert (callback.count, callback.sets) == (2, 4)
    assert kt.callbacks.MultiProfile({np.int64(30): np.int64(2), 100: 1}).epochs == {30: 2, 100: 1}


@pytest.mark.tensorflow
def test_export_takes_a_batch_size_of_numpy(tmp_path):
    tesla = kt.TESLA(keras.Sequential([keras.Input((4,)), IDPDense(3, name="y")]), [100])
    bundle = kt.tflite.export(tesla, tmp_path / "out", batch_size=np.int64(2))
    assert bundle.outputs == {"y": {"shape": [2, 3], "dtype": "float32"}}
    benchmark = bundle.benchmark(runs=np.int64(1), warmup=np.int8(0), rounds=np.int32(1))
    assert benchmark.settings["runs"] == 1
