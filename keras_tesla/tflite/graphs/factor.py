"""A factor for each output channel of a weight, moved after its operator.

A batch normalization with statistics of a percentage multiplies output channel o of the shared
weight by r_o > 0. All percentages can store one weight because

    activation(r * (W x) + b) = r * activation(W x + b / r)

for a linear or ReLU activation; any other is applied after the multiplication. A positive factor
also commutes with pooling and with the mean over positions, so it is moved after these, where there
are fewer values to multiply.
"""

import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_tesla.tflite.graphs.flatbuffer import Op, Subgraph, Type
from keras_tesla.tflite.graphs.leading_blocks import LeadingBlock, Weight

_Activation = schema.ActivationFunctionType
# With fewer multiply-adds for each value that would be multiplied, the multiplication takes more
# than a few percent of the operator's time; and for a block that is at most this part of the whole
# weight, sharing saves too few bytes (docs/decisions.md).
_MULTIPLY_ADDS = 64
_PART = 64
_SINKS = (Op.MAX_POOL_2D, Op.AVERAGE_POOL_2D, Op.MEAN)


def is_worth_it(subgraph: Subgraph, weight: Weight, block: LeadingBlock, whole: Weight) -> bool:
    """Whether sharing a float weight saves bytes and its factor takes little time."""
    if block.scale is None:
        return True
    if _PART * weight.value.size <= whole.value.size:
        return False
    shape = weight.value.shape
    terms = math.prod(shape[1:-1] if weight.op == Op.DEPTHWISE_CONV_2D else shape[1:])
    computed = subgraph.tensors[weight.operator.outputs[0]].shape
    if weight.op == Op.TRANSPOSE_CONV:  # each position of the input is multiplied once
        computed = [*subgraph.tensors[weight.input].shape[:-1], shape[0]]
    multiplied = math.prod(subgraph.tensors[_cheapest(subgraph, weight.operator)].shape)
    once = multiplied <= len(block.scale)  # each channel at one position only: negligible
    return once or terms * math.prod(computed) >= _MULTIPLY_ADDS * multiplied


def put_after(subgraph: Subgraph, weight: Weight, scale: np.ndarray):
    """Multiplies the channels after an operator with a weight by `scale`, and divides its bias."""
    operator = weight.operator
    old = weight.bias_value(subgraph)
    if old is not None:
        divided = (old / scale).astype("float32")
        weight.set_bias(subgraph.add_tensor("bias", divided.shape, Type.FLOAT32, divided))
    options = schema.MulOptionsT()
    target = _cheapest(subgraph, operator)
    if not _commutes(operator):
        options.fusedActivationFunction = operator.builtinOptions.fusedActivationFunction
        operator.builtinOptions.fusedActivationFunction = _Activation.NONE
    (producer,) = (o for o in subgraph.operators if target in o.outputs)
    raw = subgraph.add_like("unscaled", subgraph.tensors[target])
    producer.outputs = [raw if t == target else t for t in producer.outputs]
    factor = subgraph.add_tensor("scale", scale.shape, Type.FLOAT32, scale.astype("float32"))
    place = subgraph.operators.index(producer) + 1
    subgraph.add_operator(Op.MUL, [raw, factor], [target], options, at=place)


def _cheapest(subgraph, operator):
    """The tensor after an operator in which its factor multiplies the fewest values."""
    tensor = operator.outputs[0]
    if not _commutes(operator):
        return tensor
    while tensor not in subgraph.table.outputs:
        readers = [o for o in subgraph.operators if tensor in o.inputs]
        if len(readers) != 1 or subgraph.op(readers[0]) not in _SINKS:
            break
        (reader,) = readers
        if not _keeps_channels(subgraph, reader, len(subgraph.tensors[tensor].shape)):
            break
        tensor = reader.outputs[0]
    return tensor


def _keeps_channels(subgraph, reader, rank):
    if subgraph.op(reader) != Op.MEAN:
        return _commutes(reader)
    axes = subgraph.array(reader.inputs[1])
    return axes is not None and not (axes % rank == rank - 1).any()


def _commutes(operator):
    """Whether what is fused into an operator is the same before and after a positive factor."""
    fused = operator.builtinOptions.fusedActivationFunction
    return fused in (_Activation.NONE, _Activation.RELU)
