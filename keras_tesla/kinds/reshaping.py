"""Reshapes: positions are merged and split, and so are channels, in blocks of equal size."""

import dataclasses
import math

import keras
import numpy as np
from keras import layers

from keras_tesla.channels import Channels, Selection
from keras_tesla.cloning import config_of
from keras_tesla.kinds.kind import Kind, Narrowed, Widths, is_regularized
from keras_tesla.kinds.registry import register


@dataclasses.dataclass(frozen=True)
class _Way:
    """How the channels of a reshape's input become those of its output.

    Channel i of the output is the channels `(k * count + i) * block + j` of the input, for each k
    of `copies` and j of `block`. If it is `joined`, it is the other way round: a channel of the
    input is `block` channels of the output, side by side.

    Args:
        layout: Of the output.
        block: Int.
        copies: Int.
        joined: Bool.
    """

    layout: Channels
    block: int = 1
    copies: int = 1
    joined: bool = False

    def both(self, width: Selection) -> tuple[Selection, Selection]:
        """Returns the channels to read and to compute where some of the output are needed."""
        if self.joined:
            reads = width.over(self.block)
            return reads, reads.times(self.block)
        step = self.layout.count * self.block
        runs = width.times(self.block).runs
        return Selection.of(
            (k * step + a, k * step + b) for k in range(self.copies) for a, b in runs
        ), width


class _Reshape(Kind):
    """The numbers keep their order, so an axis of the output holds some digits of the channels.

    Written as one number, the place of a value counts first the positions before the channels, then
    the channels, then the positions after them. An axis of the output counts a part of it.

    - The channels themselves, once or several times: `(H, W, C) -> (H * W * C,)` and back.
    - Channels and the positions after them: `(heads, size) -> (heads * size,)`. A channel is a
      block of those of the output, which are computed all or none.
    - A part of the channels: `(C,) -> (heads, size)`. Which axis of those that they are split into
      narrows them is a choice (`_chosen`); a head is computed whole or not at all.
    """

    target = "target_shape"  # the argument that says the shape
    batch = 1  # the axes that it leaves out

    def layouts(self, call, inputs):
        way = self._way(call, inputs[0])
        return [way and way.layout]

    def widths(self, call, percentage, inputs, outputs, demand):
        way = self._way(call, inputs[0])
        if way is None or demand[0] is None or is_regularized(call.operation):
            return super().widths(call, percentage, inputs, outputs, demand)
        reads, computed = way.both(demand[0])
        return Widths([computed], [reads], list(inputs))

    def narrow(self, call, percentage, widths):
        (width,), (layout,) = widths.outputs, widths.layouts
        way = self._way(call, layout)
        if width is None or way is None:
            return None
        operation = call.operation
        shape = list(getattr(operation, self.target))
        shape[way.layout.axis - self.batch] = way.layout.repeats * len(width)
        layer = isinstance(operation, keras.Layer)
        config = {**(config_of(operation) if layer else {}), self.target: tuple(shape)}
        return Narrowed(type(operation), config, dict, {})

    def _way(self, call, layout) -> _Way | None:
        (x, *others), (y,) = call.input_tensors, call.output_tensors
        numbers = getattr(call.operation, self.target)
        if layout is None or others or not all(isinstance(n, int) for n in numbers):
            return None
        after = x.shape[layout.axis + 1 :]
        if None in after:
            return None
        found = [self._at(layout, math.prod(after), y.shape, axis) for axis in range(len(y.shape))]
        if layout.axis != 0:  # on axis 0: of a weight, which has no batch
            found[0] = None
        return _chosen(y, [way for way in found if way is not None])

    def _at(self, layout, after, shape, axis) -> _Way | None:
        """Returns the channels on an axis of the output; None: they are not on it."""
        size, later, count = shape[axis], shape[axis + 1 :], layout.count
        if not size or None in later or (count > 1 and size == 1):
            return None
        stride = math.prod(later)
        if stride < after:
            block = after // stride if stride else 0
            if not block or after % stride or size % (count * block):
                return None
            parts = tuple(block * part for part in layout.parts)
            return _Way(
                Channels(axis, count * block, size // (count * block), parts), block, 1, True
            )
        block = stride // after if after else 0
        if not block or stride % after or count % block:
            return None
        coarse = count // block
        if size % coarse == 0 and (coarse > 1 or count == 1):
            ends = np.cumsum(layout.parts)
            # A part that ends within a block is one with the next.
            parts = tuple(np.diff([0, *(ends[ends % block == 0] // block)]).tolist())
            return _Way(Channels(axis, coarse, size // coarse, parts), block)
        return _Way(Channels(axis, size), block, coarse // size) if coarse % size == 0 else None


def _chosen(y, ways) -> _Way | None:
    """Returns one of several ways to follow the channels into a tensor.

    If one axis of positions is before those that they are split into, they are those of heads:
    `(T, C) -> (T, heads, size)` or `(T, 3, heads, size)`, with the largest axis but the last for
    the heads. Else the last axis has the channels: `(H, W, C) -> (H, W, groups, size)`, or
    `(H * W * C,) -> (H, W, C)` where a vector becomes an image.
    """
    whole = [way for way in ways if way.joined or (way.block, way.copies) == (1, 1)]
    if whole or not ways:
        return whole[-1] if whole else None
    if ways[0].layout.axis == 2 and len(ways) > 1:
        return max(ways[:-1], key=lambda way: (y.shape[way.layout.axis], way.layout.axis))
    return ways[-1]


class _ReshapeFunction(_Reshape):
    target = "newshape"
    batch = 0


register(_Reshape(), layers.Reshape)
register(_ReshapeFunction(), "Reshape")
