"""The multiply-adds of a plain Keras model."""

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
    return sum(
        of_call(c.operation, c.output_tensors[0].shape, getattr(c.operation, "kernel", None))
        for c in graph.read(model).calls
    )


def of_call(layer, output_shape, kernel) -> int:
    """Returns the multiply-adds of one example through one call of a layer.

    Args:
        layer: The layer; it need not be built.
        output_shape: What the call returns: a tuple with the batch. Its channels do not matter.
        kernel: The kernel that the layer runs with.

    Raises:
        ValueError: If a dimension is unknown.
    """
    if not isinstance(layer, _KERNEL_LAYERS):
        return 0
    shape = output_shape[1:]
    if None in shape:
        raise ValueError(
            f"The multiply-adds of layer {layer.name!r} depend on a dimension that is not "
            f"known: its output has shape {shape}. Give `keras.Input` a full shape."
        )
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    positions = math.prod(shape[1:] if first else shape[:-1])
    return positions * math.prod(kernel.shape)
