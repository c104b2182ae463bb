"""Nested storage: every leading block of a weight is the beginning of one run of bytes."""

import dataclasses
import json

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from keras_tesla.channels import Selection
from keras_tesla.tflite.graphs.nested import Descriptions, NestedLayout

_ascending = st.lists(st.integers(1, 9), min_size=1, max_size=5).map(
    lambda steps: tuple(int(n) for n in np.cumsum(steps))
)


@st.composite
def layouts(draw):
    rows = draw(_ascending)
    counts = draw(st.lists(st.integers(1, 12), min_size=len(rows), max_size=len(rows)))
    columns, runs = tuple(sorted(counts)), None
    if draw(st.booleans()):  # any columns of the largest block, each block's among the next one's
        order = draw(st.permutations(range(columns[-1])))
        blocks = [Selection.of((i, i + 1) for i in order[:count]) for count in columns]
        runs = tuple(block.runs for block in blocks)
    return NestedLayout(
        rows,
        columns,
        inner=draw(st.sampled_from([1, 4, 9])),
        item_bytes=draw(st.sampled_from([1, 2, 4])),
        column_runs=runs,
    )


def columns_of(layout, level):
    """Which columns of the largest block a block has."""
    if layout.column_runs is None:
        return list(range(layout.columns[level]))
    return [i for run in layout.column_runs[level] for i in range(*run)]


@hypothesis.given(layouts())
def test_every_leading_block_is_the_beginning_of_what_is_stored(layout):
    dtype = f"u{layout.item_bytes}"
    shape = (layout.rows[-1], layout.inner, layout.columns[-1])
    weight = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    stored = layout.store(weight)
    assert len(stored) == weight.nbytes
    for level, rows in enumerate(layout.rows):
        block = weight[:rows][..., columns_of(layout, level)]
        assert layout.size(level) == block.nbytes
        np.testing.assert_array_equal(layout.load(stored[: block.nbytes], level), block)


@hypothesis.given(layouts(), st.data())
def test_a_description_leads_to_the_block(layout, data):
    """Reads a block as DENSIFY does: by nothing but the description."""
    hypothesis.assume(layout.rows[-1] > 1)
    level = data.draw(st.integers(0, len(layout.rows) - 1))
    rows, columns = layout.rows[level], layout.columns[level]
    whole = np.arange(layout.rows[-1] * layout.inner * layout.columns[-1], dtype="u4")
    whole = whole.reshape(layout.rows[-1], layout.inner, layout.columns[-1])
    whole_layout = dataclasses.replace(layout, item_bytes=4)
    values = iter(np.frombuffer(whole_layout.store(whole), "u4"))
    found = Descriptions().describe(whole_layout, level, (rows, layout.inner, columns))
    by_row, by_column, dense = found.dimMetadata
    assert list(found.traversalOrder) == [0, 2, 1]
    assert dense.denseSize == layout.inner
    block = np.zeros((rows, layout.inner, columns), "u4")
    for entry in range(*by_row.arraySegments.values):
        row = by_row.arrayIndices.values[entry]
        ends = by_column.arraySegments.values
        for place in range(ends[entry], ends[entry + 1]):
            for inner in range(layout.inner):
                block[row, inner, by_column.arrayIndices.values[place]] = next(values)
    np.testing.assert_array_equal(block, whole[:rows][..., columns_of(layout, level)])


def test_where_all_rows_are_kept_a_corner_is_the_beginning_of_the_columns():
    """Five rows belong to `inner`: the axes follow each other, the columns' first, none sparse."""
    shape = (5, 2, 3)
    weight = np.arange(30, dtype="u4").reshape(shape)
    layout = NestedLayout((1, 1), (2, 3), inner=10, item_bytes=4)
    stored = layout.store(weight.reshape(1, 10, 3))
    described = Descriptions().describe(layout, 0, (5, 2, 2))
    assert list(described.traversalOrder) == [2, 0, 1]
    assert [d.denseSize for d in described.dimMetadata] == [2, 5, 2]
    values = np.frombuffer(stored[: layout.size(0)], "u4").reshape(2, 5, 2)
    np.testing.assert_array_equal(values.transpose(1, 2, 0), weight[..., :2])


