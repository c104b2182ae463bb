"""What a file says of itself, as it is written; docs/export.md describes the keys.

Where constants lie, and what is measured on the file, is known only once the file stands. So a
header has room for numbers that are filled in later, and its place does not move.
"""

import dataclasses
import json
from typing import Any

FORMAT = 1
_WIDTH = 13  # characters of a number that is filled in later, at most: offsets below 10 terabytes


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one percentage is taken out of the file; see `keras_tesla.tflite.storages.part`.

    Args:
        size: Bytes of its flatbuffer in the file, in zlib's form.
        length: Bytes of what results.
        sha256: Hex digest of what results.
        copies: [[to, from, bytes], ..]: runs of bytes that are copied.
        corners: [[to, from, shells, level], ..]: weights that are stored nested.
        offset: Of its flatbuffer in the file.
    """

    offset: int
    size: int
    length: int
    sha256: str
    copies: list[list[int]]
    corners: list[list[int]]

    def _filled_in_later(self):
        return [self.offset, *(run[1] for run in self.copies + self.corners)]


@dataclasses.dataclass(frozen=True)
class Measures:
    """What is measured on a finished file; None where it is not, or not yet.

    Args:
        bytes: What a file of this percentage alone takes.
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
    """What a file says of one of its percentages.

    Args:
        percentage: Int, 1..100.
        signature: Name of its signature.
        multiply_adds: Of one example.
        measures: What was measured.
        alone: How it is taken out of the file; None if it is the file's only one.
    """

    percentage: int
    signature: str
    multiply_adds: int
    measures: Measures = Measures()
    alone: Recipe | None = None

    def values(self) -> dict[str, Any]:
        """Returns it as a dict of what JSON has."""
        values = dataclasses.asdict(self)
        recipe = values.pop("alone")
        values |= values.pop("measures")
        return values if recipe is None else {**values, "alone": recipe}

    def _filled_in_later(self):
        measures = dataclasses.astuple(self.measures)
        return [*measures, *(() if self.alone is None else self.alone._filled_in_later())]


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Args:
        mode: `"per_percentage"`, `"signatures"` or `"percentage_input"`.
        storage: Name of the storage; None in a file of one percentage.
        quantization: None, `"dynamic_range"` or `"int8"`.
        name: Of the network.
        versions: {package: version} of what wrote it.
        inputs: {name: {"shape": [..], "dtype": ..}} of the inputs.
        outputs: Likewise of the outputs.
        percentages: From the highest to the lowest.
        not_shared: [{"weight": name, "percentage": int, "bytes": int, "reason": str}, ..].
        shells: The forms of nested weights; None in a file of one percentage.
    """

    mode: str
    storage: str | None
    quantization: str | None
    name: str
    versions: dict[str, str]
    inputs: dict[str, dict]
    outputs: dict[str, dict]
    percentages: tuple[PercentageHeader, ...]
    not_shared: list[dict] = dataclasses.field(default_factory=list)
    shells: list[dict] | None = None

    def values(self) -> dict[str, Any]:
        """Returns it as a dict of what JSON has."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["percentages"] = [entry.values() for entry in self.percentages]
        if self.shells is None:
            del values["shells"]
        return {"format": FORMAT, **values}

    def text(self) -> bytes:
        """Returns it as JSON."""
        return json.dumps(self.values(), separators=(",", ":")).encode()

    def room(self) -> int:
        """Returns the bytes that its text may take once all numbers are filled in."""
        later = [n for entry in self.percentages for n in entry._filled_in_later()]
        return len(self.text()) + sum(_WIDTH - len(json.dumps(number)) for number in later)
