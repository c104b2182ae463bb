"""Operations of one tensor that treat each channel separately: `-x`, clip, mean over positions."""

import dataclasses

import keras
import numpy as np
from keras import layers

from keras_tesla.graph import Tensor
from keras_tesla.kinds import constants
from keras_tesla.kinds.activations import ELEMENTWISE
from keras_tesla.kinds.kind import Channelwise, Narrowed, last_or_first
from keras_tesla.kinds.registry import register


def _is_plain(call) -> bool:
    """Whether an operation has no array among its arguments: channels of it no layout tells."""
    held = [*vars(call.operation).values(), *keras.tree.flatten((call.args, call.kwargs))]
    return not any(getattr(x, "shape", ()) and not isinstance(x, Tensor) for x in held)


class _Elementwise(Channelwise):
    """Each number separately."""

    def layouts(self, call, inputs):
        return [inputs[0] if len(inputs) == 1 and _is_plain(call) else None]


# Of the activations these have no operation of their name.
_OTHERS = {"exponential", "hard_swish", "linear", "mish", "swish"}
_ACTIVATIONS = [name.title().replace("_", "") for name in sorted(ELEMENTWISE - _OTHERS)]

register(
    _Elementwise(),
    *_ACTIVATIONS,
    *("Absolute Arccos Arccosh Arcsin Arcsinh Arctan Arctanh Cast Cbrt Ceil Copy Cos".split()),
    *("Cosh Deg2rad Erf Erfc Erfinv Exp Exp2 Expm1 Fabs Floor Isfinite Isinf Isnan Log".split()),
    *("Log10 Log1p Log2 LogicalNot NanToNum Negative OnesLike Rad2deg Reciprocal Round".split()),
    *("Rsqrt SaturateCast Sign Signbit Sin Sinc Sinh Sqrt Square StopGradient Tan".split()),
    *("Trunc ZerosLike".split()),
)


class _Clip(Channelwise):
    """Between numbers, or arrays or lists with one for each channel."""

    def layouts(self, call, inputs):
        (layout, *others), (x, *_) = inputs, call.input_tensors
        arrays, rank = [v for v in _bounds(call).values() if np.shape(v)], len(x.shape)
        fits = not others and all(
            isinstance(v, (list, tuple, np.ndarray)) and np.ndim(v) <= rank for v in arrays
        )
        if not fits or (arrays and layout is None):
            return [None]
        count = layout and layout.repeats * layout.count
        sizes = {constants.size_on(np.asarray(v), layout.axis, rank) for v in arrays}
        return [layout if sizes <= {1, count} else None]

    def narrow(self, call, percentage, widths):
        (width,), (layout,) = widths.outputs, widths.layouts
        rank = len(call.input_tensors[0].shape)
        if width is None or not any(np.shape(v) for v in _bounds(call).values()):
            return None
        cut = {
            name: constants.cut(np.asarray(v), layout, width, rank) if np.shape(v) else v
            for name, v in _bounds(call).items()
        }
        # As lists, which have no dtype, where they were.
        lists = {n for n, v in _bounds(call).items() if isinstance(v, (list, tuple))}
        cut = {n: v.tolist() if n in lists else v for n, v in cut.items()}
        return Narrowed(type(call.operation), cut, dict, {})

    def in_any_order(self, call):
        return all(np.size(v) == 1 for v in _bounds(call).values())


def _bounds(call):
    return {"x_min": call.operation.x_min, "x_max": call.operation.x_max}


register(_Clip(), "Clip")


class _AlongAxes(Channelwise):
    """Works along axes, of which that of the channels may not be one."""

    def layouts(self, call, inputs):
        layout, (x, *others) = inputs[0], call.input_tensors  # others: a mask, of any shape
        axes = self.axes(call, len(x.shape))
        free = layout is not None and axes is not None and layout.axis not in axes
        free = free and not others
        return [self.moved(call, layout, axes) if free and _is_plain(call) else None]

    def axes(self, call, rank) -> set[int] | None:
        """Returns the axes, counted from 0; None: all, or unknown."""
        axis = call.operation.axis
        if axis is None:
            return None
        return {a % rank for a in ([axis] if isinstance(axis, int) else axis)}

    def moved(self, call, layout, axes):
        """Returns where the channels lie in the output."""
        return layout


register(
    _AlongAxes(),
    *("Cumprod", "Cumsum", "Flip", "LogSoftmax", "Normalize", "Softmax", "Sort"),
    *(layers.Softmax, layers.UnitNormalization),
)


class _Roll(_AlongAxes):
    def layouts(self, call, inputs):
        return super().layouts(call, inputs) if isinstance(call.operation.axis, int) else [None]


register(_Roll(), "Roll")


