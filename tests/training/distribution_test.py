"""Training on several devices or processes ends where one device ends.

A strategy, and the number of JAX devices, are a matter of a whole process, so each set-up runs in
processes of its own: `distributed_fit.py`.
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]
SCRIPT = pathlib.Path(__file__).with_name("distributed_fit.py")
ROOT = SCRIPT.parents[2]


def start(setup, report, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), setup, str(report), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(setup, folder, *arguments):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    return [
        start(
            setup,
            folder / f"report{i}.json",
            *arguments,
            KERAS_BACKEND="jax",
            KERAS_DISTRIBUTION_JOB_ADDRESSES=address,
            KERAS_DISTRIBUTION_NUM_PROCESSES="2",
            KERAS_DISTRIBUTION_PROCESS_ID=str(i),
        )
        for i in range(2)
    ]


def finish(started):
    """Waits for processes, and leaves none behind."""
    try:
        for process in started:
            _, errors = process.communicate(timeout=600)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in started:
            process.kill()
            process.communicate()


def check(report, cases):
    results = json.loads(report.read_text())
    assert sorted(results) == sorted(cases)
    for case, found in results.items():
        assert found["start"] == 0, case
        assert found["trained"] > 0.1, case  # far more than the tolerance
        # The same float32 terms summed in another order, over twenty steps.
        assert found["weights"] < 1e-5, (case, found)
        assert found["logs"] < 1e-5, (case, found)
    return results


@pytest.mark.nightly
def test_mirrored_replicas_train_as_one_device(tmp_path):
    report = tmp_path / "report.json"
    finish([start("mirrored", report, KERAS_BACKEND="tensorflow")])
    check(report, ["mlp", "cnn", "tasks"])


@pytest.mark.nightly
def test_devices_of_keras_distribution_train_as_one_device(tmp_path):
    pytest.importorskip("jax")
    report = tmp_path / "report.json"
    flags = "--xla_force_host_platform_device_count=2"
    finish([start("devices", report, KERAS_BACKEND="jax", XLA_FLAGS=flags)])
    check(report, ["data_parallel mlp", "data_parallel cnn", "model_parallel mlp"])


@pytest.mark.nightly
def test_two_processes_train_as_one_device(tmp_path):
    pytest.importorskip("jax")
    finish(start_two("processes", tmp_path))
    for i in range(2):
        check(tmp_path / f"report{i}.json", ["data_parallel mlp", "model_parallel mlp"])


@pytest.mark.nightly
def test_a_run_of_which_a_process_was_killed_goes_on(tmp_path):
    """Killed in the second epoch of a task, whose best weights are those of the first."""
    pytest.importorskip("jax")
    backup = tmp_path / "backup"
    first, last = start_two("resumed", tmp_path, backup, 1)
    try:
        _, errors = last.communicate(timeout=600)
    finally:
        first.kill()  # as whoever started both must
        first.communicate()
    assert last.returncode == -signal.SIGKILL, errors[-3000:]
    assert not list(tmp_path.glob("report*"))
    assert sorted(path.name for path in backup.iterdir()) == ["0", "1"]
    finish(start_two("resumed", tmp_path, backup))
    for i in range(2):
        results = check(tmp_path / f"report{i}.json", ["tasks"])
        assert results["tasks"]["first_epoch"] == 1  # not from the start
    assert not list(backup.iterdir())
