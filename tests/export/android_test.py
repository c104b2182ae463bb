"""The Kotlin side: compiled against stubs, and held to the decisions of the Python policy."""

import json
import math
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest

import keras_tesla as kt
from export.android import record_traces
from tests.tflite import networks

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]
ROOT = pathlib.Path(__file__).parents[2]
ANDROID = ROOT / "export" / "android"
TRACES = ANDROID / "traces.json"
COMPILER = ROOT / ".tools/android/node_modules/kotlin-compiler/lib/kotlin-compiler.jar"
JSON = pathlib.Path("/usr/share/java/com.android.json.jar")


@pytest.fixture(scope="module")
def run_kotlin():
    """A function `(traces, [export folder])`: runs the tests; (exit status, what was printed)."""
    missing = [str(path.name) for path in (COMPILER, JSON) if not path.exists()]
    missing += [tool for tool in ("java", "javac") if not shutil.which(tool)]
    if missing:
        pytest.skip(f"{', '.join(missing)} missing: run tools/setup_android.sh")

    def run(*arguments):
        command = ["bash", ANDROID / "run_tests.sh", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    return run


def changed(tmp_path, change):
    """Writes the traces after `change(traces)`."""
    content = json.loads(TRACES.read_text())
    change(content["traces"])
    path = tmp_path / "traces.json"
    path.write_text(json.dumps(content))
    return path


def test_the_recorded_traces_are_what_the_python_policy_decides():
    recorded = TRACES.read_text()
    assert record_traces.traces() == recorded, "run: python export/android/record_traces.py"
    names = [trace["name"] for trace in json.loads(recorded)["traces"]]
    assert len(names) == len(set(names)) >= 10


@pytest.mark.parametrize("name", ["percentage_input_shared", "signatures_shared_int8"])
def test_golden_files_of_format_1_are_read(run_kotlin, name):
    status, printed = run_kotlin(TRACES, ROOT / "tests" / "golden" / "format_1" / name)
    assert status == 0, printed


def test_the_kotlin_tests_pass(run_kotlin):
    status, printed = run_kotlin(TRACES)
    assert status == 0, printed
    passed = int(re.fullmatch(r"(\d+) passed, 0 failed\n", printed)[1])
    assert passed > len(json.loads(TRACES.read_text())["traces"])


def test_one_other_choice_in_a_trace_is_a_failure(run_kotlin, tmp_path):
    def change(traces):
        record = traces[3]["records"][-1]
        record[5] = 10 if record[5] != 10 else 20

    status, printed = run_kotlin(changed(tmp_path, change))
    assert status == 1
    assert re.search(r"FAILED trace ramp: .* record 199 expected 10, was \d+\n", printed)
    assert re.search(r"passed, 1 failed\n$", printed)


def test_an_average_that_differs_by_one_rounding_is_a_failure(run_kotlin, tmp_path):
    def change(traces):
        record = next(r for r in traces[0]["records"] if r[6] is not None)
        record[6] = math.nextafter(record[6], 1)

    status, printed = run_kotlin(changed(tmp_path, change))
    assert status == 1
    assert "FAILED trace defaults: " in printed
    assert "average after record 0" in printed


def test_another_setting_is_a_failure(run_kotlin, tmp_path):
    def change(traces):
        trace = next(t for t in traces if t["name"] == "quiet")
        trace["options"]["hold"] += 1

    status, printed = run_kotlin(changed(tmp_path, change))
    assert status == 1
    assert "FAILED trace quiet: " in printed


@pytest.mark.parametrize("text", ["", '{"traces": []}', '{"traces": [{"name": "x"}]}'])
def test_traces_that_are_none_are_a_failure(run_kotlin, tmp_path, text):
    path = tmp_path / "traces.json"
    path.write_text(text)
    status, _ = run_kotlin(path)
    assert status == 1


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_an_export_is_read_and_each_percentage_made_standalone(run_kotlin, tmp_path, quantization):
    """What results has the digest that Python's has: the Kotlin tests compare it."""
    out = tmp_path / "out"
    random = np.random.default_rng(0)
    typical = random.standard_normal((20, 8, 8, 3)).astype("float32")
    kt.tflite.export(
        networks.cnn((100, 40, 10), width=48),  # wide enough for int8 weights to be nested
        out,
        mode="signatures",
        quantization=quantization,
        representative_data=typical if quantization else None,
    )
    manifest = json.loads((out / "manifest.json").read_text())
    recipes = [entry["standalone"] for entry in manifest["percentages"]]
    # There is something to unfold, with several values a place.
    assert any(layout["inner"] > 1 for layout in manifest["nested_layouts"])
    assert {layout["item_bytes"] for layout in manifest["nested_layouts"]} == {
        1 if quantization else 4
    }
    assert all(recipe["nested_weights"] for recipe in recipes)
    status, without = run_kotlin(TRACES)
    assert status == 0, without
    status, printed = run_kotlin(TRACES, out)
    assert status == 0, printed
    assert int(printed.split()[0]) == int(without.split()[0]) + 3

    # Another byte in the weights is noticed.
    content = bytearray((out / "model.tflite").read_bytes())
    content[recipes[0]["copies"][0][1]] ^= 1
    (out / "model.tflite").write_bytes(content)
    status, printed = run_kotlin(TRACES, out)
    assert status == 1
    assert "FAILED the export holds 100 %: " in printed
    assert "100 % of model.tflite is not what was exported" in printed


def test_stubs_say_that_they_are_stubs():
    stubs = [p for p in (ANDROID / "stubs").rglob("*") if p.suffix in (".java", ".kt")]
    assert len(stubs) == 6
    for stub in stubs:
        assert re.match(r"// Stubs?, for compiling and testing only\.\n", stub.read_text()), stub
