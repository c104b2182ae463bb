"""How often an export does what takes time: once where once is enough."""

import collections
import functools

import numpy as np
import pytest

import keras_tesla as kt
from keras_tesla.tflite import compiled, convert, runtime
from keras_tesla.tflite.files import archive
from keras_tesla.tflite.graphs import flatbuffer
from tests.tflite import networks

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def count(monkeypatch):
    """How often each of these functions is called, by name."""
    counted: collections.Counter = collections.Counter()
    for module, name in (
        (convert, "_concrete_function"),
        (convert, "run"),
        (flatbuffer, "pack"),
        (archive, "digest"),
        (runtime, "interpreter"),
        (compiled, "run"),
    ):
        key = f"{module.__name__.rpartition('.')[2]}.{name}"
        wrapped = functools.partial(_counted, counted, key, getattr(module, name))
        monkeypatch.setattr(module, name, wrapped)
    return counted


def _counted(counted, key, function, *arguments, **options):
    counted[key] += 1
    return function(*arguments, **options)


def test_an_export_of_three_percentages_in_int8(count, tmp_path):
    tesla = networks.mlp((100, 50, 10))
    typical = np.random.default_rng(0).standard_normal((32, 16))
    kt.tflite.export(
        tesla,
        tmp_path / "out",
        mode="signatures",
        quantization="int8",
        representative_data=typical,
    )
    assert count == {
        "convert._concrete_function": 3,  # one for both conversions of a percentage
        "convert.run": 6,
        "flatbuffer.pack": 1 + 3,  # the file, and the part of each percentage
        "archive.digest": 1,
        # The converter's files; the file and the parts with XNNPACK and without.
        "runtime.interpreter": 3 + 2 * (1 + 3),
        "compiled.run": 1,
    }


def test_files_of_one_percentage_need_no_float32_beside_int8(count, tmp_path):
    tesla = networks.mlp((100, 10))
    typical = np.random.default_rng(0).standard_normal((32, 16))
    kt.tflite.export(tesla, tmp_path / "out", quantization="int8", representative_data=typical)
    assert (count["convert.run"], count["archive.digest"], count["compiled.run"]) == (2, 2, 1)
