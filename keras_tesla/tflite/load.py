"""Opening an exported file in Python."""

import contextlib
import dataclasses
import mmap
import os
import pathlib
import threading

import numpy as np

from keras_tesla.percentages import check_percentage
from keras_tesla.tflite import bundle, runtime, standalone
from keras_tesla.tflite.cached import CachedRunner
from keras_tesla.tflite.examples import cast
from keras_tesla.tflite.files import archive, reading
from keras_tesla.tflite.graphs import flatbuffer


class Model:
    """An exported file; LiteRT runs it at the percentage that each call asks for.

    A percentage is opened as a standalone file at its first call, so only the percentages that are
    used take memory. Calls from several threads are safe; calls at the same percentage wait for
    each other.

    Args:
        path: A .tflite file that `export` wrote, or its folder.
        threads: Int, number of CPU threads of a call.
        cache_dir: Folder or None, see `load`.

    Attributes:
        percentages: Those that the file, or the folder, holds, from the highest to the lowest.
        header: The header of the file; docs/export.md lists the keys. Of a folder with several
            files that of the first, with the percentages of all of them.
    """

    def __init__(self, path, threads: int = 1, cache_dir=None):
        self._threads, self._cache = threads, cache_dir
        self._files: dict[int, _File] = {}
        headers = []
        for name in _files(os.fspath(path)):
            with _mapped(name) as content:
                headers.append(reading.read_header(content, f"{name!r}"))
                file = _File(name, headers[-1], content[archive.DIGITS].decode())
            self._files |= {entry["percentage"]: file for entry in headers[-1]["percentages"]}
        entries = [entry for header in headers for entry in header["percentages"]]
        entries.sort(key=lambda entry: -entry["percentage"])
        self.header = {**headers[0], "percentages": entries}
        self.percentages = tuple(entry["percentage"] for entry in entries)
        self._opening = threading.Lock()
        self._runners: dict[int, tuple] = {}

    def __call__(self, inputs, percentage: int | None = None):
        """Returns the outputs of the network at a percentage.

        Args:
            inputs: Array or nested list of examples, or {input name: such}, of the shapes in
                `header["inputs"]`, but with any number of examples. Numbers of another type are
                cast where that changes none but by rounding. An int8 input takes the network's
                numbers, and quantizes them; an int8 array is passed as it is.
            percentage: Int, 1..100. One that the file does not hold is served by the next higher
                one, beyond them by the nearest. Default: the highest.

        Returns:
            An array; {output name: array} of a network with several outputs. int8 outputs come as
            float32.

        Raises:
            ValueError: If `percentage` is not one, or the inputs do not fit.
        """
        percentage = self.percentages[0] if percentage is None else check_percentage(percentage)
        served = min((p for p in self.percentages if p >= percentage), default=self.percentages[0])
        feeds, examples = self._checked(inputs)
        runner, (details, output_details), lock = self._open(served)
        with lock:
            parts = [
                {name: np.array(y) for name, y in runner(**batch).items()}
                for batch in runtime.batches(details, runtime.encode(details, feeds))
            ]
            outputs = runtime.decode(output_details, parts, examples)
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def __repr__(self):
        header = self.header
        kind = header["quantization"] or "float32"
        return f"<keras_tesla.tflite.Model {header['name']!r}, {kind}, {list(self.percentages)} %>"

    def describe(self) -> str:
        """Returns the contents of the file as a table."""
        header = self.header
        lines = [
            f"{header['name']}: mode {header['mode']}, storage "
            f"{header['storage'] or 'one file each'}, {header['quantization'] or 'float32'}",
            *(f"input  {n}: {_described(s)}" for n, s in header["inputs"].items()),
            *(f"output {n}: {_described(s)}" for n, s in header["outputs"].items()),
            f"{'%':>4} {'multiply-adds':>14} {'bytes':>11} {'accuracy':>9} {'latency, us':>12}",
        ]
        for entry in header["percentages"]:
            accuracy = "" if entry["accuracy"] is None else f"{100 * entry['accuracy']:.2f}"
            lines.append(
                f"{entry['percentage']:>4} {entry['multiply_adds']:>14,} {entry['bytes']:>11,} "
                f"{accuracy:>9} {1e6 * entry['latency']:>12.1f}"
            )
        uncounted = header["percentages"][0].get("not_counted", [])
        lines += [f"without the multiply-adds of {name!r}: not known" for name in uncounted]
        return "\n".join(lines)

    def _checked(self, inputs):
        specs = self.header["inputs"]
        if not isinstance(inputs, dict):
            if len(specs) != 1:
                raise ValueError(
                    f"`inputs` must be a dict with an array for each of {list(specs)}."
                )
            inputs = {next(iter(specs)): inputs}
        if set(inputs) != set(specs):
            raise ValueError(
                f"`inputs` must have the keys {list(specs)}. Received: {sorted(map(str, inputs))}"
            )
        feeds = {}
        for name, spec in specs.items():
            dtype = spec["dtype"]
            if dtype == "int8" and not _is_int8(inputs[name]):
                dtype = "float32"  # int8 is how the file computes; its user has floats
            feeds[name] = cast(name, inputs[name], dtype)
            shape = feeds[name].shape
            if not shape or not shape[0] or list(shape[1:]) != spec["shape"][1:]:
                raise ValueError(
                    f"Input {name!r} must be a {spec['dtype']} array of shape "
                    f"{['examples', *spec['shape'][1:]]}. Received one of shape {list(shape)}"
                )
        counts = {name: len(x) for name, x in feeds.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"The inputs must hold equally many examples. Received: {counts}")
        return feeds, next(iter(counts.values()))

    def _open(self, percentage):
        with self._opening:
            if percentage not in self._runners:
                opened = self._interpreter if self._cache is None else self._cached
                self._runners[percentage] = (*opened(percentage), threading.Lock())
            return self._runners[percentage]

    def _standalone(self, percentage) -> bytes:
        of = self._files[percentage]
        with open(of.path, "rb") as file:
            if of.header["mode"] == "per_percentage":
                return file.read()
            return standalone.extract(_Slices(file), of.header, percentage)

    def _interpreter(self, percentage):
        made = runtime.interpreter(self._standalone(percentage), threads=self._threads)
        runner = made.get_signature_runner()
        return runner, (runner.get_input_details(), runner.get_output_details())

    def _cached(self, percentage):
        folder = pathlib.Path(self._cache)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self._files[percentage].digest}-p{percentage}.tflite"
        if not path.exists():
            # Whole or not at all, also when two processes start together.
            unfinished = folder / f"{path.name}.{os.getpid()}"
            unfinished.write_bytes(self._standalone(percentage))
            unfinished.replace(path)
        runner = CachedRunner(path, path.with_suffix(".xnnpack"), self._threads)
        with _mapped(path) as content:  # CompiledModel does not name scales and zero points
            return runner, flatbuffer.details(content)


