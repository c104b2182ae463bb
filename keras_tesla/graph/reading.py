"""The calls that make up a Functional or Sequential model, as plain data."""

import dataclasses
from typing import Any

import keras

from keras_tesla.graph import opening
from keras_tesla.graph.calls import Call, Graph, Tensor, evaluate, filled, tensors
from keras_tesla.graph.tracing import Refused, Shadow, message, traced
from keras_tesla.graph.weight import Weight
from keras_tesla.scope import percentage_scope

# What a class may do to train and to predict, beside its graph.
_STEPS = ("compute_loss", "compute_metrics", "train_step", "test_step", "predict_step")


def read(model, opens=None, inputs=None) -> Graph:
    """Returns the calls that a Functional or Sequential model consists of.

    A layer of the user's that consists of others, or computes with weights of its own, is opened:
    the graph has the layers and operations of its `call`, and a `Weight` for each of these weights.
    It stays one call where that fails or would not be the same (`Graph.closed` says why), and where
    nothing in it could be narrowed.

    Args:
        model: A built `keras.Model` of either kind. Its layers are not changed, and only those to
            be opened are called: on random inputs, to compare them with what they consist of.
        opens: Function `layer -> bool`, whether to open a layer that can be. Default: all of them.
        inputs: The structure of its inputs, with objects whose `shape` tells the dimensions that
            the model leaves open. Default: these stay open.

    Raises:
        ValueError: If the model is a subclassed one or is not built.
    """
    return _whole(lambda reader: reader.read(model, inputs), opens)


def read_subclassed(model, args, kwargs, names, opens=None) -> Graph:
    """Returns the calls that a subclassed model consists of.

    Args:
        model: A built `keras.Model`.
        args: Positional arguments of its `call`, with KerasTensors.
        kwargs: Keyword arguments, likewise.
        names: The names of the inputs, flat.
        opens: As in `read`.

    Raises:
        ValueError: If its `call` cannot be read, with the line that failed.
    """

    def graph_of(reader):
        inputs = reader.symbolic(args, kwargs)
        try:
            calls, outputs = reader.parts(model, *inputs)
        except Refused as reason:
            raise ValueError(
                f"What the subclassed model {model.name!r} ({type(model).__name__}) computes cannot"
                f" be read: {reason}. Build it with `keras.Model(inputs, outputs)`."
            ) from reason
        return Graph(inputs, outputs, names, calls, reader.closed)

    return _whole(graph_of, opens)


def _whole(read_graph, opens) -> Graph:
    """Returns a graph that has each weight in one layer, if closing layers can do this."""
    closed: dict[int, str] = {}
    while True:
        graph = read_graph(_Reader(closed, opens or (lambda _: True)))
        torn = _torn(graph)
        if not torn:
            return graph
        closed.update(torn)


def _torn(graph) -> dict[int, str]:
    """Returns {id of an opened layer: why not to} of those with a weight that another layer has.

    A copy of the model would have two of it.
    """
    owners: dict[int, dict] = {}  # {id of a variable: {id of an operation: the layer it is within}}
    for call in graph.calls:
        for variable in getattr(call.operation, "variables", []):
            of_variable = owners.setdefault(id(variable), {})
            of_variable.setdefault(id(call.operation), set()).update(call.within[:1])
    return {
        id(layer): "it shares a weight with another layer"
        for operations in owners.values()
        if len(operations) > 1
        for layers in operations.values()
        for layer in layers
    }


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
        if isinstance(model, keras.Sequential):
            plain = "keras.Model(model.inputs, model.outputs)"
        elif is_graph_model(model):
            plain = "keras.Model(model.input, model.output)"
        else:
            plain = "keras_tesla.to_functional(model)"
        raise ValueError(
            f"Model {model.name!r} is of the class {type(model).__name__}, whose own "
            f"{', '.join(replaced)} would be dropped: only what the graph computes is used. Put a "
            "loss or a metric in `compile`, or the method in a subclass of `keras_tesla.TESLA`, "
            f"and pass `{plain}`, which computes the same."
        )


