"""Records what the governor decides, for the test of its Kotlin twin.

python export/android/record_traces.py

Each line of a trace is one `record`: latency, energy, headroom, percentage, elapsed (null: not
given; NaN is written as null, it means the same), then the percentage that was returned and the
moving average, null before the first call. JSON numbers are the shortest that read back as the same
double, so the comparison is exact.
"""

import json
import math
import pathlib
import random

from absl import app, flags

from keras_tesla.tflite.governor import Governor
from keras_tesla.tflite.simulator import Device

FLAGS = flags.FLAGS
TRACES = pathlib.Path(__file__).with_name("traces.json")
flags.DEFINE_string("traces", str(TRACES), "The file to be written.")

PERCENTAGES = range(10, 101, 10)
LATENCIES = {p: round(0.002 + 0.018 * (p / 100) ** 2, 6) for p in PERCENTAGES}
MULTIPLY_ADDS = {p: float(p * p) for p in PERCENTAGES}
QUICK = {"hold": 4.0, "window": 3, "margin": 0.1, "overshoot": 1.5, "hot": 0.9, "start": None}


class Recorder:
    """A governor that writes down what it is told and what it answers."""

    def __init__(self, name, options, costs=LATENCIES, digits=7):
        self._digits = digits  # of what is told: enough of them, and the file stays small
        self._governor = Governor(list(costs), costs, **options)
        self._trace = {
            "name": name,
            "options": {
                "percentages": list(self._governor.percentages),
                "costs": {str(p): cost for p, cost in costs.items()},
                "latency_budget": None,
                "energy_budget": None,
                **options,
            },
            "first": self.percentage,
        }
        self._records = []

    @property
    def percentage(self):
        return self._governor.percentage

    def record(self, latency, energy=None, headroom=None, percentage=None, elapsed=1.0):
        latency = round(latency, self._digits)
        if headroom is not None:
            headroom = None if math.isnan(headroom) else round(headroom, self._digits)
        told = {"energy": energy, "headroom": headroom, "percentage": percentage}
        chosen = self._governor.record(latency, elapsed=elapsed, **told)
        self._records.append([latency, *told.values(), elapsed, chosen, self._governor.average])
        return chosen

    def lines(self):
        """The trace as JSON, a line for each record."""
        head = json.dumps(self._trace)[:-1]
        records = ",\n".join(json.dumps(record, allow_nan=False) for record in self._records)
        return f'{head}, "records": [\n{records}\n]}}'


def simulated(name, loads, options, costs=LATENCIES, **device):
    recorder = Recorder(name, options, costs)
    Device(LATENCIES, **device).run(recorder, loads)
    return recorder


def with_energy():
    """Energy is measured at two of three calls; the budget is cut by a load in the middle."""
    recorder = Recorder("energy", {**QUICK, "latency_budget": 0.1, "energy_budget": 0.02})
    noise = random.Random(1)
    for i in range(200):
        load = 2.0 if 80 <= i < 120 else 1.0
        seconds = LATENCIES[recorder.percentage] * load
        joules = round(seconds * (1 + 0.2 * noise.random()), 6)
        recorder.record(seconds, energy=joules if i % 3 else None)
    return recorder


def in_seconds():
    """Calls at irregular times, and pauses; the only budget is one of energy."""
    recorder = Recorder("seconds", {**QUICK, "hold": 0.7, "energy_budget": 0.015, "start": 20})
    noise = random.Random(2)
    for i in range(150):
        elapsed = 5.0 if i % 50 == 49 else round(0.1 * noise.random(), 3)
        seconds = LATENCIES[recorder.percentage]
        recorder.record(seconds, energy=round(seconds * 0.9, 7), elapsed=elapsed)
    return recorder


def late():
    """The results of three calls are always under way."""
    recorder = Recorder("late", {**QUICK, "latency_budget": 0.016})
    noise = random.Random(3)
    under_way = [recorder.percentage] * 3
    for i in range(140):
        under_way.append(recorder.percentage)
        ran = under_way.pop(0)
        load = 2.5 if 40 <= i < 80 else 1.0
        recorder.record(LATENCIES[ran] * load * (1 + 0.1 * noise.random()), percentage=ran)
    return recorder


