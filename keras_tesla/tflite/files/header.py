"""The header of a file, as it is written; docs/export.md describes the keys.

The offsets of constants, and what is measured on the file, are known only after the file was
written. So a header has room for numbers that are filled in later, and its offset never changes.
"""

import dataclasses
import json
from typing import Any

FORMAT = 1  # of headers and manifests; readers refuse all others
_WIDTH = 13  # characters of a number that is filled in later, at most: offsets below 10 terabytes


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a file makes one percentage standalone; see `keras_tesla.tflite.storages.part`.

    Args:
        offset: Of its flatbuffer in the file, compressed by zlib.
        compressed_bytes: Its size there.
        bytes: Size of the result.
        sha256: Hex digest of the result.
        copies: [[target, source, bytes], ..]: runs of bytes that are copied.
        nested_weights: [[target, source, layout, level], ..]: weights that are stored nested.
    """

    offset: int
    compressed_bytes: int
    bytes: int
    sha256: str
    copies: list[list[int]]
    nested_weights: list[list[int]]

    def _filled_in_later(self):
        return [self.offset, *(run[1] for run in self.copies + self.nested_weights)]


@dataclasses.dataclass(frozen=True)
class Measures:
    """What is measured on a finished file; None where it is not, or not yet.

    Args:
        bytes: Size of a file of this percentage only.
        accuracy: Float, 0..1, on the `validation_data` of the export.
        latency: Seconds of one call on the machine that exported it, one thread, median.
        max_abs_difference: Largest difference between the file's outputs and Keras'.
    """

    bytes: int | None = None
    accuracy: float | None = None
    latency: float | None = None
    max_abs_difference: float | None = None


@dataclasses.dataclass(frozen=True)
class PercentageHeader:
    """One percentage in the header of a file.

    Args:
        percentage: Int, 1..100.
        signature: Name of its signature.
        multiply_adds: Of one example, without those of `not_counted`.
        not_counted: Names of the layers whose multiply-adds nobody knows.
        quantized_inputs: {name: {"scale": float, "zero_point": int}} of the int8 inputs: a stored
            integer q is the number scale * (q - zero_point).
        quantized_outputs: Likewise of the outputs.
        measures: What was measured.
        standalone: How it is made standalone; None if it is the only one of the file.
    """

    percentage: int
    signature: str
    multiply_adds: int
    not_counted: list[str] = dataclasses.field(default_factory=list)
    quantized_inputs: dict[str, dict] = dataclasses.field(default_factory=dict)
    quantized_outputs: dict[str, dict] = dataclasses.field(default_factory=dict)
    measures: Measures = Measures()
    standalone: Recipe | None = None

    def values(self) -> dict[str, Any]:
        """Returns it as a dict for JSON."""
        values = dataclasses.asdict(self)
        values |= values.pop("measures")
        optional = ("standalone", "not_counted", "quantized_inputs", "quantized_outputs")
        return {key: value for key, value in values.items() if key not in optional or value}

    def _filled_in_later(self):
        measures = dataclasses.astuple(self.measures)
        return [*measures, *(() if self.standalone is None else self.standalone._filled_in_later())]


@dataclasses.dataclass(frozen=True)
class Header:
    """The header of a file.

    Args:
        mode: `"per_percentage"`, `"signatures"` or `"percentage_input"`.
        storage: Name of the storage; None in a file of one percentage.
        quantization: None, `"dynamic_range"` or `"int8"`.
        name: Of the network.
        versions: {package: version} of the software that wrote it.
        inputs: {name: {"shape": [..], "dtype": ..}} of the inputs.
        outputs: Likewise of the outputs.
        percentages: From the highest to the lowest.
        unshared_weights: [{"weight": name, "percentage": int, "bytes": int, "reason": str}, ..].
        nested_layouts: How nested weights are stored; None in a file of one percentage.
        labels: Names of the numbers along the last axis of the outputs; None if none were given.
    """

    mode: str
    storage: str | None
    quantization: str | None
    name: str
    versions: dict[str, str]
    inputs: dict[str, dict]
    outputs: dict[str, dict]
    percentages: tuple[PercentageHeader, ...]
    unshared_weights: list[dict] = dataclasses.field(default_factory=list)
    nested_layouts: list[dict] | None = None
    labels: list[str] | None = None

    def values(self) -> dict[str, Any]:
        """Returns it as a dict for JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["percentages"] = [entry.values() for entry in self.percentages]
        for optional in ("nested_layouts", "labels"):
            if values[optional] is None:
                del values[optional]
        return {"format": FORMAT, **values}

    def text(self) -> bytes:
        """Returns it as JSON."""
        return json.dumps(self.values(), separators=(",", ":")).encode()

    def room(self) -> int:
        """Returns the bytes that its text may take once all numbers are filled in."""
        later = [n for entry in self.percentages for n in entry._filled_in_later()]
        return len(self.text()) + sum(_WIDTH - len(json.dumps(number)) for number in later)
