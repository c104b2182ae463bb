"""Normalizations that keep the channels apart: batch and group normalization."""

import dataclasses
from collections.abc import Mapping

import keras
import numpy as np
from keras import layers, ops

from keras_tesla.channels import pick
from keras_tesla.cloning import config_of
from keras_tesla.kinds.kind import Axes, Channelwise, Narrowed
from keras_tesla.kinds.registry import register
from keras_tesla.layers import IDPBatchNormalization


class _Normalization(Channelwise):
    def channel_axis(self, layer, rank):
        return layer.axis % rank


class _BatchNormalization(_Normalization):
    weight_axes: Mapping[str, Axes] = {"gamma": (None, 0), "beta": (None, 0)}

    def __init__(self, incomplete=None):
        self.incomplete = incomplete
        self.depends = incomplete is None

    def narrow(self, call, percentage, widths):
        layer, width = call.operation, widths.outputs[0]
        cls, config = type(layer), config_of(layer)
        names = ["moving_mean", "moving_variance"]
        if layer.renorm:
            names += ["moving_stddev", "renorm_mean", "renorm_stddev"]
        if isinstance(layer, IDPBatchNormalization):
            cls = keras.layers.BatchNormalization
            del config["percentages"], config["private_affine"]
            state = dict(zip(names, layer.statistics(percentage), strict=True))
        elif width is None:
            return None
        else:
            state = {name: getattr(layer, name) for name in names}

        def weights():
            if isinstance(layer, IDPBatchNormalization):
                affine = layer.affine(percentage)
            else:
                affine = {n: getattr(layer, n) for n in ("gamma", "beta")}
            return {
                n: pick(ops.convert_to_tensor(v), width)
                for n, v in {**affine, **state}.items()
                if v is not None
            }

        return Narrowed(cls, config, weights, state)

    def permuted(self, layer):
        # The statistics of the percentages are not attributes; all weights have one axis.
        return [(variable, None, 0) for variable in layer.weights]

    def make_incomplete(self, layer, channels, percentages, profile, trainable_profile):
        return self.incomplete.from_config({**config_of(layer), "percentages": percentages})

    def copy_weights(self, layer, incomplete):
        """Gives an IDPBatchNormalization the weights of the layer, at every percentage."""
        weights = [np.array(weight) for weight in layer.get_weights()]
        statistics = weights[layer.scale + layer.center :]
        # Copies: JAX would let the percentages share a buffer and give it away.
        others = [s.copy() for _ in incomplete.percentages[1:] for s in statistics]
        incomplete.set_weights(weights + others)


register(_BatchNormalization(incomplete=IDPBatchNormalization), layers.BatchNormalization)
register(_BatchNormalization(), IDPBatchNormalization)


class _GroupNormalization(_Normalization):
    """A group of channels is normalized by its own statistics: whole groups can be left out."""

    weight_axes: Mapping[str, Axes] = {"gamma": (None, 0), "beta": (None, 0)}
    unit = "in whole groups"

    def widths(self, call, percentage, inputs, outputs, demand):
        widths = super().widths(call, percentage, inputs, outputs, demand)
        if widths.outputs[0] is None:
            return widths
        size = inputs[0].count // call.operation.groups
        width = demand[0].over(size).times(size)
        return dataclasses.replace(widths, outputs=[width], inputs=[width, *widths.inputs[1:]])

    def config(self, call, widths):
        layer = call.operation
        full = call.input_tensors[0].shape[layer.axis]
        return {**config_of(layer), "groups": len(widths.outputs[0]) * layer.groups // full}

    def permuted(self, layer):
        return None  # a channel that moves would come into another group


register(_GroupNormalization(), layers.GroupNormalization)
