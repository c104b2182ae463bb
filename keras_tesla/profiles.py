"""Profiles: the coefficient that weighs each term of an incomplete dot product.

A profile maps a number of terms n to n non-increasing coefficients gamma_0 >= ... >= gamma_{n-1}:
the first terms, which every percentage uses, weigh most.

Reference:
    McDanel, Teerapittayanon, Kung: Incomplete Dot Products for Dynamic Computation Scaling in
    Neural Network Inference, 2017, https://arxiv.org/abs/1710.07830
"""

import keras
import numpy as np
from keras import ops

_PACKAGE = "keras_tesla.profiles"


class Profile:
    """Base class: a callable from the number of terms to the coefficients.

    Subclasses implement `coefficients(terms)`; calling the profile checks what it returns.
    """

    def coefficients(self, terms: int):
        """Returns `terms` coefficients (array-like of floats)."""
        raise NotImplementedError(f"{type(self).__name__} must implement `coefficients`.")

    def __call__(self, terms: int) -> np.ndarray:
        """Returns the checked coefficients.

        Args:
            terms: Number of terms of the dot product, at least 1.

        Returns:
            A float32 array of shape `(terms,)`, finite and non-increasing.

        Raises:
            ValueError: If there are not `terms` coefficients, one is not finite, or they increase.
        """
        values = np.asarray(self.coefficients(terms), "float32")
        if values.shape != (terms,):
            raise ValueError(
                f"A profile for {terms} terms must have shape ({terms},). "
                f"Received: {self!r} with shape {values.shape}"
            )
        if not np.all(np.isfinite(values)):
            raise ValueError(
                f"Profile coefficients must be finite. Received: {self!r} with {values}"
            )
        if np.any(np.diff(values) > 0):
            i = int(np.argmax(np.diff(values) > 0))
            raise ValueError(
                "Profile coefficients must not increase, so that the first terms weigh most. "
                f"Received: {self!r} with {values[i]} before {values[i + 1]} at index {i}"
            )
        return values

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {}

    @classmethod
    def from_config(cls, config):
        """Returns the profile that `get_config` described."""
        return cls(**config)

    def __repr__(self):
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


@keras.saving.register_keras_serializable(_PACKAGE)
class AllOne(Profile):
    """`gamma_i = 1`. An IDP layer at 100 % is then its Keras class."""

    def coefficients(self, terms):
        return np.ones(terms)


@keras.saving.register_keras_serializable(_PACKAGE)
class Harmonic(Profile):
    """`gamma_i = 1 / (i + 1)`."""

    def coefficients(self, terms):
        return 1.0 / (np.arange(terms) + 1)


@keras.saving.register_keras_serializable(_PACKAGE)
class Linear(Profile):
    """`gamma_i = 1 - i / n`."""

    def coefficients(self, terms):
        return 1.0 - np.arange(terms) / terms


@keras.saving.register_keras_serializable(_PACKAGE)
class Exponential(Profile):
    """`gamma_i = exp(-i)`."""

    def coefficients(self, terms):
        return np.exp(-np.arange(terms, dtype="float64"))


@keras.saving.register_keras_serializable(_PACKAGE)
class HalfExponential(Profile):
    """`gamma_i = 1` in the first half, then `exp(-k)`, k = 0, 1, .."""

    def coefficients(self, terms):
        half = terms // 2
        return np.concatenate([np.ones(half), np.exp(-np.arange(terms - half, dtype="float64"))])


@keras.saving.register_keras_serializable(_PACKAGE)
class Step(Profile):
    """Runs of equal coefficients.

    Args:
        values: The coefficient of each run, non-increasing. Default: `(1, .75, .5, .25)`.
        fractions: The share of the terms in each run, positive, summing to 1. Default: equal runs.

    The "impulse" that was TESLA's best profile on CIFAR-100 is `Step((1.0, 0.2), (0.3, 0.7))`, also
    available by the name `"impulse"`.

    Example:

    >>> Step((1.0, 0.5))(4).tolist()
    [1.0, 1.0, 0.5, 0.5]
    """

    def __init__(self, values=(1.0, 0.75, 0.5, 0.25), fractions=None):
        self.values = tuple(float(v) for v in values)
        self.fractions = None if fractions is None else tuple(float(f) for f in fractions)
        shares = self.fractions or [1 / len(self.values) for _ in self.values]
        fits = len(shares) == len(self.values) and all(s > 0 for s in shares)
        if not (fits and abs(sum(shares) - 1) <= 1e-6):
            raise ValueError(
                "`fractions` must hold one positive share of the terms for each of `values` and "
                f"sum to 1. Received: values={self.values}, fractions={self.fractions}"
            )
        self._ends = np.cumsum(shares)

    def coefficients(self, terms):
        # Rounded, not floored: three equal runs of 9 terms end at 3, 6 and 9 in spite of 1/3.
        ends = np.rint(self._ends * terms)
        run = np.searchsorted(ends, np.arange(terms), side="right")
        return np.asarray(self.values)[np.minimum(run, len(self.values) - 1)]

    def get_config(self):
        return {"values": self.values, "fractions": self.fractions}


