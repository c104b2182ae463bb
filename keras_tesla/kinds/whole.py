"""Layers and operations that are always computed whole, and what they cost.

Attention without projections, recurrent layers, some products: each output depends on all inputs,
so nothing of them is left out. Their multiply-adds count.
"""

import dataclasses
import math
from typing import Any

import keras
from keras import layers

from keras_tesla.graph import Call, Tensor
from keras_tesla.kinds.attention import arguments_of
from keras_tesla.kinds.kind import Whole
from keras_tesla.kinds.registry import multiply_adds_of, register
from keras_tesla.kinds.sizes import product


class _DotProductAttention(Whole):
    """The same with one head and nothing projected."""

    def multiply_adds(self, call, weights):
        inputs = arguments_of(call)["inputs"]
        query, value, key = inputs[0].shape, inputs[1].shape, inputs[-1].shape
        sizes = (query[1], value[1], key[-1] + value[-1])
        return product(call.operation, query, sizes)


register(_DotProductAttention(), layers.Attention, layers.AdditiveAttention)


class _Recurrent(Whole):
    """Two kernels at each step: one for the input, one for the state."""

    def multiply_adds(self, call, weights):
        layer, shape = call.operation, call.input_tensors[0].shape
        cell = getattr(layer, "cell", layer)
        kernels: list[Any] = [getattr(cell, name, None) for name in ("kernel", "recurrent_kernel")]
        if any(kernel is None for kernel in kernels):
            return None  # a cell of the user's
        steps = 1 if cell is layer else product(layer, shape, shape[1:2])
        return steps * sum(math.prod(kernel.shape) for kernel in kernels)


register(
    _Recurrent(),
    *(layers.GRU, layers.LSTM, layers.SimpleRNN, layers.RNN),
    *(layers.GRUCell, layers.LSTMCell, layers.SimpleRNNCell),
)


class _ConvolutionalRecurrent(_Recurrent):
    """The same kernels at each position."""

    def multiply_adds(self, call, weights):
        layer, shape = call.operation, call.output_tensors[0].shape
        rank = len(layer.cell.kernel.shape) - 2
        last = len(shape) if layer.data_format == "channels_first" else len(shape) - 1
        return super().multiply_adds(call, weights) * product(
            layer, shape, shape[last - rank : last]
        )


register(_ConvolutionalRecurrent(), layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)


class _Bidirectional(Whole):
    def multiply_adds(self, call, weights):
        both = (call.operation.forward_layer, call.operation.backward_layer)
        return _sum(multiply_adds_of(dataclasses.replace(call, operation=layer)) for layer in both)


register(_Bidirectional(), layers.Bidirectional)


class _TimeDistributed(Whole):
    def multiply_adds(self, call, weights):
        layer, shape = call.operation, call.input_tensors[0].shape

        def at_a_step(x):
            left = (x.shape[0], *x.shape[2:])
            return dataclasses.replace(x, shape=left) if isinstance(x, Tensor) else x

        args, outputs = keras.tree.map_structure(at_a_step, (call.args, call.outputs))
        of_a_step = multiply_adds_of(Call(layer.layer, args, {}, outputs))
        return None if of_a_step is None else product(layer, shape, shape[1:2]) * of_a_step


register(_TimeDistributed(), layers.TimeDistributed)


def _sum(counts):
    counts = list(counts)
    return None if None in counts else sum(counts)


class _Product(Whole):
    """One for each output and each term that it sums up."""

    def multiply_adds(self, call, weights):
        (first, *_), (y,) = call.args, call.output_tensors
        terms = self._terms(call.operation, first.shape)
        return product(call.operation, y.shape, (*y.shape[1:], *terms))

    def _terms(self, operation, shape):
        return shape[-1:]


register(_Product(), "Dot", "Inner")


class _Tensordot(_Product):
    def _terms(self, operation, shape):
        if isinstance(operation.axes, int):
            return shape[len(shape) - operation.axes :]
        first = operation.axes[0]
        return [shape[axis] for axis in ([first] if isinstance(first, int) else first)]


register(_Tensordot(), "Tensordot")


class _Unknown(Whole):
    """Runs what nobody can see, or makes products of which there is no count."""

    def multiply_adds(self, call, weights):
        return None


register(
    _Unknown(),
    *(layers.FlaxLayer, layers.JaxLayer, layers.Lambda, layers.TFSMLayer),
    *(layers.TorchModuleWrapper, layers.SpectralNormalization, layers.Wrapper),
    *("Conv", "ConvTranspose", "DepthwiseConv", "DotProductAttention", "Map", "Outer", "Scan"),
    *("SeparableConv", "Vdot", "VectorizedMap"),
)
