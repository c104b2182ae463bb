"""What was measured of one percentage of an export."""

import dataclasses
import math
import typing

LATENCY = ("min", "mean", "median", "p90", "p99")


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One percentage of one export, as measured; a row of the table.

    Args:
        model: What the export is called in tables and plots.
        mode: The export's mode.
        storage: How it stores its weights, None where each percentage has a file of its own.
        quantization: None for float32.
        percentage: Int, 1..100.
        file: Name of the file.
        file_bytes: Its size.
        bytes: Size of a file of this percentage only.
        multiply_adds: Of one example; None if those of a layer are not known.
        accuracy: 0..1, as written into the file by the export, or None.
        batch_size: Examples of one call.
        latency: {"min", "mean", "median", "p90", "p99"}: seconds of one call.
        load: Seconds from opening the file to the first result; the median over the rounds.
        memory: Bytes of resident memory that the file took at most, or None if unknown.

    Raises:
        ValueError: If a value is of another type, negative or not finite.
    """

    model: str
    mode: str
    storage: str | None
    quantization: str | None
    percentage: int
    file: str
    file_bytes: int
    bytes: int
    multiply_adds: int | None
    accuracy: float | None
    batch_size: int
    latency: dict[str, float]
    load: float
    memory: int | None

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "latency":
                good = isinstance(value, dict) and set(value) == set(LATENCY)
                good = good and all(_fits(v, float) for v in value.values())
            else:
                good = _fits(value, field.type)
            if not good:
                raise ValueError(f"`{field.name}` does not fit. Received: {value!r}")
        if not 1 <= self.percentage <= 100 or (self.accuracy or 0) > 1:
            raise ValueError(
                "Percentages are 1..100 and accuracies 0..1. Received: "
                f"{self.percentage!r} and {self.accuracy!r}"
            )


def _fits(value, kind) -> bool:
    kinds = typing.get_args(kind) or (kind,)
    if float in kinds:
        kinds += (int,)
    if isinstance(value, bool) or not isinstance(value, kinds):
        return False
    return not isinstance(value, int | float) or (math.isfinite(value) and value >= 0)
