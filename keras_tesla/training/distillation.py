"""In-place distillation: the widest percentage teaches the others in the same step."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_tesla")
class InPlaceDistillation:
    """Trains the narrower percentages on the soft outputs of the widest one.

    With outputs y_w of the widest active percentage, held fixed, and y_p of a narrower one:

    `l_p <- (1 - weight) * l_p + weight * T^2 * KL(softmax(y_w / T) || softmax(y_p / T))`

    The widest one is trained on the targets. Losses that are reported for validation stay `l_p`.

    Args:
        weight: Float, 0 < weight <= 1, the share of the divergence. Default: 1, targets teach only
            the widest percentage.
        temperature: Float > 0, T.
        from_logits: Bool, whether the outputs are logits; otherwise they are probabilities, and
            T must be 1.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Yu, Huang: Universally Slimmable Networks and Improved Training Techniques, 2019,
        https://arxiv.org/abs/1903.05134
    """

    def __init__(self, weight=1.0, temperature=1.0, from_logits=True):
        if not 0 < float(weight) <= 1:
            raise ValueError(f"`weight` must be above 0 and at most 1. Received: {weight!r}")
        if not 0 < float(temperature) < float("inf"):
            raise ValueError(f"`temperature` must be positive. Received: {temperature!r}")
        if not from_logits and temperature != 1:
            raise ValueError(
                "A temperature needs logits: pass `from_logits=True` and a model whose outputs are "
                f"logits. Received: temperature={temperature!r} with from_logits=False"
            )
        self.weight = float(weight)
        self.temperature = float(temperature)
        self.from_logits = bool(from_logits)

    def __call__(self, loss, teacher, student, sample_weight=None):
        """Returns the loss of a narrower percentage.

        Args:
            loss: Scalar, its loss on the targets.
            teacher: Outputs of the widest percentage, `(batch, ..., classes)`, or a structure.
            student: Outputs of the narrower one, likewise.
            sample_weight: Tensor `(batch,)` or None.
        """
        divergence = sum(
            self._divergence(t, s, sample_weight)
            for t, s in zip(keras.tree.flatten(teacher), keras.tree.flatten(student), strict=True)
        )
        if self.weight == 1:
            return divergence
        return (1 - self.weight) * loss + self.weight * divergence

    def _divergence(self, teacher, student, sample_weight):
        # In float32 also under mixed precision, as Keras computes its losses.
        teacher = ops.stop_gradient(ops.cast(teacher, keras.config.floatx()))
        student = ops.cast(student, keras.config.floatx())
        if self.from_logits:
            teacher = ops.softmax(teacher / self.temperature)
            student = ops.softmax(student / self.temperature)
        divergence = keras.losses.KLDivergence()(teacher, student, sample_weight)
        return self.temperature**2 * divergence

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {
            "weight": self.weight,
            "temperature": self.temperature,
            "from_logits": self.from_logits,
        }

    @classmethod
    def from_config(cls, config):
        """Returns the distillation that `get_config` described."""
        return cls(**config)


def get(identifier):
    """Returns the distillation that `identifier` means: None, `"in_place"` or a callable.

    Raises:
        ValueError: If it is none of these.
    """
    if identifier is None or callable(identifier):
        return identifier
    if identifier == "in_place":
        return InPlaceDistillation()
    raise ValueError(
        "`distillation` must be None, 'in_place' or an `InPlaceDistillation`. "
        f"Received: {identifier!r}"
    )
