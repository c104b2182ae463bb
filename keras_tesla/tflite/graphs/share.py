"""Making the graphs of several percentages use one set of weights."""

import dataclasses
import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_tesla.tflite.graphs import corners, factor, quantized
from keras_tesla.tflite.graphs.corners import Corner, Weight
from keras_tesla.tflite.graphs.flatbuffer import Graph, Kind, Type
from keras_tesla.tflite.graphs.leaf import Leaf, Nested
from keras_tesla.tflite.graphs.nested import Shells

_NO_CORNER = "it is not the beginning of the weight at the highest percentage"
_DEAR_FACTOR = "a factor for each channel after it would cost more time than it is worth"
_DESCRIPTION = 400  # bytes of a nested weight's tensor, its description and its DENSIFY, about


@dataclasses.dataclass(frozen=True)
class _Use:
    """A weight of one percentage and the corner of the whole weight that it is."""

    leaf: Leaf
    weight: Weight
    corner: Corner
    bias: np.ndarray | None  # before quantization


def share(leaves: list[Leaf], floats: list[Leaf], codes: Leaf | None = None) -> list[dict]:
    """Rewrites graphs so that their weights are corners of those at the highest percentage.

    A weight that is a corner gets the values of the whole one; where it also has a factor for each
    output channel, the factor goes into the scales of its quantization or after its operator. The
    leaves learn which constants are to be stored nested.

    Args:
        leaves: From the lowest to the highest percentage.
        floats: The same in float32, in the same order; for float32 files `leaves` itself.
        codes: Given for weights that are stored as int8 and computed with in float32: the highest
            percentage with quantized weights.

    Returns:
        [{"weight": name, "percentage": int, "bytes": int, "reason": str}, ..]: the weights that
        need bytes of their own at a percentage.
    """
    whole_float = corners.weights(floats[-1].graph)
    source = codes or leaves[-1]
    whole = corners.weights(source.graph)
    kept_own = []
    uses: list[list[_Use]] = [[] for _ in whole_float]
    for leaf, float_leaf in zip(leaves, floats, strict=True):
        narrow_float = corners.weights(float_leaf.graph)
        narrow = corners.weights(leaf.graph)
        alike = _alike(narrow, narrow_float) and _alike(whole, whole_float)
        found = corners.find(whole_float, narrow_float) if alike else [None] * len(narrow)
        for weight, before, corner in zip(narrow, narrow_float, found, strict=False):
            if corner is None:
                kept_own.append(_own_bytes(leaf, weight, _NO_CORNER))
            elif whole[corner.whole].value.dtype == np.int8 or factor.is_worth_it(
                leaf.graph, weight, corner, whole[corner.whole]
            ):
                bias = corners.bias(float_leaf.graph, before.operator)
                uses[corner.whole].append(_Use(leaf, _unshared(leaf, weight), corner, bias))
            else:
                kept_own.append(_own_bytes(leaf, weight, _DEAR_FACTOR))
    for weight, weight_uses in zip(whole, uses, strict=False):
        if codes is not None and weight.value.dtype == np.int8:
            _share_codes(weight_uses, source.graph, weight)
        else:
            _share_values(weight_uses, source.graph, weight)
    return [own for own in kept_own if own["percentage"] != leaves[-1].percentage]


def _alike(own, floats):
    """Whether a quantized graph has the weights of the float graph, one by one."""
    return len(own) == len(floats) and all(
        a.kind == b.kind and a.value.shape == b.value.shape
        for a, b in zip(own, floats, strict=True)
    )


def _unshared(leaf, weight):
    """A weight whose tensor no other operator reads, as that of a layer that is called twice."""
    graph, operator = leaf.graph, weight.operator
    if sum(weight.tensor in other.inputs for other in graph.operators) == 1:
        return weight
    tensor = graph.tensors[weight.tensor]
    own = graph.add_like(tensor.name, tensor, weight.value)
    operator.inputs = [own if t == weight.tensor else t for t in operator.inputs]
    return dataclasses.replace(weight, tensor=own)


def _own_bytes(leaf, weight, reason):
    name = leaf.graph.tensors[weight.tensor].name
    return {
        "weight": name,
        "percentage": leaf.percentage,
        "bytes": weight.value.nbytes,
        "reason": reason,
    }


def _share_values(uses, source: Graph, whole: Weight):
    """Lets the weights of the percentages be corners of a float32 or int8 weight."""
    for use in uses:
        if use.weight.operator is whole.operator:
            continue
        graph = use.leaf.graph
        graph.set_value(use.weight.tensor, _cut(whole.value, use))
        if whole.value.dtype == np.float32:
            if use.corner.scale is not None:
                factor.put_after(graph, use.weight.operator, use.corner.scale)
        else:
            whole_tensor = source.tensors[whole.tensor]
            quantized.rescale(graph, use.weight, whole_tensor, use.corner.scale, use.bias)
    _nest(uses, whole.value)


