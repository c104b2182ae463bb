"""Importing and using `keras_tesla.compression` leaves the process's `tf.keras` alone."""

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.helpers import nightly_after

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow_model_optimization") is None,
        reason="needs tensorflow-model-optimization",
    ),
]

USE = """
import os
import keras
from keras_tesla import compression
x = keras.Input((3,))
model = compression.to_tf_keras(keras.Model(x, keras.layers.Dense(2)(x)))
import tensorflow as tf
assert type(model).__module__.startswith("tf_keras"), type(model)
"""
KERAS_3 = """
assert "TF_USE_LEGACY_KERAS" not in os.environ
for module in (tf.keras, tf.compat.v1.keras, tf.compat.v2.keras):
    assert module.layers.Dense is keras.layers.Dense
assert tf.losses.MeanSquaredError is keras.losses.MeanSquaredError
"""
CASES = {
    # No code has used `tf.keras` before.
    "ours_first": (
        None,
        """
import sys
import keras_tesla
from keras_tesla import compression
for name in ("tensorflow_model_optimization", "tf_keras"):
    assert name not in sys.modules, name
""",
        KERAS_3,
    ),
    # The user asks for Keras 2, by the variable, and has looked at it.
    "legacy": (
        "1",
        "import tensorflow as tf; tf.keras.layers",
        """
assert os.environ["TF_USE_LEGACY_KERAS"] == "1"
import tf_keras
assert tf.keras.layers.Dense is tf_keras.layers.Dense
""",
    ),
    # The user's own import of the package has set the variable: that is theirs.
    "theirs_first": (
        "0",
        "import tensorflow_model_optimization",
        'assert os.environ["TF_USE_LEGACY_KERAS"] == "1"',
    ),
}


@pytest.mark.parametrize("name", nightly_after(1, CASES))
@pytest.mark.slow
def test_tf_keras_stays_what_it_was(name):
    value, before, after = CASES[name]
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    if value is not None:
        environment["TF_USE_LEGACY_KERAS"] = value
    done = subprocess.run(
        [sys.executable, "-c", before + USE + after],
        env={**environment, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
