"""What the weights of a network have in common at its percentages.

A weight at a percentage is a leading block of the weight at the highest one: the first output
channels and of these the first input channels; after a concatenation the first of each part. After
a Flatten the input channels are repeated at every position, so the block is one of the array
(output channels, positions, input channels). The converter folds a batch normalization with
statistics for each percentage into the kernel: it multiplies each output channel by a factor of the
percentage.
"""

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np

from keras_tesla.channels import Selection
from keras_tesla.tflite.graphs.flatbuffer import Op, Subgraph

_WEIGHT = 1  # its place among an operator's inputs
# {operator: places of its input and of its bias among the inputs}
_OPERANDS = {
    Op.FULLY_CONNECTED: (0, 2),
    Op.CONV_2D: (0, 2),
    Op.DEPTHWISE_CONV_2D: (0, 2),
    Op.TRANSPOSE_CONV: (2, 3),  # the first one is the shape of its output
}
# Two float32 roundings: of the folded kernel at the percentage and of the one it is compared with.
_ROUNDING = 2.0**-21


@dataclasses.dataclass(frozen=True)
class Weight:
    """The weight of an operator.

    Args:
        operator: The schema's operator.
        op: Its `Op`.
        tensor: Index of the weight's tensor.
        value: Its array as stored: `(out, in)`, `(out, height, width, in)` or, depthwise,
            `(1, height, width, channels)`.
    """

    operator: Any
    op: int
    tensor: int
    value: np.ndarray

    @property
    def input(self) -> int:
        """Index of the tensor that it is multiplied with."""
        return self.operator.inputs[_OPERANDS[self.op][0]]

    @property
    def bias(self) -> int | None:
        """Index of the bias's tensor, None if the operator has none."""
        inputs, place = self.operator.inputs, _OPERANDS[self.op][1]
        return None if len(inputs) <= place or inputs[place] < 0 else inputs[place]

    def set_bias(self, tensor: int):
        """Gives the operator a bias: the index of its tensor."""
        self.operator.inputs[_OPERANDS[self.op][1] :] = [tensor]

    def bias_value(self, subgraph: Subgraph) -> np.ndarray | None:
        """Returns the numbers of the bias, None if there is none."""
        return None if self.bias is None else subgraph.array(self.bias)


@dataclasses.dataclass(frozen=True)
class LeadingBlock:
    """How a weight at a percentage follows from one at the highest percentage.

    Args:
        whole_index: Index of the whole weight in `weights` of the highest percentage.
        positions: Int, how often the input channels are repeated in a row of the weight; 1 except
            after a Flatten.
        scale: Array `(output channels,)` of factors, or None where all are 1.
        columns: Which input channels of the whole weight it has (depthwise: which channels).
    """

    whole_index: int
    positions: int
    scale: np.ndarray | None
    columns: Selection


def weights(subgraph: Subgraph) -> list[Weight]:
    """Returns the constant weights of a graph in execution order."""
    found = []
    for operator in subgraph.operators:
        op = subgraph.op(operator)
        if op in _OPERANDS:
            tensor = operator.inputs[_WEIGHT]
            value = subgraph.array(tensor)
            if value is not None:
                found.append(Weight(operator, op, tensor, value))
    return found


def choices(whole: dict[tuple, Selection], narrow: dict[tuple, Selection]) -> set[tuple]:
    """Returns in which ways channels at the highest percentage become those at another one.

    Args:
        whole: `PercentageGraph.selections` at the highest percentage.
        narrow: Likewise at the other one.

    Returns:
        {(number of channels at the highest percentage, which of them the other one has)}
    """
    pairs = {(whole[key], narrow[key]) for key in whole.keys() & narrow.keys()}
    return {(len(a), b.places(a)) for a, b in pairs if b and b | a == a}


def find(
    whole: list[Weight], narrow: list[Weight], chosen: Collection[tuple] = ()
) -> list[LeadingBlock | None]:
    """Finds for each weight of a percentage the whole weight of which it is a leading block.

    The operators run in the same order at every percentage. Some percentages have additional ones
    that select channels, so the search for a weight starts after the previous match.

    Args:
        whole: Float weights at the highest percentage.
        narrow: Float weights at another percentage.
        chosen: From `choices`. The first input channels are always tried.

    Returns:
        A list as long as `narrow`; None for a weight that is no leading block of any.
    """
    found: list[LeadingBlock | None] = []
    start = 0
    for weight in narrow:
        block = None
        for place in range(start, len(whole)):
            block = _leading_block(whole[place], weight, place, chosen)
            if block is not None:
                start = place + 1
                break
        found.append(block)
    return found


def _leading_block(whole, weight, place, chosen):
    big, small = whole.value, weight.value
    if whole.op != weight.op or big.dtype != small.dtype:
        return None
    if weight.op != Op.FULLY_CONNECTED:
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
        rows = by_channel(big, positions)[: view.shape[0]]
        axis = -1 if weight.op == Op.DEPTHWISE_CONV_2D else 0
        size = view.shape[-1]
        fitting = {c for count, c in chosen if (count, len(c)) == (rows.shape[-1], size)}
        first = Selection.first(size)
        for columns in (first, *sorted(fitting - {first}, key=lambda c: c.runs)):
            reference = cut(rows, columns)
            # A look at one row dismisses most of what does not fit.
            if axis == 0 and _scale(reference[:1], view[:1], axis) is None:
                continue
            scale = _scale(reference, view, axis)
            if scale is not None:
                factors = None if (scale == 1).all() else scale
                return LeadingBlock(place, positions, factors, columns)
    return None


def cut(weight: np.ndarray, columns: Selection) -> np.ndarray:
    """Returns some columns of a weight: entries of its last axis."""
    if len(columns.runs) == 1:
        return weight[..., slice(*columns.runs[0])]
    return weight[..., columns.indices()]


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
