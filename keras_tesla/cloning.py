"""Copying a model layer by layer."""

import keras
import numpy as np


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
    if type(layer) is keras.layers.Lambda:  # its config has no globals of the function
        return keras.layers.Lambda(layer.function, arguments=layer.arguments, name=layer.name)
    return type(layer).from_config(layer.get_config())


def copy_weights(source, target):
    """Gives the layer `target` the weights of its equal `source`."""
    # A copy: JAX would let the two share a buffer and give it away.
    target.set_weights([np.array(weight) for weight in source.get_weights()])
    if hasattr(target, "finalize_state"):  # a Normalization computes with values made of them
        target.finalize_state()
