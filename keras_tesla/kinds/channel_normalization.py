"""Normalizations over the channels: layer and RMS normalization."""

from collections.abc import Mapping

import numpy as np
from keras import layers, ops

from keras_tesla.channels import pick
from keras_tesla.cloning import config_of, copy_weights
from keras_tesla.kinds.kind import Axes, Kind, Narrowed, Widths, is_regularized
from keras_tesla.kinds.registry import register
from keras_tesla.layers import IDPLayerNormalization, IDPRMSNormalization

# Config keys of an incomplete layer that its Keras class has not.
_NOT_STOCK = ("percentages", "input_parts", "statistics_of")


class _ChannelNormalization(Kind):
    """In its stock form, or the incomplete one, whose statistics are those of some channels.

    Args:
        incomplete: For the kind of a stock class: its incomplete class.
        stock: For the kind of an incomplete class: its stock class.
    """

    reduces = True
    takes_profile = False

    def __init__(self, incomplete=None, stock=None):
        self.incomplete = incomplete
        self.depends = stock is not None
        self._stock = stock

    def channel_axis(self, layer, rank):
        # Along another one Keras does not compute the same on all backends.
        axes = np.ravel(layer.axis) % rank
        return rank - 1 if axes.tolist() == [rank - 1] else None

    def layouts(self, call, inputs):
        (layout,), (x,) = inputs, call.input_tensors
        axis = self.channel_axis(call.operation, len(x.shape))
        agrees = layout is not None and layout.repeats == 1 and layout.axis == axis
        return [layout if agrees else None]

    def widths(self, call, percentage, inputs, outputs, demand):
        layer, (layout,), (width,) = call.operation, inputs, demand
        if not self.depends or outputs[0] is None or width is None or is_regularized(layer):
            return super().widths(call, percentage, inputs, outputs, demand)
        computed = layer.active(percentage) | width
        return Widths([computed], [computed], [layout])

    def narrow(self, call, percentage, widths):
        if not self.depends:
            return None
        layer, width = call.operation, widths.outputs[0]
        active = layer.active(percentage)
        if width is not None:
            active = active.places(width)
        config = {k: v for k, v in config_of(layer).items() if k not in _NOT_STOCK}
        cls = self._stock
        if len(active) < (sum(layer.parts) if width is None else len(width)):
            cls, config["statistics_of"] = type(layer), active.runs

        def weights():
            return {
                name: pick(ops.convert_to_tensor(weight), width)
                for name, weight in self.weights(layer).items()
            }

        return Narrowed(cls, config, weights, {})

    def why_complete(self, layer):
        if np.size(layer.axis) > 1:
            return "normalizes over several axes"
        return "has the deprecated `rms_scaling`" if getattr(layer, "rms_scaling", 0) else None

    def make_incomplete(self, layer, channels, percentages, profile, trainable_profile):
        (read,) = channels
        parts = read.parts if len(read.parts) > 1 else None
        config = {**config_of(layer), "percentages": percentages, "input_parts": parts}
        return self.incomplete.from_config(config)

    def copy_weights(self, layer, incomplete):
        copy_weights(layer, incomplete)


class _LayerNormalization(_ChannelNormalization):
    weight_axes: Mapping[str, Axes] = {"gamma": (None, 0), "beta": (None, 0)}


class _RMSNormalization(_ChannelNormalization):
    weight_axes: Mapping[str, Axes] = {"scale": (None, 0)}


for _kind, _stock, _incomplete in [
    (_LayerNormalization, layers.LayerNormalization, IDPLayerNormalization),
    (_RMSNormalization, layers.RMSNormalization, IDPRMSNormalization),
]:
    register(_kind(incomplete=_incomplete), _stock)
    register(_kind(stock=_stock), _incomplete)
