"""Benchmarks of exported files: what is measured, in which process, and what is refused."""

import dataclasses
import functools
import json
import math
import pathlib
import shutil

import numpy as np
import pytest

import keras_tesla as kt
from keras_tesla.tflite.files import reading
from keras_tesla.tflite.graphs import flatbuffer
from keras_tesla.tflite.measure import child
from keras_tesla.tflite.measure.benchmark import Benchmark, benchmark
from keras_tesla.tflite.measure.child import MeasurementError
from keras_tesla.tflite.measure.measurement import LATENCY, Measurement
from tests.tflite import forging, networks
from tests.tflite.measure import handmade

MODES = ["per_percentage", "signatures", "percentage_input"]
FEW = {"runs": 2, "warmup": 0, "rounds": 1}
ON_LINUX = pathlib.Path("/proc/self/status").exists()


def file(folder, content=None, name="model.tflite"):
    path = folder / name
    path.write_bytes(handmade.products() if content is None else content)
    return path


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """A function of a mode: an export of a small network, made once."""
    folder = tmp_path_factory.mktemp("exports")
    return functools.cache(lambda mode: kt.tflite.export(networks.mlp(), folder / mode, mode=mode))


@pytest.fixture
def asked(monkeypatch):
    """Instead of running anything: a list of what the child would be asked, with fixed answers."""
    calls = []

    def measure(**call):
        calls.append({**call, "content": call["path"].read_bytes()})
        number = len(calls)
        return {"seconds": [number, number + 1.0], "load": float(number), "memory": 1000 * number}

    monkeypatch.setattr(child, "measure", measure)
    return calls


def result(**changes):
    row = Measurement(
        model="mlp",
        mode="percentage_input",
        storage="shared",
        quantization=None,
        percentage=100,
        file="model.tflite",
        file_bytes=12345,
        bytes=12000,
        multiply_adds=4000,
        accuracy=0.9712,
        batch_size=1,
        latency=dict(zip(LATENCY, (1e-6, 2e-6, 1.5e-6, 2.5e-6, 1e-3), strict=True)),
        load=0.0123,
        memory=1 << 20,
    )
    narrow = dataclasses.replace(
        row, percentage=10, bytes=900, multiply_adds=70, accuracy=None, memory=None
    )
    rows = [dataclasses.replace(r, **changes) for r in (row, narrow)]
    return Benchmark({"cpu": "a CPU", "threads": 1}, {"runs": 50, "rounds": 4}, tuple(rows))


# What is measured.


@pytest.mark.tensorflow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.slow
def test_every_percentage_of_an_export_is_measured(mode, exports):
    bundle = exports(mode)
    for delegate in ("xnnpack", "none"):
        measured = bundle.benchmark(**FEW, delegate=delegate)
        assert [m.percentage for m in measured.measurements] == [100, 70, 40, 10]
        for m in measured.measurements:
            assert (m.model, m.mode) == (bundle.directory.name, mode)
            assert m.file_bytes == bundle.path(m.percentage).stat().st_size
            assert m.bytes == bundle[m.percentage].bytes
            assert m.multiply_adds == bundle[m.percentage].multiply_adds
            assert 0 < m.latency["min"] <= m.latency["median"]
            assert m.latency["median"] <= m.latency["p90"] <= m.latency["p99"]
            assert m.latency["min"] <= m.latency["mean"]
            assert m.load > 0


@pytest.mark.tensorflow
@pytest.mark.parametrize("mode", MODES)
def test_a_percentage_can_be_measured_as_a_standalone_file(mode, exports):
    measured = exports(mode).benchmark(standalone=True, **FEW)
    assert [m.percentage for m in measured.measurements] == [100, 70, 40, 10]


@pytest.mark.tensorflow
def test_a_standalone_file_is_smaller_without_the_other_percentages(exports, asked):
    bundle = exports("signatures")
    bundle.benchmark(standalone=True, **FEW)
    assert [call["signature"] for call in asked] == ["serving_default"] * 4
    sizes = [len(call["content"]) for call in asked]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] < bundle.path(100).stat().st_size


def test_a_file_that_takes_the_percentage_is_given_it(tmp_path, asked):
    path = file(tmp_path, handmade.products(mode="percentage_input"))
    benchmark(path, **FEW)
    assert [call["signature"] for call in asked] == ["serving_default"] * 2
    assert [call["values"] for call in asked] == [{"percentage": [100]}, {"percentage": [50]}]
    assert asked[0]["inputs"] == {
        "x": {"shape": [1, 4], "dtype": "float32"},
        "percentage": {"shape": [1], "dtype": "int32"},
    }


