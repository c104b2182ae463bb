"""Gradient attenuation: the first channels belong to the narrow percentages."""

import numbers

import keras
import numpy as np

from keras_tesla.integers import is_integer


@keras.saving.register_keras_serializable("keras_tesla")
class GradientAttenuation:
    """How much of a wider percentage's gradient reaches the weights of a channel.

    Every percentage reads the first channels, so without attenuation the many wide ones outvote
    the narrow ones there, which have no other channels. A channel's *narrowest percentage* o is the
    narrowest one of the model's percentages that reads it. The gradient that percentage p sends to
    a weight of the channel is multiplied by

    `S = rate(o)^((p - o) / 5)`, with
    `rate(o) = start + (end - start) * clip((o - from_percentage) / (to_percentage -
    from_percentage), 0, 1)`

    so the rate is what is left at a distance of 5 percentage points, whatever the percentages of
    the model are. The defaults are .5 for the first channels, .9 at 50 %, no attenuation from 60 %
    on; on MNIST with 10, 15, .., 100 % a start of .7 was a little better (`docs/decisions.md`).
    With `start == end` all channels have one rate.

    An entry of a kernel belongs to an input and an output channel and is first used by the wider of
    their narrowest percentages, which counts. A weight, or an axis of a kernel, is not attenuated
    if all percentages that use it read it whole, nor if a single percentage reads it. Gradients of
    activations are never attenuated, nor is weight regularization.

    Args:
        start: Float, 0 < start <= end, the rate up to `from_percentage`.
        end: Float, start <= end <= 1, the rate from `to_percentage` on.
        from_percentage: Int, 0 <= from_percentage < to_percentage, where the rate begins to rise.
        to_percentage: Int, at most 100, where it has reached `end`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> attenuation = GradientAttenuation()
    >>> [round(float(s), 3) for s in attenuation.factors(20, np.array([10, 15, 20, 100]))]
    [0.25, 0.55, 1.0, 1.0]
    """

    def __init__(self, start=0.5, end=1.0, from_percentage=10, to_percentage=60):
        if not (_is_number(start) and _is_number(end) and 0 < start <= end <= 1):
            raise ValueError(
                "`start` and `end` must be numbers with 0 < start <= end <= 1: what is left of a "
                "gradient at a distance of 5 percentage points. "
                f"Received: start={start!r}, end={end!r}"
            )
        between = is_integer(from_percentage) and is_integer(to_percentage)
        if not (between and 0 <= from_percentage < to_percentage <= 100):
            raise ValueError(
                "`from_percentage` and `to_percentage` must be percentages with "
                "0 <= from_percentage < to_percentage <= 100. "
                f"Received: {from_percentage!r}, {to_percentage!r}"
            )
        self.start = float(start)
        self.end = float(end)
        self.from_percentage = int(from_percentage)
        self.to_percentage = int(to_percentage)

    def factors(self, percentage: int, narrowest) -> np.ndarray:
        """Returns S for channels by their narrowest percentages; 1 where `percentage` reads none.

        Args:
            percentage: Int, 1..100: whose gradient is attenuated.
            narrowest: Int array `(channels,)`.

        Returns:
            A float32 array `(channels,)`, 0 < S <= 1. It does not decrease with `narrowest`.
        """
        rise = (narrowest - self.from_percentage) / (self.to_percentage - self.from_percentage)
        rate = self.start + (self.end - self.start) * np.clip(rise, 0, 1)
        return (rate ** (np.maximum(percentage - narrowest, 0) / 5)).astype("float32")

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {
            "start": self.start,
            "end": self.end,
            "from_percentage": self.from_percentage,
            "to_percentage": self.to_percentage,
        }

    @classmethod
    def from_config(cls, config):
        """Returns the attenuation that `get_config` described."""
        return cls(**config)


def _is_number(x):
    return isinstance(x, numbers.Real) and not isinstance(x, bool)


def get(identifier) -> GradientAttenuation | None:
    """Returns the attenuation that `identifier` means.

    Args:
        identifier: None, a number (the rate of all channels), or a `GradientAttenuation`.

    Raises:
        ValueError: If it is none of these.
    """
    if identifier is None or isinstance(identifier, GradientAttenuation):
        return identifier
    if _is_number(identifier) and 0 < identifier <= 1:
        return GradientAttenuation(identifier, identifier)
    raise ValueError(
        "`gradient_attenuation` must be None, a number above 0 and at most 1 (what is left of a "
        "gradient at a distance of 5 percentage points), or a `keras_tesla.training.attenuation."
        f"GradientAttenuation`. Received: {identifier!r}"
    )
