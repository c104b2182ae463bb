"""Nested storage: every corner of a weight is the beginning of one run of bytes."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from keras_tesla.tflite.graphs.nested import Descriptions, Shells

_ascending = st.lists(st.integers(1, 9), min_size=1, max_size=5).map(
    lambda steps: tuple(int(n) for n in np.cumsum(steps))
)


@st.composite
def shells(draw):
    rows = draw(_ascending)
    columns = draw(st.lists(st.integers(1, 12), min_size=len(rows), max_size=len(rows)))
    return Shells(
        rows,
        tuple(sorted(columns)),
        inner=draw(st.sampled_from([1, 4, 9])),
        item=draw(st.sampled_from([1, 2, 4])),
    )


@hypothesis.given(shells())
def test_every_corner_is_the_beginning_of_what_is_stored(shells):
    dtype = f"u{shells.item}"
    shape = (shells.rows[-1], shells.inner, shells.columns[-1])
    weight = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    stored = shells.store(weight)
    assert len(stored) == weight.nbytes
    for level, (rows, columns) in enumerate(zip(shells.rows, shells.columns, strict=True)):
        corner = weight[:rows, :, :columns]
        assert shells.size(level) == corner.nbytes
        np.testing.assert_array_equal(shells.load(stored[: corner.nbytes], level), corner)


@hypothesis.given(shells(), st.data())
def test_a_description_leads_to_the_corner(shells, data):
    """Reads a corner as DENSIFY does: by the description alone."""
    hypothesis.assume(shells.rows[-1] > 1)
    level = data.draw(st.integers(0, len(shells.rows) - 1))
    rows, columns = shells.rows[level], shells.columns[level]
    whole = np.arange(shells.rows[-1] * shells.inner * shells.columns[-1], dtype="u4")
    whole = whole.reshape(shells.rows[-1], shells.inner, shells.columns[-1])
    whole_shells = Shells(shells.rows, shells.columns, shells.inner, item=4)
    values = iter(np.frombuffer(whole_shells.store(whole), "u4"))
    found = Descriptions().describe(whole_shells, level, (rows, shells.inner, columns))
    by_row, by_column, dense = found.dimMetadata
    assert list(found.traversalOrder) == [0, 2, 1]
    assert dense.denseSize == shells.inner
    corner = np.zeros((rows, shells.inner, columns), "u4")
    for entry in range(*by_row.arraySegments.values):
        row = by_row.arrayIndices.values[entry]
        ends = by_column.arraySegments.values
        for place in range(ends[entry], ends[entry + 1]):
            for inner in range(shells.inner):
                corner[row, inner, by_column.arrayIndices.values[place]] = next(values)
    np.testing.assert_array_equal(corner, whole[:rows, :, :columns])


def test_where_all_rows_are_kept_a_corner_is_the_beginning_of_the_columns():
    """Five rows belong to `inner`: the axes follow each other, the columns' first, none sparse."""
    shape = (5, 2, 3)
    weight = np.arange(30, dtype="u4").reshape(shape)
    shells = Shells((1, 1), (2, 3), inner=10, item=4)
    stored = shells.store(weight.reshape(1, 10, 3))
    described = Descriptions().describe(shells, 0, (5, 2, 2))
    assert list(described.traversalOrder) == [2, 0, 1]
    assert [d.denseSize for d in described.dimMetadata] == [2, 5, 2]
    values = np.frombuffer(stored[: shells.size(0)], "u4").reshape(2, 5, 2)
    np.testing.assert_array_equal(values.transpose(1, 2, 0), weight[..., :2])


def test_corners_of_one_weight_share_their_lists():
    described, shells = Descriptions(), Shells((2, 4), (3, 5), 1, 4)
    small, large = (described.describe(shells, level, (4, 5)) for level in (0, 1))
    for a, b in zip(small.dimMetadata, large.dimMetadata, strict=True):
        assert a.arrayIndices is b.arrayIndices
    assert small.dimMetadata[0].arraySegments is not large.dimMetadata[0].arraySegments


@pytest.mark.parametrize("highest", [255, 256, 65535, 65536])
def test_long_lists_take_wider_numbers(highest):
    shells = Shells((2,), (highest + 1,), 1, 1)
    described = Descriptions().describe(shells, 0, (2, highest + 1))
    values = described.dimMetadata[1].arrayIndices.values
    assert values[-1] == highest
    assert values.dtype.itemsize == (1 if highest < 256 else 2 if highest < 65536 else 4)
