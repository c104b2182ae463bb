"""What a percentage is, and how many terms it keeps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import keras_tesla
from keras_tesla.percentages import active_terms, check_percentage, check_percentages


@pytest.mark.parametrize("percentage", [1, 50, 100, np.int8(30), np.int64(30), np.uint16(7)])
def test_integers_from_1_to_100_are_percentages(percentage):
    checked = check_percentage(percentage)
    assert checked == percentage
    assert type(checked) is int


@pytest.mark.parametrize("value", [0, -10, 101, np.int64(0), np.int32(1000)])
def test_out_of_range(value):
    with pytest.raises(ValueError, match=r"must be from 1 to 100. Received: "):
        check_percentage(value)


@pytest.mark.parametrize(
    "value", [55.5, 50.0, np.float32(50), True, False, np.True_, "50", None, [50], np.array(50)]
)
def test_only_integers_are_percentages(value):
    message = rf"must be an integer from 1 to 100. Received: .* \(of type {type(value).__name__}\)"
    with pytest.raises(ValueError, match=message):
        check_percentage(value)


@pytest.mark.parametrize(
    "percentages",
    [
        [100, 50, 10],
        (10, 50, 100),
        {50, 10, 100},
        iter([50, 100, 10]),
        np.array([10, 100, 50]),
        (p for p in (10, 50, 100)),
    ],
)
def test_any_iterable_becomes_a_descending_tuple_of_ints(percentages):
    checked = check_percentages(percentages)
    assert checked == (100, 50, 10)
    assert {type(p) for p in checked} == {int}


def test_range_and_single_percentage():
    assert check_percentages(range(100, 0, -25)) == (100, 75, 50, 25)
    assert check_percentages([30]) == (30,)


@pytest.mark.parametrize("empty", [[], (), range(0), np.array([], int), iter([])])
def test_no_percentage(empty):
    with pytest.raises(ValueError, match="must hold at least one percentage"):
        check_percentages(empty)


@pytest.mark.parametrize("value", [50, None, 55.5, True, "50", "", "100,50"])
def test_neither_one_number_nor_a_string_is_an_iterable_of_percentages(value):
    with pytest.raises(ValueError, match=r"must be an iterable of integers.*range\(100, 0, -10\)"):
        check_percentages(value)


@pytest.mark.parametrize("percentages", [[50, 50], [100, np.int64(100)], (10, 20, 10)])
def test_duplicates(percentages):
    with pytest.raises(ValueError, match="must be distinct. Received: "):
        check_percentages(percentages)


@pytest.mark.parametrize("bad", [0, 101, 55.5, True, "50", None])
def test_one_bad_percentage_among_good_ones(bad):
    with pytest.raises(ValueError, match="A percentage must be .* Received: "):
        check_percentages([100, bad, 10])


@pytest.mark.parametrize(
    ("terms", "percentage", "active"),
    [
        (100, 55, 55),  # 0.55 * 100 in floats, rounded up, is 56
        (100, 100, 100),
        (64, 100, 64),
        (64, 50, 32),
        (10, 99, 9),  # floored
        (3, 34, 1),
        (3, 66, 1),
        (3, 67, 2),
        (3, 10, 1),  # never none
        (1, 1, 1),
        (1000, 29, 290),  # 0.29 * 1000 in floats, floored, is 289
    ],
)
def test_active_terms(terms, percentage, active):
    assert active_terms(terms, percentage) == active
    assert keras_tesla.active_terms(terms, percentage) == active


@given(st.integers(1, 5000), st.integers(1, 99))
def test_a_higher_percentage_never_keeps_fewer_terms(terms, percentage):
    assert 1 <= active_terms(terms, percentage) <= active_terms(terms, percentage + 1) <= terms
