"""What an export wrote."""

import dataclasses
import hashlib
import json
import pathlib

from keras_tesla.percentages import check_percentages
from keras_tesla.tflite.files.folder import MANIFEST
from keras_tesla.tflite.files.reading import FileError


@dataclasses.dataclass(frozen=True)
class Entry:
    """One percentage of an export.

    Args:
        percentage: Int, 1..100.
        file: Name of the file in the export's folder.
        signature: Name of its signature in the file.
        bytes: What a file of this percentage alone takes.
        multiply_adds: Of one example; see `keras_tesla.analysis.cost.multiply_adds`.
        accuracy: Float, 0..1, on the `validation_data` of the export; None if there was none.
        latency: Seconds of one call on the machine that exported it, one thread, median.
        max_abs_difference: Largest difference between the file's outputs and Keras'.
        alone: How it is opened alone, see `keras_tesla.tflite.files.alone`; None in an own file.
    """

    percentage: int
    file: str
    signature: str
    bytes: int
    multiply_adds: int
    accuracy: float | None
    latency: float
    max_abs_difference: float
    alone: dict | None = None


@dataclasses.dataclass(frozen=True)
class Bundle:
    """An export on disk.

    Args:
        directory: Its folder.
        mode: `"per_percentage"`, `"signatures"` or `"percentage_input"`.
        storage: `"shared"` or `"plain"`; None if each percentage has a file of its own.
        quantization: None, `"dynamic_range"` or `"int8"`.
        name: Of the network.
        inputs: {name: {"shape": [..], "dtype": ..}} of the inputs.
        outputs: Likewise of the outputs.
        entries: One for each percentage, from the highest to the lowest.
        files: [{"file": name, "sha256": hex digest, "bytes": size}, ..].
        not_shared: [{"weight": name, "percentage": int, "bytes": int, "reason": str}, ..]: the
            weights of a shared storage that need bytes of their own at a percentage.
        versions: {package: version} of what wrote it.
        shells: The forms of nested weights, see `keras_tesla.tflite.files.alone`.
    """

    directory: pathlib.Path
    mode: str
    storage: str | None
    quantization: str | None
    name: str
    inputs: dict
    outputs: dict
    entries: tuple[Entry, ...]
    files: list
    not_shared: list
    versions: dict
    shells: list = dataclasses.field(default_factory=list)

    def __getitem__(self, percentage: int) -> Entry:
        for entry in self.entries:
            if entry.percentage == percentage:
                return entry
        raise KeyError(
            f"{percentage} % is not in this export; it holds {[e.percentage for e in self.entries]}"
        )

    def path(self, percentage: int) -> pathlib.Path:
        """Returns the path of the file that holds a percentage.

        Raises:
            KeyError: If the export does not hold it.
        """
        return self.directory / self[percentage].file

    def benchmark(self, **kwargs):
        """Measures every percentage on this machine; see `keras_tesla.tflite.measure.benchmark`.

        Args:
            **kwargs: Of `keras_tesla.tflite.measure.benchmark.benchmark`.
        """
        from keras_tesla.tflite.measure.benchmark import benchmark

        return benchmark([self.directory], **kwargs)

    def manifest(self) -> str:
        """Returns the text of the manifest."""
        values = dataclasses.asdict(self)
        del values["directory"]
        values["percentages"] = values.pop("entries")
        return json.dumps(values, indent=1) + "\n"


def from_manifest(directory, values: dict) -> Bundle:
    """Returns a bundle from what its manifest holds."""
    values = dict(values)
    entries = tuple(Entry(**entry) for entry in values.pop("percentages"))
    return Bundle(directory=pathlib.Path(directory), entries=entries, **values)


def read(directory) -> Bundle:
    """Reads the manifest of an export and checks the files that it names.

    Raises:
        FileNotFoundError: If there is none in the folder, or a file that it names is missing.
        FileError: If a file has not the size or the SHA-256 that the manifest says.
        ValueError: If it is not a manifest, or names files outside of the folder.
    """
    directory = pathlib.Path(directory)
    text = (directory / MANIFEST).read_text()
    try:
        bundle = from_manifest(directory, json.loads(text))
        described = {file["file"]: (file["bytes"], file["sha256"]) for file in bundle.files}
        _check_names(bundle, described)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{str(directory / MANIFEST)!r} is not a manifest of an export: {error}"
        ) from error
    for name, expected in described.items():
        content = (directory / name).read_bytes()
        found = len(content), hashlib.sha256(content).hexdigest()
        if found != expected:
            raise FileError(
                f"{str(directory / name)!r} is not the file of the manifest beside it. Expected "
                f"{expected[0]} bytes with the SHA-256 {expected[1]}. Received: {found[0]} bytes, "
                f"{found[1]}"
            )
    return bundle


def _check_names(bundle, described):
    """Refuses what leads out of the folder: a manifest may come from anywhere."""
    for name in described:
        if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\:\0"):
            raise ValueError(f"a file must be named without a folder. Received: {name!r}")
    check_percentages([entry.percentage for entry in bundle.entries])
    unknown = sorted({str(entry.file) for entry in bundle.entries} - set(described))
    if unknown:
        raise ValueError(f"`files` lacks what `percentages` name: {unknown}")
