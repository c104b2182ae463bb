"""The public list, and what importing it costs."""

import pathlib
import subprocess
import sys
import warnings

import pytest

import keras_tesla as kt


@pytest.fixture(scope="module")
def imported():
    """In a process that imports keras_tesla: (the package's file, the names of all modules)."""
    code = "import sys, keras_tesla; print(keras_tesla.__file__, *sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    file, *modules = done.stdout.split("\n")
    return file, modules


def test_what_is_tested_is_the_package_beside_the_tests(imported):
    """Not an installed one, which under Bazel is the checkout's: also in child processes."""
    for file in (kt.__file__, imported[0]):
        assert pathlib.Path(file).parents[1] == pathlib.Path(__file__).parents[1]


def test_a_warning_fails_a_test():
    with pytest.raises(UserWarning, match="a warning"):
        warnings.warn("a warning", stacklevel=1)


def test_the_public_names_are_these():
    assert kt.__all__ == [
        "TESLA",
        "__version__",
        "active_terms",
        "analysis",
        "callbacks",
        "compression",
        "current_percentage",
        "data",
        "kinds",
        "layers",
        "literature",
        "order_channels",
        "percentage_scope",
        "profiles",
        "quantization_aware",
        "recalibrate",
        "register_kind",
        "summary",
        "tflite",
        "to_functional",
        "to_idp",
        "training",
    ]
    assert kt.analysis.__all__ == [
        "accuracy_over_cost",
        "activation_gallery",
        "class_activation_maps",
        "multiply_adds",
        "not_counted",
        "summary",
    ]
    assert kt.callbacks.__all__ == [
        "AlternatingProfiles",
        "BackupAndRestore",
        "MultiProfile",
        "PercentageCSVLogger",
        "RandomPercentages",
        "TaskWiseEarlyStopping",
    ]
    assert kt.compression.__all__ == [
        "cluster",
        "prune",
        "prune_2_4",
        "pruning_callback",
        "quantization_aware",
        "strip",
        "to_tf_keras",
        "to_tflite",
    ]
    assert kt.kinds.__all__ == [
        "Channels",
        "Channelwise",
        "Kind",
        "Narrowed",
        "Selection",
        "Widths",
        "register_kind",
    ]
    assert kt.layers.__all__ == [
        "ChannelStatistics",
        "IDPBatchNormalization",
        "IDPConv1D",
        "IDPConv1DTranspose",
        "IDPConv2D",
        "IDPConv2DTranspose",
        "IDPConv3D",
        "IDPDense",
        "IDPEinsumDense",
        "IDPGroupQueryAttention",
        "IDPLayerNormalization",
        "IDPMultiHeadAttention",
        "IDPRMSNormalization",
        "IDPSeparableConv2D",
        "IncompleteAttention",
        "IncompleteDotProduct",
        "PerRange",
    ]
    assert kt.literature.__all__ == ["mlp", "vgg16"]
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


def test_importing_does_not_import_heavy_or_intrusive_packages(imported):
    """tfmot turns `tf.keras` into Keras 2 for the whole process; tfds is slow to import."""
    unwanted = {"tensorflow_model_optimization", "tensorflow_datasets"}
    assert not unwanted.intersection(imported[1])
