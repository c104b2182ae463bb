"""Convolutions of separate groups of channels: depthwise ones, and those with `groups`."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from keras import layers

from keras_tesla.channels import Channels, Selection
from keras_tesla.cloning import config_of
from keras_tesla.kinds.activations import is_elementwise
from keras_tesla.kinds.kind import Axes, Channelwise, with_room_for_bias
from keras_tesla.kinds.registry import register
from keras_tesla.kinds.sizes import positions


class _Separate(Channelwise):
    """The input channels of a group make the output channels at the same place of the output.

    A group is computed whole or not at all.
    """

    def sizes(self, call) -> tuple[int, int]:
        """Returns how many channels a group reads, and how many it computes."""
        raise NotImplementedError

    def layouts(self, call, inputs):
        layer, (y,) = call.operation, call.output_tensors
        axis = self.channel_axis(layer, len(y.shape))
        (layout,) = super().layouts(call, inputs)
        if layout is None:
            return [Channels(axis, y.shape[axis])]
        read, computed = self.sizes(call)
        ends = np.cumsum(layout.parts)
        # A part that ends within a group is one with the next.
        groups = np.diff([0, *(ends[ends % read == 0] // read)])
        return [Channels(axis, y.shape[axis], parts=tuple((groups * computed).tolist()))]

    def widths(self, call, percentage, inputs, outputs, demand):
        layer, count = call.operation, outputs[0].count
        read, computed = self.sizes(call)
        followed = super().layouts(call, inputs) != [None] and is_elementwise(layer.activation)
        widths = super().widths(call, percentage, inputs, outputs, demand)
        if widths.outputs[0] is None or not followed:
            with_room_for_bias(call, None, count)
            return super().widths(call, percentage, [None], outputs, demand)
        width = with_room_for_bias(call, demand[0].over(computed).times(computed), count)
        groups = (Selection.first(count) if width is None else width).over(computed)
        return dataclasses.replace(
            widths, outputs=[groups.times(computed)], inputs=[groups.times(read)]
        )

    def multiply_adds(self, call, weights):
        if "kernel" not in weights:
            return 0
        shape = call.output_tensors[0].shape
        axis = self.channel_axis(call.operation, len(shape))
        return positions(call.operation, shape, axis) * math.prod(weights["kernel"].shape)


class _Depthwise(_Separate):
    """Each input channel has `depth_multiplier` output channels, side by side."""

    weight_axes: Mapping[str, Axes] = {"kernel": (-2, None), "bias": (None, 0)}

    def sizes(self, call):
        return 1, call.operation.depth_multiplier

    def permuted(self, layer):
        return super().permuted(layer) if layer.depth_multiplier == 1 else None


register(_Depthwise(), layers.DepthwiseConv1D, layers.DepthwiseConv2D)


class _Grouped(_Separate):
    """A convolution with `groups`; with one for each channel it is a depthwise one."""

    weight_axes: Mapping[str, Axes] = {"kernel": (None, -1), "bias": (None, 0)}
    unit = "in whole groups"

    def sizes(self, call):
        layer = call.operation
        return layer.kernel.shape[-2], layer.filters // layer.groups

    def config(self, call, widths):
        config, (filters,) = config_of(call.operation), map(len, widths.outputs)
        for lora in ("lora_rank", "lora_alpha"):  # folded into the kernel
            config.pop(lora, None)
        return {**config, "filters": filters, "groups": filters // self.sizes(call)[1]}

    def permuted(self, layer):
        each = layer.kernel.shape[-2] == 1 and layer.filters == layer.groups
        return super().permuted(layer) if each else None


GROUPED = _Grouped()
