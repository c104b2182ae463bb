"""int8 weights that all percentages share.

The converter gives each percentage's weight scales of its own, so no bytes agree. Instead every
percentage takes the corner of the codes at the highest percentage, with their scales (times its
factors, see `keras_tesla.tflite.graphs.factor`); what stays its own are the ranges of its
activations, and so its biases, which are counted in `input scale * weight scale`.
"""

import copy

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_tesla.tflite.graphs.corners import Weight
from keras_tesla.tflite.graphs.flatbuffer import Graph, Kind, Type


def scales(quantization, outputs: int, factors=None):
    """Returns a weight's quantization for its first output channels, times factors.

    Args:
        quantization: The schema's object of the whole weight.
        outputs: Int, number of output channels of the corner.
        factors: Array `(outputs,)` or None.
    """
    made = copy.copy(quantization)
    scale = np.asarray(quantization.scale, "float32")
    if factors is not None and len(scale) == 1:
        scale = np.repeat(scale, outputs)
    if len(scale) > 1:
        scale = scale[:outputs]
    if factors is not None:
        scale = (scale * factors).astype("float32")
    made.scale = scale
    made.zeroPoint = np.zeros(len(scale), np.int64)
    made.min = made.max = None  # for people; the runtime reads the scales
    return made


def rescale(graph: Graph, weight: Weight, whole: schema.TensorT, factors, bias):
    """Gives an int8 weight the scales of the whole one and its bias the fitting count.

    Args:
        graph: The graph of the percentage.
        weight: Its weight, whose codes were replaced.
        whole: The tensor of the whole weight.
        factors: Array `(output channels,)` or None.
        bias: Array `(output channels,)`, the bias before quantization, or None.
    """
    axis = -1 if weight.kind == Kind.DEPTHWISE_CONV_2D else 0
    outputs = weight.value.shape[axis]
    tensor = graph.tensors[weight.tensor]
    codes = np.moveaxis(np.asarray(graph.array(weight.tensor)), axis, 0)
    tensor.quantization = scales(whole.quantization, outputs, factors)
    operator = weight.operator
    if len(operator.inputs) < 3 or operator.inputs[2] < 0:
        return
    value = np.zeros(outputs) if bias is None else bias.astype("float64")
    _widen_empty_channels(tensor.quantization, codes, graph.tensors[operator.inputs[0]], value)
    unit = _bias_unit(graph, operator)
    counts = np.clip(np.round(value / unit), -(2**31), 2**31 - 1).astype(np.int32)
    operator.inputs[2] = _int32_bias(graph, counts, unit)


def _widen_empty_channels(quantization, codes, x, bias):
    """Gives channels without weights a scale in which their bias can be counted.

    A scale that came from zeros is as good as any other, and may be too fine for 32 bits.
    """
    needed = np.abs(bias) / (np.asarray(x.quantization.scale, "float64") * 2.0**30)
    if len(quantization.scale) > 1:
        empty = ~codes.any(axis=tuple(range(1, codes.ndim)))
        widened = np.maximum(quantization.scale, needed)
        quantization.scale = np.where(empty, widened, quantization.scale).astype("float32")


def zero_bias(graph: Graph, operator, outputs: int) -> int:
    """Adds a bias of zeros for an operator with an int8 weight and returns its tensor."""
    return _int32_bias(graph, np.zeros(outputs, np.int32), _bias_unit(graph, operator))


def _bias_unit(graph, operator):
    x, w = (np.asarray(graph.tensors[t].quantization.scale) for t in operator.inputs[:2])
    return x.astype("float64") * w.astype("float64")


def _int32_bias(graph, counts, unit):
    quantization = schema.QuantizationParametersT()
    quantization.scale = unit.astype("float32")
    quantization.zeroPoint = np.zeros(len(unit), np.int64)
    return graph.add_tensor("bias", counts.shape, Type.INT32, counts, quantization)


def dequantize(graph: Graph, weight: Weight, codes: np.ndarray, quantization, factors) -> int:
    """Replaces a float weight by int8 codes and a DEQUANTIZE, which runs once at load.

    Args:
        graph: The graph of the percentage.
        weight: Its float weight.
        codes: int8 array of the weight's shape.
        quantization: The schema's object of the whole weight.
        factors: Array `(output channels,)` or None.

    Returns:
        The tensor of the codes.
    """
    axis = -1 if weight.kind == Kind.DEPTHWISE_CONV_2D else 0
    made = scales(quantization, codes.shape[axis], factors)
    stored = graph.add_tensor(
        graph.tensors[weight.tensor].name, codes.shape, Type.INT8, codes, made
    )
    graph.tensors[weight.tensor].buffer = 0
    options = schema.DequantizeOptionsT()
    version = 5 if len(made.scale) > 1 else 2
    graph.add_operator(Kind.DEQUANTIZE, [stored], [weight.tensor], options, at=0, version=version)
    return stored
