"""Arrays among the arguments of an operation: `x * scale`, with a number for each channel."""

import keras
import numpy as np
from keras import ops

from keras_tesla import channels
from keras_tesla.channels import Channels, Selection
from keras_tesla.graph import Tensor


def arrays_of(call) -> list | None:
    """Returns the arrays that a call combines with tensors.

    Returns:
        A list; None if there is something else: a variable, which may have another value later, a
        sparse tensor, a list of numbers.
    """
    operands = [*call.args, *call.kwargs.values()]
    if isinstance(call.operation, keras.Layer):  # which merges the tensors of a list
        operands = keras.tree.flatten(operands)
    others = [x for x in operands if not isinstance(x, (Tensor, int, float, type(None)))]
    return others if all(map(_is_constant, others)) else None


def _is_constant(x) -> bool:
    if isinstance(x, (np.ndarray, np.generic)):
        return True
    changes = hasattr(x, "assign") or getattr(x, "requires_grad", False)
    return ops.is_tensor(x) and not changes and not channels.is_sparse(x)


def size_on(array, axis: int, rank: int) -> int:
    """Returns the size of an operand on an axis of a result of `rank` axes; 1 where it has none."""
    missing = rank - len(array.shape)
    return array.shape[axis - missing] if axis >= missing else 1


def cut(array, layout: Channels, width: Selection, rank: int):
    """Returns an array with some of its channels; one number for all of them stays.

    Args:
        array: The array.
        layout: Where the channels lie in the result that it takes part in.
        width: Which of them to keep.
        rank: Int, number of axes of that result.
    """
    if size_on(array, layout.axis, rank) == 1:
        return array
    places = channels.indices(layout, Selection.first(layout.count), width)
    array = array if isinstance(array, np.ndarray) else ops.convert_to_numpy(array)
    return np.take(array, places, layout.axis - rank)