def test_of_any_other_file_the_signature_is_run(tmp_path, asked):
    benchmark(file(tmp_path), **FEW)
    assert [call["signature"] for call in asked] == ["p100", "p50"]
    assert [call["values"] for call in asked] == [{}, {}]


def test_percentages_and_files_take_turns_forward_and_backward(tmp_path, asked):
    paths = [file(tmp_path, name="a.tflite"), file(tmp_path, name="b.tflite")]
    benchmark(paths, runs=2, rounds=2)
    turns = [(call["path"].name[0], call["signature"]) for call in asked]
    forward = [("a", "p100"), ("a", "p50"), ("b", "p100"), ("b", "p50")]
    assert turns == forward + forward[::-1]


def test_the_figures_are_those_of_all_calls_of_all_rounds(tmp_path, asked):
    path = file(tmp_path, handmade.products([100]))
    (m,) = benchmark(path, runs=2, rounds=3).measurements
    # Three rounds: 1 and 2 seconds, 2 and 3, 3 and 4; numbers in between are interpolated.
    expected = {"min": 1, "mean": 2.5, "median": 2.5, "p90": 3.5, "p99": 3.95}
    assert m.latency == pytest.approx(expected)
    assert m.load == 2  # the median of 1, 2, 3
    assert m.memory == 3000  # the largest
    assert (m.accuracy, m.bytes, m.multiply_adds, m.batch_size) == (0.9, 1000, 400, 1)


def test_multiply_adds_are_unknown_where_those_of_a_layer_are(tmp_path, asked):
    path = file(tmp_path, handmade.products([100], not_counted=["own"]))
    (m,) = benchmark(path, runs=1, rounds=1).measurements
    assert m.multiply_adds is None


def test_memory_is_unknown_where_the_system_does_not_tell_it(tmp_path, monkeypatch):
    answer = {"seconds": [1.0], "load": 1.0, "memory": None}
    monkeypatch.setattr(child, "measure", lambda **call: answer)
    measured = benchmark(file(tmp_path), **FEW)
    assert [m.memory for m in measured.measurements] == [None, None]


@pytest.mark.skipif(not ON_LINUX, reason="memory is read from /proc")
@pytest.mark.parametrize("delegate", ["xnnpack", "none"])
def test_memory_is_that_of_the_file_and_not_of_the_runtime(delegate, tmp_path):
    small = file(tmp_path, handmade.products([100], units=1), "small.tflite")
    large = file(tmp_path, handmade.products([100], units=20_000), "large.tflite")
    little, much = (m.memory for m in benchmark([small, large], **FEW).measurements)
    weights = 20_000 * 100 * 4
    # The weights once as they lie in the file and once more where a delegate packs them; then the
    # outputs, of a quarter of their size, twice. Seen: 1.5 and 2.75 times the weights.
    assert weights <= much < 4 * weights
    # Seen: 88 KB. The runtime's own code and XNNPACK's set-up would be 3 MB.
    assert little < 1 << 18


def test_a_part_of_the_percentages(tmp_path, asked):
    measured = benchmark(file(tmp_path), percentages=[50], **FEW)
    assert [m.percentage for m in measured.measurements] == [50]


def test_models_are_called_by_the_last_part_of_their_path_if_it_tells_them_apart(tmp_path, asked):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    one = file(tmp_path / "a")
    two = file(tmp_path / "b")
    three = file(tmp_path, name="other.tflite")
    measured = benchmark([one, two, three], percentages=[100], **FEW)
    assert [m.model for m in measured.measurements] == [str(one), str(two), "other.tflite"]


def test_the_machine_and_the_settings_are_named(tmp_path, asked):
    measured = benchmark(file(tmp_path), runs=3, warmup=1, rounds=2, threads=2, delegate="none")
    assert list(measured.machine) == [
        *("cpu", "cores", "threads", "python", "ai-edge-litert", "keras-tesla", "date")
    ]
    assert measured.machine["cpu"]
    assert measured.machine["threads"] == 2
    assert measured.settings == {
        "runs": 3,
        "warmup": 1,
        "rounds": 2,
        "delegate": "none",
        "standalone": False,
    }
    assert {(c["runs"], c["warmup"], c["threads"], c["delegate"]) for c in asked} == {
        (3, 1, 2, "none")
    }


# What becomes of the result.


def test_a_result_is_saved_and_loaded_and_not_overwritten_unasked(tmp_path):
    measured = result()
    path = measured.save(tmp_path / "new" / "benchmark.json")
    assert Benchmark.load(path) == measured
    before = path.read_bytes()
    other = result(model="other")
    with pytest.raises(FileExistsError, match="already exists"):
        other.save(path)
    with pytest.raises(FileExistsError, match="already exists"):
        other.report(path)
    assert path.read_bytes() == before
    other.save(path, overwrite=True)
    assert Benchmark.load(path) == other
    with pytest.raises(IsADirectoryError, match="name of a file"):
        measured.save(tmp_path, overwrite=True)
    assert [p.name for p in path.parent.iterdir()] == ["benchmark.json"]


