"""Weights that are operands: `x * self.gamma` in a layer of the user's that was opened."""

from collections.abc import Mapping

from keras_tesla.channels import Channels
from keras_tesla.cloning import config_of
from keras_tesla.graph import Weight
from keras_tesla.kinds.kind import Axes, Kind, Widths
from keras_tesla.kinds.registry import register


class _Weight(Kind):
    """Its channels are on its last axis, if the tensors that it is combined with say so."""

    weight_axes: Mapping[str, Axes] = {"value": (None, -1)}

    def layouts(self, call, inputs):
        shape = call.operation.shape
        return [Channels(len(shape) - 1, shape[-1]) if shape and shape[-1] > 1 else None]

    def widths(self, call, percentage, inputs, outputs, demand):
        return Widths(list(demand), [], [])

    def config(self, call, widths):
        layer = call.operation
        return {**config_of(layer), "shape": (*layer.shape[:-1], len(widths.outputs[0]))}


register(_Weight(), Weight)
