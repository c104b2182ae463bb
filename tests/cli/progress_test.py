"""How far a long command is: on a terminal, not in a log."""

import sys

import numpy as np
import pytest

import keras_tesla as kt
from keras_tesla_cli import progress
from tests.helpers import examples
from tests.tflite.measure import handmade

pytestmark = pytest.mark.tensorflow


def test_a_line_takes_the_place_of_the_one_before_on_a_terminal(monkeypatch, capsys):
    progress.say("in a log")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    progress.say("first")
    progress.say("second")
    progress.clear()
    erase = "\r\x1b[K"
    assert capsys.readouterr().out == f"{erase}first{erase}second{erase}"


def shown(printed):
    """The lines that were shown one after the other, and what stands there in the end."""
    *lines, last = printed.split("\r\x1b[K")
    return lines[1:], last


def test_an_export_names_each_percentage(run, make, tmp_path, monkeypatch):
    kt.TESLA(kt.to_idp(make(), [100, 50]), [100, 50]).save(tmp_path / "m.keras")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    lines, last = shown(run("export", tmp_path / "m.keras", f"--output_dir={tmp_path}/out"))
    assert lines[:2] == ["100 %: converted (1/2)", "50 %: converted (2/2)"]
    assert lines[2].startswith("verifying")
    assert last.startswith("  %  multiply-adds")


def test_training_names_each_step(run, make, tmp_path, monkeypatch):
    kt.TESLA(kt.to_idp(make(), [100, 50]), [100, 50]).save(tmp_path / "m.keras")
    x, y = examples(96)
    np.savez(tmp_path / "xy.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    flags = (f"--data={tmp_path}/xy.npz", "--epochs=1", f"--output={tmp_path}/out.keras")
    lines, last = shown(run("train", tmp_path / "m.keras", *flags))
    assert lines == ["the first step takes longest ..", *(f"step {n}/3" for n in (1, 2, 3))]
    assert last.startswith("epoch 1/1: ")


def test_a_benchmark_names_each_round(run, tmp_path, monkeypatch):
    (tmp_path / "one.tflite").write_bytes(handmade.products([100, 50]))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    flags = ("--runs=1", "--warmup=0", "--rounds=2")
    lines, last = shown(run("benchmark", tmp_path / "one.tflite", *flags))
    assert lines == [f"measured: round {n}/2 of 2 percentages" for n in (1, 2)]
    assert last.startswith("cpu ")