class _Padding(_AlongAxes):
    def axes(self, call, rank):
        widths = call.operation.pad_width
        widths = [*widths] * rank if len(widths) == 1 else widths
        return {axis for axis, width in enumerate(widths) if tuple(width) != (0, 0)}


register(_Padding(), "Pad")


class _Reduction(_AlongAxes):
    def moved(self, call, layout, axes):
        if getattr(call.operation, "keepdims", False):
            return layout
        before = sum(axis < layout.axis for axis in axes)
        return dataclasses.replace(layout, axis=layout.axis - before)


register(
    _Reduction(),
    *("All Amax Amin Any Argmax Argmin Logsumexp Max Mean Median Min Prod".split()),
    *("Squeeze Std Sum Var".split()),
)


class _ExpandDims(Channelwise):
    def layouts(self, call, inputs):
        layout, (y,) = inputs[0], call.output_tensors
        axis = call.operation.axis
        new = {a % len(y.shape) for a in ([axis] if isinstance(axis, int) else axis)}
        if layout is None:
            return [None]
        kept = [a for a in range(len(y.shape)) if a not in new]
        return [dataclasses.replace(layout, axis=kept[layout.axis])]


register(_ExpandDims(), "ExpandDims")


class _Copies(Channelwise):
    """Copies of positions, of the batch, or of all channels: one set after the other."""

    def layouts(self, call, inputs):
        layout, (x,), (y,) = inputs[0], call.input_tensors, call.output_tensors
        if layout is None or not _is_plain(call):
            return [None]
        axis = self.axis(call, layout.axis, len(x.shape), len(y.shape))
        if axis is None or None in (x.shape[layout.axis], y.shape[axis]):
            return [None]
        copies = y.shape[axis] // x.shape[layout.axis]
        # Only the last axis can have several sets: a reader knows them there.
        fits = copies == 1 or (axis == len(y.shape) - 1 > 0)
        layout = dataclasses.replace(layout, axis=axis, repeats=copies * layout.repeats)
        return [layout if fits else None]

    def axis(self, call, axis, before, after) -> int | None:
        """Returns on which axis the channels lie then; None: they are not followed.

        Args:
            call: The call.
            axis: Where they lay.
            before: Int, the number of axes then.
            after: Int, the number of axes now; new ones are the first ones.
        """
        return axis + after - before


register(_Copies(), "Tile")


class _Repeat(_Copies):
    """Copies of each entry side by side, which are no channels."""

    def axis(self, call, axis, before, after):
        along = call.operation.axis
        return None if along is None or along % before == axis else axis


register(_Repeat(), "Repeat")


class _BroadcastTo(_Copies):
    def narrow(self, call, percentage, widths):
        (width,), (layout,) = widths.outputs, widths.layouts
        if width is None or layout is None:
            return None
        shape, (x,) = list(call.operation.shape), call.input_tensors
        shape[layout.axis - len(x.shape)] = layout.repeats * len(width)
        return Narrowed(type(call.operation), {"shape": shape}, dict, {})


register(_BroadcastTo(), "BroadcastTo")


class _Transposition(Channelwise):
    """The channels go where their axis goes."""

    def layouts(self, call, inputs):
        order = self.order(call, len(call.input_tensors[0].shape))
        if inputs[0] is None or order is None:
            return [None]
        return [dataclasses.replace(inputs[0], axis=order.index(inputs[0].axis))]

    def order(self, call, rank):
        """Returns which axis of the input each axis of the output is."""
        axes = call.operation.axes
        return None if axes is None else [axis % rank for axis in axes]


class _Permute(_Transposition):
    def order(self, call, rank):
        return [0, *call.operation.dims]


class _Swapaxes(_Transposition):
    def order(self, call, rank):
        order = list(range(rank))
        a, b = call.operation.axis1, call.operation.axis2
        order[a], order[b] = order[b], order[a]
        return order


class _Moveaxis(_Transposition):
    def order(self, call, rank):
        source, destination = (
            [axis % rank for axis in axes]
            for axes in (call.operation.source, call.operation.destination)
        )
        order = [axis for axis in range(rank) if axis not in source]
        for axis, place in sorted(zip(source, destination, strict=True), key=lambda x: x[1]):
            order.insert(place, axis)
        return order


register(_Transposition(), "Transpose")
register(_Moveaxis(), "Moveaxis")
register(_Swapaxes(), "Swapaxes")
register(_Permute(), layers.Permute)


class _RepeatVector(Channelwise):
    def layouts(self, call, inputs):
        return [inputs[0] and dataclasses.replace(inputs[0], axis=2)]


register(_RepeatVector(), layers.RepeatVector)


class _Images(Channelwise):
    """Pooling and resizing: positions change, channels stay."""

    def channel_axis(self, layer, rank):
        return last_or_first(layer, rank)


register(_Images(), "AveragePool", "MaxPool", "Resize")
