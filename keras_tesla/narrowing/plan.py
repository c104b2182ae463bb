"""The backward pass: which channels of every tensor a percentage needs."""

import dataclasses
import weakref
from collections.abc import Collection

import keras

from keras_tesla.channels import Channels, Selection
from keras_tesla.graph import Call, Graph, Tensor, tensors
from keras_tesla.kinds.kind import Narrowed, Widths
from keras_tesla.kinds.registry import inherited_kind_of, kind_of


@dataclasses.dataclass(frozen=True)
class Step:
    """One call as it runs at a percentage.

    Args:
        call: The call of the full graph.
        widths: What it computes and reads, in channels.
        narrowed: The layer that computes it, or None if the original serves as it is.
        depends: Bool, whether its result depends on the percentage.
    """

    call: Call
    widths: Widths
    narrowed: Narrowed | None
    depends: bool

    @property
    def extracted_as(self) -> tuple:
        """Equal for the calls that share a layer in an extracted model: one layer, one width."""
        return id(self.call.operation), str(self.widths.inputs), str(self.widths.outputs)

    def input_shapes(self) -> tuple[tuple, dict]:
        """Returns the call's arguments with the shape of what is read in place of each tensor."""
        reads = iter(zip(self.widths.inputs, self.widths.layouts, strict=True))

        def shape(x):
            if not isinstance(x, Tensor):
                return x
            sizes = list(x.shape)
            width, layout = next(reads)
            if layout is not None and width is not None:
                sizes[layout.axis] = layout.repeats * len(width)
            return tuple(sizes)

        return keras.tree.map_structure(shape, (self.call.args, self.call.kwargs))

    def is_done(self, values: dict) -> bool:
        """Whether `values`, by index of a tensor, hold what the call returns."""
        return all(t.index in values for t in self.call.output_tensors)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What runs at a percentage.

    Args:
        percentage: Int, 1..100.
        graph: The full graph.
        steps: The calls that are needed, in running order.
        widths: {index of a tensor: its computed channels; None for all of it}.
        layouts: {index of a tensor: where its channels lie; None where that is unknown}.
    """

    percentage: int
    graph: Graph
    steps: list[Step]
    widths: dict[int, Selection | None]
    layouts: dict[int, Channels | None]

    def narrowed_call(self, step: Step) -> Call:
        """Returns a step's call with the shapes of what is computed as its outputs."""

        def resized(tensor):
            layout, width = self.layouts[tensor.index], self.widths[tensor.index]
            if layout is None or width is None:
                return tensor
            shape = list(tensor.shape)
            shape[layout.axis] = layout.repeats * len(width)
            return dataclasses.replace(tensor, shape=tuple(shape))

        outputs = keras.tree.map_structure(resized, step.call.outputs)
        return dataclasses.replace(step.call, outputs=outputs)

    def selections(self) -> dict[tuple, Selection]:
        """Returns {key: channels} of all channels that a call reads, filters or computes.

        A key says of which call and tensor, and is the same at every percentage.
        """
        found: dict[tuple, Selection] = {}
        numbers = {id(call): number for number, call in enumerate(self.graph.calls)}
        for step in self.steps:
            number, widths = numbers[id(step.call)], step.widths
            computed = [self.layouts[t.index] for t in step.call.output_tensors]
            multiplier = getattr(step.call.operation, "depth_multiplier", 1)
            for what, selections, layouts in [
                ("reads", widths.inputs, widths.layouts),
                ("computes", widths.outputs, computed),
            ]:
                for i, (chosen, layout) in enumerate(zip(selections, layouts, strict=True)):
                    if layout is not None:
                        chosen = Selection.first(layout.count) if chosen is None else chosen
                        found[number, what, i] = chosen
                        found[number, what, i, "filtered"] = chosen.times(multiplier)
        return found


# {graph: its layouts, which are the same at every percentage}
_LAYOUTS: weakref.WeakKeyDictionary[Graph, dict] = weakref.WeakKeyDictionary()


def layouts(graph: Graph) -> dict[int, Channels | None]:
    """Returns where the channels of every tensor of the graph lie; None where that is unknown."""
    if graph not in _LAYOUTS:
        _LAYOUTS[graph] = _found_layouts(graph)
    return _LAYOUTS[graph]


def _found_layouts(graph):
    known: dict[int, Channels | None] = {t.index: None for t in tensors(graph.inputs)}
    for call in graph.calls:
        inputs = [known[t.index] for t in call.input_tensors]
        outputs = kind_of(call.operation).layouts(call, inputs)
        known.update(zip((t.index for t in call.output_tensors), outputs, strict=True))
    return known


def dependent(graph: Graph, made_incomplete: Collection[int] = ()) -> set[int]:
    """Returns the indices of the tensors whose values depend on the percentage.

    Args:
        graph: The calls of the model.
        made_incomplete: The ids of layers that are also taken to depend on it.
    """
    found: set[int] = set()
    for call in graph.calls:
        operation = call.operation
        depends = id(operation) in made_incomplete or inherited_kind_of(operation).depends
        if depends or any(t.index in found for t in call.input_tensors):
            found.update(t.index for t in call.output_tensors)
    return found


def narrow(graph: Graph, percentage: int) -> Plan:
    """Plans the run of a graph at a percentage: it computes only what a layer reads.

    Going backward from the model's outputs, of which everything is needed, each call turns what is
    needed of its outputs into what is needed of its inputs; a tensor read by several calls needs
    the channels of all of them.

    Args:
        graph: The calls of the full model.
        percentage: Int, 1..100.
    """
    where = layouts(graph)
    demand: dict[int, Selection | None] = dict.fromkeys(where, Selection())

    def need(tensor, width, reads):
        layout, have = where[tensor.index], demand[tensor.index]
        if layout is None or layout != reads or width is None or have is None:
            demand[tensor.index] = None
        else:
            both = have | width
            demand[tensor.index] = both if len(both) < layout.count else None

    for tensor in tensors(graph.outputs):
        need(tensor, None, None)
    steps = []
    for call in reversed(graph.calls):
        inputs, outputs = call.input_tensors, call.output_tensors
        wanted = [demand[t.index] for t in outputs]
        if all(w == Selection() for w in wanted):
            continue
        kind = kind_of(call.operation)
        widths = kind.widths(
            call,
            percentage,
            [where[t.index] for t in inputs],
            [where[t.index] for t in outputs],
            wanted,
        )
        for tensor, width in zip(outputs, widths.outputs, strict=True):
            demand[tensor.index] = width
        for tensor, width, layout in zip(inputs, widths.inputs, widths.layouts, strict=True):
            if width != Selection():
                need(tensor, width, layout)
        steps.append((call, widths, kind.narrow(call, percentage, widths)))

    depends = dependent(graph)
    planned = [
        Step(call, widths, narrowed, any(t.index in depends for t in call.output_tensors))
        for call, widths, narrowed in reversed(steps)
    ]
    return Plan(percentage, graph, planned, demand, where)
