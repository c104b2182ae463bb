"""Layers without weights that treat each channel separately: activations, pooling, reshaping."""

import dataclasses
import math
from collections.abc import Mapping

import keras
import numpy as np
from keras import layers

from keras_tesla.cloning import config_of
from keras_tesla.kinds.activations import is_elementwise
from keras_tesla.kinds.kind import Axes, Channelwise, Narrowed, last_or_first
from keras_tesla.kinds.registry import register

register(
    Channelwise(),
    *(layers.ELU, layers.GaussianDropout, layers.GaussianNoise, layers.Identity),
    *(layers.LeakyReLU, layers.ReLU, "applications.StochasticDepth"),
    *(layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
)


class _ElementwiseActivation(Channelwise):
    def layouts(self, call, inputs):
        return [inputs[0] if is_elementwise(call.operation.activation) else None]


register(_ElementwiseActivation(), layers.Activation)


class _Dropout(Channelwise):
    def layouts(self, call, inputs):
        shape, layout = getattr(call.operation, "noise_shape", None), inputs[0]
        # A noise shape may be written for the full number of channels.
        fits = shape is None or (layout and shape[layout.axis] in (None, 1))
        return [layout if fits else None]


register(_Dropout(), layers.Dropout, layers.AlphaDropout)


class _Rescaling(Channelwise):
    """By numbers, or by one for each channel, which are on the last axis then."""

    def layouts(self, call, inputs):
        layout, (x,) = inputs[0], call.input_tensors
        shapes = {np.shape(v) for v in _factors(call.operation).values()} - {()}
        last = layout and layout.repeats == 1 and layout.axis == len(x.shape) - 1
        # In the format "channels_first" Keras lays the scale along another axis than the offset.
        last = last and keras.config.image_data_format() == "channels_last"
        return [layout if not shapes or (last and shapes == {(layout.count,)}) else None]

    def narrow(self, call, percentage, widths):
        width, factors = widths.outputs[0], _factors(call.operation)
        if width is None or not any(map(np.ndim, factors.values())):
            return None
        places = width.indices()
        cut = {n: np.asarray(v)[places].tolist() for n, v in factors.items() if np.ndim(v)}
        return Narrowed(type(call.operation), {**config_of(call.operation), **cut}, dict, {})

    def in_any_order(self, call):
        return not any(map(np.ndim, _factors(call.operation).values()))


def _factors(layer):
    return {"scale": layer.scale, "offset": layer.offset}


register(_Rescaling(), layers.Rescaling)


class _LayerScale(Channelwise):
    """A trained factor for each channel, in the ConvNeXt of keras.applications."""

    weight_axes: Mapping[str, Axes] = {"gamma": (None, 0)}

    def config(self, call, widths):
        return {**config_of(call.operation), "projection_dim": len(widths.outputs[0])}


register(_LayerScale(), "applications.LayerScale")


class _Spatial(Channelwise):
    """Pooling, padding, cropping, up-sampling: positions change, channels stay."""

    def channel_axis(self, layer, rank):
        return last_or_first(layer, rank)


register(
    _Spatial(),
    *(layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D),
    *(layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D),
    *(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D),
    *(layers.Cropping1D, layers.Cropping2D, layers.Cropping3D),
    *(layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D),
    *(layers.AdaptiveAveragePooling1D, layers.AdaptiveMaxPooling1D),
    *(layers.AdaptiveAveragePooling2D, layers.AdaptiveMaxPooling2D),
    *(layers.AdaptiveAveragePooling3D, layers.AdaptiveMaxPooling3D),
    *(layers.CenterCrop, layers.RandomCrop, layers.RandomFlip, layers.Resizing),
)


class _PReLU(Channelwise):
    """A slope for each channel, and for each position that is not shared."""

    weight_axes: Mapping[str, Axes] = {"alpha": (None, -1)}

    def layouts(self, call, inputs):
        rank = len(call.input_tensors[0].shape)
        shared = {axis % rank for axis in call.operation.shared_axes or ()}
        return [None] if rank - 1 in shared else super().layouts(call, inputs)


register(_PReLU(), layers.PReLU)


class _GlobalPooling(_Spatial):
    def layouts(self, call, inputs):
        (layout,) = super().layouts(call, inputs)
        if layout is None or call.operation.keepdims:
            return [layout]
        return [dataclasses.replace(layout, axis=1)]


register(
    _GlobalPooling(),
    *(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D),
    *(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D),
    layers.GlobalAveragePooling3D,
)


class _Flatten(Channelwise):
    def layouts(self, call, inputs):
        x = call.input_tensors[0]
        layout = inputs[0]
        if layout is None or None in x.shape[1:]:
            return [None]
        if len(x.shape) > 2 and layout.axis != last_or_first(call.operation, len(x.shape)):
            return [None]
        # Keras moves channels_first to channels_last before it flattens: channels come last.
        features = math.prod(x.shape[1:])
        return [dataclasses.replace(layout, axis=1, repeats=features // layout.count)]


register(_Flatten(), layers.Flatten)