def test_a_result_that_cannot_be_written_leaves_no_half_file(tmp_path, monkeypatch):
    path = result().save(tmp_path / "benchmark.json")
    before = path.read_bytes()

    def replace(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", replace)
    with pytest.raises(OSError, match="No space left"):
        result(model="other").save(path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["benchmark.json"]
    assert path.read_bytes() == before


def test_the_table_is_this_text():
    assert (
        result().table()
        == """\
cpu a CPU, threads 1, runs 50, rounds 4

mlp: percentage_input, shared, not quantized
  %  accuracy %  median µs  load ms  memory KiB  standalone B  multiply-adds
100       97.12       1.50    12.30       1,024        12,000          4,000
 10           -       1.50    12.30           -           900             70
"""
    )


def test_the_table_fits_a_terminal():
    """Also of a network with a billion multiply-adds in a file of a gigabyte."""
    large = {"multiply_adds": 10**9, "bytes": 10**9, "load": 10.0, "memory": 2**30}
    rows = [dataclasses.replace(row, **large) for row in result().measurements]
    machine = {"cpu": "a CPU with a name that is long " * 3}
    table = Benchmark(machine, result().settings, tuple(rows)).table()
    assert max(map(len, table.splitlines())) <= 80


def test_a_table_of_other_kinds_of_export_says_so():
    lines = result(mode="per_percentage", storage=None, quantization="int8").table().splitlines()
    assert lines[2] == "mlp: per_percentage, int8"
    assert result(batch_size=8).table().splitlines()[2].endswith(", 8 examples a call")


def test_each_model_has_a_table_of_its_own():
    rows = result().measurements + result(model="other").measurements
    lines = Benchmark({"cpu": "a CPU"}, {}, rows).table().splitlines()
    assert [line.split(":")[0] for line in lines if ":" in line] == ["mlp", "other"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\x00",
        "[]",
        "{}",
        "null",
        "[" * 100_000,
        '{"format": "keras_tesla benchmark 1"}',
        '{"format": "keras_tesla benchmark 1", "measurements": []}',
        '{"format": "keras_tesla benchmark 1", "measurements": [{}], "machine": {}}',
        '{"format": 2, "machine": {}, "settings": {}, "measurements": []}',
        '{"format": "keras_tesla benchmark 1", "machine": {}, "settings": {}, "measurements": []}',
    ],
)
def test_a_file_that_is_no_result_is_refused(text, tmp_path):
    (tmp_path / "benchmark.json").write_text(text)
    with pytest.raises(ValueError, match="benchmark.json' is not a benchmark that"):
        Benchmark.load(tmp_path / "benchmark.json")


def test_an_exported_file_or_its_manifest_is_no_result(tmp_path):
    with pytest.raises(ValueError, match="is not a benchmark that"):
        Benchmark.load(file(tmp_path))
    with pytest.raises(FileNotFoundError, match="nothing"):
        Benchmark.load(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"model": 3},
        {"percentage": 101},
        {"percentage": "100"},
        {"percentage": True},
        {"accuracy": 1.5},
        {"accuracy": "<b>"},
        {"bytes": -1},
        {"bytes": 1.5},
        {"load": math.nan},
        {"load": math.inf},
        {"load": None},
        {"memory": "much"},
        {"latency": 1.0},
        {"latency": {"median": 1.0}},
        {"latency": dict.fromkeys(LATENCY, "fast")},
        {"latency": dict.fromkeys(LATENCY, math.nan)},
        {"unknown": 1},
        {"machine": None},
    ],
)
def test_a_result_with_a_value_that_does_not_fit_is_refused(changes, tmp_path):
    path = result().save(tmp_path / "benchmark.json")
    values = json.loads(path.read_text())
    if "machine" in changes:
        values |= changes
    else:
        values["measurements"][0] |= changes
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="is not a benchmark that"):
        Benchmark.load(path)


def test_integers_in_the_place_of_floats_are_read():
    """Other programs write 1.0 as 1."""
    assert result(accuracy=1, load=0).measurements[0].accuracy == 1


