"""Measuring exported files: latency, load time, memory and bytes of every percentage."""

import dataclasses
import functools
import json
import os
import pathlib
import statistics
import tempfile
import textwrap
from collections.abc import Callable

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_tesla.integers import check_integer
from keras_tesla.percentages import check_percentages
from keras_tesla.tflite.files import manifest, reading
from keras_tesla.tflite.files.folder import MANIFEST
from keras_tesla.tflite.graphs import flatbuffer, merge
from keras_tesla.tflite.measure import child, machine, report, textfile
from keras_tesla.tflite.measure.measurement import Measurement
from keras_tesla.tflite.standalone import extract

_FORMAT = "keras_tesla benchmark 1"
_DELEGATES = ("xnnpack", "none")
# Heads of `report.COLUMNS` that a terminal has room for.
_TABLE = (
    *("%", "accuracy %", "median µs", "load ms"),
    *("memory KiB", "standalone B", "multiply-adds"),
)
_PACKAGES = ("ai-edge-litert", "keras-tesla")


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What `benchmark` measured.

    Args:
        machine: Where and when; see `keras_tesla.tflite.measure.machine.describe`.
        settings: {name: value} of how it was measured.
        measurements: One for each percentage of each export.
    """

    machine: dict
    settings: dict
    measurements: tuple[Measurement, ...]

    def save(self, path, overwrite: bool = False) -> pathlib.Path:
        """Writes it as JSON, which `load` reads.

        Raises:
            FileExistsError: If there is a file and `overwrite` is false.
        """
        values = {"format": _FORMAT, **dataclasses.asdict(self)}
        return textfile.write(path, json.dumps(values, indent=2) + "\n", overwrite)

    @classmethod
    def load(cls, path) -> "Benchmark":
        """Reads what `save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is something else.
        """
        content = pathlib.Path(path).read_bytes()
        try:
            values = json.loads(content)
            if values.pop("format") != _FORMAT:
                raise ValueError(f"its `format` is not {_FORMAT!r}")
            rows = tuple(Measurement(**row) for row in values.pop("measurements"))
            if not rows or not all(isinstance(values[k], dict) for k in ("machine", "settings")):
                raise ValueError("it names no measurement, machine or settings")
            return cls(measurements=rows, **values)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{str(path)!r} is not a benchmark that `keras-tesla benchmark` or "
                f"`Benchmark.save` wrote: {type(error).__name__}: {error}"
            ) from error

    def report(self, path, overwrite: bool = False) -> pathlib.Path:
        """Writes it as one HTML page with plots and tables.

        Raises:
            FileExistsError: If there is a file and `overwrite` is false.
        """
        return report.write([self], path, overwrite)

    def table(self) -> str:
        """Returns the main figures as text of 80 columns; `report` and `save` have all."""
        lines = textwrap.wrap(report.place(self), 80, break_on_hyphens=False)
        columns = [(head, text) for head, text in report.COLUMNS if head in _TABLE]
        for title, rows in report.models(self).items():
            cells = [[head for head, _ in columns]]
            cells += [[text(row) for _, text in columns] for row in rows]
            widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
            lines += ["", title]
            lines += ["  ".join(map(str.rjust, row, widths)) for row in cells]
        return "\n".join(lines) + "\n"


def benchmark(
    paths,
    percentages=None,
    runs: int = 50,
    warmup: int = 10,
    rounds: int = 4,
    threads: int = 1,
    delegate: str = "xnnpack",
    standalone: bool = False,
    timeout: float = 300,
    progress: Callable[[str], None] = lambda line: None,
) -> Benchmark:
    """Measures every percentage of exported files on this machine.

    Each percentage is opened in its own process. They alternate, `rounds` times, so a slow moment
    of the machine affects all of them; a crash of the runtime becomes an error. A file that takes
    the percentage as an input is run that way, any other by its signatures.

    Args:
        paths: A .tflite file or a folder that `keras_tesla.tflite.export` wrote, or several.
        percentages: Iterable of ints that each of them holds. Default: all it holds.
        runs: Int, number of timed calls in each round.
        warmup: Int, number of calls before them that are not timed.
        rounds: Int, how many processes open each percentage.
        threads: Int, number of CPU threads.
        delegate: `"xnnpack"` or `"none"`.
        standalone: Bool, whether each percentage is measured as a standalone file, as
            `keras_tesla.tflite.load` opens it; making that file is not timed.
        timeout: Seconds that one process may take.
        progress: Function that takes a line on each round that is done.

    Returns:
        A `Benchmark`. Latency is over all calls of all rounds, see `child.measure` for what of a
        call; load time is the median over the rounds and memory the largest. A file that was just
        read is in the system's cache: its load time is that of a second start.

    Raises:
        FileNotFoundError: If there is no such file, or no manifest in the folder.
        FileError: If a file is damaged or was not exported by keras_tesla.
        MeasurementError: If LiteRT could not run one.
        ValueError: An argument that does not fit, a percentage that a file does not hold.

    Example:

        measured = keras_tesla.tflite.benchmark("out/tflite")
        print(measured.table())
        measured.report("out/report.html")
    """
    runs, warmup = check_integer("runs", runs), check_integer("warmup", warmup, least=0)
    rounds, threads = check_integer("rounds", rounds), check_integer("threads", threads)
    if delegate not in _DELEGATES:
        raise ValueError(f"`delegate` must be one of {_DELEGATES}. Received: {delegate!r}")
    if percentages is not None:
        percentages = check_percentages(percentages)
    run = functools.partial(
        child.measure,
        first=_one_product(),
        runs=runs,
        warmup=warmup,
        threads=threads,
        delegate=delegate,
        timeout=timeout,
    )
    with tempfile.TemporaryDirectory() as scratch:
        jobs = [
            job
            for name, path in _named(paths).items()
            for job in _jobs(name, path, percentages, pathlib.Path(scratch) if standalone else None)
        ]
        answers: list[list[dict]] = [[] for _ in jobs]
        for number in range(rounds):
            # Every other round goes backward, so no job always runs after the same one.
            for index in range(len(jobs))[:: 1 if number % 2 == 0 else -1]:
                answers[index].append(run(**jobs[index].call))
            progress(f"measured: round {number + 1}/{rounds} of {len(jobs)} percentages")
    return Benchmark(
        machine=machine.describe(threads, _PACKAGES),
        settings={
            "runs": runs,
            "warmup": warmup,
            "rounds": rounds,
            "delegate": delegate,
            "standalone": standalone,
        },
        measurements=tuple(
            Measurement(**job.about, **_summary(answered))
            for job, answered in zip(jobs, answers, strict=True)
        ),
    )


@dataclasses.dataclass(frozen=True)
class _Job:
    call: dict  # arguments of `child.measure`
    about: dict  # of `Measurement`, what is known before anything runs


def _named(paths) -> dict[str, pathlib.Path]:
    """Returns {name of a model: path}; the name is the last part of the path if that is unique."""
    paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    paths = [pathlib.Path(path) for path in paths]
    if not paths or len(set(paths)) < len(paths):
        raise ValueError(
            "Expected one or several different .tflite files or folders of an export. Received: "
            f"{[str(path) for path in paths]}"
        )
    short = [path.resolve().name for path in paths]
    return {
        name if short.count(name) == 1 else str(path): path
        for name, path in zip(short, paths, strict=True)
    }


def _jobs(name, path, percentages, scratch) -> list[_Job]:
    jobs, held = [], []
    for file in _files(path):
        content = file.read_bytes()
        about = reading.read_header(content, repr(str(file)))
        for entry in about["percentages"]:
            held.append(entry["percentage"])
            if percentages is None or held[-1] in percentages:
                jobs.append(_job(name, file, content, about, entry, scratch))
    missing = [p for p in percentages or () if p not in held]
    if missing:
        raise ValueError(f"{str(path)!r} does not hold {missing} %; it holds {held}.")
    return jobs


def _files(path: pathlib.Path) -> list[pathlib.Path]:
    if not path.is_dir():
        return [path]
    if not (path / MANIFEST).exists():
        raise FileNotFoundError(
            f"{str(path)!r} holds no {MANIFEST}: expected a .tflite file or a folder that "
            "`keras_tesla.tflite.export` wrote."
        )
    return [path / name for name in manifest.files_of(manifest.read(path))]


def _job(name, file, content, about, entry, scratch) -> _Job:
    percentage, inputs = entry["percentage"], about["inputs"]
    call = {"path": file, "signature": entry["signature"], "inputs": inputs, "values": {}}
    if scratch is not None and entry.get("standalone"):
        call["path"] = scratch / f"{len(list(scratch.iterdir()))}.tflite"
        call["path"].write_bytes(extract(content, about, percentage))
        call["signature"] = merge.DEFAULT
    elif about["mode"] == "percentage_input":
        call["signature"] = merge.DEFAULT
        call["inputs"] = {**inputs, merge.PERCENTAGE: {"shape": [1], "dtype": "int32"}}
        call["values"] = {merge.PERCENTAGE: [percentage]}
    known = {
        "model": name,
        "mode": about["mode"],
        "storage": about["storage"],
        "quantization": about["quantization"],
        "file": file.name,
        "file_bytes": len(content),
        "batch_size": next(iter(inputs.values()))["shape"][0],
    }
    same = {key: entry[key] for key in ("percentage", "bytes", "multiply_adds", "accuracy")}
    if entry.get("not_counted"):
        same["multiply_adds"] = None
    return _Job(call, known | same)


def _summary(answers: list[dict]) -> dict:
    """Returns the rest of a `Measurement` from the answers of a percentage's processes."""
    seconds = np.concatenate([answer["seconds"] for answer in answers])
    memory = [answer["memory"] for answer in answers]
    return {
        "latency": {
            "min": float(seconds.min()),
            "mean": float(seconds.mean()),
            "median": float(np.median(seconds)),
            "p90": float(np.quantile(seconds, 0.9)),
            "p99": float(np.quantile(seconds, 0.99)),
        },
        "load": statistics.median(answer["load"] for answer in answers),
        "memory": None if None in memory else max(memory),
    }


def _one_product() -> bytes:
    """Returns the smallest model that makes the runtime set up its delegate: one product."""
    model = flatbuffer.new_model("one product")
    subgraph = flatbuffer.add_subgraph(model, "main")
    x = subgraph.add_tensor("x", [1, 1], flatbuffer.Type.FLOAT32)
    weight = np.ones((1, 1), "float32")
    w = subgraph.add_tensor("w", [1, 1], flatbuffer.Type.FLOAT32, weight)
    y = subgraph.add_tensor("y", [1, 1], flatbuffer.Type.FLOAT32)
    options = schema.FullyConnectedOptionsT()
    subgraph.add_operator(flatbuffer.Op.FULLY_CONNECTED, [x, w, -1], [y], options)
    subgraph.table.inputs, subgraph.table.outputs = [x], [y]
    return flatbuffer.pack(model)
