"""Nested storage: every percentage's weight is the beginning of one run of bytes.

A weight at a percentage is a leading block of the full one: its first rows (output channels) and of
these the first columns (input channels). Each block is stored before the values that the next
larger block adds to it, so all blocks share their bytes. A sparse tensor's description tells the
runtime's DENSIFY, once at load, to which row and columns each run of values belongs.

After a concatenation a block has the first columns of each part of the weight's, not the first of
all. Then the columns that a larger block adds lie between those of the smaller ones, and the
description, which says where each stored column belongs, differs between the blocks.

Within a row the order is columns, then `inner` (the positions of a convolution's kernel), so a run
is contiguous whatever the kernel's size. Where all blocks have all rows, the rows are part of
`inner` too: there is one row, and a block is the beginning of the columns.
"""

import dataclasses

import numpy as np
from ai_edge_litert import schema_py_generated as schema


@dataclasses.dataclass(frozen=True)
class NestedLayout:
    """How the leading blocks of a weight are stored in one run of bytes.

    Args:
        rows: Number of rows of each block, ascending.
        columns: Number of columns of each block, ascending.
        inner: Values for each row and column.
        item_bytes: Bytes of a value.
        column_runs: For each block which columns of the largest one it has: runs (first, end),
            ascending. None: the first ones.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    inner: int
    item_bytes: int
    column_runs: tuple[tuple[tuple[int, int], ...], ...] | None = None

    def values(self) -> dict:
        """Returns it as a dict for JSON."""
        values = {**vars(self), "rows": list(self.rows), "columns": list(self.columns)}
        if self.column_runs is None:
            del values["column_runs"]
        return values

    def places(self, level: int) -> np.ndarray:
        """Returns for each column of a block, in stored order, where in the block it belongs.

        Raises:
            ValueError: If `column_runs`, which may come from any file, do not say that.
        """
        if self.column_runs is None:
            return np.arange(self.columns[level])
        stored = columns = np.zeros(0, int)
        for count, runs in zip(
            self.columns[: level + 1], self.column_runs[: level + 1], strict=True
        ):
            # Checked before they take memory.
            total = sum(end - start for start, end in runs)
            if any(not 0 <= start < end for start, end in runs) or total != min(
                count, self.columns[level]
            ):
                raise ValueError(f"{runs} are not {count} columns")
            columns = np.concatenate([np.arange(*run) for run in runs])
            stored = np.concatenate([stored, np.setdiff1d(columns, stored)])
        places = np.searchsorted(columns, stored)
        if not np.array_equal(np.sort(places), np.arange(self.columns[level])):
            raise ValueError(f"the columns {self.column_runs} are not nested")
        return places

    def size(self, level: int) -> int:
        """Returns the number of bytes of a block."""
        return self.rows[level] * self.columns[level] * self.inner * self.item_bytes

    def runs(self, level: int):
        """Yields (row, first column, end of columns) of each run of a block, in stored order."""
        rows = columns = 0
        for more_rows, more_columns in zip(
            self.rows[: level + 1], self.columns[: level + 1], strict=True
        ):
            for row in range(rows, more_rows):
                yield row, 0, more_columns
            if more_columns > columns:
                for row in range(rows):
                    yield row, columns, more_columns
            rows, columns = more_rows, more_columns

    def store(self, weight: np.ndarray) -> bytes:
        """Returns the largest block in stored order.

        Args:
            weight: Array `(rows, .., columns)`; what lies between is `inner`.
        """
        by_row = np.moveaxis(weight.reshape(self.rows[-1], self.inner, self.columns[-1]), 1, 2)
        top = len(self.rows) - 1
        by_row = by_row[:, self.places(top)]
        return b"".join(by_row[row, lo:hi].tobytes() for row, lo, hi in self.runs(top))

    def load(self, stored: bytes | memoryview, level: int) -> np.ndarray:
        """Returns a block as `(rows, inner, columns)` from the beginning of what `store` made.

        Args:
            stored: At least `size(level)` bytes.
            level: Index of the block.

        Returns:
            An array of unsigned integers of `item_bytes` bytes.
        """
        values = np.frombuffer(stored, f"u{self.item_bytes}", self.size(level) // self.item_bytes)
        by_row = np.empty((self.rows[level], self.columns[level], self.inner), values.dtype)
        at = 0
        for row, lo, hi in self.runs(level):
            count = (hi - lo) * self.inner
            by_row[row, lo:hi] = values[at : at + count].reshape(hi - lo, self.inner)
            at += count
        block = np.empty_like(by_row)
        block[:, self.places(level)] = by_row
        return np.ascontiguousarray(np.moveaxis(block, 2, 1))


class Descriptions:
    """Makes the descriptions of the sparse tensors of one flatbuffer; each list is stored once."""

    def __init__(self):
        self._vectors = {}

    def describe(self, layout: NestedLayout, level: int, shape) -> schema.SparsityParametersT:
        """Returns the description of a block.

        Rows and columns are compressed (CSR) dimensions. A run (row, lo, hi) is an entry whose
        columns are elements lo .. hi of the block's `places`, in general 0, 1, 2, ... Entry e ends
        where entry e + 1 begins, so an empty entry separates two runs that are not adjacent. All
        blocks point to the lists of the largest one; each says how many of the entries it has.

        Args:
            layout: How the blocks are stored.
            level: Index of the block.
            shape: The tensor's shape `(rows, .., columns)`.
        """
        description = schema.SparsityParametersT()
        last = len(shape) - 1
        places = layout.places(level)
        if layout.rows[-1] == 1:
            description.traversalOrder = [last, *range(last)]
            description.dimMetadata = [_dense(shape[i]) for i in description.traversalOrder]
            if layout.column_runs is not None:
                description.dimMetadata[0] = self._compressed([0, len(places)], places)
            return description
        rows: list[int] = []
        ends = [0]
        used = 0
        count = sum(1 for _ in layout.runs(level))
        for number, (row, lo, hi) in enumerate(layout.runs(len(layout.rows) - 1)):
            if number == count:
                used = len(rows)
            if ends[-1] != lo:
                rows.append(0)
                ends.append(lo)
            rows.append(row)
            ends.append(hi)
        description.traversalOrder = [0, last, *range(1, last)]
        description.dimMetadata = [
            self._compressed([0, used or len(rows)], rows),
            self._compressed(ends, [*places, *range(len(places), layout.columns[-1])]),
            *(_dense(size) for size in shape[1:-1]),
        ]
        return description

    def _compressed(self, segments, indices):
        made = schema.DimensionMetadataT()
        made.format = schema.DimensionType.SPARSE_CSR
        made.arraySegments, made.arraySegmentsType = self._vector(segments)
        made.arrayIndices, made.arrayIndicesType = self._vector(indices)
        return made

    def _vector(self, values):
        values = np.asarray(values)
        key = values.tobytes()
        if key not in self._vectors:
            kinds = schema.SparseIndexVector
            made, kind, dtype = next(
                (vector(), kind, dtype)
                for vector, kind, dtype in (
                    (_Uint8, kinds.Uint8Vector, "uint8"),
                    (_Uint16, kinds.Uint16Vector, "uint16"),
                    (_Int32, kinds.Int32Vector, "int32"),
                )
                if values.max() <= np.iinfo(dtype).max
            )
            made.values = values.astype(dtype)
            self._vectors[key] = made, kind
        return self._vectors[key]


def _dense(size):
    made = schema.DimensionMetadataT()
    made.format, made.denseSize = schema.DimensionType.DENSE, int(size)
    return made


class _Once:
    """Mix-in that packs a table once for each flatbuffer, which may point to it repeatedly."""

    _packed = (None, None)

    def Pack(self, builder):
        if self._packed[0] is not builder:
            self._packed = builder, super().Pack(builder)  # type: ignore[misc]
        return self._packed[1]


class _Uint8(_Once, schema.Uint8VectorT):
    pass


class _Uint16(_Once, schema.Uint16VectorT):
    pass


class _Int32(_Once, schema.Int32VectorT):
    pass
