"""Divergences between the outputs of two percentages, and which one fits a loss.

A divergence is a Keras loss with the teacher's output as target: reduction, sample weights, the
mask of a sequence and the replicas of a strategy are Keras' own.
"""

import keras
import numpy as np
from keras import ops

from keras_tesla.training.outputs import Output

_LEAST = 1e-30  # of a probability; its logarithm has a gradient that float32 holds

# {class: the function of the same loss}
_CATEGORICAL = {
    keras.losses.CategoricalCrossentropy: keras.losses.categorical_crossentropy,
    keras.losses.SparseCategoricalCrossentropy: keras.losses.sparse_categorical_crossentropy,
    keras.losses.KLDivergence: keras.losses.kl_divergence,
}
_BINARY = {keras.losses.BinaryCrossentropy: keras.losses.binary_crossentropy}
_REGRESSION = {
    keras.losses.MeanSquaredError: keras.losses.mean_squared_error,
    keras.losses.MeanAbsoluteError: keras.losses.mean_absolute_error,
    keras.losses.MeanAbsolutePercentageError: keras.losses.mean_absolute_percentage_error,
    keras.losses.MeanSquaredLogarithmicError: keras.losses.mean_squared_logarithmic_error,
    keras.losses.Huber: keras.losses.huber,
    keras.losses.LogCosh: keras.losses.log_cosh,
}
_ON_PROBABILITIES = {
    **_CATEGORICAL,
    **_BINARY,
    keras.losses.BinaryFocalCrossentropy: keras.losses.binary_focal_crossentropy,
    keras.losses.CategoricalFocalCrossentropy: keras.losses.categorical_focal_crossentropy,
}
_DISTRIBUTIONS = ("softmax", "sparsemax")
_PROBABILITIES = (*_DISTRIBUTIONS, "sigmoid", "hard_sigmoid", "sparse_sigmoid")


class KL(keras.losses.Loss):
    """A Kullback-Leibler divergence, computed from logits.

    Args:
        from_logits: Bool; of probabilities the logits are found first.
        temperature: Float, T: logits are divided by it, the divergence is multiplied by its square.
        axis: Int, of the classes or units.
        reduction: As in Keras.
        dtype: Likewise.
    """

    def __init__(self, from_logits, temperature=1.0, axis=-1, reduction=None, dtype=None):
        # In float32 at least, as Keras computes its losses under mixed precision.
        dtype = keras.backend.result_type(dtype or keras.config.floatx(), "float32")
        super().__init__(reduction=reduction, dtype=dtype)
        self.from_logits = from_logits
        self.temperature = temperature
        self.axis = axis

    def call(self, teacher, student):
        if not self.from_logits:
            teacher, student = self.logits(teacher), self.logits(student)
        values = self.of_logits(teacher / self.temperature, student / self.temperature)
        return self.temperature**2 * values

    def logits(self, probabilities):
        """Returns logits that give these probabilities."""
        raise NotImplementedError

    def of_logits(self, teacher, student):
        """Returns the divergence of each example or position."""
        raise NotImplementedError


class CategoricalKL(KL):
    """`T^2 * sum over c of t_c * log(t_c / s_c)`, `t = softmax(y_teacher / T)`, s the student's."""

    def logits(self, probabilities):
        return ops.log(ops.maximum(probabilities, _LEAST))  # softmax gives them their sum of 1

    def of_logits(self, teacher, student):
        # A logit of -inf, a class that is ruled out, is in both and adds nothing.
        lowest = float(np.finfo("float32").min)
        t = ops.maximum(ops.log_softmax(teacher, self.axis), lowest)
        s = ops.maximum(ops.log_softmax(student, self.axis), lowest)
        return ops.sum(ops.exp(t) * (t - s), self.axis)


class BinaryKL(KL):
    """`T^2 * mean over u of t_u * log(t_u / s_u) + (1 - t_u) * log((1 - t_u) / (1 - s_u))`.

    `t = sigmoid(y_teacher / T)`, s is the student's: each unit is a Bernoulli distribution.
    """

    def logits(self, probabilities):
        # There is no number between 1 - eps / 2 and 1.
        rest = ops.maximum(1 - probabilities, float(np.finfo(self.dtype).eps) / 4)
        return ops.log(ops.maximum(probabilities, _LEAST)) - ops.log(rest)

    def of_logits(self, teacher, student):
        yes = ops.log_sigmoid(teacher) - ops.log_sigmoid(student)
        no = ops.log_sigmoid(-teacher) - ops.log_sigmoid(-student)
        values = ops.sigmoid(teacher) * yes + ops.sigmoid(-teacher) * no
        return ops.mean(values, self.axis)


