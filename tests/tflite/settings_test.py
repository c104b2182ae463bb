"""What an export is asked for: checked as a whole, before a model is looked at."""

import dataclasses
import re

import numpy as np
import pytest

from keras_tesla.tflite.settings import MODES, QUANTIZATIONS, ConversionSettings, Settings
from keras_tesla.tflite.storages import STORAGES

X = np.zeros((4, 3), "float32")


def test_the_defaults_are_those_of_export():
    settings = Settings()
    assert (settings.mode, settings.storage) == ("per_percentage", "shared")
    assert (settings.quantization, settings.int8_io, settings.batch_size) == (None, False, 1)
    assert settings.percentages is None


def test_settings_cannot_be_changed_after_they_were_checked():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().batch_size = 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("storage", STORAGES)
def test_a_storage_is_that_of_one_file(mode, storage):
    settings = Settings(mode=mode, storage=storage)
    expected = None if mode == "per_percentage" else STORAGES[storage]
    assert settings.stored is expected
    assert settings.percentage_input == (mode == "percentage_input")


def test_numbers_are_python_integers_in_descending_order():
    settings = Settings(batch_size=np.int64(2), percentages=np.array([10, 100]))
    assert settings.percentages == (100, 10)
    assert type(settings.batch_size) is int


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("data", [None, X])
def test_int8_takes_its_ranges_from_data_or_from_training(quantization, trained, data):
    """And nothing else takes any."""
    given = {"quantization": quantization, "trained_ranges": trained, "representative_data": data}
    sources = trained + (data is not None)
    if sources == (quantization == "int8"):
        assert ConversionSettings(**given).quantization == quantization
    else:
        message = (
            f"quantization={quantization!r} and {'no' if data is None else 'some'} representative"
        )
        with pytest.raises(ValueError, match=message):
            ConversionSettings(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": "one_file"}, "`mode` must be one of ('per_percentage', 'signatures', "),
        ({"storage": "blocks"}, "`storage` must be one of ('shared', 'plain'). Received: 'blocks'"),
        ({"storage": None}, "`storage` must be one of"),
        ({"quantization": "float16"}, "`quantization` must be one of (None, 'dynamic_range', "),
        ({"int8_io": True}, "`int8_io` goes with quantization='int8'. Received: quantization=None"),
        ({"batch_size": 0}, "`batch_size` must be a positive integer. Received: 0"),
        ({"batch_size": 1.0}, "`batch_size` must be a positive integer. Received: 1.0"),
        ({"batch_size": True}, "`batch_size` must be a positive integer. Received: True"),
        ({"percentages": []}, "at least one percentage"),
        ({"percentages": [50, 50]}, "must be distinct"),
        ({"percentages": 50}, "`percentages` must be an iterable"),
        ({"percentages": [50.0]}, "must be an integer from 1 to 100"),
        (
            {"validation_data": X},
            "must be a tuple (inputs, labels). Received: nd",
        ),
        ({"validation_data": (X,)}, "`validation_data` must be a tuple (inputs, labels)"),
        ({"labels": ["a\nb"]}, "`labels` must be a list of strings"),
        ({"labels": []}, "`labels` must be a list of strings"),
        ({"labels": "ab"}, "`labels` must be a list of strings"),
        ({"normalization": (0, 1)}, "`normalization` must be a dict"),
        ({"tolerance": 0}, "`tolerance` must be a number between 0 and 1, such as 1e-4"),
        ({"tolerance": 1.0}, "`tolerance` must be a number between 0 and 1"),
        ({"tolerance": float("nan")}, "relative to the largest output. Received: nan"),
        ({"tolerance": True}, "Received: True"),
        ({"tolerance": "1e-4"}, "Received: '1e-4'"),
        (
            {"tolerance": 1e-4, "quantization": "dynamic_range"},
            "Received: tolerance=0.0001 and quantization='dynamic_range'",
        ),
    ],
)
def test_what_does_not_fit_is_refused(given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Settings(**given)
