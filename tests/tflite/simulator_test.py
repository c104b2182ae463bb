"""The governor on a simulated device: steps, ramps, noise, heat and oscillation of the load."""

import itertools
import math
import pathlib
import re

import pytest

from keras_tesla.tflite.governor import Governor
from keras_tesla.tflite.simulator import Call, Device

PERCENTAGES = range(10, 101, 10)
# Overhead and a part that goes with the square of the percentage: 2.2 ms at 10 %, 20 ms at 100 %.
LATENCIES = {p: 0.002 + 0.018 * (p / 100) ** 2 for p in PERCENTAGES}
MULTIPLY_ADDS = {p: p * p for p in PERCENTAGES}
BUDGET = 0.016


def simulate(loads, costs=LATENCIES, budget=BUDGET, **device):
    governor = Governor(PERCENTAGES, costs, latency_budget=budget)
    return Device(LATENCIES, **device).run(governor, loads)


def best(load, budget=BUDGET):
    return max(p for p in PERCENTAGES if LATENCIES[p] * load <= budget)


def switches(calls):
    return sum(a.percentage != b.percentage for a, b in itertools.pairwise(calls))


# The device.


def test_a_cool_quiet_device_takes_what_it_is_told():
    device = Device({100: 0.020, 50: 0.005})
    assert [c[:2] for c in (device.call(100), device.call(50))] == [(100, 0.020), (50, 0.005)]
    assert device.call(50, load=3).latency == 0.015
    assert device.temperature == 0


def test_noise_varies_calls_by_its_share_and_is_the_same_for_the_same_seed():
    runs = []
    for seed in (0, 0, 1):
        device = Device({100: 1.0}, noise=0.2, seed=seed)
        runs.append([device.call(100).latency for _ in range(200)])
    assert runs[0] == runs[1] != runs[2]
    assert 0.8 <= min(runs[0]) < 0.85
    assert 1.15 < max(runs[0]) <= 1.2


def test_it_warms_up_to_where_heating_and_cooling_are_equal():
    device = Device({100: 0.25}, period=0.5, heating=0.08, cooling=0.05)
    for _ in range(1000):
        device.call(100)
    # Half of the time computing: 0.08 / 2 a second in, 0.05 of the temperature out.
    assert device.temperature == pytest.approx(0.8)


def test_the_headroom_is_read_once_a_second():
    device = Device({100: 0.01}, period=0.25, heating=0.1)
    readings = [device.call(100).headroom for _ in range(9)]
    assert [not math.isnan(r) for r in readings] == [True, False, False, False] * 2 + [True]
    assert readings[8] == device.temperature
    assert math.isnan(Device({100: 0.01}).call(100).headroom)


def test_a_hot_device_takes_longer_for_the_same_work():
    device = Device({100: 0.1}, heating=11, cooling=0, throttling=3)
    assert [round(device.call(100).latency, 9) for _ in range(3)] == [0.1, 0.3, 0.3]
    assert device.temperature == pytest.approx(3.3)


@pytest.mark.parametrize(
    ("latencies", "options"),
    [
        ({0: 1.0}, {}),
        ({10: -1.0}, {}),
        ({10: math.nan}, {}),
        ({10: 1.0}, {"noise": -0.1}),
        ({10: 1.0}, {"period": math.inf}),
    ],
)
def test_a_device_that_cannot_be_is_refused(latencies, options):
    with pytest.raises(ValueError, match="Received: "):
        Device(latencies, **options)


# The governor on it.


@pytest.mark.parametrize("costs", [LATENCIES, MULTIPLY_ADDS])
def test_a_quiet_device_ends_at_the_best_percentage_and_stays(costs):
    calls = simulate([1] * 3000, costs)
    settled = [call.percentage for call in calls[5:]]
    # Two of a hundred calls are trials of the next one; each takes the five of the window.
    assert settled.count(best(1)) > 0.98 * len(settled)
    assert switches(calls) == 7


@pytest.mark.parametrize("costs", [LATENCIES, MULTIPLY_ADDS])
def test_a_step_of_the_load_is_followed_down_within_a_call_or_two_and_up_slowly(costs):
    calls = simulate([1] * 300 + [3] * 600 + [1] * 600, costs)
    assert calls[299].percentage == best(1) == 80
    assert calls[302].percentage <= 50
    assert calls[320].percentage in (best(3), best(3) - 10)
    loaded = [c.latency for c in calls[320:900]]
    assert sum(latency > BUDGET for latency in loaded) < 0.03 * len(loaded)
    assert max(c.percentage for c in calls[901:930]) <= 60  # not up at once
    assert calls[-1].percentage == 80


def test_a_ramp_is_followed_down_and_up():
    ramp = [1 + 3 * i / 1000 for i in range(1000)]
    calls = simulate(ramp + ramp[::-1])
    assert sum(c.latency > BUDGET for c in calls) < 0.05 * len(calls)
    assert calls[999].percentage <= best(4) + 10
    assert calls[-1].percentage >= best(1) - 10
    assert switches(calls) < 25


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("noise", [0.05, 0.15, 0.3])
def test_noise_does_not_make_it_flap(noise, seed):
    calls = simulate([1] * 4000, noise=noise, seed=seed)
    bound = 2 * 9 + 2 * (6 + 4000 / (64 * 30))  # that of a load without noise, ten percentages
    assert switches(calls) <= bound
    settled = [call.percentage for call in calls[1000:]]
    assert all(p in (best(1) - 10, best(1), best(1) + 10) for p in settled)


def test_a_load_that_oscillates_faster_than_the_hold_is_not_followed():
    calls = simulate(([1] * 10 + [2] * 10) * 200)
    assert switches(calls) < 15
    assert max(c.percentage for c in calls[300:]) <= best(2) + 10


def test_a_load_that_oscillates_slowly_is_followed_with_steps_a_hold_apart():
    calls = simulate(([1] * 400 + [2] * 400) * 5)
    assert switches(calls) <= len(calls) / 30
    assert {call.percentage for call in calls[800:]} >= {best(1), best(2)}
    assert sum(c.latency > BUDGET for c in calls) < 0.03 * len(calls)


def test_a_phone_that_heats_up_is_kept_from_severe_throttling():
    # At 100 % it would end at a headroom of 3; without a governor it throttles after 15 s.
    device = {"heating": 0.1, "cooling": 0.02, "budget": 0.032}
    calls = simulate([1] * 20000, **device)
    late = [call for call in calls if not math.isnan(call.headroom)][60:]
    assert max(call.headroom for call in late) < 1.0
    assert sum(call.headroom > 0.7 for call in late) > 0.8 * len(late)  # and it uses what is there
    # To and fro between two neighbours, each for as long as the longest wait or the heat allows.
    assert {call.percentage for call in calls[5000:]} <= {40, 50}
    assert switches(calls[5000:]) <= 8


def test_a_call_reports_what_the_governor_had_chosen():
    governor = Governor([100, 10], latency_budget=BUDGET)
    calls = Device({100: 0.5, 10: 0.001}).run(governor, [1, 1])
    assert [c[:2] for c in calls] == [(100, 0.5), (10, 0.001)]
    assert isinstance(calls[0], Call)


# The page.


def test_the_example_of_the_page_prints_what_the_page_says(capsys):
    page = (pathlib.Path(__file__).parents[2] / "docs" / "on_the_phone.md").read_text()
    code, expected = re.search(r"```python\n(.*?)```\n+```text\n(.*?)```", page, re.S).groups()
    exec(code, {})
    assert capsys.readouterr().out == expected
