"""Opening an exported file in Python."""

import contextlib
import mmap
import os
import pathlib
import threading

import numpy as np

from keras_tesla.percentages import check_percentage
from keras_tesla.tflite import runtime, standalone
from keras_tesla.tflite.cached import CachedRunner
from keras_tesla.tflite.files import archive, reading


class Model:
    """An exported file; LiteRT runs it at the percentage that each call asks for.

    A percentage is opened as a standalone file at its first call, so only the percentages that are
    used take memory. Calls from several threads are safe; calls at the same percentage wait for
    each other.

    Args:
        path: A .tflite file that `export` wrote.
        threads: Int, number of CPU threads of a call.
        cache_dir: Folder or None, see `load`.

    Attributes:
        percentages: The percentages that the file holds, from the highest to the lowest.
        header: The header of the file; docs/export.md lists the keys.
    """

    def __init__(self, path, threads: int = 1, cache_dir=None):
        self._path, self._threads, self._cache = os.fspath(path), threads, cache_dir
        with _mapped(self._path) as content:
            self.header = reading.read_header(content, f"{self._path!r}")
            self._digest = content[archive.DIGITS].decode()
        self.percentages = tuple(e["percentage"] for e in self.header["percentages"])
        self._opening = threading.Lock()
        self._runners: dict[int, tuple] = {}

    def __call__(self, inputs, percentage: int | None = None):
        """Returns the outputs of the network at a percentage.

        Args:
            inputs: Array, or {input name: array}, of the shapes and types in `header["inputs"]`.
            percentage: Int, one of `percentages`. Default: the highest.

        Returns:
            An array; {output name: array} of a network with several outputs.

        Raises:
            ValueError: A percentage that the file does not hold, or inputs that do not fit.
        """
        percentage = self.percentages[0] if percentage is None else check_percentage(percentage)
        if percentage not in self.percentages:
            raise ValueError(f"The file holds {list(self.percentages)} %. Received: {percentage}")
        feeds = self._checked(inputs)
        runner, lock = self._open(percentage)
        with lock:
            outputs = runner(**feeds)
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
            *(f"input  {n}: {s['dtype']} {s['shape']}" for n, s in header["inputs"].items()),
            *(f"output {n}: {s['dtype']} {s['shape']}" for n, s in header["outputs"].items()),
            f"{'%':>4} {'multiply-adds':>14} {'bytes':>11} {'accuracy':>9} {'latency, us':>12}",
        ]
        for entry in header["percentages"]:
            accuracy = "" if entry["accuracy"] is None else f"{100 * entry['accuracy']:.2f}"
            lines.append(
                f"{entry['percentage']:>4} {entry['multiply_adds']:>14,} {entry['bytes']:>11,} "
                f"{accuracy:>9} {1e6 * entry['latency']:>12.1f}"
            )
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
            array = np.asarray(inputs[name])
            if list(array.shape) != spec["shape"] or array.dtype != spec["dtype"]:
                raise ValueError(
                    f"Input {name!r} must be a {spec['dtype']} array of shape {spec['shape']}. "
                    f"Received: {array.dtype} of shape {list(array.shape)}"
                )
            feeds[name] = array
        return feeds

    def _open(self, percentage):
        with self._opening:
            if percentage not in self._runners:
                opened = self._interpreter if self._cache is None else self._cached
                self._runners[percentage] = opened(percentage), threading.Lock()
            return self._runners[percentage]

    def _standalone(self, percentage) -> bytes:
        with open(self._path, "rb") as file:
            if self.header["mode"] == "per_percentage":
                return file.read()
            return standalone.extract(_Slices(file), self.header, percentage)

    def _interpreter(self, percentage):
        made = runtime.interpreter(self._standalone(percentage), threads=self._threads)
        return made.get_signature_runner()

    def _cached(self, percentage):
        folder = pathlib.Path(self._cache)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self._digest}-p{percentage}.tflite"
        if not path.exists():
            # Whole or not at all, also when two processes start together.
            unfinished = folder / f"{path.name}.{os.getpid()}"
            unfinished.write_bytes(self._standalone(percentage))
            unfinished.replace(path)
        return CachedRunner(path, path.with_suffix(".xnnpack"), self._threads)


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


def load(path, threads: int = 1, cache_dir=None) -> Model:
    """Opens an exported file; its SHA-256 is checked before LiteRT sees it.

    Args:
        path: A .tflite file that `export` wrote.
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
