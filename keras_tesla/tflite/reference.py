"""What Keras computes: the outputs that a file is compared with, and whether there are any."""

import dataclasses

import keras
import numpy as np

from keras_tesla import graph as graphs
from keras_tesla.scope import percentage_scope
from keras_tesla.tflite import examples, typical
from keras_tesla.tflite.examples import Examples, InputSpec
from keras_tesla.tflite.interface import Interface
from keras_tesla.tflite.settings import Settings

_POSITIVE = typical.Uniform(0.0, 1.0, "floats from 0 to 1")


def outputs(network, interface: Interface, percentage: int, inputs: dict) -> list[np.ndarray]:
    """Returns what Keras computes, with the live weights and without narrowing; flat.

    Args:
        network: The model.
        interface: Its inputs.
        percentage: Int.
        inputs: {input name: array `(examples, ...)`} of the network.
    """
    x = keras.tree.pack_sequence_as(interface.inputs, interface.to_tensors(inputs))
    with percentage_scope(percentage):
        made = network(x, training=False)
    return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(made)]


def choose(network, interface: Interface, settings: Settings, percentage: int) -> Examples:
    """Returns the examples that files are compared on, and what ranges are measured on.

    See `keras_tesla.tflite.examples.choose`. Where Keras gives NaN on standard normal numbers, as
    after a logarithm, floats from 0 to 1 are tried.

    Args:
        network: The model.
        interface: Its inputs; the examples are those of the network.
        settings: Those of the export.
        percentage: Int, the highest one to export.

    Raises:
        ValueError: Data that do not fit the model; a layer that draws random numbers.
    """
    chosen = examples.choose(interface.specs, settings)
    first = outputs(network, interface, percentage, chosen.inputs)
    if chosen.random and not _are_finite(first):
        positive = [_positive(spec) for spec in interface.specs]
        other = examples.choose(positive, settings)
        made = outputs(network, interface, percentage, other.inputs)
        if _are_finite(made):
            chosen, first = other, made
    again = outputs(network, interface, percentage, chosen.inputs)
    if not _are_near(first, again):
        random = _random_layers(interface, percentage, chosen.inputs)
        named = f"Layers {random}" if random else "Some layers"
        raise ValueError(
            f"{named} draw random numbers when the network is used, so its outputs cannot be "
            "compared with those of a file. Export a model without them, "
            "`keras.Model(model.inputs, outputs)`, that ends before or takes the numbers as an "
            "input. Nothing was written."
        )
    return chosen


def _positive(spec: InputSpec) -> InputSpec:
    unknown = spec.numbers is None and spec.is_float
    return dataclasses.replace(spec, numbers=_POSITIVE) if unknown else spec


def _are_finite(arrays) -> bool:
    return all(np.isfinite(x).all() for x in arrays)


def _are_near(ones, others) -> bool:
    """Whether arrays are equal but for sums in another order, as on several threads."""
    pairs = zip(ones, others, strict=True)
    return all(np.allclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True) for a, b in pairs)


def _random_layers(interface: Interface, percentage, inputs) -> list[str]:
    """Returns the names of the layers that give two results for one input."""
    found = []

    def twice(call, args, kwargs):
        made = keras.tree.flatten(call.operation(*args, **kwargs))
        again = keras.tree.flatten(call.operation(*args, **kwargs))
        arrays = [[keras.ops.convert_to_numpy(y) for y in ys] for ys in (made, again)]
        if not _are_near(*arrays):
            found.append(call.operation.name)
        return made

    indices = [t.index for t in graphs.tensors(interface.inputs)]
    values = dict(zip(indices, interface.to_tensors(inputs), strict=True))
    with percentage_scope(percentage):
        graphs.evaluate([*interface.cut_off, *interface.graph.calls], values, twice)
    return list(dict.fromkeys(found))
