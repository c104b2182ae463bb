"""Several percentages as the subgraphs of one model."""

import copy
import dataclasses

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_tesla.tflite.graphs import constants, flatbuffer
from keras_tesla.tflite.graphs.constants import Constants
from keras_tesla.tflite.graphs.flatbuffer import Graph, Kind, Type
from keras_tesla.tflite.graphs.leaf import Leaf
from keras_tesla.tflite.graphs.nested import Descriptions

PERCENTAGE = "percentage"
DEFAULT = "serving_default"
_NOT_PLACED = 1  # as an offset: the schema means by 0 and 1 that a buffer lies in the flatbuffer


@dataclasses.dataclass(frozen=True)
class External:
    """Where a buffer's bytes come from.

    Args:
        number: Of the constant in `Constants`.
        size: Bytes.
    """

    number: int
    size: int


@dataclasses.dataclass(frozen=True)
class Merged:
    """A model whose larger constants are not in it yet.

    Args:
        model: The model.
        pool: The larger constants.
        external: {index of a buffer: `External`}.
        graphs: {percentage: its graph}. A tensor has the index that it has in the leaf; the tensor
            that stores a nested weight comes after these, in the order of `Leaf.nested`.
    """

    model: schema.ModelT
    pool: Constants
    external: dict[int, External]
    graphs: dict[int, Graph]

    def source(self, percentage: int, tensor: int) -> External | None:
        """Returns where the value of a tensor comes from, None if it is inside the flatbuffer."""
        return self.external.get(self.graphs[percentage].tensors[tensor].buffer)

    def place(self, external: External) -> int:
        """Returns where a constant lies in the file, once `pool.place` was called."""
        return self.pool.offset(external.number)

    def offsets(self) -> dict[int, int]:
        """Returns {index of a buffer: offset of its bytes}, once `pool.place` was called."""
        return {index: self.place(external) for index, external in self.external.items()}


def key(percentage: int) -> str:
    """Returns the name of a percentage's signature."""
    return f"p{percentage}"


def merge(leaves: list[Leaf], percentage_input: bool) -> Merged:
    """Puts several percentages into one model.

    Args:
        leaves: From the lowest to the highest percentage, with equal inputs and outputs.
        percentage_input: Bool, whether the model has a signature that takes the percentage too.

    Returns:
        A model with a signature for each percentage. With `percentage_input` its first signature,
        `serving_default`, takes `percentage` (int32, shape `(1,)`) beside the inputs.
    """
    writer = _Writer()
    if not percentage_input:
        for leaf in reversed(leaves):  # what is run without a signature is the highest
            graph = writer.add_leaf(leaf)
            writer.add_signature(key(leaf.percentage), graph, leaf.inputs, leaf.outputs)
        return writer.done()
    chain = writer.add_graph("choose")
    handed_on = writer.add_graph("pass")
    graphs = [writer.add_leaf(leaf) for leaf in leaves]
    selector = _Selector(writer, leaves, graphs, handed_on)
    selector.choose(chain)
    for leaf, graph in reversed(list(zip(leaves, graphs, strict=True))):
        selector.call(leaf, graph)
    return writer.done()


def alone(leaf: Leaf) -> Merged:
    """Returns the model of one percentage, its weights written out and not nested."""
    writer = _Writer()
    graph = writer.add_leaf(leaf, nested=False)
    for tensor in graph.tensors:
        tensor.name = None  # the signature names what matters; names would be half of the bytes
    writer.add_signature(DEFAULT, graph, leaf.inputs, leaf.outputs)
    return writer.done()


