"""Where the channels of a tensor lie, and how a leading part of them is taken."""

import dataclasses

import numpy as np
from keras import ops


@dataclasses.dataclass(frozen=True)
class Channels:
    """The channels of a tensor lie on one axis, `copies` times one after the other.

    Index `j * count + i` of the axis is channel i of copy j. A feature map has one copy; a
    flattened one has a copy for each position; the input of a grouped convolution, seen by its
    filters, has one for each group.

    Args:
        axis: Int, the axis of the channels, counted from 0 (the batch).
        count: Int, number of channels.
        copies: Int, how often the channels repeat on the axis.
    """

    axis: int
    count: int
    copies: int = 1


def take(x, view: Channels, have: int, want: int):
    """Returns `x` with the first `want` of its channels.

    Args:
        x: Tensor (or KerasTensor) whose axis `view.axis` has `view.copies * have` entries.
        view: Where the channels lie.
        have: Number of channels of each copy in `x`.
        want: Number of channels to keep of each copy, at most `have`.

    Returns:
        A tensor whose axis `view.axis` has `view.copies * want` entries.
    """
    if want == have:
        return x
    before = (slice(None),) * view.axis
    if view.copies == 1:
        return x[(*before, slice(0, want))]
    if None not in x.shape[1:]:
        static = tuple(x.shape)
        split = (-1, *static[1 : view.axis], view.copies, have, *static[view.axis + 1 :])
        merged = (-1, *static[1 : view.axis], view.copies * want, *static[view.axis + 1 :])
        return ops.reshape(ops.reshape(x, split)[(*before, slice(None), slice(0, want))], merged)
    return ops.take(x, indices(view, have, want), axis=view.axis)


def indices(view: Channels, have: int, want: int) -> np.ndarray:
    """Returns the places on the axis that `take` keeps, ascending."""
    return (np.arange(view.copies)[:, None] * have + np.arange(want)).ravel()
