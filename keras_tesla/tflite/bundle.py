"""What an export wrote to disk."""

import dataclasses
import json
import pathlib

from keras_tesla.tflite.files import manifest
from keras_tesla.tflite.files.header import FORMAT
from keras_tesla.tflite.measure import benchmark as measure


@dataclasses.dataclass(frozen=True)
class Entry:
    """One percentage of an export.

    Args:
        percentage: Int, 1..100.
        file: Name of the file in the export's folder.
        signature: Name of its signature in the file.
        bytes: Size of a file of this percentage only.
        multiply_adds: Of one example; see `keras_tesla.analysis.cost.multiply_adds`.
        accuracy: Float, 0..1, on the `validation_data` of the export; None if there was none.
        latency: Seconds of one call on the machine that exported it, one thread, median.
        max_abs_difference: Largest difference between the file's outputs and Keras'.
        standalone: How it becomes a standalone file, see `keras_tesla.tflite.storages.part`; None
            if its file already is one.
        quantized_inputs: {name: {"scale": float, "zero_point": int}} of the int8 inputs: a stored
            integer q is the number scale * (q - zero_point).
        quantized_outputs: Likewise of the outputs.
        not_counted: Names of the layers whose multiply-adds nobody knows; `multiply_adds` is the
            sum of the others.
    """

    percentage: int
    file: str
    signature: str
    bytes: int
    multiply_adds: int
    accuracy: float | None
    latency: float
    max_abs_difference: float
    standalone: dict | None = None
    quantized_inputs: dict = dataclasses.field(default_factory=dict)
    quantized_outputs: dict = dataclasses.field(default_factory=dict)
    not_counted: list[str] = dataclasses.field(default_factory=list)


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
        unshared_weights: [{"weight": name, "percentage": int, "bytes": int, "reason": str}, ..]:
            the weights that a shared storage could not share.
        versions: {package: version} of the software that wrote it.
        nested_layouts: How nested weights are stored, see `keras_tesla.tflite.storages.part`.
        labels: Names of the numbers along the last axis of the outputs; None if none were given.
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
    unshared_weights: list
    versions: dict
    nested_layouts: list = dataclasses.field(default_factory=list)
    labels: list[str] | None = None

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
        return measure.benchmark([self.directory], **kwargs)

    def to_json(self) -> str:
        """Returns the content of `manifest.json`."""
        values = dataclasses.asdict(self)
        del values["directory"]
        values["percentages"] = [_without_empty(entry) for entry in values.pop("entries")]
        if self.labels is None:
            del values["labels"]
        return json.dumps({"format": FORMAT, **values}, indent=1) + "\n"


def _without_empty(entry: dict) -> dict:
    """The values of an entry as a header has them: these only where there are any."""
    optional = ("not_counted", "quantized_inputs", "quantized_outputs")
    return {key: value for key, value in entry.items() if key not in optional or value}


def from_manifest(directory, values: dict) -> Bundle:
    """Returns a bundle from the values of its manifest; keys that are not known are left out."""
    entries = tuple(Entry(**_known(Entry, entry)) for entry in values["percentages"])
    return Bundle(directory=pathlib.Path(directory), entries=entries, **_known(Bundle, values))


def _known(cls, values: dict) -> dict:
    """The values that are fields of a class: a later version may write more in the same format."""
    names = {field.name for field in dataclasses.fields(cls)}
    return {key: value for key, value in values.items() if key in names}


def read(directory) -> Bundle:
    """Reads the manifest of an export and checks the files that it names.

    Raises:
        FileNotFoundError: If there is none in the folder, or a file that it names is missing.
        FileError: If a file does not have the size or the SHA-256 of the manifest, or the manifest
            has another format.
        ValueError: If it is not a manifest, or names files outside of the folder.
    """
    values = manifest.read(directory)
    try:
        return from_manifest(directory, values)
    except manifest.ERRORS as error:
        raise manifest.refused(directory, error) from error
