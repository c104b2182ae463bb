"""What the inputs of a network are like, as the layers that read them say."""

import dataclasses

import keras
import numpy as np

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


def guess(graph: Graph) -> dict[int, Normal | Uniform]:
    """Returns what the inputs are like of which a layer that reads them directly says it.

    - `Normalization`: `mean + sqrt(variance) * normal`.
    - `Rescaling`, `y = scale * x + offset`: from x = 0 to the x of y = 1, or with a negative offset
      to that of y = -offset. That is 0..255 for `Rescaling(1 / 255)` and for
      `Rescaling(1 / 127.5, offset=-1)`.
    - `ActivationRange`, of a quantization-aware model: its range.

    Args:
        graph: Of the model.

    Returns:
        {index of the input's tensor: its numbers}
    """
    inputs = {tensor.index for tensor in tensors(graph.inputs)}
    found: dict[int, Normal | Uniform] = {}
    for call in graph.calls:
        for tensor in call.input_tensors:
            if tensor.index in inputs and tensor.index not in found:
                numbers = _wanted(call.operation)
                if numbers is not None:
                    found[tensor.index] = numbers
    return found


def _wanted(operation) -> Normal | Uniform | None:
    """The numbers that an operation was made for; None if it does not say."""
    if isinstance(operation, keras.layers.Normalization) and not operation.invert:
        mean, variance = (_array(x) for x in (operation.mean, operation.variance))
        description = f"normal with the mean and variance of layer {operation.name!r}"
        return Normal(mean, np.sqrt(variance), description)
    if isinstance(operation, keras.layers.Rescaling):
        scale, offset = _array(operation.scale), _array(operation.offset)
        if np.all(scale > 0) and np.all(offset <= 0):
            # One range for all channels, the widest.
            high = np.max((np.where(offset < 0, -offset, 1.0) - offset) / scale)
            return _range(0.0, high, operation)
    if isinstance(operation, ActivationRange):
        return _range(*operation.at((operation.percentages or (100,))[0]), operation)
    return None


def _range(low, high, layer):
    return Uniform(low, high, f"from {low:.4g} to {high:.4g}, as layer {layer.name!r} takes them")


def _array(values) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(values), "float64")
