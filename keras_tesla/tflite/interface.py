"""What a file takes: inputs of known shapes, after the layers that LiteRT does not have."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import keras
from keras import layers

from keras_tesla import graph as graphs
from keras_tesla.graph import Graph, tensors
from keras_tesla.integers import is_integer
from keras_tesla.names import unique_name
from keras_tesla.tflite import examples
from keras_tesla.tflite.examples import InputSpec

# Their tables, hashes and strings have no form in LiteRT.
_LOOKUPS = (
    layers.StringLookup,
    layers.IntegerLookup,
    layers.TextVectorization,
    layers.Hashing,
    layers.HashedCrossing,
)
# These have one, but for bins that are counted.
_ENCODINGS = (layers.CategoryEncoding, layers.Discretization)


@dataclasses.dataclass(frozen=True, eq=False)
class Interface:
    """How the inputs of a network become those of its file.

    Args:
        graph: The calls that a file computes.
        inputs: The structure of the network's inputs, with `Tensor` leaves.
        specs: The same inputs, flat, with known shapes.
        cut_off: The calls before it, whose results a file takes as inputs.
        after: {input name of the file: name of the layer whose result it is}.
    """

    graph: Graph
    inputs: Any
    specs: list[InputSpec]
    cut_off: list[graphs.Call]
    after: dict[str, str]

    def of_file(self, inputs: dict) -> dict:
        """Returns the inputs of a file for inputs of the network.

        Args:
            inputs: {input name: array `(examples, ...)`} of the network.
        """
        if not self.cut_off:
            return inputs
        indices = [t.index for t in tensors(self.inputs)]
        values = dict(zip(indices, self.to_tensors(inputs), strict=True))
        values = graphs.evaluate(self.cut_off, values)
        taken = zip(self.graph.input_names, tensors(self.graph.inputs), strict=True)
        # A lookup that gives one-hot vectors says that they are floats, and gives integers.
        return {
            name: keras.ops.convert_to_numpy(values[t.index]).astype(t.dtype) for name, t in taken
        }

    def to_tensors(self, inputs: dict) -> list:
        """Returns inputs of the network as tensors, flat."""
        return [_to_tensor(inputs[spec.name], spec.dtype) for spec in self.specs]


def _to_tensor(array, dtype: str):
    """Returns an array as a tensor; strings too, which NumPy has several types for."""
    return keras.ops.convert_to_tensor(array.tolist() if dtype == "string" else array, dtype=dtype)


def of(network, graph: Graph, input_shapes=None) -> Interface:
    """Returns what the file of a network takes.

    Lookups of strings and integers, text vectorizations, hashes, and whatever else reads strings,
    are cut off with all that is before them.

    Args:
        network: A Functional or Sequential model.
        graph: Its calls.
        input_shapes: {input name: shape without the batch}, or the shape of the only input; None
            where all dimensions are known.

    Warns:
        UserWarning: Layers are cut off.

    Raises:
        ValueError: Shapes that do not fit the inputs, a dimension that is not known, or layers to
            be cut off that come after trainable ones.
    """
    shapes = _shapes(graph, input_shapes)
    if any(shape != t.shape for shape, t in zip(shapes, tensors(graph.inputs), strict=True)):
        flat = zip(shapes, tensors(graph.inputs), strict=True)
        sized = [dataclasses.replace(t, shape=shape) for shape, t in flat]
        graph = graphs.read(network, inputs=keras.tree.pack_sequence_as(graph.inputs, sized))
    specs = examples.specs_of(graph)
    cut_off = _to_be_cut_off(graph)
    if not cut_off:
        return Interface(graph, graph.inputs, specs, [], {})
    rest, after = _without(graph, cut_off)
    for name, t in zip(rest.input_names, tensors(rest.inputs), strict=True):
        if None in t.shape[1:]:
            raise ValueError(
                f"Layer {after[name]!r} gives the shape {t.shape}. Export needs every dimension "
                "but the batch: give the layer a fixed size, such as `output_sequence_length` of "
                "a TextVectorization."
            )
    names = list(dict.fromkeys(call.operation.name for call in cut_off))
    taken = ", ".join(f"{name!r} of {layer!r}" for name, layer in after.items())
    warnings.warn(
        f"LiteRT has no lookups, hashes and strings, so the file begins after {names}: it takes "
        f"as inputs the results {taken}. Compute them before you call it.",
        stacklevel=3,
    )
    return Interface(rest, graph.inputs, specs, cut_off, after)


def _shapes(graph: Graph, given) -> list[tuple]:
    """Returns the shapes of all inputs, with the batch."""
    declared = dict(zip(graph.input_names, tensors(graph.inputs), strict=True))
    if given is None:
        given = {}
    elif not isinstance(given, Mapping) and len(declared) == 1:
        given = {next(iter(declared)): given}
    if not isinstance(given, Mapping) or not set(given) <= set(declared):
        raise ValueError(
            "`input_shapes` must be a dict {input name: shape without the batch} of inputs among "
            f"{list(declared)}. Received: {given!r}"
        )
    return [
        _fitting(name, t.shape, given[name]) if name in given else t.shape
        for name, t in declared.items()
    ]


def _fitting(name: str, declared: tuple, given) -> tuple:
    sizes = tuple(given) if isinstance(given, (list, tuple)) else (given,)
    pairs = zip(declared[1:], sizes, strict=False)
    if (
        len(sizes) != len(declared) - 1
        or not all(is_integer(size) and size > 0 for size in sizes)
        or any(own not in (None, size) for own, size in pairs)
    ):
        raise ValueError(
            f"`input_shapes` for {name!r} must be positive integers that fit {declared[1:]}, "
            f"where None is open. Received: {given!r}"
        )
    return (declared[0], *map(int, sizes))


def _to_be_cut_off(graph: Graph) -> list[graphs.Call]:
    """Returns the calls that LiteRT does not have, and all before them.

    Raises:
        ValueError: If a trainable layer is before one.
    """
    producers = {t.index: call for call in graph.calls for t in call.output_tensors}
    found: dict[int, graphs.Call] = {}

    def add(call, of):
        if id(call) in found:
            return
        if getattr(call.operation, "trainable_variables", None):
            raise ValueError(
                f"LiteRT has no form of layer {of!r}, and it comes after the trainable layer "
                f"{call.operation.name!r}, so it cannot be cut off. Put it before all "
                "others, or end the model before it."
            )
        found[id(call)] = call
        for t in call.input_tensors:
            if t.index in producers:
                add(producers[t.index], of)

    for call in graph.calls:
        if _is_missing(call):
            add(call, call.operation.name)
    return [call for call in graph.calls if id(call) in found]


def _is_missing(call) -> bool:
    layer = call.operation
    if any(t.dtype == "string" for t in call.input_tensors) or isinstance(layer, _LOOKUPS):
        return True
    return isinstance(layer, _ENCODINGS) and layer.output_mode not in ("int", "one_hot")


def _without(graph: Graph, cut_off) -> tuple[Graph, dict[str, str]]:
    """Returns the graph after some of its calls, and the layers that its new inputs come from."""
    gone = {id(call) for call in cut_off}
    rest = [call for call in graph.calls if id(call) not in gone]
    read = [t for call in rest for t in call.input_tensors] + tensors(graph.outputs)
    made = {t.index: call for call in cut_off for t in call.output_tensors}
    names = dict(zip((t.index for t in tensors(graph.inputs)), graph.input_names, strict=True))
    taken = {t.index: t for t in read if t.index in made or t.index in names}
    sources = _sources(graph, cut_off)
    used: set[str] = {names[index] for index in taken if index in names}
    named, after = {}, {}
    for index in taken:
        if index in names:
            named[index] = names[index]
            continue
        layer = made[index].operation.name
        of = sources[index]
        alone = len(of) == 1 and sum(bool(of & sources[i]) for i in taken) == 1
        name = unique_name(names[next(iter(of))] if alone else layer, used)
        named[index], after[name] = name, layer
    return Graph(list(taken.values()), graph.outputs, list(named.values()), rest), after


def _sources(graph: Graph, calls) -> dict[int, set[int]]:
    """Returns {index of a tensor: indices of the model's inputs that it is computed from}."""
    sources = {t.index: {t.index} for t in tensors(graph.inputs)}
    for call in calls:
        of = set().union(*(sources[t.index] for t in call.input_tensors))
        sources.update({t.index: of for t in call.output_tensors})
    return sources
