"""Where the channels of a tensor lie, and how some of them are taken."""

import dataclasses
from collections.abc import Iterable

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
        parts: Tuple of ints, whose sum is `count`: the channels are those of several tensors, one
            after the other. Default: of one. Layouts that differ in it only are equal: the channels
            lie at the same places.
    """

    axis: int
    count: int
    repeats: int = 1
    parts: tuple[int, ...] = dataclasses.field(default=(), compare=False)

    def __post_init__(self):
        object.__setattr__(self, "parts", tuple(self.parts) or (self.count,))
        if sum(self.parts) != self.count:
            raise ValueError(
                f"`parts` must sum up to the {self.count} channels. Received: {self.parts}"
            )


# From so many runs on their pieces are gathered at once: each one in a graph of its own would let
# it grow with the square of the depth of a DenseNet.
_FEW_RUNS = 4


def common_parts(layouts: Iterable[Channels]) -> tuple[int, ...]:
    """Returns the parts of channels that are read by several layouts of one count.

    A part ends where one of any layout ends.
    """
    ends = {int(end) for layout in layouts for end in np.cumsum(layout.parts)}
    return tuple(np.diff([0, *sorted(ends)]).tolist())


@dataclasses.dataclass(frozen=True)
class Selection:
    """Some of the channels of a tensor, in their order. Its `len` is their number.

    Args:
        runs: Tuple of (first channel, end), ascending, with a gap between any two.

    Example:

    >>> Selection.of([(0, 2), (4, 5), (2, 3)])
    Selection(runs=((0, 3), (4, 5)))
    """

    runs: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, runs: Iterable[tuple[int, int]]):
        """Returns the channels of runs (first channel, end) in any order, which may overlap."""
        joined: list[tuple[int, int]] = []
        for start, end in sorted(runs):
            if joined and start <= joined[-1][1]:
                joined[-1] = joined[-1][0], max(end, joined[-1][1])
            elif end > start:
                joined.append((start, end))
        return cls(tuple(joined))

    @classmethod
    def first(cls, count: int):
        """Returns the first `count` channels."""
        return cls.of([(0, count)])

    def __len__(self):
        return sum(end - start for start, end in self.runs)

    def __or__(self, other):
        return Selection.of([*self.runs, *other.runs])

    def __sub__(self, other):
        rest = np.setdiff1d(self.indices(), other.indices())
        return Selection.of((i, i + 1) for i in rest.tolist())

    def indices(self) -> np.ndarray:
        """Returns the channels, ascending."""
        return np.concatenate([np.zeros(0, int), *(np.arange(*run) for run in self.runs)])

    def between(self, start: int, end: int):
        """Returns the channels from `start` up to `end`, counted from `start`."""
        return Selection.of((max(a, start) - start, min(b, end) - start) for a, b in self.runs)

    def times(self, factor: int):
        """Returns the channels of a tensor with `factor` of them, side by side, for each."""
        return Selection(tuple((factor * a, factor * b) for a, b in self.runs))

    def over(self, factor: int):
        """Returns the channels from which those of `times` come, where any of theirs is here."""
        return Selection.of((a // factor, -(-b // factor)) for a, b in self.runs)

    def places(self, have: "Selection"):
        """Returns where among the channels `have` these are.

        Raises:
            ValueError: If one is not among them.
        """
        mine, all_of_them = self.indices(), have.indices()
        if not np.isin(mine, all_of_them).all():
            raise ValueError(f"The channels {self.runs} are not among {have.runs}.")
        places = np.searchsorted(all_of_them, mine).tolist()
        return Selection.of((i, i + 1) for i in places)


def take(x, layout: Channels, have: Selection, want: Selection):
    """Returns `x` with some of its channels.

    Args:
        x: Tensor (or KerasTensor) whose axis `layout.axis` has `layout.repeats * len(have)`
            entries.
        layout: Where the channels lie.
        have: The channels of each copy in `x`.
        want: The channels to keep of each copy, all among `have`.

    Returns:
        A tensor whose axis `layout.axis` has `layout.repeats * len(want)` entries.
    """
    if want == have:
        return x
    places = want.places(have)
    if layout.repeats == 1:
        return pick(x, places, layout.axis)
    if layout.axis > 0 and None not in x.shape[1:]:
        static = tuple(x.shape)
        split = (-1, *static[1 : layout.axis], layout.repeats, len(have))
        merged = (-1, *static[1 : layout.axis], layout.repeats * len(want))
        rest = static[layout.axis + 1 :]
        x = pick(ops.reshape(x, (*split, *rest)), places, layout.axis + 1)
        return ops.reshape(x, (*merged, *rest))
    return ops.take(x, indices(layout, have, want), axis=layout.axis)


def pick(x, selection: Selection | None, axis: int = 0):
    """Returns some entries of a tensor (or KerasTensor) on an axis; None: all.

    Args:
        x: The tensor.
        selection: Which; None: all.
        axis: Int, counted from 0, or from -1 for the last axis.
    """
    axis %= len(x.shape)
    if selection is None or selection.runs == ((0, x.shape[axis]),):
        return x
    if len(selection.runs) == 1:
        return _slice(x, *selection.runs[0], axis)
    if is_sparse(x):
        import tensorflow as tf

        return tf.sparse.concat(axis, [_slice(x, *run, axis) for run in selection.runs])
    if keras.backend.is_keras_tensor(x):
        return ops.concatenate([_slice(x, *run, axis) for run in selection.runs], axis)
    if len(selection.runs) > _FEW_RUNS:
        return _gather(x, selection.indices(), axis)
    # Split, not sliced: the gradient is one concatenation instead of a sum of padded slices.
    bounds = [bound for run in selection.runs for bound in run]
    return ops.concatenate(ops.split(x, bounds, axis)[1:-1:2], axis)


def put(x, entries, selection: Selection):
    """Returns a tensor with some of its entries on the first axis replaced, the inverse of `pick`.

    Args:
        x: The tensor.
        entries: Tensor with an entry for each of `selection`.
        selection: Which entries of `x` they replace.
    """
    if len(selection.runs) > _FEW_RUNS:
        return ops.scatter_update(x, selection.indices()[:, None], entries)
    pieces, at, used = [], 0, 0
    for start, end in selection.runs:
        pieces += [x[at:start], entries[used : used + end - start]]
        at, used = end, used + end - start
    return ops.concatenate([*pieces, x[at:]])


def _slice(x, start, end, axis):
    if keras.backend.backend() == "tensorflow" and not keras.backend.is_keras_tensor(x):
        import tensorflow as tf

        rank = len(x.shape)
        if is_sparse(x):
            places = tf.range(rank) == axis
            begin = tf.where(places, tf.constant(start, tf.int64), tf.zeros(rank, tf.int64))
            size = tf.where(places, tf.constant(end - start, tf.int64), x.dense_shape)
            return tf.sparse.slice(x, begin, size)
        begin, size = [0] * rank, [-1] * rank
        begin[axis], size[axis] = start, end - start
        around = [(0, 0)] * rank
        around[axis] = start, x.shape[axis] - end

        # TensorFlow's own gradient is an eighth of a graph's operations and computes the same.
        @tf.custom_gradient
        def sliced(x):
            return tf.slice(x, begin, size), lambda gradient: tf.pad(gradient, around)

        return sliced(tf.convert_to_tensor(x))  # of a variable: it would be one of the function
    return x[(*[slice(None)] * axis, slice(start, end))]


def _gather(x, places, axis):
    if keras.backend.backend() != "tensorflow":
        return ops.take(x, places, axis)
    import tensorflow as tf

    # For each entry of x its place in the result; for those that are not taken, that of a zero.
    back = np.full(x.shape[axis], len(places))
    back[places] = np.arange(len(places))
    behind = [(0, 0)] * len(x.shape)
    behind[axis] = 0, 1

    @tf.custom_gradient
    def gathered(x):
        return tf.gather(x, places, axis=axis), lambda gradient: tf.gather(
            tf.pad(gradient, behind), back, axis=axis
        )

    return gathered(tf.convert_to_tensor(x))  # likewise


def is_sparse(x) -> bool:
    """Whether a tensor is a sparse one of TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return isinstance(x, tf.SparseTensor)


def indices(layout: Channels, have: Selection, want: Selection) -> np.ndarray:
    """Returns the positions on the axis that `take` keeps, ascending."""
    copies = np.arange(layout.repeats)[:, None] * len(have)
    return (copies + want.places(have).indices()).ravel()