class _Reader:
    """Reads models.

    Args:
        closed: {id of a layer that is not to be opened: why}; layers are added.
        opens: Function `layer -> bool`, whether to open a layer that can be.
    """

    def __init__(self, closed, opens):
        self.closed = closed
        self._opens = opens
        self._count = 0
        self._weights: dict[tuple, Weight] = {}
        self._masked: set[int] = set()  # the indices of tensors that may have a Keras mask

    def _new(self, keras_tensor) -> Tensor:
        self._count += 1
        return Tensor(self._count - 1, tuple(keras_tensor.shape), keras_tensor.dtype)

    def read(self, model, arguments=None) -> Graph:
        """Reads a model; a nested one with the sizes of what it is called on."""
        if not is_graph_model(model):
            raise ValueError(
                "The model must be a Functional or Sequential one. Make one of a subclassed model "
                "with `keras_tesla.to_functional(model)`. "
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
        known: dict[int, Any] = {}  # by the id of the KerasTensor
        alive = []  # the KerasTensors, so that no id is given twice
        calls: list[Call] = []

        def learn(keras_tensors, structure):
            alive.append(keras_tensors)
            flat = keras.tree.flatten(keras_tensors)
            known.update(zip(map(id, flat), keras.tree.flatten(structure), strict=True))

        def record(operation, *args, **kwargs):
            operation = operation.operation if isinstance(operation, Shadow) else operation
            keras_outputs = Shadow(operation)(*args, **kwargs)
            if isinstance(operation, Weight):
                args, kwargs = (), {}  # it was called on a tensor only to be in the graph
                operation = self._one_for_all(operation)
            args, kwargs = keras.tree.map_structure(lambda x: known.get(id(x), x), (args, kwargs))
            if is_graph_model(operation):
                found = _inlined(self.read(operation, args[0]), args[0])
            else:
                found = self._opened(operation, args, kwargs)
            if found is None:
                outputs = keras.tree.map_structure(self._new, keras_outputs)
                calls.append(Call(operation, args, kwargs, outputs))
                self._follow_masks(calls[-1])
            else:
                calls.extend(found[0])
                outputs = found[1]
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
        for tensor, argument in zip(tensors(inputs), given, strict=True):
            if argument is not None and argument.index in self._masked:
                self._masked.add(tensor.index)
        learn(keras_inputs, inputs)
        # `clone_model` is Keras' public way to walk a graph; the clone itself is thrown away.
        clone = keras.models.clone_model(
            model,
            input_tensors=keras_inputs,
            clone_function=lambda layer: layer,
            call_function=record,
        )
        outputs = keras.tree.map_structure(lambda t: known[id(t)], clone.output)
        return Graph(inputs, outputs, input_names(model), calls, self.closed)

    def _one_for_all(self, weight):
        """Returns the layer of a weight that was made first: each trace makes its own."""
        return self._weights.setdefault((id(weight.value), weight.dtype_policy.name), weight)

    def _opened(self, layer, args, kwargs):
        """Returns the calls and outputs of a layer that consists of others, or None."""
        if not opening.is_composite(layer) or id(layer) in self.closed or not self._opens(layer):
            return None
        try:
            calls, outputs = self.parts(layer, args, kwargs)
        except Refused as reason:
            self.closed[id(layer)] = str(reason)
            return None
        if not opening.gains(calls):
            return None
        return [dataclasses.replace(c, within=(layer, *c.within)) for c in calls], outputs

    def symbolic(self, args, kwargs):
        """Returns the arguments of a call with a `Tensor` for each KerasTensor."""
        return keras.tree.map_structure(
            lambda x: self._new(x) if keras.backend.is_keras_tensor(x) else x, (args, kwargs)
        )

    def parts(self, layer, args, kwargs):
        """Returns the calls and outputs of a layer that consists of others.

        Raises:
            Refused: If they cannot be read.
        """
        kwargs = dict(kwargs)
        if kwargs.pop("training", None):  # False is a default; Keras replaces it in training
            raise Refused("it is called with training=True, always")
        given = list({t.index: t for t in tensors((args, kwargs))}.values())
        opening.check(layer, any(t.index in self._masked for t in given))
        model = traced(layer, args, kwargs, training=False)
        with percentage_scope(1):
            again = traced(layer, args, kwargs, training=True)
        try:
            shallow = [_Reader({}, lambda _: False).read(x, given) for x in (model, again)]
            calls, outputs = _inlined(self.read(model, given), given)
        except Exception as error:  # such as an operation that takes no unknown dimension
            raise Refused(f"what it consists of cannot be read: {message(error)}") from error
        opening.check_same(*shallow)
        opening.check_variables(calls)
        opening.check_numbers(layer, args, kwargs, calls, outputs)
        return calls, outputs

    def _follow_masks(self, call):
        """Notes which tensors may have a mask. Operations drop it; any layer may pass it on."""
        layer = call.operation
        if isinstance(layer, keras.Layer) and (
            any(t.index in self._masked for t in call.input_tensors)
            or any(map(_makes_mask, (layer, *opening.inside(layer))))
        ):
            self._masked.update(t.index for t in call.output_tensors)


def _makes_mask(layer):
    own = type(layer).compute_mask.__module__.split(".")[0] not in ("keras", "keras_tesla")
    return own or isinstance(layer, keras.layers.Masking) or getattr(layer, "mask_zero", False)


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
