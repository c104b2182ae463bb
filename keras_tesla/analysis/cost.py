"""The multiply-adds of a plain Keras model."""

from keras_tesla import graph
from keras_tesla.kinds.registry import inherited_kind_of


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
    return sum(map(of_call, graph.read(model).calls))


def of_call(call) -> int:
    """Returns the multiply-adds of one example through one call of a layer or operation.

    Raises:
        ValueError: If a dimension is unknown.
    """
    kind = inherited_kind_of(call.operation)
    return kind.multiply_adds(call, kind.weights(call.operation))
