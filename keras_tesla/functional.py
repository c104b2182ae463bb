"""A model as a Functional one of the layers that it consists of."""

import dataclasses
import inspect

import keras

from keras_tesla import cloning
from keras_tesla import graph as graphs
from keras_tesla.names import unique_name


def to_functional(model, inputs=None):
    """Returns a Functional model of the layers that a model consists of, with the same weights.

    Layers of the user's whose `call` consists of other layers and of `keras.ops` are opened: the
    copy has those instead, so that each can be converted on its own. Weights that such a layer adds
    itself become `Weight` layers. Nested models are inlined. The copy needs none of the opened
    classes: Keras saves and loads it. `to_idp`, `order_channels` and `quantization_aware` do this
    themselves; only a subclassed model whose inputs are not known must come through here first.

    What a class does beside `call`, such as a `train_step` of its own, is not in the copy.

    Args:
        model: A built `keras.Model`: Functional, Sequential or subclassed. It is not changed.
        inputs: For a subclassed model, what it is called on: a `keras.Input` or a structure of
            them. A dict by the names of the arguments if `call` takes several. Default: inputs of
            the shapes that it was built with, of any batch size, and of floats.

    Returns:
        A Functional `keras.Model`, not compiled.

    Raises:
        ValueError: If the model is not built, or what a subclassed model computes cannot be read;
            the message names the line of its `call` that failed.

    Example:

    >>> inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="last")])
    >>> outer = keras.Sequential(
    ...     [keras.Input((3,), name="x"), keras.layers.Dense(4, name="first"), inner])
    >>> [layer.name for layer in kt.to_functional(outer).layers]
    ['x', 'first', 'last']
    """
    graph = _read(model, inputs)
    return _built(graph, model.name)[0]


def opened(model, opens=None):
    """Returns a model whose layers are all in sight, and its graph.

    Args:
        model: A `keras.Model`.
        opens: Function `layer -> bool`, whether to open a layer that can be. Default: all of them.

    Returns:
        `(model, graph)`: the model itself if it is a Functional or Sequential one and nothing in it
        is to be opened, else a copy as `to_functional` makes it.

    Raises:
        ValueError: As in `to_functional`.
    """
    graph = _read(model, None, opens)
    if graphs.is_graph_model(model) and not graph.is_opened:
        return model, graph
    flat, copies = _built(graph, model.name)
    closed = {id(copies[key]): why for key, why in graph.closed.items() if key in copies}
    graph = graphs.read(flat, opens=lambda _: False)
    return flat, dataclasses.replace(graph, closed=closed)


def _read(model, inputs, opens=None):
    if graphs.is_graph_model(model):
        return graphs.read(model, opens)
    if not (isinstance(model, keras.Model) and graphs.is_own(model)):
        raise ValueError(
            "The model must be a Functional or Sequential one, or a subclass of `keras.Model` with "
            f"a `call` of its own. Received: {model!r}"
        )
    if not model.built:
        raise ValueError(
            f"Model {model.name!r} is not built, so its weights do not exist. Call it once on an "
            "example of its inputs."
        )
    names = list(inspect.signature(model.call).parameters)
    if inputs is None:
        inputs = _of_build_config(model, names)
    several = isinstance(inputs, dict) and set(inputs) <= set(names)
    args, kwargs = ((), inputs) if several else ((inputs,), {})
    flat = keras.tree.flatten(inputs)
    graph = graphs.read_subclassed(model, args, kwargs, [x.name for x in flat], opens)
    given, named = graph.inputs
    return dataclasses.replace(graph, inputs=named if several else given[0])


def _of_build_config(model, names):
    """Returns inputs of the shapes that a subclassed model was built with."""
    config = model.get_build_config() or {}
    if "input_shape" in config:
        shapes = {names[0]: config["input_shape"]}
    else:
        found = config.get("shapes_dict", {})
        shapes = {name: found[f"{name}_shape"] for name in names if f"{name}_shape" in found}
    tables = any(isinstance(x, keras.layers.Embedding) for x in graphs.inside(model))
    if tables and model.compute_dtype in ("float16", "bfloat16"):
        raise ValueError(
            f"Model {model.name!r} has an Embedding, and computes in {model.compute_dtype}, which "
            "rounds large ids. Say that its inputs are integers: "
            "`keras_tesla.to_functional(model, keras.Input((20,), dtype='int32'))`."
        )
    if not shapes:
        raise ValueError(
            f"The shapes of the inputs of {model.name!r} ({type(model).__name__}) are not known. "
            "Pass `keras_tesla.to_functional(model, inputs)` with a `keras.Input` of the shape."
        )
    made = {name: _inputs(name, shape) for name, shape in shapes.items()}
    return made if len(made) > 1 else made[names[0]]


def _inputs(name, shape):
    """Returns inputs of a structure of shapes. Keras wants the keys of a dict as names."""
    if isinstance(shape, dict):
        return {key: _inputs(key, x) for key, x in shape.items()}
    if any(isinstance(x, (dict, list, tuple)) for x in shape):
        return [_inputs(f"{name}_{i}", x) for i, x in enumerate(shape)]
    return keras.Input(batch_shape=(None, *shape[1:]), name=name)


def _built(graph, name):
    """Returns a Functional model of copies of a graph's layers, and {id of a layer: its copy}."""
    _check_weights(graph)
    taken = set(graph.input_names)
    inputs = [
        keras.Input(batch_shape=t.shape, dtype=t.dtype, name=n)
        for t, n in zip(graphs.tensors(graph.inputs), graph.input_names, strict=True)
    ]
    copies: dict[int, keras.Layer] = {}

    def call_copy(call, args, kwargs):
        layer = call.operation
        if not isinstance(layer, keras.Layer):
            return keras.tree.flatten(cloning.operation_like(layer)(*args, **kwargs))
        if isinstance(layer, graphs.Weight):
            args = inputs[:1]  # to be in the graph
        if id(layer) not in copies:
            unique = unique_name(call.name, taken)
            copies[id(layer)] = cloning.copy_of(layer, unique, call=call)
            outputs = copies[id(layer)](*args, **kwargs)
            cloning.copy_weights(layer, copies[id(layer)])
        else:
            outputs = copies[id(layer)](*args, **kwargs)
        return keras.tree.flatten(outputs)

    values = {t.index: x for t, x in zip(graphs.tensors(graph.inputs), inputs, strict=True)}
    values = graphs.evaluate(graph.calls, values, call_copy)
    given, outputs = graphs.filled((graph.inputs, graph.outputs), values)
    return keras.Model(_unpacked(given), _unpacked(outputs), name=name), copies


def _unpacked(structure):
    one = isinstance(structure, (list, tuple)) and len(structure) == 1
    return structure[0] if one else structure


def _check_weights(graph):
    """Refuses a graph in which two layers have the same weight: their copies would have two."""
    owner: dict[int, keras.Layer] = {}
    for layer in graph.layers:
        for variable in layer.variables:
            other = owner.setdefault(id(variable), layer)
            if other is not layer:
                raise ValueError(
                    f"The layers {other.name!r} and {layer.name!r} have the same weight "
                    f"{variable.path!r}, and in a copy each would have its own. Give it to one "
                    "layer, which is called twice."
                )
