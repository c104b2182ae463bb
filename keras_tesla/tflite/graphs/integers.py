"""Whether a graph computes in integers alone.

The converter leaves an operator in float32, without a word, where it finds no range for one of its
tensors.
"""

from keras_tesla.tflite.graphs import flatbuffer
from keras_tesla.tflite.graphs.flatbuffer import Kind, Type
from keras_tesla.tflite.graphs.leaf import Leaf


def float_tensors(leaf: Leaf) -> list[str]:
    """Returns the names of the float32 tensors of a graph that are not its inputs or outputs."""
    graph = leaf.graph
    boundary = {*leaf.inputs.values(), *leaf.outputs.values()}
    found = []
    for operator in graph.operators:
        converts = graph.kind(operator) in (Kind.QUANTIZE, Kind.DEQUANTIZE)
        for index in (*operator.inputs, *operator.outputs):
            if index < 0:  # an input that is left out, such as a bias
                continue
            tensor = graph.tensors[index]
            if tensor.type == Type.FLOAT32 and not (converts and index in boundary):
                found.append(flatbuffer.text(tensor.name))
    return list(dict.fromkeys(found))
