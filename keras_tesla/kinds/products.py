"""Products of tensors with each other: matrix products, einsum, the layer Dot.

What is summed up is read whole. An axis that stays is computed as far as it is read: the heads of
attention, which its products treat one by one, or the columns of a second operand.
"""

import dataclasses
import string
from typing import NamedTuple

import keras
from keras import layers

from keras_tesla.channels import Channels, common_parts
from keras_tesla.graph import Tensor
from keras_tesla.kinds.kind import Kind, Widths, is_regularized
from keras_tesla.kinds.registry import register
from keras_tesla.kinds.sizes import product


class _Followed(NamedTuple):
    """Where the channels go: their layout in the output, and which of the tensors have them."""

    layout: Channels
    having: list[bool]


class _Product(Kind):
    """Operands whose axes have letters, as in an einsum."""

    def operands(self, call) -> list:
        """Returns the tensors and arrays that are multiplied."""
        return list(call.args)

    def letters(self, call) -> tuple[list[str], str] | None:
        """Returns the axes of each operand and of the result as letters; None: unknown."""
        return None

    def layouts(self, call, inputs):
        followed = self._followed(call, inputs)
        return [followed and followed.layout]

    def widths(self, call, percentage, inputs, outputs, demand):
        followed = self._followed(call, inputs)
        if followed is None or is_regularized(call.operation):
            return super().widths(call, percentage, inputs, outputs, demand)
        return Widths(
            list(demand),
            [demand[0] if has else None for has in followed.having],
            [layout if has else None for layout, has in zip(inputs, followed.having, strict=True)],
        )

    def _followed(self, call, inputs) -> _Followed | None:
        """Returns the axis of channels that most operands have; of several the last one."""
        found, operands = self.letters(call), self.operands(call)
        if found is None or len(call.input_tensors) != sum(isinstance(x, Tensor) for x in operands):
            return None
        terms, result = found
        remaining = iter(inputs)
        where = [next(remaining) if isinstance(x, Tensor) else None for x in operands]
        (y,) = call.output_tensors
        ways = []
        for letter, size in zip(result, y.shape, strict=True):
            if any(term.count(letter) > 1 for term in (*terms, result)):
                continue  # a diagonal
            # An operand may have one entry for all.
            wide = [
                letter in term and x.shape[term.index(letter)] != 1
                for term, x in zip(terms, operands, strict=True)
            ]
            having = [
                layout
                for term, layout, has in zip(terms, where, wide, strict=True)
                if has and layout and term[layout.axis] == letter
            ]
            if not having or len(having) < sum(wide) or len({*map(_count, having)}) > 1:
                continue
            first = having[0]
            if size == first.repeats * first.count > 1:
                layout = dataclasses.replace(
                    first, axis=result.index(letter), parts=common_parts(having)
                )
                of_tensors = [
                    w for w, x in zip(wide, operands, strict=True) if isinstance(x, Tensor)
                ]
                ways.append(_Followed(layout, of_tensors))
        return max(reversed(ways), key=lambda way: sum(way.having), default=None)


def _count(layout):
    return layout.count, layout.repeats


class _Matmul(_Product):
    def letters(self, call):
        ranks = [len(x.shape) for x in self.operands(call)]
        if min(ranks) < 2:
            return None
        batch = string.ascii_uppercase[: max(ranks) - 2]
        first, second = (batch[len(batch) - (rank - 2) :] for rank in ranks)
        return [first + "mk", second + "kn"], batch + "mn"

    def multiply_adds(self, call, weights):
        (first, *_), (y,) = self.operands(call), call.output_tensors
        return product(call.operation, y.shape, (*y.shape[1:], first.shape[-1]))


register(_Matmul(), "Matmul")


class _Einsum(_Product):
    def letters(self, call):
        equation = call.operation.subscripts.replace(" ", "")
        if "->" not in equation or call.kwargs:
            return None
        terms, result = equation.split("->")
        (y,) = call.output_tensors
        shapes = [len(x.shape) for x in self.operands(call)]
        written = [
            without_ellipsis(term, rank, equation)
            for term, rank in zip(terms.split(","), shapes, strict=True)
        ]
        return written, without_ellipsis(result, len(y.shape), equation)

    def multiply_adds(self, call, weights):
        shapes = [x.shape for x in self.operands(call)]
        return of_einsum(call, call.operation.subscripts, shapes)


register(_Einsum(), "Einsum")


class _Dot(_Product):
    """Of each example with its other one, along one axis of each."""

    def operands(self, call):
        return keras.tree.flatten((call.args, call.kwargs))

    def letters(self, call):
        first, second = (list(self._free(x, i)) for i, x in enumerate(self.operands(call)))
        axes = call.operation.axes
        axes = (axes, axes) if isinstance(axes, int) else axes
        for term, axis in zip((first, second), axes, strict=True):
            term[axis] = "z"
        result = [letter for letter in first + second[1:] if letter != "z"]
        (y,) = call.output_tensors
        if len(result) != len(y.shape):
            return None  # one number for each example
        return ["".join(first), "".join(second)], "".join(result)

    def _free(self, x, number):
        letters = (string.ascii_lowercase[1:12], string.ascii_uppercase[1:12])[number]
        return "a" + letters[: len(x.shape) - 1]

    def multiply_adds(self, call, weights):
        layer, (y,) = call.operation, call.output_tensors
        axes = layer.axes if isinstance(layer.axes, int) else layer.axes[0]
        terms = call.input_tensors[0].shape[axes]
        return product(layer, y.shape, (*y.shape[1:], terms))


register(_Dot(), layers.Dot)


def of_einsum(call, equation, shapes) -> int | None:
    """Returns the multiply-adds: one for each combination of the two operands' indices.

    Args:
        call: The call; of what it returns the shape matters, too, which may be narrowed.
        equation: String, as in `ops.einsum`.
        shapes: The operands' shapes.

    Returns:
        Int; None for other than two operands.
    """
    written, _, result = equation.replace(" ", "").partition("->")
    terms = written.split(",")
    if len(terms) != 2:
        return None
    pairs = [*zip(terms, shapes, strict=True)]
    batch = without_ellipsis(*pairs[0][:1], len(shapes[0]), equation)[0]
    if result:
        pairs.insert(0, (result, call.output_tensors[0].shape))
    sizes: dict[str, int | None] = {}
    for term, shape in pairs:
        letters = without_ellipsis(term, len(shape), equation)
        for letter, size in zip(letters, shape, strict=True):
            sizes[letter] = size if sizes.get(letter) in (None, 1) else sizes[letter]
    sizes.pop(batch)
    return product(call.operation, shapes[0], sizes.values())


def without_ellipsis(term: str, rank: int, equation: str) -> str:
    """Returns the axes of an operand with letters for those in its ellipsis.

    Args:
        term: String, the operand's part of the equation.
        rank: Int, the number of its axes.
        equation: String, whose letters are taken.
    """
    free = [letter for letter in string.ascii_letters if letter not in equation]
    count = rank - len(term.replace("...", ""))
    return term.replace("...", "".join(free[:count][::-1]))
