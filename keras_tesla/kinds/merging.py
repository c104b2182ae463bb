"""Layers and operations that combine several tensors."""

import dataclasses
import math

import keras
from keras import layers

from keras_tesla.channels import Channels, Selection, common_parts
from keras_tesla.graph import Tensor
from keras_tesla.kinds.constants import arrays_of, cut, size_on
from keras_tesla.kinds.kind import Kind, Widths, is_regularized
from keras_tesla.kinds.registry import register


def _same(layouts):
    """The layout of what is made of tensors of equal layouts, whose parts may differ."""
    first = layouts[0]
    return first and dataclasses.replace(first, parts=common_parts(layouts))


class _Broadcast(Kind):
    """Several inputs with equal channels, combined number by number.

    A tensor of one channel goes with each channel of the others. An operand of fewer axes, such as
    a weight, lies along the last ones, as in NumPy. An array is cut like the tensors.
    """

    def layouts(self, call, inputs):
        aligned = _aligned(call, inputs)
        wide = _wide(call, aligned)
        found = [layout for layout, w in zip(aligned, wide, strict=True) if w]
        return [_same(found) if len(set(found)) == 1 and _arrays_fit(call, found[0]) else None]

    def widths(self, call, percentage, inputs, outputs, demand):
        if outputs[0] is None or is_regularized(call.operation):
            return super().widths(call, percentage, inputs, outputs, demand)
        wide = _wide(call, _aligned(call, inputs))
        return Widths(
            list(demand),
            [demand[0] if w else None for w in wide],
            [layout if w else None for layout, w in zip(inputs, wide, strict=True)],
        )

    def arguments(self, call, widths, args, kwargs):
        width, rank = widths.outputs[0], len(call.output_tensors[0].shape)
        if width is None or not arrays_of(call):
            return args, kwargs
        aligned = _aligned(call, widths.layouts)
        layout = next(layout for layout in aligned if layout is not None)

        def narrowed(given, x):
            number = isinstance(given, (Tensor, int, float, type(None)))
            return x if number else cut(x, layout, width, rank)

        return keras.tree.map_structure(narrowed, (call.args, call.kwargs), (args, kwargs))

    def in_any_order(self, call):
        return all(math.prod(x.shape) == 1 for x in arrays_of(call) or [])


def _arrays_fit(call, layout) -> bool:
    """Whether the arrays of a merge have the channels of a layout, or one number for all."""
    arrays, (y,) = arrays_of(call), call.output_tensors
    if not arrays:
        return arrays is not None
    ranks = [len(x.shape) for x in call.input_tensors]
    if isinstance(call.operation, keras.Layer) and any(len(x.shape) != max(ranks) for x in arrays):
        return False  # a layer such as Add puts missing axes elsewhere
    count = layout and layout.repeats * layout.count
    return (
        layout is not None
        and y.shape[layout.axis] == count
        and all(
            len(x.shape) <= max(ranks) and size_on(x, layout.axis, max(ranks)) in (1, count)
            for x in arrays
        )
    )


def _aligned(call, inputs) -> list[Channels | None]:
    """The layouts of a merge's inputs by the axes of its output."""
    rank = len(call.output_tensors[0].shape)
    # A layer such as Add puts missing axes elsewhere.
    fits = not isinstance(call.operation, keras.Layer)
    return [
        layout and (fits or len(x.shape) == rank or None) and _moved(layout, rank - len(x.shape))
        for layout, x in zip(inputs, call.input_tensors, strict=True)
    ]


def _moved(layout, axes):
    return dataclasses.replace(layout, axis=layout.axis + axes)


def _wide(call, aligned) -> list[bool]:
    """For each input of a merge, whether it has all channels of the output, not one for all."""
    (y,) = call.output_tensors
    axes = {v.axis for v in aligned if v and y.shape[v.axis] == v.repeats * v.count > 1}
    if len(axes) != 1:
        return [True] * len(aligned)
    (axis,) = axes
    return [size_on(x, axis, len(y.shape)) != 1 for x in call.input_tensors]


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
        operands = keras.tree.flatten((call.args, call.kwargs))
        if None in inputs or not all(isinstance(x, Tensor) for x in operands):
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

    def arguments(self, call, widths, args, kwargs):
        if Selection() not in widths.inputs:
            return args, kwargs
        function = not isinstance(call.operation, keras.Layer)
        args = tuple(_reached(x, function) for x in args)
        return args, {name: _reached(x, function) for name, x in kwargs.items()}


def _reached(argument, function):
    """A list without the tensors that are not needed."""
    if not isinstance(argument, (list, tuple)):
        return argument
    reached = [x for x in argument if x is not None]
    # A function drops the mask of what it is called on; JAX returns a single array as it is.
    return [keras.ops.copy(reached[0])] if function and len(reached) == 1 else reached


register(_Concatenate(), layers.Concatenate, "Concatenate")


class _Stack(Kind):
    """Inputs of equal channels side by side on an axis that is new."""

    def layouts(self, call, inputs):
        (y,) = call.output_tensors
        axis = call.operation.axis % len(y.shape)
        operands = keras.tree.flatten((call.args, call.kwargs))
        if len(set(inputs)) != 1 or not all(isinstance(x, Tensor) for x in operands):
            return [None]
        layout = _same(inputs)
        return [layout and _moved(layout, int(layout.axis >= axis))]

    def widths(self, call, percentage, inputs, outputs, demand):
        if outputs[0] is None:
            return super().widths(call, percentage, inputs, outputs, demand)
        return Widths(list(demand), list(demand) * len(inputs), list(inputs))


register(_Stack(), "Stack")
