"""The benchmarks that look for faults, for a moment; each is run as a user runs it."""

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


@pytest.mark.nightly
def test_a_model_goes_through_all_steps_and_is_not_run_again(tmp_path):
    (row,) = run("foreign_models", tmp_path, "--models=enhancer_of_any_size")
    assert {"model": "enhancer_of_any_size", "errors": {}}.items() <= row.items()
    assert [row[step] for step in ("to_idp", "fit", "export")] == ["ok"] * 3
    assert max(row["equal"], row["at"], row["load"]) < 1e-5
    assert 0.25 < row["multiply_adds"] < 0.3
    assert row["gone"] == [0, 3]
    (tmp_path / "found.json").write_text(
        (tmp_path / "found.json").read_text().replace('"fit": "ok"', '"fit": "known"')
    )
    # What was found stays; a refusal is a row as well.
    rows = run("foreign_models", tmp_path, "--models=vae_encoder,enhancer_of_any_size")
    assert [row["model"] for row in rows] == ["enhancer_of_any_size", "vae_encoder"]
    assert rows[0]["fit"] == "known"
    assert "['z'] draw random numbers" in rows[1]["errors"]["export"]
    assert "load" not in rows[1]


def test_a_model_that_takes_too_long_is_a_row(tmp_path):
    (row,) = run("foreign_models", tmp_path, "--models=unet", "--seconds=1")
    assert row == {"model": "unet", "errors": {"process": "took more than 1 s"}}