def anything(seed):
    """Any measurements, many of them near the limits, under any settings."""
    noise = random.Random(seed)
    settings = {
        "latency_budget": 0.016,
        "energy_budget": 0.016 if seed % 2 else None,
        "hold": noise.choice([0.3, 1.0, 2.5]),
        "window": noise.choice([1, 2, 5]),
        "margin": noise.choice([0.0, 0.1, 0.25]),
        "overshoot": noise.choice([1.0, 1.5, 3.0]),
        "hot": noise.choice([0.5, 0.9, 1.0]),
        "start": noise.choice([None, 10, 50]),
    }
    recorder = Recorder(f"anything {seed}", settings, MULTIPLY_ADDS if seed % 3 else LATENCIES)
    heat = 0.3
    for _ in range(100):
        factor = noise.choice([0.0, 0.3, 0.8, 0.9, 1.0, 1.1, 1.5, 1.6, 4.0])
        latency = factor * 0.016 if noise.random() < 0.3 else LATENCIES[recorder.percentage]
        heat = min(max(heat + noise.choice([-0.1, -0.02, 0.0, 0.02, 0.1]), 0.0), 1.1)
        recorder.record(
            latency * noise.choice([1.0, 1.0, 1.000001, 0.7]),
            energy=noise.choice([None, latency, 0.016, 0.0144]),
            headroom=noise.choice([None, math.nan, heat, heat]),
            percentage=noise.choice([None, None, None, recorder.percentage, 10, 100]),
            elapsed=noise.choice([1.0, 1.0, 0.0, 0.1, 0.25, 7.0]),
        )
    return recorder


def limits_of_the_defaults():
    """Each default is just reached, or just not."""
    recorder = Recorder("limits of the defaults", {"latency_budget": 1.0}, {100: 1.0, 50: 0.6})
    for latency in (0.5, 0.5, 0.5, 0.5, 0.5, 1.5, 1.55):
        recorder.record(latency)
    for latency, calls in ((0.541, 40), (0.539, 60)):  # 0.902 and 0.898 at 100 %
        for _ in range(calls):
            recorder.record(latency)
    for headroom in (0.899, 0.9):
        recorder.record(0.5, headroom=headroom)
    return recorder


def after_heat():
    """Steps down for heat, then every step up to where it was, and the next ones without heat."""
    recorder = Recorder("after heat", {**QUICK, "latency_budget": 1.0, "hold": 2.0})
    for headroom in (0.95, 0.95, 0.95, 0.95, 0.95, 0.94, 0.94):
        recorder.record(0.001, headroom=headroom, elapsed=0.5)
    for _ in range(60):
        recorder.record(0.001, headroom=0.3, elapsed=8.0)
    recorder.record(3.0)
    for i in range(40):
        recorder.record(0.001, headroom=0.85 if i % 7 == 3 else 0.3)
    recorder.record(3.0, headroom=0.95)
    return recorder


def limits(seed):
    """Latencies and headrooms that are exactly at a limit, or one rounding off."""
    noise = random.Random(seed)
    costs = {p: noise.random() + p for p in PERCENTAGES}
    settings = {**QUICK, "latency_budget": 0.016, "hold": 0.5, "window": 1, "margin": 0.15}
    recorder = Recorder(f"limits {seed}", settings, costs, digits=25)
    room = (1.0 - 0.15) * 0.016
    for _ in range(160):
        here = recorder.percentage
        there = noise.choice([min(here + 10, 100), min(here + 10, 100), noise.choice(PERCENTAGES)])
        latency = room / costs[there] * costs[here]
        latency = noise.choice([latency, math.nextafter(latency, 1), math.nextafter(latency, 0)])
        if noise.random() < 0.1:
            latency = noise.choice([0.016, 1.5 * 0.016])
        headroom = None
        if noise.random() < 0.08:
            headroom = noise.choice([0.3, 0.3, 0.9 - 0.15, 0.9, 1.0])
        recorder.record(latency, headroom=headroom, elapsed=noise.choice([0.5, 1.0, 16.0]))
    return recorder


def traces():
    """The text of `traces.json`."""
    budget = {**QUICK, "latency_budget": 0.016}
    ramp = [round(1 + 3 * i / 100, 4) for i in range(100)]
    oscillation = ([1] * 12 + [2] * 9) * 8
    recorders = [
        simulated("defaults", [1] * 270, {"latency_budget": 0.016}, MULTIPLY_ADDS, noise=0.1),
        simulated("quiet", [1] * 120, budget),
        simulated("step", [1] * 50 + [3] * 60 + [1] * 70, budget, noise=0.1, seed=1),
        simulated("ramp", ramp + ramp[::-1], budget, MULTIPLY_ADDS, noise=0.05, seed=2),
        simulated("noise", [1] * 200, budget, noise=0.4, seed=3),
        simulated("oscillation", oscillation, budget, noise=0.1, seed=4),
        simulated("heat", [1] * 320, {**budget, "hold": 0.5}, heating=0.9, cooling=0.1, period=0.1),
        simulated("severe heat", [2] * 220, budget, heating=3.0, cooling=0.2, period=0.1),
        with_energy(),
        in_seconds(),
        late(),
        limits_of_the_defaults(),
        after_heat(),
        *[limits(seed) for seed in range(2)],
        *[anything(seed) for seed in range(5)],
    ]
    return '{"traces": [\n' + ",\n".join(r.lines() for r in recorders) + "\n]}\n"


def main(_):
    pathlib.Path(FLAGS.traces).write_text(traces())


if __name__ == "__main__":
    app.run(main)
