"""What the weights of a network have in common at its percentages.

A weight at a percentage is a corner of the weight at the highest one: the first output channels
and of these the first input channels. Behind a Flatten the input channels lie once at every
position, so the corner is one of the array (output channels, positions, input channels). A batch
normalization with statistics for each percentage, which the converter folds into the kernel,
multiplies each output channel by a factor of its percentage.
"""

import dataclasses
from typing import Any

import numpy as np

from keras_tesla.tflite.graphs.flatbuffer import Graph, Kind

# {kind of operator: place of its weight among the inputs}
WEIGHT_INPUT = {
    Kind.FULLY_CONNECTED: 1,
    Kind.CONV_2D: 1,
    Kind.DEPTHWISE_CONV_2D: 1,
}
# Two float32 roundings: of the folded kernel at the percentage and of the one it is compared with.
_ROUNDING = 2.0**-21


@dataclasses.dataclass(frozen=True)
class Weight:
    """The weight of an operator.

    Args:
        operator: The schema's operator.
        kind: Its `Kind`.
        tensor: Index of the weight's tensor.
        value: Its array as stored: `(out, in)`, `(out, height, width, in)` or, depthwise,
            `(1, height, width, channels)`.
    """

    operator: Any
    kind: int
    tensor: int
    value: np.ndarray


@dataclasses.dataclass(frozen=True)
class Corner:
    """How a weight at a percentage follows from one at the highest percentage.

    Args:
        whole: Place of the whole weight in `weights` of the highest percentage.
        positions: Int, how often the input channels lie in a row of the weight; 1 but after a
            Flatten.
        scale: Array `(output channels,)` of factors, or None where all are 1.
    """

    whole: int
    positions: int
    scale: np.ndarray | None


def weights(graph: Graph) -> list[Weight]:
    """Returns the constant weights of a graph in running order."""
    found = []
    for operator in graph.operators:
        kind = graph.kind(operator)
        if kind in WEIGHT_INPUT:
            tensor = operator.inputs[WEIGHT_INPUT[kind]]
            value = graph.array(tensor)
            if value is not None:
                found.append(Weight(operator, kind, tensor, value))
    return found


def find(whole: list[Weight], narrow: list[Weight]) -> list[Corner | None]:
    """Finds for each weight of a percentage the whole weight that it is a corner of.

    The operators run in the same order at every percentage; a percentage may have some that others
    have not (they select channels), so a weight is looked for after the previous one's.

    Args:
        whole: Float weights at the highest percentage.
        narrow: Float weights at another percentage.

    Returns:
        A list as long as `narrow`; None for a weight that is no corner of any.
    """
    found: list[Corner | None] = []
    start = 0
    for weight in narrow:
        corner = None
        for place in range(start, len(whole)):
            corner = _corner(whole[place], weight, place)
            if corner is not None:
                start = place + 1
                break
        found.append(corner)
    return found


def bias(graph: Graph, operator) -> np.ndarray | None:
    """Returns the bias of an operator with a weight, None where it has none."""
    if len(operator.inputs) < 3 or operator.inputs[2] < 0:
        return None
    return graph.array(operator.inputs[2])


def _corner(whole, weight, place):
    big, small = whole.value, weight.value
    if whole.kind != weight.kind or big.dtype != small.dtype:
        return None
    if weight.kind != Kind.FULLY_CONNECTED:
        if big.shape[1:-1] != small.shape[1:-1]:
            return None
        candidates = [1]
    else:
        common = np.gcd(big.shape[-1], small.shape[-1])
        candidates = [m for m in range(1, common + 1) if common % m == 0]
    if any(s > b for s, b in zip(small.shape, big.shape, strict=True)):
        return None
    for positions in candidates:
        view = by_channel(small, positions)
        reference = by_channel(big, positions)[: view.shape[0], ..., : view.shape[-1]]
        axis = -1 if weight.kind == Kind.DEPTHWISE_CONV_2D else 0
        # A look at one row dismisses most of what does not fit.
        if axis == 0 and _scale(reference[:1], view[:1], axis) is None:
            continue
        scale = _scale(reference, view, axis)
        if scale is not None:
            return Corner(place, positions, None if (scale == 1).all() else scale)
    return None


def by_channel(weight: np.ndarray, positions: int) -> np.ndarray:
    """Returns a weight as `(out, .., in channels)`, its positions on an axis of their own."""
    if positions == 1:
        return weight
    return weight.reshape(weight.shape[0], positions, weight.shape[-1] // positions)


def _scale(reference, view, axis):
    """The factors, one for each output channel on `axis`, that make `view` of `reference`."""
    a, b = (np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1) for x in (reference, view))
    if np.array_equal(a, b):
        return np.ones(len(b))
    a, b = a.astype("float64"), b.astype("float64")
    square = np.sum(a * a, axis=1)
    scale = np.where(square > 0, np.sum(a * b, axis=1) / np.where(square > 0, square, 1), 1.0)
    close = np.abs(a * scale[:, None] - b) <= _ROUNDING * np.abs(b)
    # Only a positive factor may change places with a ReLU.
    return scale if close.all() and (scale > 0).all() else None
