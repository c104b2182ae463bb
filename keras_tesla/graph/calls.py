"""The calls of layers and operations, as plain data."""

import dataclasses
import inspect
from typing import Any

import keras


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of the graph.

    Args:
        index: Int, unique in the graph.
        shape: Tuple of ints and Nones.
        dtype: String.
    """

    index: int
    shape: tuple
    dtype: str


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer or operation.

    Args:
        operation: The `keras.Operation` (usually a layer).
        args: Positional arguments, with `Tensor` for each tensor.
        kwargs: Keyword arguments, likewise.
        outputs: What it returns: a `Tensor` or a structure of them.
        within: The layers that were opened and make this call, the outermost first.
    """

    operation: Any
    args: tuple
    kwargs: dict
    outputs: Any
    within: tuple = ()

    @property
    def name(self) -> str:
        """The operation's name, after those of the layers that it is within if it lacks them."""
        found = ""
        for x in (*self.within, self.operation):
            found = x.name if not found or x.name.startswith(found) else f"{found}_{x.name}"
        return found

    @property
    def input_tensors(self) -> list[Tensor]:
        """The tensors among the arguments, flat."""
        return tensors((self.args, self.kwargs))

    @property
    def output_tensors(self) -> list[Tensor]:
        """The returned tensors, flat."""
        return tensors(self.outputs)


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """The calls of a model in an order in which they can run. Nested models are inlined.

    So are the user's layers that consist of others, where that can be seen; see `read`.

    Args:
        inputs: The structure of the model's inputs, with `Tensor` leaves.
        outputs: The structure of the model's outputs, likewise.
        input_names: The inputs' names, flat.
        calls: List of `Call`.
        closed: {id of a layer that consists of others: why it is one call nevertheless}.
    """

    inputs: Any
    outputs: Any
    input_names: list[str]
    calls: list[Call]
    closed: dict[int, str] = dataclasses.field(default_factory=dict)

    @property
    def is_opened(self) -> bool:
        """Whether a layer was opened."""
        return any(call.within for call in self.calls)

    @property
    def layers(self) -> list:
        """The layers called, each once, in the order of the first call."""
        return [call.operation for call in self.first_calls.values()]

    @property
    def first_calls(self) -> dict[int, Call]:
        """{id of a layer: its first call}, in their order."""
        first: dict[int, Call] = {}
        for call in self.calls:
            if isinstance(call.operation, keras.Layer):
                first.setdefault(id(call.operation), call)
        return first


def tensors(structure) -> list[Tensor]:
    """Returns the `Tensor` leaves of a nested structure."""
    return [leaf for leaf in keras.tree.flatten(structure) if isinstance(leaf, Tensor)]


def takes_training(operation) -> bool:
    """Whether the `call` of a layer takes `training`."""
    return (
        isinstance(operation, keras.Layer)
        and "training" in inspect.signature(operation.call).parameters
    )


def filled(structure, values: dict):
    """Returns a nested structure with values in place of its tensors.

    Args:
        structure: With `Tensor` leaves, and others, which stay.
        values: {index of a tensor: value}.
    """
    return keras.tree.map_structure(
        lambda x: values[x.index] if isinstance(x, Tensor) else x, structure
    )


def evaluate(calls, values: dict, compute=None, read=None) -> dict:
    """Runs calls, on whatever stands for tensors: arrays, KerasTensors, pairs with a width.

    Args:
        calls: List of `Call`, in an order in which they can run.
        values: {index of a tensor: value}, of what the calls read and do not return; not changed.
        compute: Function `(call, args, kwargs) -> list`, the value of each output tensor. Default:
            calls the operation.
        read: Function `(call, position, values) -> value`, what a call reads of its input tensor of
            that position among `input_tensors`. Default: its value.

    Returns:
        `values` with those of the calls' outputs added.
    """
    values = dict(values)
    for call in calls:
        indices = [t.index for t in call.input_tensors]
        if read is None:
            found = [values[index] for index in indices]
        else:
            found = [read(call, position, values) for position in range(len(indices))]
        # By position: a call may read one tensor twice, and not in the same way.
        remaining = iter(found)
        args, kwargs = keras.tree.map_structure(
            lambda x, remaining=remaining: next(remaining) if isinstance(x, Tensor) else x,
            (call.args, call.kwargs),
        )
        if compute is None:
            outputs = keras.tree.flatten(call.operation(*args, **kwargs))
        else:
            outputs = compute(call, args, kwargs)
        values.update(zip((t.index for t in call.output_tensors), outputs, strict=True))
    return values