class OfFunction(keras.losses.Loss):
    """A function `(teacher, student) -> values`, with the reduction of the loss on the targets."""

    def __init__(self, function, reduction, dtype):
        super().__init__(reduction=reduction, dtype=dtype)
        self.function = function

    def call(self, teacher, student):
        return self.function(teacher, student)


NAMES: dict[str, type[KL]] = {
    "kl_divergence": CategoricalKL,
    "binary_kl_divergence": BinaryKL,
}


def check(divergence):
    """Refuses what is no divergence of an output.

    Raises:
        ValueError: If it is neither `"auto"` nor a name, a Keras loss or a function, or if it is a
            cross-entropy.
    """
    if isinstance(divergence, str) and divergence in ("auto", *NAMES):
        return
    try:
        loss = keras.losses.get(divergence)
    except ValueError:
        loss = None
    if loss is None:
        raise ValueError(
            "`divergence` must be 'auto', 'kl_divergence', 'binary_kl_divergence', a Keras loss or "
            "its name, a function (teacher, student) -> values, or for several outputs a dict or "
            f"list of these. Received: {divergence!r}"
        )
    if _is_one_of(loss, _ON_PROBABILITIES):
        raise ValueError(
            "As a divergence this loss would treat the teacher's output as probabilities, even "
            "where it is logits. Pass 'kl_divergence' or 'binary_kl_divergence', which have the "
            f"gradient of a cross-entropy. Received: {divergence!r}"
        )


def check_saved(divergence):
    """Refuses to save a loss that would load as another one.

    The losses of Keras leave arguments out of their config: `Huber` its delta, all their dtype. A
    class of your own says itself what belongs in its config.

    Raises:
        ValueError: If a loss of Keras comes back from its config with other attributes.
    """
    cls = type(divergence)
    if not isinstance(divergence, keras.Loss) or cls.__module__.split(".")[0] != "keras":
        return
    if vars(cls.from_config(divergence.get_config())) != vars(divergence):
        raise ValueError(
            f"The divergence {cls.__name__} cannot be saved: it comes back from its config with "
            "other arguments, since this class of Keras leaves some out. Pass as `divergence` a "
            "function (teacher, student) -> values that calls the loss with these arguments, and "
            "register it with `keras.saving.register_keras_serializable`. "
            f"Received: {vars(divergence)}"
        )


def fitting(output: Output, loss, divergence="auto", from_logits="auto", temperature=1.0):
    """Returns the divergence of an output, a `keras.losses.Loss`.

    Args:
        output: The output.
        loss: Its loss, as in `compile`.
        divergence: As in `InPlaceDistillation`, for this output.
        from_logits: As in `InPlaceDistillation`.
        temperature: Likewise.

    Raises:
        ValueError: If no divergence is known to fit the loss, if it is a regression's, or if loss,
            activation and `from_logits` contradict each other.
    """
    loss = _loss(loss, output)
    reduction = getattr(loss, "reduction", "sum_over_batch_size")
    dtype = loss.dtype if isinstance(loss, keras.Loss) else None
    if divergence == "auto":
        _check_known(output, loss)
        kind = CategoricalKL if _is_one_of(loss, _CATEGORICAL) else BinaryKL
    elif isinstance(divergence, str) and divergence in NAMES:
        kind = NAMES[divergence]
    else:
        given = keras.losses.get(divergence)
        return given if isinstance(given, keras.Loss) else OfFunction(given, reduction, dtype)
    axis = getattr(loss, "axis", -1)
    if kind is CategoricalKL and axis == -1 and output.units == 1:
        raise ValueError(
            f"Output {output.name!r} has one unit, and for one class the divergence is always 0. "
            "Train it on a binary cross-entropy, or pass `InPlaceDistillation(divergence="
            "'binary_kl_divergence')`."
        )
    logits = _are_logits(output, loss, kind, from_logits)
    return kind(logits, temperature, axis, reduction, dtype)


