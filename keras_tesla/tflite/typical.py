"""What the inputs of a network are like, as the layers that read them say."""

import dataclasses

import keras
import numpy as np
from keras import layers

from keras_tesla.graph import Graph, tensors
from keras_tesla.quantization.ranges import ActivationRange


@dataclasses.dataclass(frozen=True, eq=False)
class Normal:
    """Normally distributed numbers.

    Args:
        mean: Float, or an array that broadcasts to `(examples, ...)`.
        std: Likewise, at least 0.
        description: What they are, in words.
    """

    mean: float | np.ndarray = 0.0
    std: float | np.ndarray = 1.0
    description: str = "standard normal floats"

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Returns an array of them."""
        return self.mean + self.std * random.standard_normal(shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Uniform:
    """Numbers of a range, each as likely as any other.

    Args:
        low: Float, the smallest.
        high: Float, the largest.
        description: What they are, in words.
    """

    low: float
    high: float
    description: str

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Returns an array of them."""
        return random.uniform(self.low, self.high, shape)


@dataclasses.dataclass(frozen=True)
class Integers:
    """Integers of a range, each as likely as any other.

    Args:
        low: Int, the smallest.
        high: Int, the largest.
        description: What they are, in words.
    """

    low: int
    high: int
    description: str

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Returns an array of them."""
        return random.integers(self.low, self.high + 1, shape)


@dataclasses.dataclass(frozen=True)
class Choice:
    """Values of a list, each as likely as any other.

    Args:
        values: Tuple of integers, or of strings.
        description: What they are, in words.
        words: Int: a string consists of that many of them, with spaces between.
    """

    values: tuple
    description: str
    words: int = 1

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Returns an array of them."""
        chosen = np.asarray(self.values)[random.integers(0, len(self.values), (*shape, self.words))]
        if self.words == 1:
            return chosen[..., 0]
        lines = [" ".join(words) for words in chosen.reshape(-1, self.words)]
        return np.asarray(lines).reshape(shape)


Numbers = Normal | Uniform | Integers | Choice

_WORDS = 8  # of a text

# What has the same values in another order, shape or type.
_PASSING = (layers.Flatten, layers.Identity, layers.Permute, layers.RepeatVector, layers.Reshape)
_PASSING_OPERATIONS = {"Cast", "ExpandDims", "GetItem", "Reshape", "Squeeze", "Transpose"}


def guess(graph: Graph) -> dict[int, Numbers]:
    """Returns what the inputs are like of which a layer that reads them says it.

    - `Normalization`: `mean + sqrt(variance) * normal`.
    - `Rescaling`, `y = scale * x + offset`: from x = 0 to the x of y = 1, or with a negative offset
      to that of y = -offset. That is 0..255 for `Rescaling(1 / 255)` and for
      `Rescaling(1 / 127.5, offset=-1)`.
    - `ActivationRange`, of a quantization-aware model: its range.
    - `Embedding`, `CategoryEncoding`, `one_hot`: the integers that they take; of several readers
      those that all of them take.
    - `Discretization`: from below its first boundary to above its last one.
    - `StringLookup`, `IntegerLookup`, `TextVectorization`: their vocabulary. `Hashing`: integers.

    Between the input and these may be what leaves each number as it is, such as a `Reshape`.

    Args:
        graph: Of the model.

    Returns:
        {index of the input's tensor: its numbers}
    """
    source = {tensor.index: tensor.index for tensor in tensors(graph.inputs)}
    found: dict[int, Numbers] = {}
    for call in graph.calls:
        for tensor in call.input_tensors:
            if tensor.index not in source:
                continue
            index, numbers = source[tensor.index], _wanted(call.operation)
            direct = index == tensor.index
            if numbers is not None and (direct or not isinstance(numbers, Normal)):
                found[index] = _both(found.get(index, numbers), numbers)
            if _passes(call.operation):
                source |= {made.index: index for made in call.output_tensors}
    return found


def _both(one: Numbers, other: Numbers) -> Numbers:
    """What two readers take: the first says it, but for integers, of which no other may come."""
    integers = [numbers for numbers in (one, other) if isinstance(numbers, Integers)]
    return min(integers, key=lambda numbers: numbers.high, default=one)


def _passes(operation) -> bool:
    of_keras = type(operation).__module__.split(".")[0] == "keras"
    named = of_keras and type(operation).__name__ in _PASSING_OPERATIONS
    return named or isinstance(operation, _PASSING)


def _wanted(operation) -> Numbers | None:
    """The numbers that an operation was made for; None if it does not say."""
    count = _count(operation)
    if count is not None:
        return Integers(
            0, count - 1, f"integers 0 to {count - 1}, as {operation.name!r} takes them"
        )
    if isinstance(operation, layers.Discretization) and operation.bin_boundaries:
        first, last = min(operation.bin_boundaries), max(operation.bin_boundaries)
        margin = (last - first) / len(operation.bin_boundaries) or 1.0
        return _range(first - margin, last + margin, operation)
    if isinstance(operation, (layers.StringLookup, layers.IntegerLookup, layers.TextVectorization)):
        return _vocabulary(operation)
    if isinstance(operation, layers.Hashing):
        return Integers(0, 10 * operation.num_bins, "integers")
    if isinstance(operation, layers.Normalization) and not operation.invert:
        mean, variance = (_array(x) for x in (operation.mean, operation.variance))
        description = f"normal with the mean and variance of layer {operation.name!r}"
        return Normal(mean, np.sqrt(variance), description)
    if isinstance(operation, layers.Rescaling):
        scale, offset = _array(operation.scale), _array(operation.offset)
        if np.all(scale > 0) and np.all(offset <= 0):
            # One range for all channels, the widest.
            high = np.max((np.where(offset < 0, -offset, 1.0) - offset) / scale)
            return _range(0.0, high, operation)
    if isinstance(operation, ActivationRange):
        return _range(*operation.at((operation.percentages or (100,))[0]), operation)
    return None


def _count(operation) -> int | None:
    """How many integers an operation takes, from 0 on; None if it takes others."""
    if isinstance(operation, layers.Embedding):
        return operation.input_dim
    if isinstance(operation, layers.CategoryEncoding):
        return operation.num_tokens
    if type(operation).__module__.split(".")[0] == "keras" and type(operation).__name__ == "OneHot":
        return operation.num_classes
    return None


def _vocabulary(layer) -> Choice | None:
    """What a lookup looks up."""
    if getattr(layer, "invert", False):
        return None
    known = layer.get_vocabulary(include_special_tokens=False)
    if not known:
        return None
    values = tuple(value if isinstance(value, str) else int(value) for value in known)
    words = _WORDS if isinstance(layer, layers.TextVectorization) else 1
    return Choice(values, f"of the vocabulary of layer {layer.name!r}", words)


def _range(low, high, layer):
    return Uniform(low, high, f"from {low:.4g} to {high:.4g}, as layer {layer.name!r} takes them")


def _array(values) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(values), "float64")
