"""The tools for exported files: each is run as a user runs it."""

import json

import pytest

from keras_tesla.tflite.measure.benchmark import Benchmark
from tests.helpers import ROOT, nightly_after, run_script
from tests.tflite.measure import handmade

pytestmark = pytest.mark.slow

FEW = ("--runs=3", "--warmup=1", "--rounds=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("tools")
    (made / "one.tflite").write_bytes(handmade.products([100, 50]))
    (made / "two.tflite").write_bytes(handmade.products([100, 50, 10], units=300, accuracy=None))
    return made


@pytest.fixture(scope="module")
def measured(folder):
    printed = run_script(
        "export/benchmark_tflite.py",
        folder / "one.tflite",
        folder / "two.tflite",
        f"--json={folder}/out/benchmark.json",
        f"--report={folder}/out/report.html",
        *FEW,
    )
    return folder / "out", printed


def test_the_benchmark_tool_prints_a_table_and_writes_json_and_a_page(measured):
    out, printed = measured
    lines = printed.splitlines()
    place = printed.partition("\n\n")[0].replace("\n", " ")
    assert "runs 3, warmup 1, rounds 2, delegate xnnpack" in place
    assert "one.tflite: signatures, plain, not quantized" in lines
    assert "two.tflite: signatures, plain, not quantized" in lines
    rows = json.loads((out / "benchmark.json").read_text())["measurements"]
    assert [(m["model"], m["percentage"]) for m in rows] == [
        *(("one.tflite", p) for p in (100, 50)),
        *(("two.tflite", p) for p in (100, 50, 10)),
    ]
    assert all(m["latency"]["median"] > 0 for m in rows)
    page = (out / "report.html").read_text()
    assert "Accuracy over latency" in page
    assert "accuracy of two.tflite is not known" in page


def test_the_report_tool_sets_benchmarks_side_by_side(measured, tmp_path):
    out, _ = measured
    files = [out / "benchmark.json", out / "benchmark.json"]
    printed = run_script("export/report.py", *files, f"--output={tmp_path}/report.html")
    assert printed == f"wrote {tmp_path}/report.html\n"
    page = (tmp_path / "report.html").read_text()
    assert "Benchmark of 4 models" in page
    assert "one.tflite [2]" in page


def test_a_part_of_the_percentages_without_the_delegate_over_an_older_result(folder, tmp_path):
    (tmp_path / "old.json").write_text("old")
    printed = run_script(
        "export/benchmark_tflite.py",
        folder / "two.tflite",
        "--percentages=50,10",
        "--delegate=none",
        "--threads=2",
        f"--json={tmp_path}/old.json",
        "--overwrite",
        *FEW,
    )
    place, _, table = printed.partition("\n\n")
    said = place.replace("\n", " ")
    assert "threads 2" in said
    assert "delegate none" in said
    assert [line.split()[0] for line in table.splitlines()[2:]] == ["50", "10", "wrote"]
    assert Benchmark.load(tmp_path / "old.json").settings["delegate"] == "none"


# What is wrong is said in a line, without a traceback. What the library refuses is tested in
# tests/tflite; here is one of each kind, since every run imports TensorFlow.


@pytest.mark.parametrize(
    ("flags", "message"),
    nightly_after(
        1,
        [
            ([], "Name at least one .tflite file"),
            (["one.tflite", "--runs=0"], "--runs=0"),
            (["one.tflite", "--percentages=30"], "does not hold [30] %; it holds [100, 50]"),
            (["flipped.tflite"], "flipped.tflite' is damaged"),
            (["crashing.tflite"], "LiteRT crashed on 'p100' of"),
            # A billion runs would not end: the refusal comes before the work.
            (["one.tflite", "--runs=1000000000", "--json=mine.json"], "mine.json' already exists"),
        ],
    ),
)
def test_the_benchmark_tool_says_what_is_wrong(folder, flags, message):
    flipped = bytearray((folder / "one.tflite").read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (folder / "flipped.tflite").write_bytes(flipped)
    (folder / "crashing.tflite").write_bytes(handmade.crashing())
    (folder / "mine.json").write_text("mine")
    printed = run_script(ROOT / "export/benchmark_tflite.py", *flags, code=1, cwd=folder)
    assert message in printed
    assert "Traceback" not in printed
    assert (folder / "mine.json").read_text() == "mine"


def test_the_report_tool_says_what_is_no_benchmark(folder):
    command = (ROOT / "export/report.py", "one.tflite", "--output=report.html")
    printed = run_script(*command, code=1, cwd=folder)
    assert "'one.tflite' is not a benchmark that" in printed
    assert "Traceback" not in printed
    assert not (folder / "report.html").exists()
