"""Making the graphs of several percentages use one set of weights."""

import dataclasses
import itertools
import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_tesla.channels import Selection
from keras_tesla.tflite.graphs import factor, int8_weights, leading_blocks
from keras_tesla.tflite.graphs.flatbuffer import Op, Subgraph, Type
from keras_tesla.tflite.graphs.leading_blocks import LeadingBlock, Weight
from keras_tesla.tflite.graphs.nested import NestedLayout
from keras_tesla.tflite.graphs.percentage_graph import NestedWeight, PercentageGraph

_NO_BLOCK = "it is not the leading block of the weight at the highest percentage"
_SLOW_FACTOR = "a factor per channel would be slow"
_DESCRIPTION = 400  # bytes of a nested weight's tensor, its description and its DENSIFY, about


@dataclasses.dataclass(frozen=True)
class _Use:
    """A weight of one percentage, and which leading block of the whole weight it is."""

    graph: PercentageGraph
    weight: Weight
    block: LeadingBlock
    bias: np.ndarray | None  # before quantization

    @property
    def outputs(self) -> Selection:
        """The output channels of the whole weight that it has."""
        if self.weight.op == Op.DEPTHWISE_CONV_2D:
            return self.block.columns
        return Selection.first(self.weight.value.shape[0])


def share_weights(
    graphs: list[PercentageGraph],
    floats: list[PercentageGraph],
    quantized: PercentageGraph | None = None,
) -> list[dict]:
    """Rewrites graphs so that their weights are leading blocks of those at the highest percentage.

    A weight that is a leading block gets the values of the whole one; where it also has a factor
    for each output channel, the factor goes into the scales of its quantization or after its
    operator. `PercentageGraph.nested` and `.unshared` are set.

    Args:
        graphs: From the lowest to the highest percentage.
        floats: The same in float32, in the same order; for float32 files `graphs` itself.
        quantized: Given for weights that are stored in int8 and computed with in float32: the
            highest percentage with quantized weights.

    Returns:
        [{"weight": name, "percentage": int, "bytes": int, "reason": str}, ..]: the weights that
        could not be shared.
    """
    whole_float = leading_blocks.weights(floats[-1].subgraph)
    source = quantized or graphs[-1]
    whole = leading_blocks.weights(source.subgraph)
    unshared = []
    uses: list[list[_Use]] = [[] for _ in whole_float]
    for graph, float_graph in zip(graphs, floats, strict=True):
        narrow_float = leading_blocks.weights(float_graph.subgraph)
        narrow = leading_blocks.weights(graph.subgraph)
        match = _match(narrow, narrow_float) and _match(whole, whole_float)
        found: list[LeadingBlock | None] = [None] * len(narrow)
        if match:
            chosen = leading_blocks.choices(floats[-1].selections, float_graph.selections)
            found = leading_blocks.find(whole_float, narrow_float, chosen)
        for weight, before, block in zip(narrow, narrow_float, found, strict=False):
            if block is None:
                unshared.append(_described(graph, weight, _NO_BLOCK))
            elif whole[block.whole_index].value.dtype == np.int8 or factor.is_worth_it(
                graph.subgraph, weight, block, whole[block.whole_index]
            ):
                bias = before.bias_value(float_graph.subgraph)
                use = _Use(graph, _with_one_reader(graph.subgraph, weight), block, bias)
                uses[block.whole_index].append(use)
            else:
                unshared.append(_described(graph, weight, _SLOW_FACTOR))
    for weight, weight_uses in zip(whole, uses, strict=False):
        if quantized is not None and weight.value.dtype == np.int8:
            _share_dequantized(weight_uses, source.subgraph, weight)
        else:
            _share_directly(weight_uses, source.subgraph, weight)
    return [weight for weight in unshared if weight["percentage"] != graphs[-1].percentage]


def _match(weights, floats):
    """Whether a quantized graph has the weights of the float graph, one by one."""
    return len(weights) == len(floats) and all(
        a.op == b.op and a.value.shape == b.value.shape
        for a, b in zip(weights, floats, strict=True)
    )


def _with_one_reader(subgraph, weight):
    """Returns a weight whose tensor only its operator reads; a layer may be called twice."""
    operator = weight.operator
    if sum(weight.tensor in other.inputs for other in subgraph.operators) == 1:
        return weight
    tensor = subgraph.tensors[weight.tensor]
    copied = subgraph.add_like(tensor.name, tensor, weight.value)
    operator.inputs = [copied if t == weight.tensor else t for t in operator.inputs]
    return dataclasses.replace(weight, tensor=copied)


def _described(graph, weight, reason):
    name = graph.subgraph.tensors[weight.tensor].name
    return {
        "weight": name,
        "percentage": graph.percentage,
        "bytes": weight.value.nbytes,
        "reason": reason,
    }


def _share_directly(uses, source: Subgraph, whole: Weight):
    """Makes the weights of the percentages leading blocks of a float32 or int8 weight."""
    for use in uses:
        if use.weight.operator is whole.operator:
            continue
        subgraph = use.graph.subgraph
        subgraph.set_value(use.weight.tensor, _cut(whole.value, use))
        if whole.value.dtype == np.float32:
            if use.block.scale is not None:
                factor.put_after(subgraph, use.weight, use.block.scale)
        else:
            whole_tensor = source.tensors[whole.tensor]
            int8_weights.rescale(
                subgraph, use.weight, whole_tensor, use.outputs, use.block.scale, use.bias
            )
    _nest(uses, whole.value)


