"""Copying a model layer by layer."""

import keras
import numpy as np

_WITH_VOCABULARY = (
    keras.layers.IntegerLookup,
    keras.layers.StringLookup,
    keras.layers.TextVectorization,
)


def clone(model, clone_layer):
    """Builds a copy of a model's graph from copies of its layers.

    Nested models stay nested, and a layer called twice is still one layer.

    Args:
        model: A built Functional or Sequential `keras.Model`.
        clone_layer: Function from a layer to its copy: `copy_of` or one that changes it.

    Returns:
        `(clone, pairs)`: a Functional `keras.Model`, not compiled, whose weights have their initial
        values, and the list of `(layer, its copy)`.
    """
    pairs = []

    def recorded(operation):
        if not isinstance(operation, keras.Layer):  # such as that of `x + y`, without weights
            config = operation.get_config()
            config.pop("name", None)  # Keras finds one
            return type(operation).from_config(config)
        pairs.append((operation, clone_layer(operation)))
        return pairs[-1][1]

    # A new model of the same graph: `clone_model` would also copy losses and metrics, which it
    # cannot do for a function that is not registered.
    if isinstance(model, keras.Sequential):
        graph = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    else:
        graph = keras.Model(model.input, model.output, name=model.name)
    copy = keras.models.clone_model(graph, clone_function=recorded, recursive=True)
    return copy, pairs


def copy_of(layer):
    """Returns a layer with the config of `layer` and weights of its own."""
    if type(layer) is keras.layers.Lambda:
        return lambda_like(layer, layer.name, layer.dtype_policy)
    return type(layer).from_config(layer.get_config())


def lambda_like(layer, name, dtype):
    """Returns a `Lambda` with the function of another: its config would lack the globals."""
    return keras.layers.Lambda(
        layer.function, mask=layer.mask, arguments=layer.arguments, name=name, dtype=dtype
    )


def copy_weights(source, target):
    """Gives the layer `target` the weights of its equal `source`."""
    # A copy: JAX would let the two share a buffer and give it away.
    target.set_weights([np.array(weight) for weight in source.get_weights()])
    for layer in (target, *inside(target)):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it computes with values that are made of its weights
    if isinstance(target, _WITH_VOCABULARY):
        vocabulary = source.get_vocabulary(include_special_tokens=False)
        if len(vocabulary):  # what it has adapted to is no weight and not in the config
            target.set_vocabulary(vocabulary)


def inside(layer):
    """Yields the layers held by a layer's attributes, at any depth."""
    seen = {id(layer)}
    queue = [layer]
    while queue:
        for value in vars(queue.pop()).values():
            if isinstance(value, dict):
                value = list(value.values())
            for x in value if isinstance(value, (list, tuple, set)) else [value]:
                if isinstance(x, keras.Layer) and id(x) not in seen:
                    seen.add(id(x))
                    queue.append(x)
                    yield x
