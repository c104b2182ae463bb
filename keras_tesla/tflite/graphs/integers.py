"""What of a graph int8 holds.

The converter leaves an operator in float32, without a warning, where it finds no range for one of
its tensors. It makes int8 of others whose results 256 equal steps do not hold.
"""

from keras_tesla.tflite.graphs import flatbuffer
from keras_tesla.tflite.graphs.flatbuffer import Op, Subgraph, Type
from keras_tesla.tflite.graphs.percentage_graph import PercentageGraph

# Results of very different sizes: the small ones are less than a step of int8.
_WIDE = {Op.EXP, Op.POW, Op.DIV, Op.SQUARE, Op.RSQRT}


def float_tensors(graph: PercentageGraph) -> list[str]:
    """Returns the names of the float32 tensors of a graph that are not its inputs or outputs."""
    boundary = {*graph.inputs.values(), *graph.outputs.values()}
    found = _float_tensors(graph.subgraph, boundary)
    for subgraph in graph.callees:
        found += _float_tensors(subgraph, set())
    return list(dict.fromkeys(found))


def wide_tensors(content: bytes) -> list[str]:
    """Returns the names of int8 tensors of a file whose numbers may be of very different sizes."""
    model = flatbuffer.unpack(content)
    return [
        flatbuffer.text(subgraph.tensors[index].name).split(";")[0]
        for subgraph in (Subgraph(model, table) for table in model.subgraphs)
        for operator in subgraph.operators
        if subgraph.op(operator) in _WIDE
        for index in operator.outputs
        if subgraph.tensors[index].type == Type.INT8
    ]


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
