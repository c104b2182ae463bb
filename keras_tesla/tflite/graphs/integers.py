"""Whether a graph computes in integers only.

The converter leaves an operator in float32, without a warning, where it finds no range for one of
its tensors.
"""

from keras_tesla.tflite.graphs import flatbuffer
from keras_tesla.tflite.graphs.flatbuffer import Op, Type
from keras_tesla.tflite.graphs.percentage_graph import PercentageGraph


def float_tensors(graph: PercentageGraph) -> list[str]:
    """Returns the names of the float32 tensors of a graph that are not its inputs or outputs."""
    boundary = {*graph.inputs.values(), *graph.outputs.values()}
    found = _float_tensors(graph.subgraph, boundary)
    for subgraph in graph.callees:
        found += _float_tensors(subgraph, set())
    return list(dict.fromkeys(found))


def _float_tensors(subgraph, boundary):
    found = []
    for operator in subgraph.operators:
        converts = subgraph.op(operator) in (Op.QUANTIZE, Op.DEQUANTIZE)
        for index in (*operator.inputs, *operator.outputs):
            if index < 0:  # an input that is left out, such as a bias
                continue
            tensor = subgraph.tensors[index]
            if tensor.type == Type.FLOAT32 and not (converts and index in boundary):
                found.append(flatbuffer.text(tensor.name))
    return found
