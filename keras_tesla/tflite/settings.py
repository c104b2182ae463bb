"""The options of a conversion and of an export, checked before anything is converted."""

import dataclasses
import numbers
from collections.abc import Mapping
from typing import Any

from keras_tesla.integers import check_integer
from keras_tesla.percentages import check_percentages
from keras_tesla.tflite.files import archive
from keras_tesla.tflite.storages import STORAGES
from keras_tesla.tflite.storages.storage import Storage

MODES = ("per_percentage", "signatures", "percentage_input")
QUANTIZATIONS = (None, "dynamic_range", "int8")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ConversionSettings:
    """How a network becomes a .tflite file.

    Args:
        quantization: None: float32. `"dynamic_range"`: int8 weights. `"int8"`: int8 weights and
            activations.
        int8_io: Bool, whether the inputs and outputs of an `"int8"` file are int8 too.
        batch_size: Positive int, the fixed batch size of the file.
        trained_ranges: Bool, whether the model holds the ranges of its int8 activations: they were
            trained, so no data are needed to measure them.
        inputs: What the file is compared on with the model, as the user gave it: an array, or
            {input name: array}; None for the default.
        representative_data: Likewise, what the ranges of an `"int8"` file are measured on.

    Raises:
        ValueError: A value that is not allowed, or does not go with the others.
    """

    quantization: str | None = None
    int8_io: bool = False
    batch_size: int = 1
    trained_ranges: bool = False
    inputs: Any = None
    representative_data: Any = None

    def __post_init__(self):
        self._check_choice("quantization", QUANTIZATIONS)
        self._set("batch_size", check_integer("batch_size", self.batch_size))
        int8, given = self.quantization == "int8", self.representative_data is not None
        received = (
            f"Received: quantization={self.quantization!r} and {'some' if given else 'no'} "
            "representative_data"
        )
        if self.trained_ranges and (not int8 or given):
            raise ValueError(
                "The ranges of a quantization-aware model were trained, for an int8 file. Pass "
                "quantization='int8' and leave `representative_data` out; `inputs` chooses what is "
                f"compared. {received}"
            )
        if not self.trained_ranges and int8 != given:
            raise ValueError(
                "`representative_data`, typical inputs, goes with quantization='int8': the ranges "
                f"of the activations are measured on it. {received}. A model made by "
                "`quantization_aware` needs none."
            )
        if self.int8_io and not int8:
            raise ValueError(
                "`int8_io` goes with quantization='int8'. Received: "
                f"quantization={self.quantization!r}"
            )

    def _check_choice(self, name, choices):
        value = getattr(self, name)
        if value not in tuple(choices):
            raise ValueError(f"`{name}` must be one of {tuple(choices)}. Received: {value!r}")

    def _set(self, name, value):
        object.__setattr__(self, name, value)  # frozen for all other code


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Settings(ConversionSettings):
    """The options of `keras_tesla.tflite.export`.

    Args:
        mode: One of `MODES`.
        storage: Name of a storage in `STORAGES`.
        percentages: Iterable of ints; None for those of the model.
        validation_data: Tuple (inputs, labels) or None, as the user gave it.
        labels: List of strings or None, names of the classes.
        normalization: {input name: (mean, std)} or None.
        input_shapes: {input name: shape}, or a shape, or None, as the user gave it.
        tolerance: Largest difference from Keras that is allowed, relative to the largest output (at
            least 1); None for that of the network's type.

    Raises:
        ValueError: A value that is not allowed, or does not go with the others.
    """

    mode: str = "per_percentage"
    storage: str = "shared"
    percentages: Any = None
    validation_data: Any = None
    labels: list[str] | None = None
    normalization: Mapping | None = None
    tolerance: float | None = None
    input_shapes: Any = None

    def __post_init__(self):
        self._check_choice("mode", MODES)
        self._check_choice("storage", STORAGES)
        super().__post_init__()
        if self.percentages is not None:
            self._set("percentages", check_percentages(self.percentages))
        if self.labels is not None:
            archive.check_labels(self.labels)
            self._set("labels", list(self.labels))
        if self.validation_data is not None and (
            not isinstance(self.validation_data, tuple) or len(self.validation_data) != 2
        ):
            raise ValueError(
                "`validation_data` must be a tuple (inputs, labels). Received: "
                f"{type(self.validation_data).__name__}"
            )
        if self.normalization is not None and not isinstance(self.normalization, Mapping):
            raise ValueError(
                "`normalization` must be a dict {input name: (mean, std)}. Received: "
                f"{self.normalization!r}"
            )

        if self.tolerance is not None:
            self._check_tolerance(self.tolerance)

    def _check_tolerance(self, value: Any):
        number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not number or not 0 < value < 1:
            raise ValueError(
                "`tolerance` must be a number between 0 and 1, such as 1e-4: the largest "
                f"difference from Keras, relative to the largest output. Received: {value!r}"
            )
        if self.quantization is not None:
            raise ValueError(
                "`tolerance` is for float32 files; a quantized one is compared by the deviation "
                f"of its outputs. Received: tolerance={value!r} and "
                f"quantization={self.quantization!r}"
            )

    @property
    def percentage_input(self) -> bool:
        """Whether the file takes the percentage as an input."""
        return self.mode == "percentage_input"

    @property
    def stored(self) -> Storage | None:
        """How one file holds all percentages; None where each has a file of its own."""
        return None if self.mode == "per_percentage" else STORAGES[self.storage]