@dataclasses.dataclass(frozen=True)
class _File:
    """A file of an export: its path, its header and the digits of its SHA-256."""

    path: str
    header: dict
    digest: str


def _is_int8(array) -> bool:
    return getattr(array, "dtype", None) == np.int8


def _files(path: str) -> list[str]:
    """Returns the files of an export, or the file itself."""
    if not os.path.isdir(path):
        return [path]
    return [os.path.join(path, file["file"]) for file in bundle.read(path).files]


class _Slices:
    """Reads slices of a file; a slice that is no longer used takes no memory."""

    def __init__(self, file):
        self._file = file

    def __len__(self):
        return os.fstat(self._file.fileno()).st_size

    def __getitem__(self, place: slice) -> bytes:
        self._file.seek(place.start)
        return self._file.read(place.stop - place.start)


@contextlib.contextmanager
def _mapped(path):
    """Yields the bytes of a file, mapped into memory until the context ends."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise reading.FileError(f"{path!r} is empty.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield content


def _described(end: dict) -> str:
    after = f", after layer {end['after']!r}" if "after" in end else ""
    return f"{end['dtype']} {end['shape']}{after}"


def load(path, threads: int = 1, cache_dir=None) -> Model:
    """Opens an exported file; its SHA-256 is checked before LiteRT sees it.

    Args:
        path: A .tflite file that `export` wrote, or its folder.
        threads: Int, number of CPU threads of a call.
        cache_dir: Folder in which each percentage that is used is kept as a standalone file with
            XNNPACK's packed weights: later starts are faster and take less memory. It must be as
            trustworthy as the file. None: nothing is kept.

    Returns:
        A `Model`: call it with inputs and a percentage.

    Raises:
        FileError: If the file is damaged, was not exported by keras_tesla, or has another format.
        OSError: If it cannot be read.
    """
    return Model(path, threads, cache_dir)