def test_where_all_rows_are_kept_a_list_says_which_columns_come_first():
    weight = np.arange(30, dtype="u4").reshape(5, 2, 3)
    runs = (((0, 1), (2, 3)), ((0, 3),))
    layout = NestedLayout((1, 1), (2, 3), inner=10, item_bytes=4, column_runs=runs)
    stored = np.frombuffer(layout.store(weight.reshape(1, 10, 3)), "u4").reshape(3, 5, 2)
    np.testing.assert_array_equal(stored.transpose(1, 2, 0), weight[..., [0, 2, 1]])
    for level, places in enumerate([[0, 1], [0, 2, 1]]):
        described = Descriptions().describe(layout, level, (5, 2, 2 + level))
        assert list(described.traversalOrder) == [2, 0, 1]
        columns, *others = described.dimMetadata
        assert columns.arraySegments.values.tolist() == [0, 2 + level]
        assert columns.arrayIndices.values.tolist() == places
        assert [d.denseSize for d in others] == [5, 2]


@pytest.mark.parametrize(
    "first", [((0, 10**12), (10**12, 2)), ((0, 1),), ((-1, 1),), ((0, 1), (3, 4))]
)
def test_runs_that_are_no_nested_columns_are_refused(first):
    layout = NestedLayout((1, 1), (2, 3), 1, 4, column_runs=(first, ((0, 3),)))
    with pytest.raises(ValueError, match="are not"):
        layout.places(1)


def test_as_json():
    layout = NestedLayout((2, 4), (2, 3), 1, 4, (((0, 1), (2, 3)), ((0, 3),)))
    assert json.loads(json.dumps(layout.values())) == {
        "rows": [2, 4],
        "columns": [2, 3],
        "inner": 1,
        "item_bytes": 4,
        "column_runs": [[[0, 1], [2, 3]], [[0, 3]]],
    }
    assert "column_runs" not in NestedLayout((2, 4), (2, 3), 1, 4).values()


@pytest.mark.parametrize(
    "runs",
    [
        [[[0, 1]], [[0, 2]]],  # not as many as there are columns
        [[[0, 10**12]], [[0, 3]]],
        [[[0, 10**12]], [[0, 10**12]]],
        [[[5, 6]], [[0, 3]]],  # not nested
        [[[0, 1]], [[0, 2], [1, 2]]],
        [[[0, 1]]],
    ],
)
def test_columns_that_are_not_nested_are_refused(runs):
    layout = NestedLayout([2, 4], [1, 3], 1, 4, runs)
    with pytest.raises(ValueError, match=r"columns|shorter"):
        layout.load(bytes(layout.size(1)), 1)


def test_corners_of_one_weight_share_their_lists():
    described, layout = Descriptions(), NestedLayout((2, 4), (3, 5), 1, 4)
    small, large = (described.describe(layout, level, (4, 5)) for level in (0, 1))
    for a, b in zip(small.dimMetadata, large.dimMetadata, strict=True):
        assert a.arrayIndices is b.arrayIndices
    assert small.dimMetadata[0].arraySegments is not large.dimMetadata[0].arraySegments


@pytest.mark.parametrize("highest", [255, 256, 65535, 65536])
def test_long_lists_take_wider_numbers(highest):
    layout = NestedLayout((2,), (highest + 1,), 1, 1)
    described = Descriptions().describe(layout, 0, (2, highest + 1))
    values = described.dimMetadata[1].arrayIndices.values
    assert values[-1] == highest
    assert values.dtype.itemsize == (1 if highest < 256 else 2 if highest < 65536 else 4)