class _Writer:
    """A model under construction."""

    def __init__(self):
        self._pool = Constants()
        self.model = flatbuffer.new_model("keras_tesla")
        self._external: dict[int, External] = {}
        self._graphs: dict[int, Graph] = {}
        self._small: dict[bytes, int] = {}
        self._buffers: dict[External, int] = {}
        self._descriptions = Descriptions()

    def done(self) -> Merged:
        return Merged(self.model, self._pool, self._external, self._graphs)

    def add_graph(self, name) -> Graph:
        return flatbuffer.add_graph(self.model, name)

    def index(self, graph: Graph) -> int:
        return self.model.subgraphs.index(graph.subgraph)

    def add_signature(self, name, graph, inputs, outputs):
        made = flatbuffer.signature(name, self.index(graph), inputs, outputs)
        self.model.signatureDefs.append(made)

    def buffer(self, data: bytes, own: bool = False) -> int:
        """Returns the index of a buffer with these bytes."""
        if not data:
            return 0
        if len(data) < constants.LEAST:
            if data not in self._small:
                made = schema.BufferT()
                made.data = np.frombuffer(data, np.uint8)
                self.model.buffers.append(made)
                self._small[data] = len(self.model.buffers) - 1
            return self._small[data]
        external = External(self._pool.add(data, own), len(data))
        if external not in self._buffers:
            made = schema.BufferT()
            made.offset, made.size = _NOT_PLACED, len(data)
            self.model.buffers.append(made)
            self._buffers[external] = len(self.model.buffers) - 1
            self._external[self._buffers[external]] = external
        return self._buffers[external]

    def constant(self, graph: Graph, name, value: np.ndarray, type_) -> int:
        """Adds a constant tensor."""
        made = graph.add_tensor(name, value.shape, type_)
        graph.tensors[made].buffer = self.buffer(value.tobytes())
        return made

    def add_leaf(self, leaf: Leaf, nested: bool = True) -> Graph:
        """Adds a percentage's graph as it is, but for the storage of its weights."""
        source = leaf.graph
        graph = self.add_graph(key(leaf.percentage))
        self._graphs[leaf.percentage] = graph
        used = {*leaf.inputs.values(), *leaf.outputs.values()}
        used.update(t for o in source.operators for t in (*o.inputs, *o.outputs))
        for index, tensor in enumerate(source.tensors):
            tensor = copy.copy(tensor)
            if index not in used:  # replaced by another one: only its place is kept
                tensor.buffer, tensor.name, tensor.quantization = 0, None, None
            elif index not in leaf.nested or not nested:
                data = flatbuffer.data_of(source.model.buffers[tensor.buffer])
                tensor.buffer = self.buffer(data, own=index in leaf.own)
            else:
                tensor.buffer = 0
            graph.tensors.append(tensor)
        graph.subgraph.inputs = list(source.subgraph.inputs)
        graph.subgraph.outputs = list(source.subgraph.outputs)
        for index, weight in leaf.nested.items() if nested else ():
            tensor = source.tensors[index]
            stored = graph.add_like(tensor.name, tensor)
            graph.tensors[stored].buffer = self.buffer(weight.data)
            graph.tensors[stored].sparsity = self._descriptions.describe(
                weight.shells, weight.level, tensor.shape
            )
            graph.add_operator(Kind.DENSIFY, [stored], [index], schema.DensifyOptionsT())
        for operator in source.operators:
            operator = copy.copy(operator)
            code = source.model.operatorCodes[operator.opcodeIndex]
            operator.opcodeIndex = flatbuffer.add_code(self.model, code)
            graph.operators.append(operator)
        return graph


