"""Governor: which percentage the next call runs at.

`export/android/src/Governor.kt` is the same policy in Kotlin. Both do the same double arithmetic in
the same order, so that recorded traces agree bit for bit: change one only with the other, and
record the traces again with `python export/android/record_traces.py`.
"""

import math
import numbers
from typing import NamedTuple

from keras_tesla.integers import check_integer
from keras_tesla.percentages import check_percentage, check_percentages

# A wait is `hold` times two to this many at most, ...
_LONGEST = 6
# ... and a step up that is predicted not to fit starts as if it had failed this often.
_DOUBT = 3


class _Trial(NamedTuple):
    """A step up that has not lasted yet as long as it waited."""

    origin: int
    fits: bool
    exponent: int
    wait: float


class Governor:
    """Chooses, call by call, the highest percentage that stays within the budgets.

    It steps down at once and up slowly. With the average of the last calls at percentage p,

        average = average + (measured - average) / min(calls at p, window),

    which is the mean of the first `window` calls and an exponential moving average with weight
    1 / window from then on, another percentage q is predicted to take

        average / cost(p) * cost(q).

    Averages of earlier percentages are not used: the load may have changed since.

    - Down: as soon as one measurement is above `overshoot` times its budget (it then replaces the
      average), or the average of at least `window` calls is above the budget: to the highest
      percentage that is predicted to need at most `1 - margin` of every budget, or to the lowest if
      there is no such percentage.
    - Up: one step at a time, after a wait in which nothing was wrong: no average above its budget,
      and the headroom below `hot - margin`. The wait is `hold` if during all of it the next
      percentage was predicted to need at most `1 - margin` of every budget. Otherwise it is
      `8 * hold`, because costs may be wrong and only a trial can tell.
    - A step up that does not last as long as its wait and `window` calls has failed. The governor
      returns to the previous percentage, and the next step of the same kind (predicted to fit or
      not) to that percentage waits twice as long, at most `64 * hold`. A step that lasts resets the
      waits; if it was predicted not to fit, to `hold`.
    - Heat: a reading of `hot` or more that is not below the last one causes one step down, and
      another after each `hold`; 1 or more leads to the lowest. The percentage that was too hot is
      not tried again before `64 * hold`, nor is the next one above it that soon after.

    So a step up comes at least `hold` after the step before it, whatever is measured, and a failing
    step is tried less and less often. On a cool device on which every percentage always takes the
    same time, a higher one more, the governor settles on the highest one within the budget, and
    with n percentages makes at most `2 * (n - 1) + 2 * (6 + T / (64 * hold))` switches in time T.

    Nothing here reads a clock or draws a random number. Time is counted in calls, or in the unit of
    the `elapsed` that `record` receives; `hold` is in the same unit. Not thread-safe.

    Args:
        percentages: Iterable of distinct integers, 1..100: those the file holds.
        costs: {percentage: positive number}, what each takes relative to the others: latencies
            measured anywhere, or multiply-adds. Default: the percentage itself.
        latency_budget: Seconds a call may take. At least one budget is needed.
        energy_budget: Joules a call may take. A power budget of P watts at r calls a second is
            P / r joules. There is no step up before `record` has received `window` energies.
        hold: How long nothing may be wrong before a step up. Default: 30 calls.
        window: Int, calls in the moving average.
        margin: Share of a budget that a percentage must be predicted to leave unused before it is
            chosen, and how far below `hot` the headroom must fall before a step up.
        overshoot: One measurement above this multiple of its budget causes a step down.
        hot: Thermal headroom, as Android counts it (1: severe throttling), of a step down.
        start: The percentage to begin with. Default: the highest.

    Raises:
        ValueError: If there is no budget, or an argument is not as described above.

    Example:

    >>> from keras_tesla.tflite.governor import Governor
    >>> governor = Governor([100, 50, 10], latency_budget=0.016)
    >>> governor.percentage
    100
    >>> governor.record(0.025)  # far too long: 50 % is predicted to take half of it
    50
    """

    def __init__(
        self,
        percentages,
        costs=None,
        *,
        latency_budget=None,
        energy_budget=None,
        hold=30,
        window=5,
        margin=0.1,
        overshoot=1.5,
        hot=0.9,
        start=None,
    ):
        self.percentages = check_percentages(percentages)
        self._rising = self.percentages[::-1]
        if latency_budget is None and energy_budget is None:
            raise ValueError("Expected `latency_budget` or `energy_budget`. Received neither.")
        window = check_integer("window", window)
        self._hold = _positive("hold", hold)
        self._hot = _positive("hot", hot)
        self._cool = self._hot - _at_least("margin", margin, 0.0)
        if not 0 < self._cool <= self._hot <= 1:
            raise ValueError(
                f"Expected `0 <= margin < hot <= 1`. Received: margin={margin!r}, hot={hot!r}"
            )
        _at_least("overshoot", overshoot, 1.0)
        settings = (self._costs(costs), window, float(margin), float(overshoot))
        seconds = math.inf  # without a budget for it, the latency is still averaged
        if latency_budget is not None:
            seconds = _positive("latency_budget", latency_budget)
        self._latency = _Gauge(seconds, *settings)
        self._gauges = [self._latency]
        if energy_budget is not None:
            self._gauges.append(_Gauge(_positive("energy_budget", energy_budget), *settings))
        count = len(self._rising)
        self._exponents = {True: [0] * count, False: [_DOUBT] * count}
        self._trial: _Trial | None = None
        self._headroom = math.nan
        self._since_heat = math.inf
        self._ceiling = count - 1
        self._go(self._index(self.percentages[0] if start is None else start))

    @classmethod
    def from_manifest(cls, manifest: dict, **options) -> "Governor":
        """Returns a governor for the percentages of an export.

        Their costs are the latencies measured at the export, or the multiply-adds if those are
        missing.

        Args:
            manifest: The content of `manifest.json`, or the header of a file.
            **options: Those of the constructor.
        """
        entries = manifest["percentages"]
        known = all(entry.get("latency") for entry in entries)
        key = "latency" if known else "multiply_adds"
        costs = {entry["percentage"]: entry[key] for entry in entries}
        return cls(costs, costs, **options)

    @property
    def percentage(self) -> int:
        """The percentage to run the next call at."""
        return self._rising[self._at]

    @property
    def average(self) -> float | None:
        """Moving average of the latency at `percentage`, None before its first call."""
        return self._latency.average if self._latency.count else None

    def record(
        self,
        latency: float,
        *,
        energy: float | None = None,
        headroom: float | None = None,
        percentage: int | None = None,
        elapsed: float = 1.0,
    ) -> int:
        """Records a call and returns the percentage for the next one.

        Args:
            latency: Seconds the call took.
            energy: Joules it took, if they were measured.
            headroom: A new thermal headroom, 0 or more, if there is one. NaN, which Android returns
                when it is asked more than about once a second, means none: the last one stays.
            percentage: The one that the call ran at. Default: `percentage`. If a switch happened
                during the call, only headroom and elapsed time are used.
            elapsed: Time since the last record, in the unit of `hold`. Default: one call.

        Raises:
            ValueError: If a value is negative, infinite, NaN (but headroom) or no number, or the
                percentage is not one of the governor's. Nothing is recorded then.
        """
        latency = _at_least("latency", latency, 0.0)
        energy = None if energy is None else _at_least("energy", energy, 0.0)
        if headroom is not None:
            is_nan = headroom != headroom
            headroom = None if is_nan else _at_least("headroom", headroom, 0.0)
        elapsed = _at_least("elapsed", elapsed, 0.0)
        ran_at = self._at if percentage is None else self._index(percentage)

        self._stayed += elapsed
        self._since_heat += elapsed
        judged = all(gauge.is_full() for gauge in self._gauges)
        if self._trial is not None and judged and self._stayed >= self._trial.wait:
            self._has_lasted(self._trial)
            self._trial = None
        if ran_at == self._at:
            for gauge, value in zip(self._gauges, (latency, energy), strict=False):
                if value is not None:
                    gauge.record(value)

        target = self._target(headroom)
        if target < self._at:
            if self._trial is not None:
                exponents = self._exponents[self._trial.fits]
                exponents[self._at] = min(self._trial.exponent + 1, _LONGEST)
                self._trial = None
            self._go(target)
        elif self._at + 1 < len(self._rising):
            self._consider_a_step_up(elapsed)
        return self.percentage

    def _target(self, headroom: float | None) -> int:
        """Where to be: here, or below if something is wrong."""
        target = self._at
        if any(gauge.is_over() for gauge in self._gauges):
            # A step up that failed left a percentage at which nothing was wrong.
            target = self._highest_below() if self._trial is None else self._trial.origin
        if headroom is not None:
            # A phone takes its time to cool down: while it does, the last step was enough.
            still_rising = not headroom < self._headroom
            self._headroom = headroom
            if headroom >= 1.0:
                target = 0
            elif headroom >= self._hot and still_rising and self._since_heat >= self._hold:
                target = min(target, self._at - 1)
            else:
                return target
            self._since_heat = 0.0
            self._ceiling = min(self._ceiling, max(self._at - 1, 0))
        return max(target, 0)

    def _highest_below(self) -> int:
        for lower in range(self._at - 1, 0, -1):
            if self._fits(lower):
                return lower
        return 0

    def _consider_a_step_up(self, elapsed: float):
        averaged = all(gauge.is_full() for gauge in self._gauges)
        if not averaged or self._headroom >= self._cool or any(g.is_over() for g in self._gauges):
            self._calm = self._calm_and_fit = 0.0
            return
        upper = self._at + 1
        fits = self._fits(upper)
        self._calm += elapsed
        self._calm_and_fit = self._calm_and_fit + elapsed if fits else 0.0
        if self._trial is not None:
            return
        exponent = _LONGEST if upper > self._ceiling else self._exponents[fits][upper]
        wait = self._hold * 2**exponent
        if (self._calm_and_fit if fits else self._calm) >= wait:
            self._trial = _Trial(self._at, fits, exponent, wait)
            self._ceiling = max(self._ceiling, upper)
            self._go(upper)

    def _has_lasted(self, trial: _Trial):
        expected, doubted = self._exponents[True], self._exponents[False]
        expected[self._at] = 0
        # A step that lasts against its prediction shows that the cost is too high.
        doubted[self._at] = min(doubted[self._at], _DOUBT) if trial.fits else 0

    def _fits(self, index: int) -> bool:
        return all(gauge.fits(self._at, index) for gauge in self._gauges)

    def _go(self, index: int):
        self._at = index
        self._stayed = self._calm = self._calm_and_fit = 0.0
        for gauge in self._gauges:
            gauge.restart()

    def _index(self, percentage) -> int:
        percentage = check_percentage(percentage)
        if percentage not in self._rising:
            raise ValueError(
                f"Expected one of the governor's percentages, {list(self.percentages)}. "
                f"Received: {percentage}"
            )
        return self._rising.index(percentage)

    def _costs(self, costs) -> list[float]:
        if costs is None:
            return [float(percentage) for percentage in self._rising]
        if not hasattr(costs, "keys") or set(costs) != set(self._rising):
            raise ValueError(
                "`costs` must be a dictionary with a positive number for each of "
                f"{list(self.percentages)}. Received: {costs!r}"
            )
        return [_positive(f"costs[{p}]", costs[p]) for p in self._rising]


