"""What a plain Keras model costs."""

import math

from keras import layers

from keras_tesla.narrowing import graph

_KERNEL_LAYERS = (
    *(layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D),
    *(layers.DepthwiseConv1D, layers.DepthwiseConv2D),
)


def multiply_adds(model) -> int:
    """Returns the multiply-adds of one example through a model.

    Counted are the dot products of Dense, Conv1D/2D/3D and DepthwiseConv1D/2D layers:
    output positions times the size of the kernel. Biases, normalizations and activations are not.
    A layer called twice counts twice.

    Args:
        model: A built Functional or Sequential model of stock layers, such as `TESLA.at(30)`, with
            all dimensions but the batch known.

    Raises:
        ValueError: If the model is subclassed, or a dimension is unknown.

    Example:

    >>> multiply_adds(keras.Sequential([keras.Input((784,)), keras.layers.Dense(10)]))
    7840
    """
    total = 0
    for call in graph.read(model).calls:
        layer = call.operation
        if not isinstance(layer, _KERNEL_LAYERS):
            continue
        shape = call.output_tensors[0].shape[1:]
        if None in shape:
            raise ValueError(
                f"The multiply-adds of layer {layer.name!r} depend on a dimension that is not "
                f"known: its output has shape {shape}. Give `keras.Input` a full shape."
            )
        first = getattr(layer, "data_format", "channels_last") == "channels_first"
        positions = math.prod(shape[1:] if first else shape[:-1])
        total += positions * math.prod(layer.kernel.shape)
    return total
