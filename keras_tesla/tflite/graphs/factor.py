"""A factor for each output channel of a weight, moved after its operator.

A batch normalization with statistics of a percentage multiplies output channel o of the shared
weight by r_o > 0. So that all percentages can store one weight,

    activation(r * (W x) + b) = r * activation(W x + b / r)

for an activation that is linear or ReLU; other ones are applied after the multiplication. A
positive factor also commutes with pooling and with the mean over positions, after which fewer
numbers are multiplied.
"""

import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_tesla.tflite.graphs import corners
from keras_tesla.tflite.graphs.corners import Corner, Weight
from keras_tesla.tflite.graphs.flatbuffer import Graph, Kind, Type

_Activation = schema.ActivationFunctionType
# With fewer multiply-adds for each number that would be multiplied, the multiplication takes more
# than some percent of the operator's time; and a corner that is at most such a part of the whole
# weight is not worth any (docs/decisions.md).
_MULTIPLY_ADDS = 64
_PART = 64
_SINKS = (Kind.MAX_POOL_2D, Kind.AVERAGE_POOL_2D, Kind.MEAN)


def is_worth_it(graph: Graph, weight: Weight, corner: Corner, whole: Weight) -> bool:
    """Whether sharing a float weight saves bytes and its factor takes little time."""
    if corner.scale is None:
        return True
    if _PART * weight.value.size <= whole.value.size:
        return False
    shape = weight.value.shape
    depthwise = weight.kind == Kind.DEPTHWISE_CONV_2D
    multiply_adds = math.prod(shape[1:-1] if depthwise else shape[1:])
    computed = graph.tensors[weight.operator.outputs[0]].shape
    multiplied = math.prod(graph.tensors[_cheapest(graph, weight.operator)].shape)
    once = multiplied <= len(corner.scale)  # each channel at one position only: no time to speak of
    return once or multiply_adds * math.prod(computed) >= _MULTIPLY_ADDS * multiplied


def put_after(graph: Graph, operator, scale: np.ndarray):
    """Multiplies the channels after an operator by `scale` and divides its bias by it."""
    old = corners.bias(graph, operator)
    if old is not None:
        divided = (old / scale).astype("float32")
        operator.inputs[2] = graph.add_tensor("bias", divided.shape, Type.FLOAT32, divided)
    options = schema.MulOptionsT()
    target = _cheapest(graph, operator)
    if not _commutes(operator):
        options.fusedActivationFunction = operator.builtinOptions.fusedActivationFunction
        operator.builtinOptions.fusedActivationFunction = _Activation.NONE
    (producer,) = (o for o in graph.operators if target in o.outputs)
    raw = graph.add_like("unscaled", graph.tensors[target])
    producer.outputs = [raw if t == target else t for t in producer.outputs]
    factor = graph.add_tensor("scale", scale.shape, Type.FLOAT32, scale.astype("float32"))
    place = graph.operators.index(producer) + 1
    graph.add_operator(Kind.MUL, [raw, factor], [target], options, at=place)


def _cheapest(graph, operator):
    """The tensor after an operator where its factor multiplies the fewest numbers."""
    tensor = operator.outputs[0]
    if not _commutes(operator):
        return tensor
    while tensor not in graph.subgraph.outputs:
        readers = [o for o in graph.operators if tensor in o.inputs]
        if len(readers) != 1 or graph.kind(readers[0]) not in _SINKS:
            break
        (reader,) = readers
        if not _keeps_channels(graph, reader, len(graph.tensors[tensor].shape)):
            break
        tensor = reader.outputs[0]
    return tensor


def _keeps_channels(graph, reader, rank):
    if graph.kind(reader) != Kind.MEAN:
        return _commutes(reader)
    axes = graph.array(reader.inputs[1])
    return axes is not None and not (axes % rank == rank - 1).any()


def _commutes(operator):
    """Whether what is fused into an operator is the same before and after a positive factor."""
    fused = operator.builtinOptions.fusedActivationFunction
    return fused in (_Activation.NONE, _Activation.RELU)