class _Selector:
    """The part of a model that runs the graph of one of its percentages.

    `pass` returns what it is given. A flat chain of `y = IF(is_p, graph of p, pass)(x, y)`, one
    link for each percentage, costs next to nothing for those not taken; a tree of nested IFs would
    prepare all branches below a branch again.
    """

    def __init__(self, writer: _Writer, leaves, graphs, handed_on: Graph):
        self._writer, self._leaves, self._graphs = writer, leaves, graphs
        self._pass = handed_on
        first = leaves[0]
        self._inputs = {n: first.graph.tensors[i] for n, i in first.inputs.items()}
        self._outputs = {n: first.graph.tensors[i] for n, i in first.outputs.items()}
        xs, ys = self._add_inputs(handed_on), self._add_previous(handed_on)
        handed_on.subgraph.inputs = xs + ys
        handed_on.subgraph.outputs = ys
        for leaf, graph in zip(leaves, graphs, strict=True):
            # Both branches of an IF take the same tensors, in one order.
            graph.subgraph.inputs = [leaf.inputs[n] for n in self._inputs]
            graph.subgraph.inputs += self._add_previous(graph)
            graph.subgraph.outputs = [leaf.outputs[n] for n in self._outputs]

    def _add_inputs(self, graph):
        return [graph.add_like(name, tensor) for name, tensor in self._inputs.items()]

    def _add_previous(self, graph):
        return [graph.add_like(f"{n}_previous", tensor) for n, tensor in self._outputs.items()]

    def _add_zeros(self, graph):
        zeros = []
        for name, tensor in self._outputs.items():
            value = np.zeros([int(n) for n in tensor.shape], flatbuffer.dtype(tensor))
            index = graph.add_like(f"{name}_zeros", tensor)
            graph.tensors[index].buffer = self._writer.buffer(value.tobytes())
            zeros.append(index)
        return zeros

    def _add_if(self, graph, condition, xs, ys, taken: Graph):
        options = schema.IfOptionsT()
        options.thenSubgraphIndex = self._writer.index(taken)
        options.elseSubgraphIndex = self._writer.index(self._pass)
        results = [graph.add_like(name, tensor) for name, tensor in self._outputs.items()]
        graph.add_operator(Kind.IF, [condition, *xs, *ys], results, options)
        return results

    def _finish(self, graph, name, inputs, ys):
        graph.subgraph.inputs = list(inputs.values())
        graph.subgraph.outputs = ys
        outputs = dict(zip(self._outputs, ys, strict=True))
        self._writer.add_signature(name, graph, inputs, outputs)

    def choose(self, graph: Graph):
        """Writes the graph that takes the percentage as an input."""
        writer, levels = self._writer, [leaf.percentage for leaf in self._leaves]
        xs = self._add_inputs(graph)
        wanted = graph.add_tensor(PERCENTAGE, (1,), Type.INT32)
        limits = np.iinfo(np.int32)
        # Level k serves what is above the level below it, up to itself.
        bounds = (
            np.array([*levels[:-1], limits.max], np.int32),
            np.array([limits.min, *(p + 1 for p in levels[:-1])], np.int32),
        )
        count = len(levels)
        at_most, at_least, hit = (
            graph.add_tensor(name, (count,), Type.BOOL) for name in ("at_most", "at_least", "hit")
        )
        upper, lower = (writer.constant(graph, "bounds", b, Type.INT32) for b in bounds)
        graph.add_operator(Kind.LESS_EQUAL, [wanted, upper], [at_most], schema.LessEqualOptionsT())
        graph.add_operator(
            Kind.GREATER_EQUAL, [wanted, lower], [at_least], schema.GreaterEqualOptionsT()
        )
        graph.add_operator(
            Kind.LOGICAL_AND, [at_most, at_least], [hit], schema.LogicalAndOptionsT()
        )
        conditions = [graph.add_tensor(f"is_{p}", (), Type.BOOL) for p in levels]
        options = schema.UnpackOptionsT()
        options.num, options.axis = count, 0
        graph.add_operator(Kind.UNPACK, [hit], conditions, options)
        ys = self._add_zeros(graph)
        for condition, taken in zip(conditions, self._graphs, strict=True):
            ys = self._add_if(graph, condition, xs, ys, taken)
        inputs = {**dict(zip(self._inputs, xs, strict=True)), PERCENTAGE: wanted}
        self._finish(graph, DEFAULT, inputs, ys)

    def call(self, leaf: Leaf, taken: Graph):
        """Writes a graph that runs one percentage without copying its operators."""
        graph = self._writer.add_graph(f"call_{key(leaf.percentage)}")
        xs = self._add_inputs(graph)
        always = self._writer.constant(graph, "always", np.array(True), Type.BOOL)
        ys = self._add_if(graph, always, xs, self._add_zeros(graph), taken)
        self._finish(graph, key(leaf.percentage), dict(zip(self._inputs, xs, strict=True)), ys)