# What is refused before anything runs.


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"runs": 0}, "`runs` must be a positive integer"),
        ({"runs": 1.5}, "`runs` must be a positive integer"),
        ({"runs": True}, "`runs` must be a positive integer"),
        ({"warmup": -1}, "`warmup` must be an integer, 0 or more"),
        ({"rounds": 0}, "`rounds` must be a positive integer"),
        ({"threads": 0}, "`threads` must be a positive integer"),
        ({"delegate": "gpu"}, "`delegate` must be one of"),
        ({"percentages": [30]}, r"does not hold \[30\] %; it holds \[100, 50\]"),
        ({"percentages": []}, "at least one percentage"),
        ({"percentages": [50.0]}, "must be an integer"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(kwargs, message, tmp_path, asked):
    with pytest.raises(ValueError, match=message):
        benchmark(file(tmp_path), **kwargs)
    assert asked == []


def test_no_file_and_a_file_twice_are_refused(tmp_path, asked):
    with pytest.raises(ValueError, match=r"one or several different.*Received: \[\]"):
        benchmark([])
    path = file(tmp_path)
    with pytest.raises(ValueError, match="one or several different"):
        benchmark([path, str(path)])
    assert asked == []


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.tflite"):
        benchmark(tmp_path / "nothing.tflite")
    with pytest.raises(FileNotFoundError, match="holds no manifest.json: expected"):
        benchmark(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a manifest"):
        benchmark(tmp_path)


@pytest.mark.tensorflow
def test_a_folder_whose_manifest_names_a_file_that_is_gone_is_refused(exports, tmp_path, asked):
    shutil.copytree(exports("per_percentage").directory, tmp_path / "out")
    (tmp_path / "out" / "p40.tflite").unlink()
    with pytest.raises(FileNotFoundError, match="p40.tflite"):
        benchmark(tmp_path / "out")
    assert asked == []


@pytest.mark.parametrize("content", [b"", b"TFL3", b"hello", b"\x00" * 1000, b"\x1c\0\0\0TFL3"])
def test_files_that_are_no_exports_are_refused(content, tmp_path, asked):
    with pytest.raises(reading.FileError, match="model.tflite"):
        benchmark(file(tmp_path, content))
    assert asked == []


def test_a_foreign_flatbuffer_is_refused(tmp_path, asked):
    model = flatbuffer.new_model("foreign")
    flatbuffer.add_subgraph(model, "main")
    with pytest.raises(reading.FileError, match="not exported by keras_tesla"):
        benchmark(file(tmp_path, flatbuffer.pack(model)))
    assert asked == []


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, asked):
    whole = handmade.products()
    for end in [*range(0, len(whole), len(whole) // 40), *range(len(whole) - 130, len(whole), 7)]:
        with pytest.raises(reading.FileError, match="model.tflite"):
            benchmark(file(tmp_path, whole[:end]))
    assert asked == []


def test_a_file_with_a_flipped_bit_is_refused_wherever_it_is(tmp_path, asked):
    whole = handmade.products(units=1)
    random = np.random.default_rng(0)
    for place in [*range(0, len(whole), len(whole) // 60), len(whole) - 1]:
        changed = bytearray(whole)
        changed[place] ^= 1 << random.integers(8)
        with pytest.raises(reading.FileError, match="model.tflite"):
            benchmark(file(tmp_path, bytes(changed)))
    assert asked == []


# What the runtime does with a file that is whole and wrong.


def test_a_crash_of_the_runtime_is_an_error_of_that_file(tmp_path):
    path = file(tmp_path, handmade.crashing(), "crashing.tflite")
    with pytest.raises(
        MeasurementError, match=r"crashed on 'p100' of '.*crashing.tflite'.*SIGSEGV"
    ):
        benchmark(path, **FEW)
    assert len(benchmark(file(tmp_path), **FEW).measurements) == 2  # and this process lives


def test_what_the_runtime_refuses_is_an_error_with_its_words(tmp_path):
    path = file(tmp_path, handmade.products(signature="p7"))
    with pytest.raises(MeasurementError, match="could not run 'p7'(?s:.*)Invalid signature_key"):
        benchmark(path, **FEW)
    values = handmade.header([100]) | {"inputs": {"x": {"shape": [1, 5], "dtype": "float32"}}}
    path = file(tmp_path, forging.with_header(handmade.products([100]), values))
    with pytest.raises(MeasurementError, match="could not run 'p100'"):
        benchmark(path, **FEW)


def test_a_process_that_takes_too_long_is_ended(tmp_path):
    with pytest.raises(MeasurementError, match="not measured within 0.01 seconds.*longer"):
        benchmark(file(tmp_path), timeout=0.01, **FEW)


def test_a_file_of_another_format_is_refused(tmp_path):
    content = handmade.products()
    newer = handmade.header([100, 50]) | {"format": 9}
    with pytest.raises(reading.FileError, match="has format 9"):
        benchmark(file(tmp_path, forging.with_header(content, newer)))