def _loss(identifier, output):
    """The loss that an identifier means, of a function of Keras the class of the same loss."""
    if str(identifier).lower() in ("crossentropy", "ce"):  # Keras chooses by the shapes
        identifier = "BinaryCrossentropy" if output.units == 1 else "CategoricalCrossentropy"
    loss = keras.losses.get(identifier)
    return next((cls() for cls, function in _ON_PROBABILITIES.items() if loss is function), loss)


def _is_one_of(loss, table) -> bool:
    """Whether a loss is in a table; a subclass may compute something else."""
    return any(type(loss) is cls or loss is function for cls, function in table.items())


def _named(loss) -> str:
    """How a message calls a loss."""
    if isinstance(loss, keras.Loss):
        logits = f"from_logits={loss.from_logits}" if hasattr(loss, "from_logits") else ""
        return f"{type(loss).__name__}({logits})"
    return getattr(loss, "__name__", repr(loss))


def _check_known(output, loss):
    """Refuses a loss that says too little of what its output is, and that of a regression."""
    if _is_one_of(loss, _REGRESSION):
        raise ValueError(
            f"Output {output.name!r} is trained on a regression loss, {_named(loss)}, and "
            "in-place distillation made a regression worse at every percentage where it was "
            "measured (Friedman's function, error in % of the variance: 10.2 -> 17.3 at 100 %, "
            "29.6 -> 42.3 at 25 %; see docs/decisions.md). Leave `distillation` out, or ask for "
            "it: `distillation=InPlaceDistillation(divergence='mean_squared_error', weight=...)`; "
            "with several outputs say it in a dict by name, as in `compile`."
        )
    if not _is_one_of(loss, {**_CATEGORICAL, **_BINARY}):
        raise ValueError(
            f"Which divergence fits output {output.name!r} cannot be told from its loss "
            f"{_named(loss)}. Pass `distillation=InPlaceDistillation(divergence=...)`: "
            "'kl_divergence' if the output is a distribution over classes, 'binary_kl_divergence' "
            "if each unit is a yes or no, a Keras loss such as 'mean_squared_error', or a function "
            "(teacher, student) -> values; of several outputs in a dict by name, as in `compile`."
        )
    if getattr(loss, "ignore_class", None) is not None:
        raise ValueError(
            f"The loss of output {output.name!r} ignores the class {loss.ignore_class}. What the "
            "widest percentage says there is not trained, and would be taught. Leave these "
            "positions out by a `sample_weight` of 0 instead, or accept it with "
            "`InPlaceDistillation(divergence='kl_divergence')`."
        )


def _are_logits(output, loss, kind, from_logits) -> bool:
    """Whether an output is logits: what activation, loss and argument say, if they agree."""
    claimed = {}
    if from_logits != "auto":
        claimed["`from_logits` of the distillation"] = from_logits
    if _is_one_of(loss, _ON_PROBABILITIES):
        claimed[f"its loss {_named(loss)}"] = getattr(loss, "from_logits", False)
    if output.activation is not None:
        claimed[f"its activation {output.activation!r}"] = output.activation not in _PROBABILITIES
    if not claimed:
        raise ValueError(
            f"Whether output {output.name!r} is logits cannot be told from its last layer. Pass "
            "`from_logits=True` or `False` to `InPlaceDistillation`."
        )
    if len(set(claimed.values())) > 1:
        claims = "; ".join(
            f"{who}: {'logits' if logits else 'probabilities'}" for who, logits in claimed.items()
        )
        raise ValueError(
            f"Whether output {output.name!r} is logits is contradictory ({claims}). Make them "
            "agree: a softmax or sigmoid goes with `from_logits=False`, a layer without activation "
            "with `from_logits=True`."
        )
    logits = next(iter(claimed.values()))
    known = (None, *_DISTRIBUTIONS)
    if kind is CategoricalKL and not logits and output.activation not in known:
        raise ValueError(
            f"Output {output.name!r} ends in {output.activation!r}, so its units are no "
            "distribution over classes. Train it on a binary cross-entropy or end it in a softmax; "
            "or pass `InPlaceDistillation(divergence='binary_kl_divergence')`."
        )
    return logits
