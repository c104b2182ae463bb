"""Layers that compute with an int8 kernel: their Keras class, or its incomplete twin.

The kernel stays float32 and is rounded at each call, symmetrically and to 255 values:

`w_q = s * round(w / s)`, `s = max |w| / 127`

A 2D convolution has a scale s for each output channel. So a batch normalization after it, which
multiplies each output channel, rounds nothing: in int8 its factors go into the scales, and the
quantized values are those of the kernel at every percentage. A Dense and a Conv1D layer have one
scale, since the converter takes no other (TensorFlow 2.21). The profile is folded in first, and the
largest w is that of the whole kernel, so a slice of it has the same quantized values at every
percentage. Gradients pass through the rounding unchanged.
"""

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import layers, ops

from keras_tesla.channels import pick
from keras_tesla.kinds.kind import Kind, Narrowed, Widths
from keras_tesla.kinds.registry import kind_of, register, registered
from keras_tesla.layers import IDPConv1D, IDPConv2D, IDPDense, IncompleteDotProduct

# To a type checker the mix-in is the layer that it completes.
_Layer: Any = layers.Layer if TYPE_CHECKING else object


class FakeQuantizedKernel(_Layer):
    """Mix-in over a layer with `incomplete_kernel`."""

    scaled_axes: tuple[int, ...] = (-1,)  # axes along which each slice has a separate scale

    def incomplete_kernel(self, percentage: int, private: bool = True):
        """Returns the rounded kernel of the active terms, profile folded in."""
        kernel = super().incomplete_kernel(percentage, private)
        limit = self.kernel_limit()
        scale = ops.where(limit > 0, limit, 1.0) / 127.0
        rounded = scale * ops.round(kernel / scale)
        # The value is the rounded one to the last bit, the gradient that of the kernel.
        return ops.stop_gradient(rounded) + (kernel - ops.stop_gradient(kernel))

    def kernel_limit(self):
        """Returns the largest |w|, for each scale; a number where there is one for all."""
        kernel = super().incomplete_kernel(100)
        scaled = [axis % len(kernel.shape) for axis in self.scaled_axes]
        axes = [axis for axis in range(len(kernel.shape)) if axis not in scaled]
        largest = ops.max(ops.abs(kernel), axis=axes, keepdims=bool(scaled))
        return ops.stop_gradient(largest)

    def limit_of(self, widths: Widths) -> np.ndarray:
        """Returns `kernel_limit` for the kernel of a narrowed call, as an array."""
        limit = ops.convert_to_numpy(self.kernel_limit())
        for axis, channels in _cuts(kind_of(self), widths):
            if limit.ndim and limit.shape[axis] > 1:  # else there is one scale for all of them
                limit = np.take(limit, channels.indices(), axis)
        return limit

    def _is_complete(self, percentage):
        return False  # even where all terms are read, the Keras class would not round


def _cuts(kind, widths):
    """Yields (axis, channels) for each axis of the kernel of which not all channels are used."""
    axes = kind.weight_axes["kernel"]
    for axis, channels in zip(axes, (widths.inputs[0], widths.outputs[0]), strict=True):
        if axis is not None and channels is not None:
            yield axis, channels


class _Complete(_Layer):
    """Mix-in over a stock layer, which reads all terms at every percentage."""

    def incomplete_kernel(self, percentage: int, private: bool = True):
        return ops.convert_to_tensor(self.kernel)

    def call(self, inputs):
        # A stateless scope hides the one around it, so the bias is passed too.
        lent = [(v, v.value) for v in self.variables if v is not self.kernel]
        with keras.StatelessScope([*lent, (self.kernel, self.incomplete_kernel(100))]):
            return super().call(inputs)


@keras.saving.register_keras_serializable("keras_tesla")
class FakeQuantizedDense(FakeQuantizedKernel, _Complete, layers.Dense):
    """`keras.layers.Dense` with a rounded kernel."""

    scaled_axes = ()


@keras.saving.register_keras_serializable("keras_tesla")
class FakeQuantizedConv1D(FakeQuantizedKernel, _Complete, layers.Conv1D):
    """`keras.layers.Conv1D` with a rounded kernel."""

    scaled_axes = ()


@keras.saving.register_keras_serializable("keras_tesla")
class FakeQuantizedConv2D(FakeQuantizedKernel, _Complete, layers.Conv2D):
    """`keras.layers.Conv2D` with a rounded kernel."""


@keras.saving.register_keras_serializable("keras_tesla")
class FakeQuantizedDepthwiseConv2D(FakeQuantizedKernel, _Complete, layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` with a rounded kernel."""

    scaled_axes = (-2, -1)


@keras.saving.register_keras_serializable("keras_tesla")
class FakeQuantizedIDPDense(FakeQuantizedKernel, IDPDense):
    """`IDPDense` with a rounded kernel."""

    scaled_axes = ()


@keras.saving.register_keras_serializable("keras_tesla")
class FakeQuantizedIDPConv1D(FakeQuantizedKernel, IDPConv1D):
    """`IDPConv1D` with a rounded kernel."""

    scaled_axes = ()


@keras.saving.register_keras_serializable("keras_tesla")
class FakeQuantizedIDPConv2D(FakeQuantizedKernel, IDPConv2D):
    """`IDPConv2D` with a rounded kernel."""


# {class of a layer: its twin with a rounded kernel}
FAKE_QUANTIZED: dict[type, Any] = {
    layers.Dense: FakeQuantizedDense,
    layers.Conv1D: FakeQuantizedConv1D,
    layers.Conv2D: FakeQuantizedConv2D,
    layers.DepthwiseConv2D: FakeQuantizedDepthwiseConv2D,
    IDPDense: FakeQuantizedIDPDense,
    IDPConv1D: FakeQuantizedIDPConv1D,
    IDPConv2D: FakeQuantizedIDPConv2D,
}


class _FakeQuantized(Kind):
    """The kind of a stock class, for its twin with a rounded kernel."""

    def __init__(self, stock: type, kind: Kind):
        self._stock = stock
        self._kind = kind
        self.weight_axes = kind.weight_axes

    def of(self, layer):
        kind = self._kind.of(layer)
        return self if kind is self._kind else _FakeQuantized(self._stock, kind)

    def layouts(self, call, inputs):
        return self._kind.layouts(call, inputs)

    def widths(self, call, percentage, inputs, outputs, demand):
        return self._kind.widths(call, percentage, inputs, outputs, demand)

    def narrow(self, call, percentage, widths):
        layer = call.operation
        narrowed = self._kind.narrow(call, percentage, widths)

        def weights():
            if narrowed is None:
                values = {v.name: ops.convert_to_tensor(v) for v in layer.weights}
            else:
                values = narrowed.weights()
            kernel = layer.incomplete_kernel(percentage)
            for axis, channels in _cuts(self, widths):
                kernel = pick(kernel, channels, axis)
            return {**values, "kernel": kernel}

        config = layer.get_config() if narrowed is None else narrowed.config
        return Narrowed(self._stock, config, weights, {})

    def weights(self, layer):
        return self._kind.weights(layer)

    def multiply_adds(self, call, weights):
        return self._kind.multiply_adds(call, weights)

    def permuted(self, layer):
        return None


for _cls, _twin in FAKE_QUANTIZED.items():
    _incomplete = issubclass(_cls, IncompleteDotProduct)
    _kind = registered()[_cls]
    register(_kind if _incomplete else _FakeQuantized(_cls, _kind), _twin)
