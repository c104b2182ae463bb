"""Several percentages as the subgraphs of one model."""

import copy
import dataclasses

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_tesla.tflite.graphs import constants, flatbuffer
from keras_tesla.tflite.graphs.constants import Constants
from keras_tesla.tflite.graphs.flatbuffer import Op, Subgraph, Type
from keras_tesla.tflite.graphs.nested import Descriptions
from keras_tesla.tflite.graphs.percentage_graph import PercentageGraph

PERCENTAGE = "percentage"
DEFAULT = "serving_default"
_NOT_PLACED = 1  # as an offset; in the schema 0 and 1 mean that a buffer is in the flatbuffer


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
        subgraphs: {percentage: its subgraph}. Tensors keep the index that they have in the
            percentage's graph; those that store nested weights follow, in the order of
            `PercentageGraph.nested`.
        callees: {percentage: the subgraphs that it runs, in the order of its graph}.
    """

    model: schema.ModelT
    pool: Constants
    external: dict[int, External]
    subgraphs: dict[int, Subgraph]
    callees: dict[int, list[Subgraph]]

    def source(self, percentage: int, tensor: int | tuple[int, int]) -> External | None:
        """Returns where the value of a tensor comes from, None if it is inside the flatbuffer.

        Args:
            percentage: Int.
            tensor: Its index in the percentage's subgraph; for one of a subgraph that this runs
                (number of the callee, index).
        """
        subgraph = self.subgraphs[percentage]
        if isinstance(tensor, tuple):
            subgraph, tensor = self.callees[percentage][tensor[0]], tensor[1]
        return self.external.get(subgraph.tensors[tensor].buffer)

    def offset(self, external: External) -> int:
        """Returns the offset of a constant in the file, once `pool.place` was called."""
        return self.pool.offset(external.number)

    def offsets(self) -> dict[int, int]:
        """Returns {index of a buffer: offset of its bytes}, once `pool.place` was called."""
        return {index: self.offset(external) for index, external in self.external.items()}


def key(percentage: int) -> str:
    """Returns the name of a percentage's signature."""
    return f"p{percentage}"


def merge(graphs: list[PercentageGraph], percentage_input: bool) -> Merged:
    """Puts several percentages into one model.

    Args:
        graphs: From the lowest to the highest percentage, with equal inputs and outputs.
        percentage_input: Bool, whether the model has a signature that takes the percentage too.

    Returns:
        A model with a signature for each percentage. With `percentage_input` its first signature,
        `serving_default`, takes `percentage` (int32, shape `(1,)`) and the inputs.
    """
    writer = _Writer()
    if not percentage_input:
        for graph in reversed(graphs):  # what is run without a signature is the highest
            subgraph = writer.add_percentage(graph)
            writer.add_signature(key(graph.percentage), subgraph, graph.inputs, graph.outputs)
        return writer.done()
    chain = writer.add_subgraph("choose")
    pass_through = writer.add_subgraph("pass")
    subgraphs = [writer.add_percentage(graph) for graph in graphs]
    selector = _Selector(writer, graphs, subgraphs, pass_through)
    selector.choose(chain)
    for graph, subgraph in reversed(list(zip(graphs, subgraphs, strict=True))):
        selector.call(graph, subgraph)
    return writer.done()


def standalone(graph: PercentageGraph) -> Merged:
    """Returns the model of one percentage only, its weights written out and not nested."""
    writer = _Writer()
    subgraph = writer.add_percentage(graph, nested=False)
    for tensor in (t for each in (subgraph, *writer.callees(graph)) for t in each.tensors):
        tensor.name = None  # the signature names what matters; names would be half of the bytes
    writer.add_signature(DEFAULT, subgraph, graph.inputs, graph.outputs)
    return writer.done()


