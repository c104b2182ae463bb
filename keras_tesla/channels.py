"""Where the channels of a tensor lie, and how a leading part of them is taken."""

import dataclasses

import keras
import numpy as np
from keras import ops


@dataclasses.dataclass(frozen=True)
class Channels:
    """The channels of a tensor lie on one axis, `repeats` times one after the other.

    Index `j * count + i` of the axis is channel i of copy j. A feature map has one copy; a
    flattened one has a copy for each position; the input of a grouped convolution, seen by its
    filters, has one for each group.

    Args:
        axis: Int, the axis of the channels, counted from 0 (the batch).
        count: Int, number of channels.
        repeats: Int, how often the channels repeat on the axis.
    """

    axis: int
    count: int
    repeats: int = 1


def take(x, layout: Channels, have: int, want: int):
    """Returns `x` with the first `want` of its channels.

    Args:
        x: Tensor (or KerasTensor) whose axis `layout.axis` has `layout.repeats * have` entries.
        layout: Where the channels lie.
        have: Number of channels of each copy in `x`.
        want: Number of channels to keep of each copy, at most `have`.

    Returns:
        A tensor whose axis `layout.axis` has `layout.repeats * want` entries.
    """
    if want == have:
        return x
    if layout.repeats == 1:
        return leading(x, want, layout.axis)
    if None not in x.shape[1:]:
        static = tuple(x.shape)
        split = (-1, *static[1 : layout.axis], layout.repeats, have, *static[layout.axis + 1 :])
        merged = (-1, *static[1 : layout.axis], layout.repeats * want, *static[layout.axis + 1 :])
        return ops.reshape(leading(ops.reshape(x, split), want, layout.axis + 1), merged)
    return ops.take(x, indices(layout, have, want), axis=layout.axis)


def leading(x, count: int | None, axis: int = 0):
    """Returns the first `count` entries of a tensor (or KerasTensor) on an axis; None: all.

    Args:
        x: The tensor.
        count: Int or None.
        axis: Int, counted from 0, or from -1 for the last axis.
    """
    axis %= len(x.shape)
    if count is None or count == x.shape[axis]:
        return x
    if keras.backend.backend() == "tensorflow" and not keras.backend.is_keras_tensor(x):
        import tensorflow as tf

        if is_sparse(x):
            places = tf.range(len(x.shape)) == axis
            return tf.sparse.slice(
                x, [0] * len(x.shape), tf.where(places, tf.constant(count, tf.int64), x.dense_shape)
            )
        # The gradient of an index expression takes eight times as long there.
        size = [-1] * len(x.shape)
        size[axis] = count
        return tf.slice(x, [0] * len(size), size)
    return x[(*[slice(None)] * axis, slice(count))]


def is_sparse(x) -> bool:
    """Whether a tensor is a sparse one of TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return isinstance(x, tf.SparseTensor)


def indices(layout: Channels, have: int, want: int) -> np.ndarray:
    """Returns the positions on the axis that `take` keeps, ascending."""
    return (np.arange(layout.repeats)[:, None] * have + np.arange(want)).ravel()
