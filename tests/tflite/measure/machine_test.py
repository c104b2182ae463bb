"""The description of the machine that stands beside every figure."""

import datetime
import os
import platform

import pytest

from keras_tesla.tflite.measure import machine


def test_it_names_the_machine_the_versions_and_the_day():
    described = machine.describe(2, ["numpy", "a package that does not exist"])
    assert described["cores"] == os.cpu_count()
    assert described["threads"] == 2
    assert described["python"] == platform.python_version()
    assert described["numpy"].count(".") == 2
    assert described["a package that does not exist"] is None
    assert datetime.date.fromisoformat(described["date"])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor\t: 0\nmodel name\t: AMD EPYC 7B13\nmodel name\t: other\n", "AMD EPYC 7B13"),
        ("processor\t: 0\nModel\t\t: Raspberry Pi 4 Model B\n", "Raspberry Pi 4 Model B"),
        ("Hardware\t: Qualcomm SM8350\n", "Qualcomm SM8350"),
        ("processor\t: 0\nmodel name\t:\n", None),
        (None, None),
    ],
)
def test_the_cpu_is_called_as_the_system_calls_it(text, name, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_INFORMATION", tmp_path / "cpuinfo")
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    fallback = platform.processor() or platform.machine()
    assert machine.describe(1, [])["cpu"] == (name or fallback)
