"""A model trained on another backend is exported on TensorFlow."""

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

import keras_tesla as kt

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

TRAIN = textwrap.dedent(
    """
    import sys
    import keras
    import numpy as np
    import keras_tesla as kt

    percentages = [100, 50]
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(8, 3, activation="relu"),
            kt.layers.IDPConv2D(8, 3, activation="relu", trainable_profile=True),
            kt.layers.IDPBatchNormalization(percentages),
            keras.layers.Flatten(),
            kt.layers.IDPDense(5, input_channels=8),
        ]
    )
    tesla = kt.TESLA(model, percentages)
    tesla.compile("adam", "mse")
    random = np.random.default_rng(0)
    x, y = random.random((32, 8, 8, 3), "float32"), random.random((32, 5), "float32")
    tesla.fit(x, y, epochs=2, verbose=0)
    tesla.save(sys.argv[1] + "/model.keras")
    np.save(sys.argv[1] + "/expected.npy", tesla.predict(x, percentage=50, verbose=0))
    np.save(sys.argv[1] + "/x.npy", x)
    """
)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_model_trained_on_another_backend_is_exported(backend, tmp_path):
    pytest.importorskip(backend)
    environment = {**os.environ, "KERAS_BACKEND": backend}
    subprocess.run(
        [sys.executable, "-c", TRAIN, str(tmp_path)], env=environment, check=True, timeout=300
    )
    tesla = keras.saving.load_model(tmp_path / "model.keras")
    x, expected = np.load(tmp_path / "x.npy"), np.load(tmp_path / "expected.npy")
    # Two backends sum the same float32 terms in another order.
    np.testing.assert_allclose(tesla.predict(x, percentage=50, verbose=0), expected, atol=1e-5)
    bundle = kt.tflite.export(tesla, tmp_path / "out")
    assert bundle[50].max_abs_difference < 1e-5
