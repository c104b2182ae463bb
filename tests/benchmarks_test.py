"""The two benchmarks that look for faults, for a moment; each is run as a user runs it."""

import json

import pytest

from tests.helpers import run_script

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]


def run(name, tmp_path, *flags):
    output = tmp_path / "found.json"
    run_script(f"benchmarks/{name}.py", f"--output={output}", *flags)
    result = json.loads(output.read_text())
    assert {"cpu", "threads", "date"} <= set(result["machine"])
    return result["rows"]


def test_threads_that_share_a_file_get_right_answers(tmp_path):
    (row,) = run("soak", tmp_path, "--seconds=3", "--threads=4")
    assert row["calls"] > 100
    assert row["wrong"] == 0
    assert row["memory"]["samples"] > 10  # what they mean takes minutes


@pytest.mark.nightly
def test_kills_leave_runs_that_go_on_and_whole_exports(tmp_path):
    training, export, step = run("kill", tmp_path, "--kills=2", "--folder_kills=10", "--epochs=8")
    assert training["kills"] >= 2
    assert training["ends"] == training["equal"] >= 1
    assert training["wrong_task"] == training["failed_starts"] == 0
    assert export["kills"] == 2
    assert export["half"] == export["failed_starts"] == 0
    assert step["kills"] == 10
    assert step["half"] == step["absent"] == 0