@keras.saving.register_keras_serializable(_PACKAGE)
class Array(Profile):
    """Coefficients given one by one; fits layers with exactly that many terms.

    Args:
        values: Array-like of floats, shape `(terms,)`, finite and non-increasing.
    """

    def __init__(self, values):
        self.values = np.asarray(values, "float64").tolist()
        self(np.size(values))

    def coefficients(self, terms):
        return self.values

    def get_config(self):
        return {"values": self.values}


@keras.saving.register_keras_serializable(_PACKAGE)
class Function(Profile):
    """Coefficients from your own function of the number of terms.

    Args:
        function: Callable `terms -> array-like of shape (terms,)`. Register it with
            `keras.saving.register_keras_serializable` if the model is to be saved.
    """

    def __init__(self, function):
        self.function = function

    def coefficients(self, terms):
        return self.function(terms)

    def get_config(self):
        return {"function": keras.saving.serialize_keras_object(self.function)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["function"]))

    def __repr__(self):
        return f"Function({getattr(self.function, '__name__', self.function)!r})"


_NAMED = {
    "all_one": AllOne,
    "harmonic": Harmonic,
    "linear": Linear,
    "exponential": Exponential,
    "half_exponential": HalfExponential,
    "step": Step,
    "impulse": lambda: Step((1.0, 0.2), (0.3, 0.7)),
}


def get(identifier) -> Profile:
    """Returns the profile that `identifier` means.

    Args:
        identifier: A `Profile`, a name (`"all_one"`, `"harmonic"`, `"linear"`, `"exponential"`,
            `"half_exponential"`, `"step"`, `"impulse"`), the dict of a serialized profile, an
            array-like of coefficients, or a function of the number of terms.

    Raises:
        ValueError: If it is none of these.
    """
    if isinstance(identifier, Profile):
        return identifier
    if isinstance(identifier, str):
        if identifier not in _NAMED:
            raise ValueError(
                f"Unknown profile. Expected one of {list(_NAMED)}. Received: {identifier!r}"
            )
        return _NAMED[identifier]()
    if isinstance(identifier, dict):
        return keras.saving.deserialize_keras_object(identifier)
    if callable(identifier):
        return Function(identifier)
    if isinstance(identifier, (list, tuple, np.ndarray)):
        return Array(identifier)
    raise ValueError(
        "A profile must be a name, a `Profile`, an array of coefficients or a function of the "
        f"number of terms. Received: {identifier!r}"
    )


def of_parts(profile: Profile, parts: tuple[int, ...]) -> np.ndarray:
    """Returns the coefficients of terms that lie in several parts: a profile of each.

    An `Array` holds those of all parts, one after the other.

    Args:
        profile: The profile.
        parts: The number of terms of each part.
    """
    if isinstance(profile, Array):
        return profile(sum(parts))
    return np.concatenate([profile(terms) for terms in parts])


def serialize(profile: Profile) -> dict:
    """Returns the dict that `get` turns back into `profile`."""
    return keras.saving.serialize_keras_object(profile)


@keras.saving.register_keras_serializable(_PACKAGE)
class NonIncreasing(keras.constraints.Constraint):
    """Projects trainable coefficients to non-increasing ones: `gamma_i <- min(gamma_0..gamma_i)`.

    Args:
        parts: The number of coefficients of each part, if each is to be non-increasing by itself.

    Reference:
        Chang, Lin, Ou Yang, Lei, Chen: TESLA, 2018, https://openreview.net/forum?id=H1K6Tb-AZ
    """

    def __init__(self, parts=None):
        self.parts = parts

    def __call__(self, w):
        w = ops.convert_to_tensor(w)
        if self.parts is None:
            return _running_minimum(w)
        ends = np.cumsum(self.parts)[:-1].tolist()
        return ops.concatenate([_running_minimum(part) for part in ops.split(w, ends)])

    def get_config(self):
        return {"parts": self.parts}


def _running_minimum(w):
    reach = 1  # each coefficient is the minimum of itself and the `reach - 1` before it
    while reach < w.shape[0]:
        w = ops.minimum(w, ops.concatenate([w[:reach], w[:-reach]]))
        reach *= 2
    return w
