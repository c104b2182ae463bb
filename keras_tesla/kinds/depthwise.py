"""Depthwise convolutions: a filter, or several, for each channel."""

import dataclasses
import math
from collections.abc import Mapping

from keras import layers

from keras_tesla.channels import Channels, Selection
from keras_tesla.kinds.activations import is_elementwise
from keras_tesla.kinds.kind import Axes, Channelwise, positions, with_room_for_bias
from keras_tesla.kinds.registry import register


class _Depthwise(Channelwise):
    """Each input channel has `depth_multiplier` output channels, side by side."""

    weight_axes: Mapping[str, Axes] = {"kernel": (-2, None), "bias": (None, 0)}

    def layouts(self, call, inputs):
        layer, (layout,) = call.operation, super().layouts(call, inputs)
        if layout is None or not is_elementwise(layer.activation):
            return [None]
        parts = tuple(part * layer.depth_multiplier for part in layout.parts)
        return [Channels(layout.axis, sum(parts), parts=parts)]

    def widths(self, call, percentage, inputs, outputs, demand):
        widths = super().widths(call, percentage, inputs, outputs, demand)
        layer, shape = call.operation, call.output_tensors[0].shape
        multiplier = layer.depth_multiplier
        count = shape[self.channel_axis(layer, len(shape))]
        if widths.outputs[0] is None:
            with_room_for_bias(call, None, count)
            return widths
        width = with_room_for_bias(call, demand[0].over(multiplier).times(multiplier), count)
        if width is None:
            width = Selection.first(count)
        reads = width.over(multiplier)
        return dataclasses.replace(widths, outputs=[reads.times(multiplier)], inputs=[reads])

    def multiply_adds(self, call, weights):
        if "kernel" not in weights:
            return 0
        shape = call.output_tensors[0].shape
        axis = self.channel_axis(call.operation, len(shape))
        return positions(call.operation, shape, axis) * math.prod(weights["kernel"].shape)

    def permuted(self, layer):
        return super().permuted(layer) if layer.depth_multiplier == 1 else None


register(_Depthwise(), layers.DepthwiseConv1D, layers.DepthwiseConv2D)
