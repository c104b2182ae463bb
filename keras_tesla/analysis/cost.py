"""The multiply-adds of a plain Keras model."""

from keras_tesla import graph
from keras_tesla.kinds.registry import multiply_adds_of


def multiply_adds(model) -> int:
    """Returns the multiply-adds of one example through a model.

    Counted are the dot products of

    - Dense, convolutions of all kinds and EinsumDense: the size of the kernel for each position of
      the output (of the input, for transposed convolutions),
    - attention: its projections, and the products of queries with keys and of scores with values,
    - GRU, LSTM, SimpleRNN and ConvLSTM: both kernels at each step; Bidirectional and
      TimeDistributed: what the layer inside takes,
    - Dot, and the operations dot, einsum, inner, matmul and tensordot.

    Biases, normalizations and activations are not. A layer called twice counts twice. What layers
    of your own, Lambda and `keras.ops` convolutions compute is not known: they count nothing, and
    `not_counted` names them.

    Args:
        model: A built Functional or Sequential model of stock layers, such as `TESLA.at(30)`, with
            all dimensions but the batch known.

    Raises:
        ValueError: If the model is subclassed, or a dimension is unknown.

    Example:

    >>> multiply_adds(keras.Sequential([keras.Input((784,)), keras.layers.Dense(10)]))
    7840
    """
    return sum(multiply_adds_of(call) or 0 for call in graph.read(model).calls)


def not_counted(model) -> list[str]:
    """Returns the names of the layers and operations whose multiply-adds nobody knows.

    `multiply_adds` is the sum over all others.

    Args:
        model: As for `multiply_adds`.

    Raises:
        ValueError: As `multiply_adds` does.

    Example:

    >>> not_counted(keras.Sequential([keras.Input((784,)), keras.layers.Lambda(abs, name="own")]))
    ['own']
    """
    calls = graph.read(model).calls
    names = (call.operation.name for call in calls if multiply_adds_of(call) is None)
    return list(dict.fromkeys(names))
