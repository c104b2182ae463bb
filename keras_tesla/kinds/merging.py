"""Layers and operations that combine several tensors."""

import dataclasses

import keras
from keras import layers

from keras_tesla.channels import Channels, Selection, common_parts
from keras_tesla.graph import Tensor
from keras_tesla.kinds.kind import Kind, Widths, is_regularized
from keras_tesla.kinds.registry import register


def _has_arrays(call) -> bool:
    """Whether constants are merged, which have channels that no layout tells; a number has none."""
    leaves = keras.tree.flatten((call.args, call.kwargs))
    return not all(isinstance(x, (Tensor, int, float, type(None))) for x in leaves)


def _same(layouts):
    """The layout of what is made of tensors of equal layouts, whose parts may differ."""
    first = layouts[0]
    return first and dataclasses.replace(first, parts=common_parts(layouts))


class _Merge(Kind):
    """Several inputs with equal channels, combined number by number (or broadcast)."""

    def layouts(self, call, inputs):
        (y,) = call.output_tensors
        same = len(set(inputs)) == 1 and all(
            len(t.shape) == len(y.shape) for t in call.input_tensors
        )
        return [_same(inputs) if same and not _has_arrays(call) else None]

    def widths(self, call, percentage, inputs, outputs, demand):
        if outputs[0] is None or is_regularized(call.operation):
            return super().widths(call, percentage, inputs, outputs, demand)
        return Widths(list(demand), list(demand) * len(inputs), list(inputs))


class _Broadcast(_Merge):
    """The same, also with tensors of one channel, which go with each channel of the others."""

    def layouts(self, call, inputs):
        wide = _wide(call, inputs)
        return super().layouts(call, [v for v, w in zip(inputs, wide, strict=True) if w])

    def widths(self, call, percentage, inputs, outputs, demand):
        wide = _wide(call, inputs)
        widths = super().widths(call, percentage, inputs, outputs, demand)
        return dataclasses.replace(
            widths,
            inputs=[v if w else None for v, w in zip(widths.inputs, wide, strict=True)],
            layouts=[v if w else None for v, w in zip(widths.layouts, wide, strict=True)],
        )


def _wide(call, inputs) -> list[bool]:
    """For each input of a merge, whether it has all channels of the output, not one for all."""
    (y,) = call.output_tensors
    axes = {v.axis for v in inputs if v and y.shape[v.axis] == v.repeats * v.count > 1}
    if len(axes) != 1:
        return [True] * len(inputs)
    (axis,) = axes
    rank = len(y.shape)
    return [len(x.shape) != rank or x.shape[axis] != 1 for x in call.input_tensors]


register(
    _Broadcast(),
    *(layers.Add, layers.Average, layers.Maximum, layers.Minimum, layers.Multiply),
    layers.Subtract,
    *("Add Arctan2 Divide DivideNoNan Equal FloorDivide Fmax Fmin Fmod Greater".split()),
    *("GreaterEqual Heaviside Hypot Less LessEqual Logaddexp LogicalAnd LogicalOr".split()),
    *("LogicalXor Maximum Minimum Mod Multiply NotEqual Power Subtract TrueDivide Where".split()),
)


class _Concatenate(Kind):
    """On the channel axis the channels of the inputs become parts, one after another.

    Where an input has its channels several times on that axis, as after a Flatten, each of these
    copies is a part.
    """

    def layouts(self, call, inputs):
        (y,) = call.output_tensors
        axis = call.operation.axis % len(y.shape)
        if any(v is None for v in inputs) or _has_arrays(call):
            return [None]
        if all(v.axis == axis for v in inputs):
            parts = sum((v.parts * v.repeats for v in inputs), ())
            return [Channels(axis, sum(parts), parts=parts)]
        return [_same(inputs) if len(set(inputs)) == 1 and inputs[0].axis != axis else None]

    def joins(self, call, outputs):
        (y,) = call.output_tensors
        return outputs[0] is not None and outputs[0].axis == call.operation.axis % len(y.shape)

    def widths(self, call, percentage, inputs, outputs, demand):
        if outputs[0] is None or demand[0] is None or is_regularized(call.operation):
            return super().widths(call, percentage, inputs, outputs, demand)
        if not self.joins(call, outputs):
            return Widths(list(demand), list(demand) * len(inputs), list(inputs))
        start, reads, computed = 0, [], []
        for layout in inputs:
            copies = range(start, start + layout.repeats * layout.count, layout.count)
            of_copies = [demand[0].between(copy, copy + layout.count).runs for copy in copies]
            reads.append(Selection.of(sum(of_copies, ())))
            # What one copy needs, all have.
            computed += [(c + a, c + b) for c in copies for a, b in reads[-1].runs]
            start = copies.stop
        return Widths([Selection.of(computed)], reads, list(inputs))


register(_Concatenate(), layers.Concatenate)
