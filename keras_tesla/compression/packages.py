"""The optional packages of `keras_tesla.compression`, imported without side effects."""

import os
import warnings

import keras

_VARIABLE = "TF_USE_LEGACY_KERAS"


def load():
    """Returns the modules `(tf_keras, tensorflow_model_optimization)`.

    tensorflow-model-optimization sets `TF_USE_LEGACY_KERAS` when it is imported, which turns
    `tf.keras` into Keras 2 for all later code, and in child processes. This function restores the
    variable and `tf.keras`.

    Raises:
        RuntimeError: Another backend than TensorFlow.
        ImportError: If one of the two is not installed.
    """
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "tensorflow-model-optimization needs the TensorFlow backend. Save the model with "
            "`model.save` and compress it in a process with KERAS_BACKEND=tensorflow. "
            f"Received: {keras.backend.backend()!r}"
        )
    import tensorflow as tf

    before = os.environ.get(_VARIABLE)
    try:
        # Before the other one: with the variable set, it would replace `tf.compat.v1.keras`.
        import tf_keras

        # TensorFlow decides at the first look which Keras each of them is.
        for lazy in (tf.keras, tf.compat.v1.keras, tf.compat.v2.keras):
            _ = lazy.layers
        with warnings.catch_warnings():
            # It reads TensorFlow's version with distutils.
            warnings.simplefilter("ignore", DeprecationWarning)
            import tensorflow_model_optimization
    except ImportError as error:
        raise ImportError(
            "`keras_tesla.compression` needs tensorflow-model-optimization and tf_keras. Install "
            f'them with: pip install "keras-tesla[compression]". Received: {error}'
        ) from error
    finally:
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before
    return tf_keras, tensorflow_model_optimization
