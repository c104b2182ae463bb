"""The governor: at once down, slowly up, never to and fro."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_tesla.tflite.governor import Governor

PERCENTAGES = list(range(10, 101, 10))
NAN = math.nan


def governor(**options):
    """Ten percentages that cost what they say, a budget of 10 ms, and a short hold."""
    return Governor(PERCENTAGES, **{"latency_budget": 0.010, "hold": 8, **options})


def run(made, latency, calls, **others):
    """Runs calls that take `latency(percentage)` seconds; returns the percentages they ran at."""
    ran = []
    for _ in range(calls):
        ran.append(made.percentage)
        made.record(latency(made.percentage), **others)
    return ran


def stays(ran):
    """[(percentage, for how many calls)] of a run."""
    return [(percentage, len(list(group))) for percentage, group in itertools.groupby(ran)]


# Choosing.


def test_it_begins_at_the_highest_percentage_or_where_it_is_told():
    assert governor().percentage == 100
    assert governor(start=30).percentage == 30
    assert Governor((50,), latency_budget=1).percentage == 50


def test_it_stays_where_everything_fits():
    assert run(governor(), lambda p: 0.0099, 200) == [100] * 200


def test_one_clear_overshoot_leads_at_once_to_what_is_predicted_to_fit():
    made = governor()
    assert made.record(0.015) == 100  # just not clear
    # 30 ms at 100 %: 30 % is predicted to take 9 ms, the budget without its margin.
    assert made.record(0.030) == 30


def test_what_is_predicted_to_leave_exactly_the_margin_fits():
    costs = {100: 2.0, 50: 1.0, 10: 0.5}  # powers of two: no rounding here
    made = Governor(costs, costs, latency_budget=1.0, margin=0.25, window=1)
    assert made.record(1.5) == 50
    made = Governor(costs, costs, latency_budget=1.0, margin=0.25, window=1)
    assert made.record(math.nextafter(1.5, 0) + 2**-51) == 10


def test_a_small_overshoot_is_believed_when_the_window_is_full():
    made = governor(window=5)
    assert [made.record(0.012) for _ in range(5)] == [100, 100, 100, 100, 70]


def test_one_small_overshoot_among_calls_that_fit_changes_nothing():
    made = governor()
    latencies = itertools.cycle([0.007, 0.007, 0.014, 0.007])
    assert run(made, lambda p: next(latencies), 100) == [100] * 100


def test_the_lowest_percentage_is_the_choice_if_none_fits():
    made = governor()
    assert made.record(5.0) == 10
    assert run(made, lambda p: 0.050, 100) == [10] * 100


def test_it_climbs_one_step_at_a_time_each_after_a_hold():
    made = governor(start=10, hold=8, window=3)
    ran = run(made, lambda p: 0.00005 * p, 150)
    # Two calls fill the window, the eight from the third on are the hold.
    assert stays(ran) == [(p, 10) for p in PERCENTAGES[:-1]] + [(100, 60)]


def test_the_defaults_are_a_hold_of_30_calls_and_a_window_of_5():
    made = Governor(PERCENTAGES, latency_budget=0.010, start=10)
    assert stays(run(made, lambda p: 0.001, 69)) == [(10, 34), (20, 34), (30, 1)]


def test_time_is_counted_in_calls_or_in_what_the_app_says():
    seconds = governor(start=10, hold=2.0, window=1)
    ran = run(seconds, lambda p: 0.001, 41, elapsed=0.25)
    assert stays(ran)[:3] == [(10, 8), (20, 8), (30, 8)]
    frozen = governor(start=10)
    assert run(frozen, lambda p: 0.001, 100, elapsed=0) == [10] * 100


def test_the_costs_predict_what_was_not_measured():
    made = Governor([100, 50, 10], {100: 9.0, 50: 8.0, 10: 1.0}, latency_budget=0.010)
    assert made.record(0.016) == 10  # 50 % is predicted to take 14.2 ms
    made = Governor([100, 50, 10], {100: 9.0, 50: 5.0, 10: 1.0}, latency_budget=0.010)
    assert made.record(0.016) == 50  # 8.9 ms


def test_a_manifest_names_percentages_and_costs():
    entries = [
        {"percentage": 100, "multiply_adds": 100, "latency": 0.009},
        {"percentage": 50, "multiply_adds": 25, "latency": 0.008},
        {"percentage": 10, "multiply_adds": 1, "latency": 0.001},
    ]
    made = Governor.from_manifest({"percentages": entries}, latency_budget=0.010)
    assert made.percentages == (100, 50, 10)
    assert made.record(0.016) == 10  # by the latencies
    entries[1]["latency"] = None
    made = Governor.from_manifest({"percentages": entries}, latency_budget=0.010)
    assert made.record(0.016) == 50  # by the multiply-adds


def test_the_average_is_the_mean_of_the_window_then_an_exponential_one():
    made = governor(window=2, latency_budget=10)
    assert made.average is None
    seen = []
    for latency in (4.0, 6.0, 7.0, 2.0):
        made.record(latency)
        seen.append(made.average)
    assert seen == [4.0, 5.0, 6.0, 4.0]
    made.record(100.0)  # down: nothing is known there
    assert made.average is None


# Energy and heat.


def test_an_energy_budget_counts_as_well():
    made = governor(energy_budget=0.5)
    assert made.record(0.001, energy=1.0) == 40
    made = Governor(PERCENTAGES, energy_budget=0.5)
    assert made.record(1000.0, energy=0.4) == 100  # there is no budget for the latency
    assert made.record(1000.0, energy=1.0) == 40


def test_without_measured_energy_it_never_steps_up_to_an_energy_budget():
    made = governor(start=10, energy_budget=0.5)
    assert run(made, lambda p: 0.001, 200) == [10] * 200
    assert run(made, lambda p: 0.001, 200, energy=0.001)[-1] == 100


def test_energy_without_a_budget_is_ignored():
    assert governor().record(0.001, energy=1e9) == 100


def test_heat_is_one_step_down_at_once_and_another_after_a_hold():
    made = governor(hot=0.9)
    assert made.record(0.001, headroom=0.89) == 100
    assert made.record(0.001, headroom=0.9) == 90
    ran = run(made, lambda p: 0.001, 20, headroom=0.95)
    assert stays(ran) == [(90, 8), (80, 8), (70, 4)]
    made = governor(hold=2.0)
    ran = run(made, lambda p: 0.001, 21, headroom=0.95, elapsed=0.25)
    assert stays(ran) == [(100, 1), (90, 8), (80, 8), (70, 4)]


def test_while_it_cools_down_the_last_step_was_enough():
    made = governor(hold=1)
    assert made.record(0.001, headroom=0.95) == 90
    for headroom in (0.949, 0.948, 0.947):
        assert made.record(0.001, headroom=headroom) == 90
    assert made.record(0.001, headroom=0.947) == 80


def test_severe_heat_leads_to_the_lowest_percentage_at_once():
    made = governor()
    assert made.record(0.001, headroom=1.0) == 10
    assert made.record(0.001, headroom=1.2) == 10


def test_what_was_too_hot_is_tried_again_only_after_the_longest_wait():
    made = governor(hold=2, window=1)
    assert made.record(0.001, headroom=0.9) == 90
    ran = run(made, lambda p: 0.001, 200, headroom=0.5)
    assert stays(ran) == [(90, 128), (100, 72)]
    # From the lowest up to the ceiling it climbs as always.
    made = governor(hold=2, window=1)
    run(made, lambda p: 0.001, 1, headroom=1.0)
    ran = run(made, lambda p: 0.001, 280, headroom=0.5)
    assert stays(ran) == [(p, 2) for p in range(10, 90, 10)] + [(90, 128), (100, 136)]
    # Then the heat is forgotten.
    assert made.record(0.0149) == 60
    assert stays(run(made, lambda p: 0.001, 10)) == [(60, 2), (70, 2), (80, 2), (90, 2), (100, 2)]


def test_there_is_no_step_up_before_it_is_cooler_than_it_must_be_to_stay():
    made = governor(hot=0.75, margin=0.25, hold=1, window=1)
    made.record(0.001, headroom=0.75)
    assert run(made, lambda p: 0.001, 300, headroom=0.5) == [90] * 300
    assert run(made, lambda p: 0.001, 300, headroom=0.4999)[-1] == 100


def test_heat_and_an_overshoot_at_once_lead_to_the_lower_of_both_answers():
    assert governor().record(0.030, headroom=0.95) == 30


@pytest.mark.parametrize("nothing", [NAN, None, np.float32("nan")])
def test_a_reading_that_is_nan_leaves_the_last_one(nothing):
    made = governor(hold=1, window=1)
    made.record(0.001, headroom=0.95)
    assert run(made, lambda p: 0.001, 300, headroom=nothing) == [90] * 300
    made.record(0.001, headroom=0.1)
    assert run(made, lambda p: 0.001, 300, headroom=nothing)[-1] == 100
    # A device that cannot tell always says NaN.
    assert run(governor(), lambda p: 0.001, 50, headroom=nothing) == [100] * 50


# Never to and fro.


def test_a_step_up_that_fails_goes_back_and_doubles_the_wait():
    made = governor(start=50, hold=8, window=1)
    # The costs say that 60 % fits; it does not.
    ran = run(made, lambda p: 0.012 if p > 50 else 0.005, 8 * 500)
    tries = [count for percentage, count in stays(ran)[:-1] if percentage == 50]
    assert tries == [8, 16, 32, 64, 128, 256, 512, 512, 512, 512, 512, 512]
    assert {count for percentage, count in stays(ran) if percentage == 60} == {1}
    assert set(ran) == {50, 60}


def test_the_hold_begins_anew_when_something_was_wrong():
    made = governor(start=50, hold=8, window=1)
    run(made, lambda p: 0.005, 7, headroom=0.5)
    run(made, lambda p: 0.005, 1, headroom=0.85)
    assert stays(run(made, lambda p: 0.005, 9, headroom=0.5)) == [(50, 8), (60, 1)]


def test_the_hold_begins_anew_when_the_next_percentage_was_predicted_not_to_fit():
    made = governor(start=50, hold=8, window=1)
    run(made, lambda p: 0.005, 7)
    run(made, lambda p: 0.0076, 1)  # 9.1 ms at 60 %
    assert stays(run(made, lambda p: 0.005, 9)) == [(50, 8), (60, 1)]


def test_what_is_predicted_not_to_fit_is_tried_but_rarely():
    costs = {50: 1.0, 100: 100.0}  # in truth they take the same
    made = Governor([100, 50], costs, latency_budget=0.010, hold=8, window=1, start=50)
    assert stays(run(made, lambda p: 0.005, 100)) == [(50, 64), (100, 36)]


def test_the_next_step_up_waits_until_the_last_one_has_lasted():
    costs = {50: 1.0, 80: 100.0, 100: 100.0}
    made = Governor(costs, costs, latency_budget=0.010, hold=8, window=1, start=50)
    # 100 % is predicted to fit as soon as 80 % is measured, which was tried against its costs.
    assert stays(run(made, lambda p: 0.005, 140)) == [(50, 64), (80, 64), (100, 12)]


def test_a_step_up_that_lasted_resets_the_wait():
    made = governor(start=50, hold=8, window=1, latency_budget=0.010)
    fails = run(made, lambda p: 0.012 if p > 50 else 0.005, 8 + 1 + 16 + 1)
    assert stays(fails) == [(50, 8), (60, 1), (50, 16), (60, 1)]
    # Now 60 % is predicted not to fit, and fits.
    lasts = run(made, lambda p: 0.00891 if p <= 60 else 0.012, 64 + 64 + 1 + 5)
    assert stays(lasts) == [(50, 64), (60, 64), (70, 1), (60, 5)]
    assert made.record(0.0107) == 50
    assert stays(run(made, lambda p: 0.005, 10)) == [(50, 8), (60, 2)]
    made.record(0.012)  # too short a stay
    assert stays(run(made, lambda p: 0.005, 18)) == [(50, 16), (60, 2)]


def test_what_lasted_against_its_costs_is_no_longer_doubted():
    costs = {50: 1.0, 100: 100.0}
    made = Governor(costs, costs, latency_budget=0.010, hold=8, window=1, start=50)
    assert stays(run(made, lambda p: 0.005, 64 + 64)) == [(50, 64), (100, 64)]
    assert made.record(0.012) == 50
    assert stays(run(made, lambda p: 0.005, 10)) == [(50, 8), (100, 2)]


def test_what_lasted_as_predicted_is_doubted_as_ever_when_it_is_predicted_not_to_fit():
    made = governor(start=50, hold=8, window=1)
    assert stays(run(made, {50: 0.0074, 60: 0.0085}.get, 8 + 8)) == [(50, 8), (60, 8)]
    assert made.record(0.0107) == 50
    assert stays(run(made, lambda p: 0.0085, 70)) == [(50, 64), (60, 6)]


def test_a_trial_after_heat_that_fails_is_not_repeated_sooner():
    made = governor(hold=2, window=1)
    made.record(0.001, headroom=0.9)
    ran = run(made, lambda p: 0.012 if p == 100 else 0.001, 300, headroom=0.5)
    assert stays(ran) == [(90, 128), (100, 1), (90, 128), (100, 1), (90, 42)]


latencies = st.lists(st.floats(1e-4, 10.0), min_size=2, max_size=8, unique=True).map(sorted)


@given(latencies, st.randoms(use_true_random=False), st.integers(1, 9), st.integers(1, 6))
def test_under_a_constant_load_it_settles_on_the_best_that_fits(values, random, hold, window):
    """Whatever the costs say, and with no more switches than promised."""
    percentages = list(range(10, 10 + len(values)))
    truth = dict(zip(percentages, values, strict=True))
    costs = {p: random.uniform(0.01, 100) for p in percentages}
    budget = random.choice([*values, random.uniform(0.5, 2) * random.choice(values)])
    made = Governor(percentages, costs, latency_budget=budget, hold=hold, window=window)
    best = max((p for p in percentages if truth[p] <= budget), default=percentages[0])

    steps = len(values) - 1
    down = steps * window
    climb = steps * (window - 1 + 8 * hold)
    calls = down + climb + 64 * hold * 4
    ran = run(made, truth.get, calls)

    # Within the budget, but for trials of one percentage, which end when the window is full.
    assert all(p <= best + 1 for p in ran[down:])
    settled = stays(ran[down + climb :])
    assert {p for p, _ in settled} <= {best, best + 1}
    assert all(count <= window for p, count in settled if p != best)
    # At most the steps down and up to it, and the trials that fail.
    bound = 2 * steps + 2 * (6 + calls / (64 * hold))
    assert len(stays(ran)) - 1 <= bound


measured = st.tuples(
    st.floats(0.0, 0.030),
    st.one_of(st.none(), st.floats(0.0, 0.030)),
    st.one_of(st.none(), st.just(NAN), st.floats(0.0, 1.2)),
    st.floats(0.0, 3.0),
)


@given(st.lists(measured, max_size=150), st.floats(0.5, 10.0), st.booleans())
def test_whatever_is_measured_a_step_up_is_single_and_a_hold_after_the_step_before(
    records, hold, with_energy
):
    made = governor(hold=hold, window=2, energy_budget=0.010 if with_energy else None)
    since = 0.0
    for latency, energy, headroom, elapsed in records:
        before = made.percentage
        made.record(latency, energy=energy, headroom=headroom, elapsed=elapsed)
        since += elapsed
        if made.percentage != before:
            if made.percentage > before:
                assert made.percentage == before + 10
                # The governor adds up the calls that it counts, here all of them are added up.
                assert since >= hold * (1 - 1e-12)
            since = 0.0


@given(st.lists(measured, max_size=100), st.floats(1.0, 5.0))
def test_whatever_was_measured_one_clear_overshoot_is_a_step_down(records, factor):
    made = governor(hold=1, window=2)
    for latency, energy, headroom, elapsed in records:
        made.record(latency, energy=energy, headroom=headroom, elapsed=elapsed)
    before = made.percentage
    made.record(0.010 * 1.5000001 * factor)
    assert made.percentage < before or before == 10


@given(st.lists(measured, max_size=100))
def test_the_same_measurements_give_the_same_choices(records):
    one, other = governor(hold=2), governor(hold=2)
    for latency, energy, headroom, elapsed in records:
        keywords = {"energy": energy, "elapsed": elapsed}
        absent = headroom is None or math.isnan(headroom)
        first = one.record(latency, headroom=headroom, **keywords)
        assert first == other.record(latency, headroom=NAN if absent else headroom, **keywords)


def test_a_call_that_was_under_way_during_a_switch_is_not_held_against_the_new_choice():
    made = governor()
    assert made.record(0.030) == 30
    assert made.record(0.031, percentage=100) == 30
    assert made.average is None
    assert made.record(0.009, percentage=30) == 30
    assert made.average == 0.009
    assert made.record(0.030, percentage=100, headroom=1.0) == 10  # heat is heat


# What is refused.


NO_NUMBERS = [-1e-9, math.inf, -math.inf, "1", True, [1.0], 1j]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *itertools.product(["latency", "energy", "headroom", "elapsed"], NO_NUMBERS),
        ("latency", NAN),
        ("latency", None),
        ("energy", NAN),
        ("elapsed", NAN),
        ("elapsed", None),
    ],
)
def test_a_value_that_cannot_be_is_refused_and_nothing_is_recorded(name, value):
    made, same = governor(hold=2), governor(hold=2)
    for both in (made, same):
        both.record(0.001, headroom=0.5)
    with pytest.raises(ValueError, match=f"`{name}` must be .* Received: "):
        made.record(**{"latency": 0.030, "headroom": 0.99, name: value})
    assert (made.percentage, made.average) == (same.percentage, same.average)
    for latency in (0.011, 0.002):
        assert run(made, lambda p: latency, 50) == run(same, lambda p: latency, 50)  # noqa: B023


@pytest.mark.parametrize(("value", "message"), [(35, "Expected one of"), (50.0, "integer")])
def test_a_percentage_that_is_none_of_the_file_is_refused(value, message):
    with pytest.raises(ValueError, match=message):
        governor().record(0.001, percentage=value)
    with pytest.raises(ValueError, match=message):
        governor(start=value)


@pytest.mark.parametrize(
    ("percentages", "options", "message"),
    [
        ([], {}, "at least one percentage"),
        ([0], {}, "from 1 to 100"),
        ([10, 10], {}, "distinct"),
        ("100", {}, "iterable of integers"),
        ([10], {"latency_budget": None}, "`latency_budget` or `energy_budget`"),
        *[
            ([10], {name: value}, f"`{name}` must be")
            for name in ("latency_budget", "energy_budget", "hold", "hot")
            for value in (0, -1, NAN, math.inf, "1", True)
        ],
        *[([10], {"window": value}, "`window` must be") for value in (0, -1, 1.0, True, "1")],
        *[([10], {"overshoot": value}, "`overshoot` must be") for value in (0.99, NAN, None)],
        ([10], {"margin": -0.1}, "`margin` must be"),
        ([10], {"margin": 0.9}, "0 <= margin < hot <= 1"),
        ([10], {"hot": 1.1}, "0 <= margin < hot <= 1"),
        ([20, 10], {"costs": {10: 1.0}}, "`costs` must be a dictionary"),
        ([20, 10], {"costs": {10: 1.0, 20: 2.0, 30: 3.0}}, "`costs` must be a dictionary"),
        ([20, 10], {"costs": [1.0, 2.0]}, "`costs` must be a dictionary"),
        ([20, 10], {"costs": {10: 0.0, 20: 1.0}}, r"`costs\[10\]` must be above 0"),
        ([20, 10], {"costs": {10: 1.0, 20: NAN}}, r"`costs\[20\]` must be finite"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(percentages, options, message):
    with pytest.raises(ValueError, match=message):
        Governor(percentages, **{"latency_budget": 0.010, **options})


def test_numpy_numbers_and_json_are_numbers():
    manifest = json.loads('{"percentages": [{"percentage": 50, "multiply_adds": 7}]}')
    made = Governor.from_manifest(manifest, latency_budget=np.float32(0.5), window=np.int64(3))
    assert made.record(np.float64(0.25), headroom=np.float32(0.5), elapsed=np.int32(1)) == 50
    assert made.average == 0.25
