"""The inputs that a file is calibrated on and compared on."""

import dataclasses

import keras
import numpy as np

from keras_tesla import graph as graphs
from keras_tesla.tflite.settings import ConversionSettings

_EXAMPLES = 16


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """One input of a model, of Keras 3 or of tf_keras.

    Args:
        name: Its name.
        shape: Tuple of ints, without the batch.
        dtype: NumPy name of its type.

    Raises:
        ValueError: If a dimension is unknown.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self):
        if None in self.shape:
            raise ValueError(
                f"Input {self.name!r} has shape {(None, *self.shape)}. Export needs every "
                "dimension but the batch: give `keras.Input` a full shape."
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Inputs for one model, as many as fill batches.

    Args:
        inputs: {input name: array `(examples, ...)`} to compare on.
        representative: [{input name: array of one batch}, ..] to measure ranges on, or None.
    """

    inputs: dict[str, np.ndarray]
    representative: list[dict[str, np.ndarray]] | None


def specs_of(model) -> list[InputSpec]:
    """Returns the inputs of a Functional `keras.Model`."""
    return [
        InputSpec(name, tuple(t.shape[1:]), t.dtype)
        for name, t in zip(graphs.input_names(model), model.inputs, strict=True)
    ]


def choose(specs: list[InputSpec], settings: ConversionSettings) -> Examples:
    """Returns the examples that settings ask for.

    The comparison uses `inputs`; without them the first of `representative_data`, on which the
    ranges were measured; otherwise 16 random examples.

    Raises:
        ValueError: Data that do not fit the model.
    """
    size = settings.batch_size
    representative, inputs = None, settings.inputs
    if settings.representative_data is not None:
        arrays = checked("representative_data", settings.representative_data, specs, size)
        representative = list(batches(arrays, size))
        if inputs is None:
            inputs = {name: x[: max(size, _EXAMPLES)] for name, x in arrays.items()}
    if inputs is None:
        inputs = random_inputs(specs, size * max(1, _EXAMPLES // size))
    return Examples(checked("inputs", inputs, specs, size), representative)


def checked(what: str, given, specs: list[InputSpec], batch_size: int) -> dict[str, np.ndarray]:
    """Returns data of a user as {input name: array}, with as many examples as fill batches.

    Args:
        what: Name of the argument, for the message.
        given: {input name: array `(examples, ...)`}, or one array for a model with one input.
        specs: The model's inputs.
        batch_size: Int.

    Raises:
        ValueError: Other names or shapes, fewer examples than a batch, or unequal numbers of them.
    """
    names = [spec.name for spec in specs]
    if not isinstance(given, dict) and len(names) == 1:
        given = {names[0]: given}
    if not isinstance(given, dict) or set(given) != set(names):
        received = sorted(map(str, given)) if isinstance(given, dict) else type(given).__name__
        raise ValueError(
            f"`{what}` must be a dict with an array for each of {names}. Received: {received}"
        )
    arrays = {}
    for spec in specs:
        array = np.asarray(given[spec.name], spec.dtype)
        usable = len(array) // batch_size * batch_size if array.ndim else 0
        if array.shape[1:] != spec.shape or not usable:
            raise ValueError(
                f"`{what}` for {spec.name!r} must hold at least {batch_size} examples of shape "
                f"{spec.shape}. Received an array of shape {array.shape}"
            )
        arrays[spec.name] = array[:usable]
    counts = {name: len(x) for name, x in arrays.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"`{what}` must hold equally many examples for each input. Received: {counts}"
        )
    return arrays


def random_inputs(specs: list[InputSpec], count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns random inputs: standard normal floats, integers 0 and 1.

    Args:
        specs: The model's inputs.
        count: Int, number of examples.
        seed: Int.
    """
    random = np.random.default_rng(seed)
    made = {}
    for spec in specs:
        shape = (count, *spec.shape)
        floating = keras.backend.is_float_dtype(spec.dtype)
        values = random.standard_normal(shape) if floating else random.integers(0, 2, shape)
        made[spec.name] = values.astype(spec.dtype)
    return made


def batches(arrays: dict[str, np.ndarray], size: int):
    """Yields {input name: array of one batch}."""
    for start in range(0, len(next(iter(arrays.values()))), size):
        yield {name: x[start : start + size] for name, x in arrays.items()}
