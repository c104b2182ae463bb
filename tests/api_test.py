"""The public list, and what importing it costs."""

import subprocess
import sys

import keras_tesla as kt


def test_the_public_names_are_these():
    assert kt.__all__ == [
        "TESLA",
        "__version__",
        "active_terms",
        "analysis",
        "callbacks",
        "current_percentage",
        "data",
        "layers",
        "percentage_scope",
        "profiles",
        "tflite",
        "training",
    ]
    assert kt.analysis.__all__ == ["accuracy_over_cost", "multiply_adds"]
    assert kt.callbacks.__all__ == ["TaskWiseEarlyStopping"]
    assert kt.layers.__all__ == ["IDPBatchNormalization", "IDPConv2D", "IDPDense"]
    assert kt.tflite.__all__ == [
        "Benchmark",
        "Bundle",
        "Entry",
        "FileError",
        "Governor",
        "MeasurementError",
        "Model",
        "VerificationError",
        "benchmark",
        "export",
        "load",
        "read",
    ]


def test_importing_does_not_import_heavy_or_intrusive_packages():
    """tfmot turns `tf.keras` into Keras 2 for the whole process; tfds is slow to import."""
    unwanted = ["tensorflow_model_optimization", "tensorflow_datasets"]
    code = f"import sys, keras_tesla; print([m for m in {unwanted} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
