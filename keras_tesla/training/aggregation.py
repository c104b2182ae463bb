"""Loss aggregation: one loss from the losses of the active percentages.

An aggregation is a callable from {percentage: scalar loss}, from the highest percentage to the
lowest, to a scalar.

Reference:
    Chang, Lin, Ou Yang, Lei, Chen: TESLA, 2018, https://openreview.net/forum?id=H1K6Tb-AZ
"""

import math
import numbers

import keras

from keras_tesla.percentages import check_percentage

_PACKAGE = "keras_tesla.aggregation"


class Aggregation:
    """Base class: makes an aggregation part of a saved model."""

    def __call__(self, losses: dict):
        """Returns the aggregated loss of {percentage: loss}, highest percentage first."""
        raise NotImplementedError(f"{type(self).__name__} must implement `__call__`.")

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {}

    @classmethod
    def from_config(cls, config):
        """Returns the aggregation that `get_config` described."""
        return cls(**config)


class Linear(Aggregation):
    """Base class of the weighted sums.

    A weighted sum can be differentiated one percentage after the other, which takes less memory.
    """

    def coefficients(self, percentages) -> dict[int, float]:
        """Returns {percentage: its weight in the sum}.

        Args:
            percentages: The active ones, highest first.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `coefficients`.")

    def __call__(self, losses):
        coefficients = self.coefficients(list(losses))
        return sum(coefficients[p] * loss for p, loss in losses.items())


@keras.saving.register_keras_serializable(_PACKAGE)
class Sum(Linear):
    """`L = l_1 + l_2 + .. + l_t`: every percentage counts equally."""

    def coefficients(self, percentages):
        return dict.fromkeys(percentages, 1.0)


@keras.saving.register_keras_serializable(_PACKAGE)
class Exponential(Linear):
    """`L_1 = l_1`, `L_t = alpha * L_{t-1} + (1 - alpha) * l_t`: the narrowest counts most.

    Args:
        alpha: Float, 0 <= alpha < 1, the share of the wider percentages. The paper used .1, .5, .9.

    Raises:
        ValueError: If `alpha` is outside of that range.

    Example:

    >>> Exponential(0.5)({100: 1.0, 50: 2.0, 10: 4.0})
    2.75
    """

    def __init__(self, alpha=0.5):
        if (
            isinstance(alpha, bool)
            or not isinstance(alpha, numbers.Real)
            or not 0 <= float(alpha) < 1
        ):
            raise ValueError(f"`alpha` must be at least 0 and below 1. Received: {alpha!r}")
        self.alpha = float(alpha)

    def coefficients(self, percentages):
        # Each later percentage takes the share alpha of all that is there.
        first, *others = percentages
        later = {p: (1 - self.alpha) * self.alpha**i for i, p in enumerate(reversed(others))}
        return {first: self.alpha ** len(others), **later}

    def get_config(self):
        return {"alpha": self.alpha}


@keras.saving.register_keras_serializable(_PACKAGE)
class Weighted(Linear):
    """`L = sum over p of w_p * l_p`.

    Args:
        weights: Dict {percentage: non-negative finite float}, one for each trained percentage.

    Raises:
        ValueError: If a weight is negative or not finite. When called with a percentage that has
            no weight.

    Example:

    >>> Weighted({100: 0.75, 50: 0.25})({100: 1.0, 50: 2.0})
    1.25
    """

    def __init__(self, weights):
        self.weights = {check_percentage(p): float(w) for p, w in dict(weights).items()}
        if not all(math.isfinite(w) and w >= 0 for w in self.weights.values()):
            raise ValueError(
                f"Weights must be finite and not negative. Received: weights={self.weights}"
            )

    def check(self, percentages):
        """Refuses percentages without a weight."""
        missing = [p for p in percentages if p not in self.weights]
        if missing:
            raise ValueError(
                f"No weight is given for {missing} percent. Received: weights={self.weights}"
            )

    def coefficients(self, percentages):
        self.check(percentages)
        return {p: self.weights[p] for p in percentages}

    def get_config(self):
        return {"weights": {str(p): w for p, w in self.weights.items()}}  # keys as in JSON

    @classmethod
    def from_config(cls, config):
        return cls({int(p): w for p, w in config["weights"].items()})


def get(identifier):
    """Returns the aggregation that `identifier` means.

    Args:
        identifier: `"sum"`, `"exponential"`, a dict {percentage: weight}, or a callable from
            {percentage: loss} to a scalar (register it with
            `keras.saving.register_keras_serializable` if the model is to be saved).

    Raises:
        ValueError: If it is none of these.
    """
    if identifier == "sum":
        return Sum()
    if identifier == "exponential":
        return Exponential()
    if isinstance(identifier, dict) and "class_name" in identifier:
        return keras.saving.deserialize_keras_object(identifier)
    if isinstance(identifier, dict):
        return Weighted(identifier)
    if callable(identifier):
        return identifier
    raise ValueError(
        "An aggregation must be 'sum', 'exponential', a dict {percentage: weight} or a callable. "
        f"Received: {identifier!r}"
    )
