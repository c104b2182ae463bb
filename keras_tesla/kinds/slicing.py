"""Slices and splits of positions, which leave the channels, and of the channels themselves."""

import dataclasses
import itertools
from typing import Any

import numpy as np

from keras_tesla.channels import Channels, Selection
from keras_tesla.kinds.kind import Kind, Narrowed, Widths
from keras_tesla.kinds.registry import register


def _of_channels(layout, chosen, axis) -> Channels | None:
    """Returns the layout of some channels, up or down, on an axis; None: there are none."""
    if not len(chosen):
        return None
    # A part ends where the last of its channels that are chosen does.
    counts = np.diff(np.searchsorted(np.sort(chosen), [0, *np.cumsum(layout.parts)]))
    counts = counts[:: -1 if chosen[-1] < chosen[0] else 1]
    return Channels(axis, len(chosen), parts=tuple(counts[counts > 0].tolist()))


class _Indexing(Kind):
    """`x[..]` with slices, a new axis, or a number for an axis without channels."""

    def layouts(self, call, inputs):
        layout, keys = inputs[0], _keys(call)
        if layout is None or keys is None:
            return [None]
        place = _place(keys, layout.axis)
        axis = sum(not isinstance(k, int) for k in keys[:place])
        if keys[place] == slice(None):
            return [dataclasses.replace(layout, axis=axis)]
        chosen = _chosen(layout, keys[place])
        return [None if chosen is None else _of_channels(layout, chosen, axis)]

    def widths(self, call, percentage, inputs, outputs, demand):
        layout, keys = inputs[0], _keys(call) or []
        if outputs[0] is None:
            return super().widths(call, percentage, inputs, outputs, demand)
        key = keys[_place(keys, layout.axis)]
        if key == slice(None):
            return Widths(list(demand), list(demand), [layout])
        chosen: Any = _chosen(layout, key)
        chosen = chosen if demand[0] is None else chosen[demand[0].indices()]
        reads = Selection.of((channel, channel + 1) for channel in chosen.tolist())
        return Widths(list(demand), [reads], [layout])

    def arguments(self, call, widths, args, kwargs):
        (layout,), (reads,) = widths.layouts, widths.inputs
        if layout is None or reads is None:
            return args, kwargs
        keys: Any = _keys(call)
        place = _place(keys, layout.axis)
        keys[place] = slice(None, None, -1 if _goes_down(keys[place]) else None)  # of those read
        return (args[0], tuple(keys)), kwargs

    def in_any_order(self, call):
        return not any(map(_goes_down, _keys(call) or []))


def _goes_down(key) -> bool:
    return isinstance(key, slice) and (key.step or 1) < 0


def _keys(call) -> list | None:
    """Returns what is taken of each axis of the input; None: it is not known.

    Between them there is a None for each new axis.
    """
    x, key = call.args
    keys = list(key) if isinstance(key, (tuple, list)) else [key]
    if not all(map(_is_index, keys)):
        return None
    named = sum(k is not None and k is not Ellipsis for k in keys)
    rest = [slice(None)] * (len(x.shape) - named)
    where = next((i for i, k in enumerate(keys) if k is Ellipsis), len(keys))
    return [*keys[:where], *rest, *keys[where + 1 :]]


def _is_index(k) -> bool:
    if isinstance(k, slice):
        return all(isinstance(x, (int, type(None))) for x in (k.start, k.stop, k.step))
    return k is None or k is Ellipsis or (isinstance(k, int) and not isinstance(k, bool))


def _place(keys, axis) -> int:
    """Returns the place among the keys of that of an axis of the input."""
    return [i for i, k in enumerate(keys) if k is not None][axis]


def _chosen(layout, key) -> np.ndarray | None:
    """Returns the channels that a key takes; None: it is not followed."""
    if not isinstance(key, slice) or layout.repeats > 1:
        return None
    return np.arange(*key.indices(layout.count))


register(_Indexing(), "GetItem")


class _Split(Kind):
    """Pieces side by side on an axis."""

    def layouts(self, call, inputs):
        (layout,), (x,) = inputs, call.input_tensors
        axis = _axis(call)
        unknown = super().layouts(call, inputs)
        if layout is None:
            return unknown
        if axis != layout.axis:
            return [layout for _ in unknown]
        bounds = _bounds(call)
        if layout.repeats > 1 or bounds[-1] != x.shape[axis]:
            return unknown
        pieces = itertools.pairwise(bounds)
        return [_of_channels(layout, np.arange(*piece), axis) for piece in pieces]

    def widths(self, call, percentage, inputs, outputs, demand):
        if None in outputs:
            return super().widths(call, percentage, inputs, outputs, demand)
        (layout,) = inputs
        if _axis(call) != layout.axis:
            width = _all_of(demand)
            return Widths([width] * len(demand), [width], [layout])
        # One channel of a piece that nothing reads: no tensor is empty.
        found = [Selection.first(1) if w == Selection() else w for w in demand]
        runs = [
            (start + a, start + b)
            for start, width, piece in zip(_bounds(call), found, outputs, strict=False)
            for a, b in (Selection.first(piece.count) if width is None else width).runs
        ]
        return Widths(found, [Selection.of(runs)], [layout])

    def narrow(self, call, percentage, widths):
        (layout,), sizes = widths.layouts, [y.shape[_axis(call)] for y in call.output_tensors]
        if layout is None or _axis(call) != layout.axis:
            return None
        counts = [
            size if width is None else len(width)
            for size, width in zip(sizes, widths.outputs, strict=True)
        ]
        config = {
            "indices_or_sections": np.cumsum(counts[:-1]).tolist(),
            "axis": call.operation.axis,
        }
        return Narrowed(type(call.operation), config, dict, {})


def _axis(call) -> int:
    return call.operation.axis % len(call.input_tensors[0].shape)


def _bounds(call) -> list[int]:
    """Returns where the pieces begin, and where the last one ends."""
    return np.cumsum([0, *(y.shape[_axis(call)] for y in call.output_tensors)]).tolist()


register(_Split(), "Split")


class _Unstack(Kind):
    """All entries of an axis, without it."""

    def layouts(self, call, inputs):
        (layout,), axis = inputs, _axis(call)
        if layout is None or layout.axis == axis:
            return super().layouts(call, inputs)
        moved = dataclasses.replace(layout, axis=layout.axis - int(layout.axis > axis))
        return [moved for _ in call.output_tensors]

    def widths(self, call, percentage, inputs, outputs, demand):
        if None in outputs:
            return super().widths(call, percentage, inputs, outputs, demand)
        width = _all_of(demand)
        return Widths([width] * len(demand), [width], list(inputs))


def _all_of(demand) -> Selection | None:
    """Returns the channels that any of several tensors needs."""
    if None in demand:
        return None
    return Selection.of(sum((width.runs for width in demand), ()))


register(_Unstack(), "Unstack")
