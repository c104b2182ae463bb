"""The multiply-adds of a plain Keras model."""

import math

from keras import layers

from keras_tesla import graph

_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
_KERNEL_LAYERS = (
    *(layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D, *_TRANSPOSED),
    *(layers.DepthwiseConv1D, layers.DepthwiseConv2D),
    *(layers.SeparableConv1D, layers.SeparableConv2D),
)
_KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")


def multiply_adds(model) -> int:
    """Returns the multiply-adds of one example through a model.

    Counted are the dot products of Dense, Conv1D/2D/3D, DepthwiseConv1D/2D and SeparableConv1D/2D
    layers, output positions times the size of the kernels, and of Conv1D/2D/3DTranspose, input
    positions times the size of the kernel. Biases, normalizations and activations are not. A layer
    called twice counts twice.

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
        of_call(
            c.operation,
            c.input_tensors[0].shape,
            c.output_tensors[0].shape,
            kernels_of(c.operation),
        )
        for c in graph.read(model).calls
        if isinstance(c.operation, _KERNEL_LAYERS)
    )


def kernels_of(layer) -> dict:
    """Returns {name: weight} of a layer's kernels; empty if it has none."""
    return {name: getattr(layer, name) for name in _KERNELS if hasattr(layer, name)}


def of_call(layer, input_shape, output_shape, weights) -> int:
    """Returns the multiply-adds of one example through one call of a layer.

    Args:
        layer: The layer; it need not be built.
        input_shape: What the call reads: a tuple with the batch. Its channels do not matter.
        output_shape: What the call returns, likewise.
        weights: Dict {name: weight} that the layer runs with.

    Raises:
        ValueError: If a dimension is unknown.
    """
    if not isinstance(layer, _KERNEL_LAYERS):
        return 0
    shape = (input_shape if isinstance(layer, _TRANSPOSED) else output_shape)[1:]
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    positions = shape[1:] if first else shape[:-1]
    if None in positions:
        raise ValueError(
            f"The multiply-adds of layer {layer.name!r} depend on a dimension that is not "
            f"known: it reads shape {input_shape} and returns {output_shape}. Give `keras.Input` "
            "a full shape."
        )
    sizes = [math.prod(weights[name].shape) for name in _KERNELS if name in weights]
    return math.prod(positions) * sum(sizes)
