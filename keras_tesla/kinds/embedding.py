"""Tables: each output channel is a column."""

from collections.abc import Mapping

from keras import layers

from keras_tesla.channels import Channels
from keras_tesla.cloning import config_of
from keras_tesla.kinds.kind import Axes, Kind, Widths, is_regularized
from keras_tesla.kinds.registry import register


class _Embedding(Kind):
    """What is read are places in the table, all of them."""

    weight_axes: Mapping[str, Axes] = {"embeddings": (None, -1)}

    def layouts(self, call, inputs):
        (y,) = call.output_tensors
        return [Channels(len(y.shape) - 1, call.operation.output_dim)]

    def widths(self, call, percentage, inputs, outputs, demand):
        layer = call.operation
        quantized = layer.dtype_policy.quantization_mode is not None
        whole = quantized or layer.lora_enabled or is_regularized(layer)
        return Widths([None if whole else demand[0]], [None], [None])

    def config(self, call, widths):
        return {**config_of(call.operation), "output_dim": len(widths.outputs[0])}

    def permuted(self, layer):
        return None  # the order of what comes in is that of the places


register(_Embedding(), layers.Embedding)
