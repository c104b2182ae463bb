"""Inputs and outputs that mean the same at every percentage.

The activation ranges of an int8 file, and so its output scales, differ between percentages. Where
they share one signature, its outputs have one scale: the finest that covers all of their ranges.
"""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_tesla.tflite.graphs.flatbuffer import Op, Type
from keras_tesla.tflite.graphs.percentage_graph import PercentageGraph


def align(graphs: list[PercentageGraph]):
    """Gives int8 inputs and outputs of several percentages one scale each."""
    for name in graphs[0].inputs:
        _align(graphs, name, "inputs")
    for name in graphs[0].outputs:
        _align(graphs, name, "outputs")


def _align(graphs, name, side):
    tensors = [graph.subgraph.tensors[getattr(graph, side)[name]] for graph in graphs]
    if tensors[0].type != Type.INT8:
        return
    ranges = [_range(tensor.quantization) for tensor in tensors]
    if len(set(ranges)) == 1:
        return
    wide = _quantization(min(lo for lo, _ in ranges), max(hi for _, hi in ranges))
    for graph, tensor in zip(graphs, tensors, strict=True):
        subgraph, index = graph.subgraph, getattr(graph, side)[name]
        outer = subgraph.add_tensor(name, tensor.shape, Type.INT8, quantization=wide)
        ends = getattr(subgraph.table, side)
        ends[ends.index(index)] = outer
        getattr(graph, side)[name] = outer
        into = (outer, index) if side == "inputs" else (index, outer)
        subgraph.add_operator(
            Op.QUANTIZE,
            into[:1],
            into[1:],
            schema.QuantizeOptionsT(),
            at=0 if side == "inputs" else None,
            version=2,
        )


def _range(quantization):
    scale, zero = float(quantization.scale[0]), int(quantization.zeroPoint[0])
    return scale * (-128 - zero), scale * (127 - zero)


def _quantization(lo, hi):
    made = schema.QuantizationParametersT()
    scale = (hi - lo) / 255
    made.scale = np.array([scale], "float32")
    made.zeroPoint = np.array([round(-128 - lo / scale)], np.int64)
    return made