def _share_dequantized(uses, source: Subgraph, whole: Weight):
    """Stores weights as leading blocks of an int8 weight, each before a DEQUANTIZE."""
    stored = []
    for use in uses:
        tensor = int8_weights.dequantize(
            use.graph.subgraph,
            use.weight,
            _cut(whole.value, use),
            source.tensors[whole.tensor].quantization,
            use.outputs,
            use.block.scale,
        )
        weight = dataclasses.replace(use.weight, tensor=tensor)
        stored.append(dataclasses.replace(use, weight=weight))
    _nest(stored, whole.value)


def _cut(whole, use):
    shape = use.weight.value.shape
    big = leading_blocks.by_channel(whole, use.block.positions)
    return leading_blocks.cut(big[: shape[0]], use.block.columns).reshape(shape)


# Storage.


def _nest(uses: list[_Use], whole: np.ndarray):
    """Stores the leading blocks of a weight as the beginnings of one run of bytes."""
    shapes = [use.weight.value.shape for use in uses]
    positions = {use.block.positions for use in uses if use.block.positions > 1}
    if len(uses) < 2 or len(positions) > 1:
        return
    for use in uses:
        _unshare_bias(use)
    count = positions.pop() if positions else 1
    columns = tuple(shape[-1] // count for shape in shapes)
    if len(set(columns)) == 1:
        return  # only the rows differ: they are beginnings of each other without nesting
    rows = tuple(shape[0] for shape in shapes)
    inner = math.prod(whole.shape[1:-1]) * count
    if len(set(rows)) == 1:  # only the columns differ: one run for each block
        rows, inner = (1,) * len(rows), rows[0] * inner
    chosen = [use.block.columns for use in uses]
    if any(a | b != b for a, b in itertools.pairwise(chosen)):
        return
    runs = None
    if any(columns != Selection.first(len(columns)) for columns in chosen):
        runs = tuple(columns.places(chosen[-1]).runs for columns in chosen)
    layout = NestedLayout(rows, columns, inner, whole.itemsize, runs)
    if not _saves(layout):
        return
    top = whole[: shapes[-1][0]].reshape(rows[-1], inner, whole.shape[-1] // count)
    stored = layout.store(leading_blocks.cut(top, chosen[-1]))
    for level, use in enumerate(uses):
        # XNNPACK takes no int8 FULLY_CONNECTED after a DENSIFY, and none of them has positions.
        direct = use.weight.tensor == use.weight.operator.inputs[1]
        if use.weight.op == Op.FULLY_CONNECTED and (
            count > 1 or (direct and whole.dtype == np.int8)
        ):
            _as_convolution(use.graph.subgraph, use.weight, count)
        use.graph.nested[use.weight.tensor] = NestedWeight(stored, layout, level)


def _saves(layout: NestedLayout) -> bool:
    """Whether nested storage takes fewer bytes than separate leading blocks."""
    levels = range(len(layout.rows))
    separate = sum(layout.size(level) for level in levels)
    # A run is an entry with its row and its end, and an empty entry after it.
    runs = sum(1 for _ in layout.runs(levels[-1]))
    width = 1 if max(layout.rows[-1], layout.columns[-1]) < 1 << 8 else 2
    described = 4 * runs * width + len(levels) * _DESCRIPTION
    if layout.column_runs is not None:  # each block has a list of its own
        described += len(levels) * layout.columns[-1] * width
    return layout.size(levels[-1]) + described < separate


def _unshare_bias(use: _Use):
    """Gives an operator a bias with an unshared address; see `PercentageGraph.unshared`."""
    subgraph, weight = use.graph.subgraph, use.weight
    made = weight.bias
    if made is None:
        depthwise = weight.op == Op.DEPTHWISE_CONV_2D
        outputs = weight.value.shape[-1 if depthwise else 0]
        if subgraph.tensors[weight.operator.inputs[1]].type == Type.INT8:
            made = int8_weights.zero_bias(subgraph, weight, outputs)
        else:
            made = subgraph.add_tensor(
                "bias", (outputs,), Type.FLOAT32, np.zeros(outputs, "float32")
            )
        weight.set_bias(made)
        if weight.op == Op.TRANSPOSE_CONV:
            subgraph.raise_version(weight.operator, 3)  # the first one with a bias
    use.graph.unshared.add(made)


def _as_convolution(subgraph: Subgraph, weight: Weight, positions: int):
    """Writes a FULLY_CONNECTED as a CONV_2D whose kernel covers all positions."""
    operator = weight.operator
    outputs, features = weight.value.shape
    channels = features // positions
    x, y = operator.inputs[0], operator.outputs[0]
    batch = math.prod(int(n) for n in subgraph.tensors[x].shape) // features
    place = subgraph.operators.index(operator)
    wide = subgraph.add_like("positions", subgraph.tensors[x])
    subgraph.tensors[wide].shape = np.array([batch, 1, positions, channels], np.int32)
    flat = subgraph.add_like("outputs", subgraph.tensors[y])
    subgraph.tensors[flat].shape = np.array([batch, 1, 1, outputs], np.int32)
    for tensor in {weight.tensor, operator.inputs[1]}:
        subgraph.tensors[tensor].shape = np.array([outputs, 1, positions, channels], np.int32)
    options = schema.Conv2DOptionsT()
    options.padding = schema.Padding.VALID
    options.strideW = options.strideH = options.dilationWFactor = options.dilationHFactor = 1
    options.fusedActivationFunction = operator.builtinOptions.fusedActivationFunction
    subgraph.operators.remove(operator)
    quantized_weight = subgraph.tensors[operator.inputs[1]].type == Type.INT8
    subgraph.add_reshape(x, wide, at=place)
    subgraph.add_operator(
        Op.CONV_2D,
        [wide, *operator.inputs[1:]],
        [flat],
        options,
        at=place + 1,
        version=3 if quantized_weight else 1,
    )
    subgraph.add_reshape(flat, y, at=place + 2)
