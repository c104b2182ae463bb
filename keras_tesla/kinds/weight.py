"""Weights that are operands: `x * self.gamma` in a layer of the user's that was opened."""

from collections.abc import Mapping

from keras import ops

from keras_tesla.channels import Channels, pick
from keras_tesla.graph import Weight
from keras_tesla.kinds.kind import Axes, Kind, Narrowed, Widths
from keras_tesla.kinds.registry import register


class _Weight(Kind):
    """Its channels are on its last axis, if the tensors that it is combined with say so."""

    weight_axes: Mapping[str, Axes] = {"value": (None, -1)}

    def layouts(self, call, inputs):
        shape = call.operation.shape
        return [Channels(len(shape) - 1, shape[-1]) if shape and shape[-1] > 1 else None]

    def widths(self, call, percentage, inputs, outputs, demand):
        return Widths(list(demand), [], [])

    def narrow(self, call, percentage, widths):
        layer, width = call.operation, widths.outputs[0]
        if width is None:
            return None
        config = {**layer.get_config(), "shape": (*layer.shape[:-1], len(width))}
        return Narrowed(
            Weight,
            config,
            lambda: {"value": pick(ops.convert_to_tensor(layer.value), width, -1)},
            {},
        )


register(_Weight(), Weight)
