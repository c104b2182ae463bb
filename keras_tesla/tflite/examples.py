"""The inputs that a file is calibrated on and compared on."""

import dataclasses
import itertools
from collections.abc import Mapping

import keras
import numpy as np

from keras_tesla import streams
from keras_tesla.graph import Graph, tensors
from keras_tesla.tflite import typical
from keras_tesla.tflite.settings import ConversionSettings

_EXAMPLES = 16
_BATCHES = 1024
_LETTERS = typical.Choice(("a", "b", "c"), "strings of a letter")


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """One input of a model, of Keras 3 or of tf_keras.

    Args:
        name: Its name.
        shape: Tuple of ints, without the batch.
        dtype: NumPy name of its type.
        numbers: What random examples of it are; None: standard normal floats, integers 0 and 1,
            letters.

    Raises:
        ValueError: If a dimension is unknown.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    numbers: typical.Numbers | None = None

    def __post_init__(self):
        if None in self.shape:
            raise ValueError(
                f"Input {self.name!r} has shape {(None, *self.shape)}. Export needs every "
                f"dimension but the batch: give `keras.Input` a full shape, or pass "
                f"`input_shapes`, here such as {{{self.name!r}: {self._example()}}}."
            )

    def _example(self):
        return tuple(64 if size is None else size for size in self.shape)

    @property
    def description(self) -> str:
        """What random examples of it are, in words."""
        if self.numbers is not None:
            return self.numbers.description
        if self.dtype == "string":
            return _LETTERS.description
        return typical.Normal().description if self.is_float else "integers 0 and 1"

    def draw(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Returns random examples, an array `(count, ...)`."""
        shape = (count, *self.shape)
        if self.dtype == "string":
            return (self.numbers or _LETTERS).draw(random, shape).astype(str)
        if self.is_float:
            return (self.numbers or typical.Normal()).draw(random, shape).astype(self.dtype)
        if self.numbers is None or self.dtype == "bool":
            return random.integers(0, 2, shape).astype(self.dtype)
        limits = np.iinfo(self.dtype)
        return np.clip(np.rint(self.numbers.draw(random, shape)), limits.min, limits.max).astype(
            self.dtype
        )

    @property
    def is_float(self) -> bool:
        """Whether it holds floats."""
        return self.dtype != "string" and keras.backend.is_float_dtype(self.dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Inputs for one model, as many as fill batches.

    Args:
        inputs: {input name: array `(examples, ...)`} to compare on.
        representative: [{input name: array of one batch}, ..] to measure ranges on, or None.
        random: What `inputs` are if they are random, for want of data: {input name: in words}.
    """

    inputs: dict[str, np.ndarray]
    representative: list[dict[str, np.ndarray]] | None
    random: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def advice(self) -> str:
        """What to do where these inputs are not like those of the network."""
        if self.random:
            words = "; ".join(f"{name!r} {what}" for name, what in self.random.items())
            return f"They were compared on random examples ({words}): pass typical `inputs`"
        if self.representative is not None:
            return "Give more typical `representative_data`, and `inputs`"
        return "Pass more typical `inputs`"


def specs_of(graph: Graph) -> list[InputSpec]:
    """Returns the inputs of a model, with what its first layers say of their numbers."""
    numbers = typical.guess(graph)
    return [
        InputSpec(name, tuple(t.shape[1:]), t.dtype, numbers.get(t.index))
        for name, t in zip(graph.input_names, tensors(graph.inputs), strict=True)
    ]


def choose(specs: list[InputSpec], settings: ConversionSettings) -> Examples:
    """Returns the examples that settings ask for.

    The comparison uses `inputs`; without them the first of `representative_data`, on which the
    ranges were measured; otherwise 16 random examples of the kind that the model's first layers
    take, see `keras_tesla.tflite.typical`.

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
    random = {}
    if inputs is None:
        inputs = random_inputs(specs, size * max(1, _EXAMPLES // size))
        random = {spec.name: spec.description for spec in specs}
    return Examples(checked("inputs", inputs, specs, size), representative, random)


def checked(what: str, given, specs: list[InputSpec], batch_size: int) -> dict[str, np.ndarray]:
    """Returns data of a user as {input name: array}, with as many examples as fill batches.

    Args:
        what: Name of the argument, for the message.
        given: {input name: array `(examples, ...)`}, or one array for a model with one input; or
            what `gathered` takes.
        specs: The model's inputs.
        batch_size: Int.

    Raises:
        ValueError: Other names or shapes, fewer examples than a batch, or unequal numbers of them.
    """
    names = [spec.name for spec in specs]
    given = gathered(what, given, specs)
    if isinstance(given, Mapping):  # such as an .npz file
        given = dict(given)
    elif len(names) == 1:
        given = {names[0]: given}
    if not isinstance(given, dict) or set(given) != set(names):
        received = sorted(map(str, given)) if isinstance(given, dict) else type(given).__name__
        raise ValueError(
            f"`{what}` must be a dict with an array for each of {names}. Received: {received}"
        )
    arrays = {}
    for spec in specs:
        array = cast(spec.name, given[spec.name], spec.dtype)
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


def gathered(what: str, given, specs: list[InputSpec]):
    """Returns the batches of a stream of data as {input name: array}; other data as they are.

    Args:
        what: Name of the argument, for the message.
        given: A `tf.data.Dataset`, a `keras.utils.PyDataset`, a torch `DataLoader`, an iterator, or
            a function that returns one. A batch is a list of an array for each input, as
            TensorFlow's converter takes it, a dict of them, an array, or a tuple (inputs, targets).
            Of a longer stream the first 1024 batches are taken.
        specs: The model's inputs.

    Raises:
        ValueError: A stream without a batch, or batches of other inputs.
    """
    given = streams.opened(given)
    stream = streams.batches(given)
    if stream is None:
        return given
    found = [_named(what, batch, specs) for batch in itertools.islice(stream, _BATCHES)]
    if not found:
        raise ValueError(f"`{what}` must hold at least one batch. Received: none")
    return {spec.name: np.concatenate([batch[spec.name] for batch in found]) for spec in specs}


def _named(what, batch, specs):
    """Returns a batch of a stream as {input name: array}."""
    names = [spec.name for spec in specs]
    batch = streams.inputs_of(batch, len(names))
    if not isinstance(batch, (dict, list, tuple)):
        batch = [batch]
    if not isinstance(batch, dict) and len(batch) == len(names):
        batch = dict(zip(names, batch, strict=True))
    if not isinstance(batch, dict) or set(batch) != set(names):
        raise ValueError(
            f"Each batch of `{what}` must be a list or dict of an array for each of {names}. "
            f"Received: {type(batch).__name__} of {len(batch)}"
        )
    return {name: np.asarray(x) for name, x in batch.items()}


def cast(name: str, given, dtype: str) -> np.ndarray:
    """Returns numbers as an array of a type, refused where that is another value but by rounding.

    Args:
        name: Of the input, for the message.
        given: Array or nested list.
        dtype: NumPy name of the type, or "string".

    Raises:
        ValueError: No numbers, or such as the type does not hold; no strings.
    """
    if dtype == "string":
        return _strings(name, given)
    try:
        array = np.asarray(given)
        with np.errstate(all="ignore"):
            made = array if array.dtype.kind == "c" else array.astype(dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Input {name!r} must be a {dtype} array. Received: {type(given).__name__}: {error}"
        ) from error
    floats = array.dtype.kind == "f" and made.dtype.kind == "f"
    kept = np.isfinite(made) | ~np.isfinite(array) if floats else made == array
    if array.dtype.kind not in "biuf" or not np.all(kept):
        raise ValueError(
            f"Input {name!r} must be a {dtype} array. Received: {array.dtype}, with values that "
            f"{dtype} does not hold"
        )
    return made


def _strings(name, given) -> np.ndarray:
    array = np.asarray(given)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    if array.dtype.kind == "O" and all(isinstance(x, str) for x in array.ravel()):
        array = array.astype(str)
    if array.dtype.kind != "U":
        raise ValueError(f"Input {name!r} must be an array of strings. Received: {array.dtype}")
    return array


def random_inputs(specs: list[InputSpec], count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns random inputs, the same for the same seed.

    Args:
        specs: The model's inputs.
        count: Int, number of examples.
        seed: Int.
    """
    random = np.random.default_rng(seed)
    return {spec.name: spec.draw(random, count) for spec in specs}


def batches(arrays: dict[str, np.ndarray], size: int):
    """Yields {input name: array of one batch}."""
    for start in range(0, len(next(iter(arrays.values()))), size):
        yield {name: x[start : start + size] for name, x in arrays.items()}