def _share_codes(uses, source: Graph, whole: Weight):
    """Stores weights as int8 corners in front of a DEQUANTIZE."""
    stored = []
    for use in uses:
        tensor = quantized.dequantize(
            use.leaf.graph,
            use.weight,
            _cut(whole.value, use),
            source.tensors[whole.tensor].quantization,
            use.corner.scale,
        )
        weight = dataclasses.replace(use.weight, tensor=tensor)
        stored.append(dataclasses.replace(use, weight=weight))
    _nest(stored, whole.value)


def _cut(whole, use):
    shape = use.weight.value.shape
    big = corners.by_channel(whole, use.corner.positions)
    columns = shape[-1] // use.corner.positions
    return big[: shape[0], ..., :columns].reshape(shape)


# Storage.


def _nest(uses: list[_Use], whole: np.ndarray):
    """Has the corners of a weight stored as the beginnings of one run of bytes."""
    shapes = [use.weight.value.shape for use in uses]
    positions = {use.corner.positions for use in uses if use.corner.positions > 1}
    if len(uses) < 2 or len(positions) > 1:
        return
    for use in uses:
        _own_bias(use)
    count = positions.pop() if positions else 1
    columns = tuple(shape[-1] // count for shape in shapes)
    if len(set(columns)) == 1:
        return  # rows only: as they are, they are the beginnings of each other
    rows = tuple(shape[0] for shape in shapes)
    inner = math.prod(whole.shape[1:-1]) * count
    if len(set(rows)) == 1:  # columns only: a run for each corner, whatever the rows
        rows, inner = (1,) * len(rows), rows[0] * inner
    shells = Shells(rows, columns, inner, whole.itemsize)
    if not _saves(shells):
        return
    top = whole[: shapes[-1][0]].reshape(rows[-1], inner, whole.shape[-1] // count)
    stored = shells.store(top[..., : columns[-1]])
    for level, use in enumerate(uses):
        # XNNPACK takes no int8 FULLY_CONNECTED after a DENSIFY, and none has positions.
        direct = use.weight.tensor == use.weight.operator.inputs[1]
        if use.weight.kind == Kind.FULLY_CONNECTED and (
            count > 1 or (direct and whole.dtype == np.int8)
        ):
            _as_convolution(use.leaf.graph, use.weight, count)
        use.leaf.nested[use.weight.tensor] = Nested(stored, shells, level)


def _saves(shells: Shells) -> bool:
    """Whether nested storage takes fewer bytes than corners that are stored one by one."""
    levels = range(len(shells.rows))
    separate = sum(shells.size(level) for level in levels)
    # A run is an entry with its row and its end, and another one that leads back.
    runs = sum(1 for _ in shells.runs(levels[-1]))
    width = 1 if max(shells.rows[-1], shells.columns[-1]) < 1 << 8 else 2
    described = 4 * runs * width + len(levels) * _DESCRIPTION
    return shells.size(levels[-1]) + described < separate


def _own_bias(use: _Use):
    """Gives an operator a bias with an address of its own; see `Leaf.own`."""
    graph, operator = use.leaf.graph, use.weight.operator
    if len(operator.inputs) < 3 or operator.inputs[2] < 0:
        depthwise = use.weight.kind == Kind.DEPTHWISE_CONV_2D
        outputs = use.weight.value.shape[-1 if depthwise else 0]
        if graph.tensors[operator.inputs[1]].type == Type.INT8:
            made = quantized.zero_bias(graph, operator, outputs)
        else:
            made = graph.add_tensor("bias", (outputs,), Type.FLOAT32, np.zeros(outputs, "float32"))
        operator.inputs = [*operator.inputs[:2], made]
    use.leaf.own.add(operator.inputs[2])


def _as_convolution(graph: Graph, weight: Weight, positions: int):
    """Writes a FULLY_CONNECTED as a CONV_2D whose kernel covers all positions."""
    operator = weight.operator
    outputs, features = weight.value.shape
    channels = features // positions
    x, y = operator.inputs[0], operator.outputs[0]
    batch = math.prod(int(n) for n in graph.tensors[x].shape) // features
    place = graph.operators.index(operator)
    wide = graph.add_like("positions", graph.tensors[x])
    graph.tensors[wide].shape = np.array([batch, 1, positions, channels], np.int32)
    flat = graph.add_like("outputs", graph.tensors[y])
    graph.tensors[flat].shape = np.array([batch, 1, 1, outputs], np.int32)
    for tensor in {weight.tensor, operator.inputs[1]}:
        graph.tensors[tensor].shape = np.array([outputs, 1, positions, channels], np.int32)
    options = schema.Conv2DOptionsT()
    options.padding = schema.Padding.VALID
    options.strideW = options.strideH = options.dilationWFactor = options.dilationHFactor = 1
    options.fusedActivationFunction = operator.builtinOptions.fusedActivationFunction
    graph.operators.remove(operator)
    quantized_weight = graph.tensors[operator.inputs[1]].type == Type.INT8
    graph.add_reshape(x, wide, at=place)
    graph.add_operator(
        Kind.CONV_2D,
        [wide, *operator.inputs[1:]],
        [flat],
        options,
        at=place + 1,
        version=3 if quantized_weight else 1,
    )
    graph.add_reshape(flat, y, at=place + 2)