class _Writer:
    """A model under construction."""

    def __init__(self):
        self._pool = Constants()
        self.model = flatbuffer.new_model("keras_tesla")
        self._external: dict[int, External] = {}
        self._subgraphs: dict[int, Subgraph] = {}
        self._callees: dict[int, list[Subgraph]] = {}
        self._small: dict[bytes, int] = {}
        self._buffers: dict[External, int] = {}
        self._descriptions = Descriptions()

    def done(self) -> Merged:
        return Merged(self.model, self._pool, self._external, self._subgraphs, self._callees)

    def callees(self, graph: PercentageGraph) -> list[Subgraph]:
        """Returns the subgraphs that an added percentage runs."""
        return self._callees[graph.percentage]

    def add_subgraph(self, name) -> Subgraph:
        return flatbuffer.add_subgraph(self.model, name)

    def index(self, subgraph: Subgraph) -> int:
        return self.model.subgraphs.index(subgraph.table)

    def add_signature(self, name, subgraph, inputs, outputs):
        made = flatbuffer.signature(name, self.index(subgraph), inputs, outputs)
        self.model.signatureDefs.append(made)

    def buffer(self, data: bytes, unshared: bool = False) -> int:
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
        external = External(self._pool.add(data, unshared), len(data))
        if external not in self._buffers:
            made = schema.BufferT()
            made.offset, made.size = _NOT_PLACED, len(data)
            self.model.buffers.append(made)
            self._buffers[external] = len(self.model.buffers) - 1
            self._external[self._buffers[external]] = external
        return self._buffers[external]

    def constant(self, subgraph: Subgraph, name, value: np.ndarray, type_) -> int:
        """Adds a constant tensor."""
        made = subgraph.add_tensor(name, value.shape, type_)
        subgraph.tensors[made].buffer = self.buffer(value.tobytes())
        return made

    def add_percentage(self, graph: PercentageGraph, nested: bool = True) -> Subgraph:
        """Adds the graph of a percentage, its weights as they are to be stored."""
        source = graph.subgraph
        subgraph = self.add_subgraph(key(graph.percentage))
        self._subgraphs[graph.percentage] = subgraph
        callees = [self.add_subgraph(flatbuffer.text(c.table.name)) for c in graph.callees]
        self._callees[graph.percentage] = callees
        places = [self.index(each) for each in (subgraph, *callees)]
        for callee, added in zip(graph.callees, callees, strict=True):
            for tensor in callee.tensors:
                tensor = copy.copy(tensor)
                tensor.buffer = self.buffer(flatbuffer.data_of(callee.model.buffers[tensor.buffer]))
                added.tensors.append(tensor)
            added.table.inputs = list(callee.table.inputs)
            added.table.outputs = list(callee.table.outputs)
            self._add_operators(callee, added, places)
        used = {*graph.inputs.values(), *graph.outputs.values()}
        used.update(t for o in source.operators for t in (*o.inputs, *o.outputs))
        for index, tensor in enumerate(source.tensors):
            tensor = copy.copy(tensor)
            if index not in used:  # replaced by another one: only its index is kept
                tensor.buffer, tensor.name, tensor.quantization = 0, None, None
            elif index not in graph.nested or not nested:
                data = flatbuffer.data_of(source.model.buffers[tensor.buffer])
                tensor.buffer = self.buffer(data, unshared=index in graph.unshared)
            else:
                tensor.buffer = 0
            subgraph.tensors.append(tensor)
        subgraph.table.inputs = list(source.table.inputs)
        subgraph.table.outputs = list(source.table.outputs)
        for index, weight in graph.nested.items() if nested else ():
            tensor = source.tensors[index]
            stored = subgraph.add_like(tensor.name, tensor)
            subgraph.tensors[stored].buffer = self.buffer(weight.data)
            subgraph.tensors[stored].sparsity = self._descriptions.describe(
                weight.layout, weight.level, tensor.shape
            )
            subgraph.add_operator(Op.DENSIFY, [stored], [index], schema.DensifyOptionsT())
        self._add_operators(source, subgraph, places)
        return subgraph

    def _add_operators(self, source: Subgraph, subgraph: Subgraph, places: list[int]):
        """Copies operators; `places` says where in the model the subgraphs of the graph are."""
        for operator in source.operators:
            operator = copy.copy(operator)
            code = source.model.operatorCodes[operator.opcodeIndex]
            operator.opcodeIndex = flatbuffer.add_code(self.model, code)
            for (name, field), index in flatbuffer.called(operator).items():
                options = copy.copy(getattr(operator, name))
                setattr(options, field, places[index])
                setattr(operator, name, options)
            subgraph.operators.append(operator)


