"""Products of the dimensions of a shape, where all of them must be known."""

import math


def positions(layer, shape, axis) -> int:
    """Returns the number of positions in a tensor: all of one example but the channels.

    Args:
        layer: The layer, for the message.
        shape: Tuple with the batch.
        axis: That of the channels.

    Raises:
        ValueError: If one of those dimensions is not known.
    """
    return product(layer, shape, [size for i, size in enumerate(shape) if i not in (0, axis)])


def product(layer, shape, sizes) -> int:
    """Returns the product of dimensions.

    Args:
        layer: The layer, for the message.
        shape: The tensor's shape, likewise.
        sizes: The dimensions; None: unknown.

    Raises:
        ValueError: If one of them is not known.
    """
    sizes = list(sizes)
    if None in sizes:
        raise ValueError(
            f"The multiply-adds of layer {layer.name!r} depend on a dimension that is not known, "
            f"in the shape {shape}. Give `keras.Input` a full shape."
        )
    return math.prod(sizes)