class _Gauge:
    """The moving average of one measured quantity, and its budget."""

    def __init__(self, budget, costs, window, margin, overshoot):
        self.budget = budget
        self._costs = costs
        self._window = window
        self._room = (1.0 - margin) * self.budget
        self._clearly_over = overshoot * self.budget
        self.restart()

    def restart(self):
        self.count = 0
        self.average = 0.0

    def record(self, value: float):
        self.count += 1
        if value > self._clearly_over:
            self.count = max(self.count, self._window)
            self.average = value
        else:
            self.average += (value - self.average) / min(self.count, self._window)

    def is_full(self) -> bool:
        return self.count >= self._window

    def is_over(self) -> bool:
        return self.is_full() and self.average > self.budget

    def fits(self, here: int, there: int) -> bool:
        """Whether another percentage is predicted to leave the margin; yes before any call."""
        return self.average / self._costs[here] * self._costs[there] <= self._room


def _positive(name: str, value) -> float:
    number = _at_least(name, value, 0.0)
    if number == 0:
        raise ValueError(f"`{name}` must be above 0. Received: {value!r}")
    return number


def _at_least(name: str, value, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        kind = type(value).__name__
        raise ValueError(f"`{name}` must be a number. Received: {value!r} (of type {kind})")
    number = float(value)
    if not (math.isfinite(number) and number >= least):
        raise ValueError(f"`{name}` must be finite and at least {least:g}. Received: {value!r}")
    return number
