"""The calls that make up a Functional or Sequential model, as plain data."""

import dataclasses
from typing import Any

import keras

# What a class may do to train and to predict, beside its graph.
_STEPS = ("compute_loss", "compute_metrics", "train_step", "test_step", "predict_step")


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
    """

    operation: Any
    args: tuple
    kwargs: dict
    outputs: Any

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

    Args:
        inputs: The structure of the model's inputs, with `Tensor` leaves.
        outputs: The structure of the model's outputs, likewise.
        input_names: The inputs' names, flat.
        calls: List of `Call`.
    """

    inputs: Any
    outputs: Any
    input_names: list[str]
    calls: list[Call]

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


def read(model, inputs=None) -> Graph:
    """Returns the calls that a Functional or Sequential model consists of.

    Args:
        model: A built `keras.Model` of either kind. Its layers are not called and not changed.
        inputs: The structure of its inputs, with objects whose `shape` tells the dimensions that
            the model leaves open. Default: these stay open.

    Raises:
        ValueError: If the model is a subclassed one, whose `call` cannot be seen, or is not built.
    """
    return _Reader().read(model, inputs)


def input_names(model) -> list[str]:
    """Returns the names of the inputs of a Functional or Sequential model, flat.

    They are those of the input layers. The tensors of inputs without a name of their own would have
    other names once the model has been saved and loaded.
    """
    # A Sequential model does not list its input layer.
    sequential = isinstance(model, keras.Sequential)
    layers = (keras.Model(model.inputs, model.outputs) if sequential else model).layers
    of_layers = {id(x.output): x.name for x in layers if isinstance(x, keras.layers.InputLayer)}
    return [of_layers.get(id(tensor), tensor.name) for tensor in model.inputs]


def is_graph_model(layer) -> bool:
    """Whether `layer` is a Functional or Sequential model that computes what its graph says."""
    by_kind = isinstance(layer, keras.Sequential) or (
        isinstance(layer, keras.Model) and isinstance(layer, keras.Function)
    )
    return by_kind and type(layer).call.__module__.split(".")[0] == "keras"


def check_class(model):
    """Refuses a model whose own class does something that its graph does not say.

    Args:
        model: The model. Its class may add methods to Keras' ones; it may not replace these.

    Raises:
        ValueError: Naming the methods that a copy of the graph would drop.
    """
    replaced = [
        name
        for name in _STEPS
        if getattr(type(model), name, None) is not None
        and getattr(type(model), name).__module__.split(".")[0] != "keras"
    ]
    if replaced:
        plain = (
            "inputs, model.outputs"
            if isinstance(model, keras.Sequential)
            else "input, model.output"
        )
        raise ValueError(
            f"Model {model.name!r} is of the class {type(model).__name__}, whose own "
            f"{', '.join(replaced)} would be dropped: only what the graph computes is used. Put a "
            "loss or a metric in `compile`, or the method in a subclass of `keras_tesla.TESLA`, "
            f"and pass `keras.Model(model.{plain})`, which has the same layers."
        )


class _Shadow(keras.Operation):
    """Stands for an operation in a traced copy, so that its `layer.output` stays as it is."""

    def __init__(self, operation):
        super().__init__()
        self.operation = operation

    def compute_output_spec(self, *args, **kwargs):
        return self.operation.compute_output_spec(*args, **kwargs)


class _Reader:
    def __init__(self):
        self._count = 0

    def _new(self, keras_tensor) -> Tensor:
        self._count += 1
        return Tensor(self._count - 1, tuple(keras_tensor.shape), keras_tensor.dtype)

    def read(self, model, arguments=None) -> Graph:
        """Reads a model; a nested one with the sizes of what it is called on."""
        if not is_graph_model(model):
            raise ValueError(
                "The model must be a Functional or Sequential one: what a subclassed model "
                "computes cannot be read from it. Build it with `keras.Model(inputs, outputs)`. "
                f"Received: {model!r}"
            )
        if not model.built:
            raise ValueError(
                f"Model {model.name!r} is not built, so its shapes are unknown. Start it with a "
                "`keras.Input` of the shape it takes."
            )
        if isinstance(model, keras.Sequential):
            model = keras.Model(model.inputs[0], model.outputs[0])
        else:
            model = keras.Model(model.input, model.output)
        known: dict[int, Tensor] = {}  # by the id of the KerasTensor
        alive = []  # the KerasTensors, so that no id is given twice
        calls: list[Call] = []

        def learn(keras_tensors, structure):
            alive.append(keras_tensors)
            flat = keras.tree.flatten(keras_tensors)
            known.update(zip(map(id, flat), keras.tree.flatten(structure), strict=True))

        def record(operation, *args, **kwargs):
            keras_outputs = _Shadow(operation)(*args, **kwargs)
            args, kwargs = keras.tree.map_structure(lambda x: known.get(id(x), x), (args, kwargs))
            if is_graph_model(operation):
                inner_calls, outputs = _inlined(self.read(operation, args[0]), args[0])
                calls.extend(inner_calls)
            else:
                outputs = keras.tree.map_structure(self._new, keras_outputs)
                calls.append(Call(operation, args, kwargs, outputs))
            learn(keras_outputs, outputs)
            return keras_outputs

        own = keras.tree.flatten(model.input)
        given = [None] * len(own) if arguments is None else keras.tree.flatten(arguments)
        argument_of = {id(t): x for t, x in zip(own, given, strict=True)}
        # Not packed from a flat list: with PyTorch that sorts the keys of a dict.
        keras_inputs = keras.tree.map_structure(
            lambda t: keras.Input(
                batch_shape=_known_sizes(t, argument_of[id(t)]), dtype=t.dtype, name=t.name
            ),
            model.input,
        )
        inputs = keras.tree.map_structure(self._new, keras_inputs)
        learn(keras_inputs, inputs)
        # `clone_model` is Keras' public way to walk a graph; the clone itself is thrown away.
        clone = keras.models.clone_model(
            model,
            input_tensors=keras_inputs,
            clone_function=lambda layer: layer,
            call_function=record,
        )
        outputs = keras.tree.map_structure(lambda t: known[id(t)], clone.output)
        return Graph(inputs, outputs, input_names(model), calls)


def _known_sizes(declared, given) -> tuple:
    """The shape of an input of a model: as declared, where that is open as given."""
    if given is None or len(given.shape) != len(declared.shape):
        return tuple(declared.shape)
    pairs = zip(declared.shape, given.shape, strict=True)
    return tuple(size if own is None else own for own, size in pairs)


def _inlined(inner: Graph, arguments):
    """Returns the calls and outputs of a nested model that is called on `arguments`."""
    given = keras.tree.flatten(arguments)
    of = dict(zip((t.index for t in tensors(inner.inputs)), given, strict=True))
    calls = []

    def inline(call, args, kwargs):
        calls.append(dataclasses.replace(call, args=args, kwargs=kwargs))
        return call.output_tensors

    return calls, filled(inner.outputs, evaluate(inner.calls, of, inline))
