"""Export needs TensorFlow; the other backends train."""

import keras
import pytest

import keras_tesla as kt


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="is about the other backends")
def test_another_backend_is_refused_with_the_way_out(tmp_path):
    tesla = kt.TESLA(keras.Sequential([keras.Input((4,)), kt.layers.IDPDense(3)]))
    with pytest.raises(RuntimeError, match="KERAS_BACKEND=tensorflow"):
        kt.tflite.export(tesla, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
