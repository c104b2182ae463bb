"""Inputs and outputs that mean the same at every percentage.

An int8 file's percentages have activation ranges, and so output scales, of their own. Where they
share one signature, its outputs have one scale: the finest that holds all of them.
"""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_tesla.tflite.graphs.flatbuffer import Kind, Type
from keras_tesla.tflite.graphs.leaf import Leaf


def align(leaves: list[Leaf]):
    """Gives int8 inputs and outputs of several percentages one scale each."""
    for name in leaves[0].inputs:
        _align(leaves, name, "inputs")
    for name in leaves[0].outputs:
        _align(leaves, name, "outputs")


def _align(leaves, name, side):
    tensors = [leaf.graph.tensors[getattr(leaf, side)[name]] for leaf in leaves]
    if tensors[0].type != Type.INT8:
        return
    ranges = [_range(tensor.quantization) for tensor in tensors]
    if len(set(ranges)) == 1:
        return
    wide = _quantization(min(lo for lo, _ in ranges), max(hi for _, hi in ranges))
    for leaf, tensor in zip(leaves, tensors, strict=True):
        graph, index = leaf.graph, getattr(leaf, side)[name]
        outer = graph.add_tensor(name, tensor.shape, Type.INT8, quantization=wide)
        ends = getattr(graph.subgraph, side)
        ends[ends.index(index)] = outer
        getattr(leaf, side)[name] = outer
        into = (outer, index) if side == "inputs" else (index, outer)
        graph.add_operator(
            Kind.QUANTIZE,
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
