"""int8 weights that all percentages share.

The converter chooses other weight scales for each percentage, so no bytes agree. Instead every
percentage takes the leading block of the quantized values of the highest percentage, and their
scales (times its factors, see `keras_tesla.tflite.graphs.factor`). Only the ranges of the
activations differ, and so the biases, whose unit is `input scale * weight scale`.
"""

import copy

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_tesla.channels import Selection
from keras_tesla.tflite.graphs.flatbuffer import Op, Subgraph, Type
from keras_tesla.tflite.graphs.leading_blocks import Weight


def scales(quantization, outputs: Selection, factors=None):
    """Returns a weight's quantization for some of its output channels, times factors.

    Args:
        quantization: The schema's object of the whole weight.
        outputs: The output channels of the block.
        factors: Array `(len(outputs),)` or None.
    """
    made = copy.copy(quantization)
    scale = np.asarray(quantization.scale, "float32")
    if factors is not None and len(scale) == 1:
        scale = np.repeat(scale, len(outputs))
    elif len(scale) > 1:
        scale = scale[outputs.indices()]
    if factors is not None:
        scale = (scale * factors).astype("float32")
    made.scale = scale
    made.zeroPoint = np.zeros(len(scale), np.int64)
    made.min = made.max = None  # for people; the runtime reads the scales
    return made


def rescale(
    subgraph: Subgraph, weight: Weight, whole: schema.TensorT, channels: Selection, factors, bias
):
    """Gives an int8 weight the scales of the whole one, and quantizes its bias accordingly.

    Args:
        subgraph: The graph of the percentage.
        weight: Its weight, whose quantized values were replaced.
        whole: The tensor of the whole weight.
        channels: The output channels of the whole weight that it has.
        factors: Array `(output channels,)` or None.
        bias: Array `(output channels,)`, the bias before quantization, or None.
    """
    axis = -1 if weight.op == Op.DEPTHWISE_CONV_2D else 0
    outputs = weight.value.shape[axis]
    tensor = subgraph.tensors[weight.tensor]
    values = np.moveaxis(np.asarray(subgraph.array(weight.tensor)), axis, 0)
    tensor.quantization = scales(whole.quantization, channels, factors)
    if weight.bias is None:
        return
    bias = np.zeros(outputs) if bias is None else bias.astype("float64")
    _widen_empty_channels(tensor.quantization, values, subgraph.tensors[weight.input], bias)
    scale = _bias_scale(subgraph, weight)
    quantized = np.clip(np.round(bias / scale), -(2**31), 2**31 - 1).astype(np.int32)
    weight.set_bias(_int32_bias(subgraph, quantized, scale))


def _widen_empty_channels(quantization, values, x, bias):
    """Gives channels whose weights are all zero a scale in which their bias fits into int32.

    Zeros are exact in any scale, and the one that the converter chose may be too fine for the bias.
    """
    needed = np.abs(bias) / (np.asarray(x.quantization.scale, "float64") * 2.0**30)
    if len(quantization.scale) > 1:
        empty = ~values.any(axis=tuple(range(1, values.ndim)))
        widened = np.maximum(quantization.scale, needed)
        quantization.scale = np.where(empty, widened, quantization.scale).astype("float32")


def zero_bias(subgraph: Subgraph, weight: Weight, outputs: int) -> int:
    """Adds a bias of zeros for an operator with an int8 weight and returns its tensor."""
    return _int32_bias(subgraph, np.zeros(outputs, np.int32), _bias_scale(subgraph, weight))


def _bias_scale(subgraph, weight):
    operands = (weight.input, weight.operator.inputs[1])
    x, w = (np.asarray(subgraph.tensors[t].quantization.scale) for t in operands)
    return x.astype("float64") * w.astype("float64")


def _int32_bias(subgraph, values, scale):
    quantization = schema.QuantizationParametersT()
    quantization.scale = scale.astype("float32")
    quantization.zeroPoint = np.zeros(len(scale), np.int64)
    return subgraph.add_tensor("bias", values.shape, Type.INT32, values, quantization)


def dequantize(
    subgraph: Subgraph,
    weight: Weight,
    values: np.ndarray,
    quantization,
    channels: Selection,
    factors,
) -> int:
    """Replaces a float weight by an int8 one and a DEQUANTIZE, which runs once at load.

    Args:
        subgraph: The graph of the percentage.
        weight: Its float weight.
        values: int8 array of the weight's shape.
        quantization: The schema's object of the whole weight.
        channels: The output channels of the whole weight that it has.
        factors: Array `(output channels,)` or None.

    Returns:
        Index of the int8 tensor.
    """
    made = scales(quantization, channels, factors)
    stored = subgraph.add_tensor(
        subgraph.tensors[weight.tensor].name, values.shape, Type.INT8, values, made
    )
    subgraph.tensors[weight.tensor].buffer = 0
    options = schema.DequantizeOptionsT()
    version = 5 if len(made.scale) > 1 else 2
    subgraph.add_operator(Op.DEQUANTIZE, [stored], [weight.tensor], options, at=0, version=version)
    return stored
