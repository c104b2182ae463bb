"""Layers with a kernel: each output channel is a dot product of all that they read."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import layers, ops

from keras_tesla.channels import Channels, pick
from keras_tesla.cloning import config_of
from keras_tesla.kinds.activations import is_elementwise
from keras_tesla.kinds.grouped import GROUPED
from keras_tesla.kinds.kind import Axes, Kind, Narrowed, Widths, is_regularized, with_room_for_bias
from keras_tesla.kinds.registry import register, registered
from keras_tesla.kinds.sizes import positions
from keras_tesla.layers import (
    IDPConv1D,
    IDPConv1DTranspose,
    IDPConv2D,
    IDPConv2DTranspose,
    IDPConv3D,
    IDPDense,
    IDPSeparableConv2D,
    IncompleteDotProduct,
    PerRange,
)

# Config keys of a projection that its narrowed layer has not: the kernel has them folded in.
_NOT_STOCK = {
    *("profile", "trainable_profile", "percentages", "private_bias", "private_profile"),
    *("complete", "input_parts", "input_channels", "lora_rank", "lora_alpha"),
}


class Projection(Kind):
    """A layer with a kernel, in its stock form or its incomplete one.

    Args:
        incomplete: For the kind of a stock class: its incomplete class, or None.
        stock: For the kind of an incomplete class: its stock class. None: the layer narrowed is one
            of its own class.
    """

    weight_axes: Mapping[str, Axes] = {"kernel": (-2, -1), "bias": (None, 0)}
    projects = True
    size = "filters"  # the attribute that says the number of outputs

    def __init__(self, incomplete=None, stock=None):
        self.incomplete = incomplete
        self.depends = stock is not None
        self._stock = stock
        self._kernels = [path for path in self.weight_axes if path != "bias"]
        self._outputs_axis: Any = self.weight_axes[self._kernels[-1]][1]

    def of(self, layer):
        return GROUPED if getattr(layer, "groups", 1) > 1 and not self.depends else self

    def layouts(self, call, inputs):
        (y,) = call.output_tensors
        axis: Any = self.channel_axis(call.operation, len(y.shape))
        return [Channels(axis, y.shape[axis])]

    def widths(self, call, percentage, inputs, outputs, demand):
        layer = call.operation
        out = demand[0]
        if (
            not is_elementwise(layer.activation)
            or is_regularized(layer)
            or layer.dtype_policy.quantization_mode is not None
            or getattr(layer, "groups", 1) > 1
        ):
            out = None
        out = with_room_for_bias(call, out, outputs[0].count)
        if not isinstance(layer, IncompleteDotProduct):
            return Widths([out], [None], [None])
        layout = layer.input_layout(call.input_tensors[0].shape)
        return Widths([out], [layer.active(percentage)], [layout])

    def narrow(self, call, percentage, widths):
        if widths.outputs[0] is None and not isinstance(call.operation, IncompleteDotProduct):
            return None
        return self.stock(call, percentage, widths)

    def stock(self, call, percentage, widths) -> Narrowed:
        """Returns the stock layer for the call, also where the layer would serve as it is."""
        layer, width = call.operation, widths.outputs[0]
        self.check_weights(layer)
        incomplete = isinstance(layer, IncompleteDotProduct)
        config = {k: v for k, v in config_of(layer).items() if k not in _NOT_STOCK}
        if width is not None:
            self.resize(layer, config, len(width))

        def weights(private=True):
            if incomplete:
                narrowed = layer.incomplete_weights(percentage, private)
            else:
                narrowed = {n: ops.convert_to_tensor(getattr(layer, n)) for n in self._kernels}
            last = self._kernels[-1]
            narrowed[last] = pick(narrowed[last], width, self._outputs_axis)
            if layer.bias is not None:
                bias = layer.trained_bias(percentage) if incomplete else layer.bias
                (_, axis), bias = self.weight_axes["bias"], ops.convert_to_tensor(bias)
                narrowed["bias"] = bias if axis is None else pick(bias, width, axis)
            return narrowed

        return Narrowed(self._stock or type(layer), config, weights, {})

    def resize(self, layer, config, count):
        """Sets the number of outputs in the config of a layer."""
        config[self.size] = count

    def multiply_adds(self, call, weights):
        shape = self._multiplied(call).shape
        count = positions(call.operation, shape, self.channel_axis(call.operation, len(shape)))
        sizes = [math.prod(weights[path].shape) for path in self._kernels if path in weights]
        return count * sum(sizes)

    def _multiplied(self, call):
        """The tensor with a dot product for each of its positions."""
        return call.output_tensors[0]

    def permuted(self, layer):
        if getattr(layer, "groups", 1) > 1:
            return None
        axes = [(weight, *self.weight_axes[path]) for path, weight in self.weights(layer).items()]
        known = {id(weight) for weight, *_ in axes}
        if isinstance(layer, IncompleteDotProduct):
            biases = layer.private_of_all("bias")
            axes += [(bias, *self.weight_axes["bias"]) for bias in biases]
            # Coefficients that are all one stay so, wherever the channels go.
            known |= {id(v) for v in (*biases, *layer.profile_variables)}
        return axes if all(id(v) in known for v in layer.weights) else None

    def why_complete(self, layer):
        if layer.dtype_policy.quantization_mode is not None:
            return "has quantized weights"
        if getattr(layer, "lora_enabled", False):
            return "has LoRA weights; merge them into the kernel first"
        return None

    def make_incomplete(self, layer, channels, percentages, profile, trainable_profile):
        config = {
            **config_of(layer),
            "profile": profile,
            "trainable_profile": trainable_profile,
            "percentages": percentages,  # those that `TESLA` trains if it is given no others
            **self._arguments(*channels),
        }
        return self.incomplete.from_config(config)

    def _arguments(self, channels):
        """What else the incomplete layer is told about the channels that it reads."""
        return {"input_parts": channels.parts if len(channels.parts) > 1 else None}

    def copy_weights(self, layer, incomplete):
        """Gives an incomplete layer the weights of the layer, with the profile divided out."""
        old, new = layer, incomplete
        weights = {v.name: np.array(ops.convert_to_numpy(v)) for v in old.weights}
        if new.coefficients is not None:
            for name in new.incomplete_weights(100):
                getattr(new, name).assign(np.ones_like(weights[name]))
            with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
                for name, factors in new.incomplete_weights(100).items():
                    weights[name] = weights[name] / ops.convert_to_numpy(factors)
                    if not np.isfinite(weights[name]).all():
                        raise ValueError(
                            f"The profile {new.profile!r} has coefficients too small for the "
                            f"{new.terms} terms of layer {new.name!r}: its kernel divided by them "
                            "is not finite. Choose another profile, or skip the layer."
                        )
        for name, value in weights.items():
            getattr(new, name).assign(value)


class _Dense(Projection):
    size = "units"
    takes_repeats = True  # `input_channels`

    def channel_axis(self, layer, rank):
        return rank - 1

    def layouts(self, call, inputs):
        if self._mixes_positions(call, inputs[0]):
            return list(inputs)
        return super().layouts(call, inputs)

    def widths(self, call, percentage, inputs, outputs, demand):
        if not self._mixes_positions(call, inputs[0]):
            return super().widths(call, percentage, inputs, outputs, demand)
        needed = None if is_regularized(call.operation) else demand[0]
        return Widths([needed], [needed], list(inputs))

    def narrow(self, call, percentage, widths):
        if self._mixes_positions(call, widths.layouts[0]):
            return None  # the kernel has no channels
        return super().narrow(call, percentage, widths)

    def stock(self, call, percentage, widths):
        if self._mixes_positions(call, widths.layouts[0]):
            widths = Widths([None], [None], [None])
        return super().stock(call, percentage, widths)

    def _mixes_positions(self, call, layout) -> bool:
        """Whether the last axis is not that of the channels: then each of them is treated alike."""
        layer = call.operation
        return (
            type(layer) is layers.Dense  # another may do more to its input
            and layout is not None
            and layout.axis != len(call.input_tensors[0].shape) - 1
            and is_elementwise(layer.activation)
            and layer.dtype_policy.quantization_mode is None
        )

    def _arguments(self, channels):
        count = channels.count if channels.repeats > 1 else None
        return {**super()._arguments(channels), "input_channels": count}


class _Transposed(Projection):
    weight_axes: Mapping[str, Axes] = {"kernel": (-1, -2), "bias": (None, 0)}

    def _multiplied(self, call):
        return call.input_tensors[0]


class _Separable(Projection):
    weight_axes: Mapping[str, Axes] = {
        "depthwise_kernel": (-2, None),
        "pointwise_kernel": (-2, -1),
        "bias": (None, 0),
    }

    def importance(self, layer, place=0):
        # One convolution computes the same: its kernel is the product of the two.
        depthwise, pointwise = (ops.convert_to_numpy(getattr(layer, n)) for n in self._kernels)
        pointwise = pointwise.reshape(*depthwise.shape[-2:], -1)
        kernel = np.einsum("...im,imo->...io", depthwise, pointwise)
        rows = np.moveaxis(np.abs(kernel), -2, 0)
        return rows.reshape(len(rows), -1).sum(1, dtype="float64")


for _family, _stock, _incomplete in [
    (_Dense, layers.Dense, IDPDense),
    (Projection, layers.Conv1D, IDPConv1D),
    (Projection, layers.Conv2D, IDPConv2D),
    (Projection, layers.Conv3D, IDPConv3D),
    (_Transposed, layers.Conv1DTranspose, IDPConv1DTranspose),
    (_Transposed, layers.Conv2DTranspose, IDPConv2DTranspose),
    (_Transposed, layers.Conv3DTranspose, None),
    (_Separable, layers.SeparableConv1D, None),
    (_Separable, layers.SeparableConv2D, IDPSeparableConv2D),
]:
    register(_family(incomplete=_incomplete), _stock)
    if _incomplete is not None:
        register(_family(stock=_stock), _incomplete)


class _PerRange(Kind):
    """What the kind of the layer says that runs at the percentage."""

    depends = True

    def _chosen(self, call, percentage):
        layer = call.operation.layer_at(percentage)
        kind: Any = registered()[type(layer)]  # a Projection, also with groups
        return kind, dataclasses.replace(call, operation=layer)

    def layouts(self, call, inputs):
        kind, chosen = self._chosen(call, 100)  # class and shapes of all of its layers are the same
        return kind.layouts(chosen, inputs)

    def widths(self, call, percentage, inputs, outputs, demand):
        kind, chosen = self._chosen(call, percentage)
        return kind.widths(chosen, percentage, inputs, outputs, demand)

    def narrow(self, call, percentage, widths):
        kind, chosen = self._chosen(call, percentage)
        narrowed = kind.stock(chosen, percentage, widths)
        # The name of an output must not depend on the percentage.
        return dataclasses.replace(
            narrowed, config={**narrowed.config, "name": call.operation.name}
        )

    def weights(self, layer):
        complete = layer.layer_at(100)
        return registered()[type(complete)].weights(complete)

    def multiply_adds(self, call, weights):
        kind, chosen = self._chosen(call, 100)
        return kind.multiply_adds(chosen, weights)

    def permuted(self, layer):
        return None


register(_PerRange(), PerRange)
