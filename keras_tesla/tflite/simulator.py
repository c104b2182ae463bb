"""A small model of a device, to see what a governor does before a phone does it."""

import math
import random
from collections.abc import Iterable
from typing import NamedTuple

from keras_tesla.percentages import check_percentage


class Call(NamedTuple):
    """One simulated call.

    Args:
        percentage: The one it ran at.
        latency: Seconds it took.
        headroom: The reading after it, NaN where there was no new one.
    """

    percentage: int
    latency: float
    headroom: float


class Device:
    """A device whose calls take longer under load and while it throttles, and that warms up.

    A call at percentage p under load s takes

        latency = latencies[p] * s * (1 + noise * u) * (throttling if temperature >= 1 else 1)

    seconds, u uniform in -1..1. Calls begin every `period` seconds, or back to back if they take
    longer. With dt the time from one call to the next, the temperature follows

        temperature = temperature + heating * work - cooling * temperature * dt

    from 0, the surroundings; work is the latency without throttling, which makes a call longer but
    no more work. 1 is where severe throttling begins, so the temperature is what Android calls
    thermal headroom. It is read at most once a second; between readings it is NaN, as on Android.

    Only additions, multiplications, divisions and a seeded generator are used, so a simulation
    gives the same numbers on every machine.

    Args:
        latencies: {percentage: seconds} on the cool device without load.
        period: Seconds from the start of one call to that of the next.
        noise: Share of the latency, 0 to 1, by which calls vary.
        heating: Rise of the temperature for each second of work. 0: no thermal readings.
        cooling: Share of the temperature lost in a second.
        throttling: What latencies are multiplied by while the temperature is 1 or more.
        seed: Int, of the noise.

    Raises:
        ValueError: If a percentage is invalid, or a number is negative or not finite.

    Example:

    >>> from keras_tesla.tflite.governor import Governor
    >>> from keras_tesla.tflite.simulator import Device
    >>> device = Device({100: 0.020, 50: 0.008, 10: 0.002})
    >>> governor = Governor([100, 50, 10], latency_budget=0.016)
    >>> [call.percentage for call in device.run(governor, loads=[1, 1, 3, 3])]
    [100, 100, 100, 10]
    """

    def __init__(
        self,
        latencies: dict,
        *,
        period: float = 1 / 30,
        noise: float = 0.0,
        heating: float = 0.0,
        cooling: float = 0.02,
        throttling: float = 2.0,
        seed: int = 0,
    ):
        self._latencies = {check_percentage(p): seconds for p, seconds in latencies.items()}
        numbers = [*latencies.values(), period, noise, heating, cooling, throttling]
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise ValueError(f"Expected finite numbers of at least 0. Received: {numbers}")
        self._period = period
        self._noise = noise
        self._heating = heating
        self._cooling = cooling
        self._throttling = throttling
        self._random = random.Random(seed)
        self._since_reading = math.inf
        self.temperature = 0.0

    def call(self, percentage: int, load: float = 1.0) -> Call:
        """Runs one call.

        Args:
            percentage: One of `latencies`.
            load: What the latency is multiplied by: 2 where others take half of the processor.
        """
        work = self._latencies[percentage] * load
        work *= 1 + self._noise * (2 * self._random.random() - 1)
        latency = work * self._throttling if self.temperature >= 1 else work
        elapsed = max(self._period, latency)
        self.temperature += self._heating * work - self._cooling * self.temperature * elapsed
        self._since_reading += elapsed
        headroom = math.nan
        if self._heating and self._since_reading >= 1:
            headroom = self.temperature
            self._since_reading = 0.0
        return Call(percentage, latency, headroom)

    def run(self, governor, loads: Iterable[float]) -> list[Call]:
        """Runs one call for each load, each at the percentage that the governor chose before it."""
        calls = []
        for load in loads:
            call = self.call(governor.percentage, load)
            governor.record(call.latency, headroom=call.headroom)
            calls.append(call)
        return calls