class _Selector:
    """The part of a model that runs the graph of one of its percentages.

    The subgraph `pass` returns its inputs. A flat chain of `y = IF(is_p, graph of p, pass)(x, y)`,
    one link for each percentage, costs next to nothing for those not taken; in a tree of nested IFs
    the runtime would prepare all branches below a branch again.
    """

    def __init__(self, writer: _Writer, graphs, subgraphs, pass_through: Subgraph):
        self._writer, self._graphs, self._subgraphs = writer, graphs, subgraphs
        self._pass = pass_through
        first = graphs[0]
        self._inputs = {n: first.subgraph.tensors[i] for n, i in first.inputs.items()}
        self._outputs = {n: first.subgraph.tensors[i] for n, i in first.outputs.items()}
        xs, ys = self._add_inputs(pass_through), self._add_previous(pass_through)
        pass_through.table.inputs = xs + ys
        pass_through.table.outputs = ys
        for graph, subgraph in zip(graphs, subgraphs, strict=True):
            # Both branches of an IF take the same tensors, in one order.
            subgraph.table.inputs = [graph.inputs[n] for n in self._inputs]
            subgraph.table.inputs += self._add_previous(subgraph)
            subgraph.table.outputs = [graph.outputs[n] for n in self._outputs]

    def _add_inputs(self, subgraph):
        return [subgraph.add_like(name, tensor) for name, tensor in self._inputs.items()]

    def _add_previous(self, subgraph):
        return [subgraph.add_like(f"{n}_previous", tensor) for n, tensor in self._outputs.items()]

    def _add_zeros(self, subgraph):
        zeros = []
        for name, tensor in self._outputs.items():
            value = np.zeros([int(n) for n in tensor.shape], flatbuffer.dtype(tensor))
            index = subgraph.add_like(f"{name}_zeros", tensor)
            subgraph.tensors[index].buffer = self._writer.buffer(value.tobytes())
            zeros.append(index)
        return zeros

    def _add_if(self, subgraph, condition, xs, ys, taken: Subgraph):
        options = schema.IfOptionsT()
        options.thenSubgraphIndex = self._writer.index(taken)
        options.elseSubgraphIndex = self._writer.index(self._pass)
        results = [subgraph.add_like(name, tensor) for name, tensor in self._outputs.items()]
        subgraph.add_operator(Op.IF, [condition, *xs, *ys], results, options)
        return results

    def _finish(self, subgraph, name, inputs, ys):
        subgraph.table.inputs = list(inputs.values())
        subgraph.table.outputs = ys
        outputs = dict(zip(self._outputs, ys, strict=True))
        self._writer.add_signature(name, subgraph, inputs, outputs)

    def choose(self, subgraph: Subgraph):
        """Writes the subgraph that takes the percentage as an input."""
        writer, percentages = self._writer, [graph.percentage for graph in self._graphs]
        xs = self._add_inputs(subgraph)
        wanted = subgraph.add_tensor(PERCENTAGE, (1,), Type.INT32)
        limits = np.iinfo(np.int32)
        # A percentage serves what is above the next lower one, up to itself.
        bounds = (
            np.array([*percentages[:-1], limits.max], np.int32),
            np.array([limits.min, *(p + 1 for p in percentages[:-1])], np.int32),
        )
        count = len(percentages)
        at_most, at_least, hit = (
            subgraph.add_tensor(name, (count,), Type.BOOL)
            for name in ("at_most", "at_least", "hit")
        )
        upper, lower = (writer.constant(subgraph, "bounds", b, Type.INT32) for b in bounds)
        subgraph.add_operator(Op.LESS_EQUAL, [wanted, upper], [at_most], schema.LessEqualOptionsT())
        subgraph.add_operator(
            Op.GREATER_EQUAL, [wanted, lower], [at_least], schema.GreaterEqualOptionsT()
        )
        subgraph.add_operator(
            Op.LOGICAL_AND, [at_most, at_least], [hit], schema.LogicalAndOptionsT()
        )
        conditions = [subgraph.add_tensor(f"is_{p}", (), Type.BOOL) for p in percentages]
        options = schema.UnpackOptionsT()
        options.num, options.axis = count, 0
        subgraph.add_operator(Op.UNPACK, [hit], conditions, options)
        ys = self._add_zeros(subgraph)
        for condition, taken in zip(conditions, self._subgraphs, strict=True):
            ys = self._add_if(subgraph, condition, xs, ys, taken)
        inputs = {**dict(zip(self._inputs, xs, strict=True)), PERCENTAGE: wanted}
        self._finish(subgraph, DEFAULT, inputs, ys)

    def call(self, graph: PercentageGraph, taken: Subgraph):
        """Writes a subgraph that runs one percentage without copying its operators."""
        subgraph = self._writer.add_subgraph(f"call_{key(graph.percentage)}")
        xs = self._add_inputs(subgraph)
        always = self._writer.constant(subgraph, "always", np.array(True), Type.BOOL)
        ys = self._add_if(subgraph, always, xs, self._add_zeros(subgraph), taken)
        self._finish(subgraph, key(graph.percentage), dict(zip(self._inputs, xs, strict=True)), ys)
