"""In-place distillation: the widest percentage teaches the others in the same step."""

import keras
from keras import ops

from keras_tesla.training import divergences
from keras_tesla.training import outputs as network_outputs


@keras.saving.register_keras_serializable("keras_tesla")
class InPlaceDistillation:
    """Trains the narrower percentages on the soft outputs of the widest one.

    With the loss l_p of a narrower percentage on the targets, the outputs y_w of the widest active
    percentage, held fixed, and its own y_p, a narrower one is trained on

    `(1 - weight) * l_p + weight * d_p`, `d_p = sum over outputs o of v_o * D_o(y_w, y_p)`

    The widest one is trained on the targets. v_o is the loss weight of an output. Its divergence
    D_o fits its loss, so that both have one scale, and counts sample weights, the mask of a
    sequence and the loss's `reduction` as the loss does:

    | loss of the output | `D(t, s)` of teacher t, student s |
    |---|---|
    | categorical cross-entropy (sparse, too), KL | `T^2 * KL(softmax(t / T), softmax(s / T))` |
    | binary cross-entropy | `T^2 * KL(sigmoid(t / T), sigmoid(s / T))`, mean over the units |
    | squared, absolute, percentage or logarithmic error, Huber, log-cosh | refused: gets worse |
    | any other, and your own | refused: pass `divergence` |

    A regression got worse at every percentage where it was measured (docs/decisions.md); pass a
    divergence, such as `"mean_squared_error"`, to distill it anyway.

    Outputs that end in a softmax or a sigmoid have the divergence of their logits. In the logs
    `p50_loss` is l_50, `p50_distillation` is d_50, and `loss` is what is trained.

    Args:
        weight: Float, 0 < weight <= 1, the share of the divergence. Default: 1, targets teach only
            the widest percentage.
        temperature: Float > 0, T, of the outputs whose divergence is a KL divergence.
        from_logits: `"auto"`, True or False, whether these outputs are logits. `"auto"` is what the
            loss and the last activation say.
        divergence: `"auto"`: as in the table. `"kl_divergence"` and `"binary_kl_divergence"`: its
            first and second row. A Keras loss or its name: with the teacher's output as target. Or
            a function (teacher, student) -> values of shape `(batch, ...)`. Or, for several
            outputs, a dict of these by name, where a missing output means `"auto"`, or a list.
            Register a function of your own with `keras.saving.register_keras_serializable` if the
            model is to be saved.

    Raises:
        ValueError: At construction: if an argument is out of its range. In `TESLA.compile`: if no
            divergence is known to fit the loss of an output, or if this is a regression's; if its
            loss, its activation and `from_logits` contradict each other; if `temperature` or
            `from_logits` have no output that they apply to.

    Reference:
        Yu, Huang: Universally Slimmable Networks and Improved Training Techniques, 2019,
        https://arxiv.org/abs/1903.05134
    """

    def __init__(self, weight=1.0, temperature=1.0, from_logits="auto", divergence="auto"):
        if not 0 < float(weight) <= 1:
            raise ValueError(f"`weight` must be above 0 and at most 1. Received: {weight!r}")
        if not 0 < float(temperature) < float("inf"):
            raise ValueError(f"`temperature` must be positive. Received: {temperature!r}")
        if from_logits != "auto" and not isinstance(from_logits, bool):
            raise ValueError(
                f"`from_logits` must be 'auto', True or False. Received: {from_logits!r}"
            )
        for one in keras.tree.flatten(divergence):
            divergences.check(one)
        self.weight = float(weight)
        self.temperature = float(temperature)
        self.from_logits = from_logits
        self.divergence = divergence

    def combine(self, loss, divergence):
        """Returns what a narrower percentage is trained on.

        Args:
            loss: Scalar, l_p.
            divergence: Scalar, d_p.
        """
        if self.weight == 1:
            return divergence
        return (1 - self.weight) * loss + self.weight * divergence

    def compiled(self, outputs, loss, loss_weights=None) -> "CompiledDivergence":
        """Returns the function (teacher, student, sample_weight) -> d_p.

        Args:
            outputs: List of the network's `keras_tesla.training.outputs.Output`.
            loss: As in `compile`.
            loss_weights: Likewise.

        Raises:
            ValueError: See the class.
        """
        losses = network_outputs.assign(loss, outputs, "loss")
        if all(one is None for one in losses):
            raise ValueError(
                "In-place distillation needs to know on which loss each output is trained: pass "
                "`loss` to `compile`. Received: loss=None"
            )
        of_outputs = network_outputs.assign(self.divergence, outputs, "divergence")
        found: list[keras.Loss | None] = []
        for output, one, divergence in zip(outputs, losses, of_outputs, strict=True):
            if one is None and divergence not in (None, "auto"):
                raise ValueError(
                    f"Output {output.name!r} has no loss, so what the widest percentage would "
                    f"teach is not trained. Received for it: divergence={divergence!r}"
                )
            settings = (divergence or "auto", self.from_logits, self.temperature)
            found.append(None if one is None else divergences.fitting(output, one, *settings))
        if not any(isinstance(divergence, divergences.KL) for divergence in found):
            self._check_unused(outputs)
        weights = network_outputs.loss_weights(loss_weights, losses, outputs)
        return CompiledDivergence([output.path for output in outputs], found, weights)

    def _check_unused(self, outputs):
        if self.temperature != 1 or self.from_logits != "auto":
            raise ValueError(
                "`temperature` and `from_logits` are for outputs with a KL divergence, and the "
                f"loss of none of {[output.name for output in outputs]} has one. Leave them out. "
                f"Received: temperature={self.temperature}, from_logits={self.from_logits!r}"
            )

    def get_config(self) -> dict:
        """Returns the constructor's arguments.

        Raises:
            ValueError: If `divergence` has a loss of Keras that its config does not describe, such
                as `Huber(delta=0.5)`.
        """
        for one in keras.tree.flatten(self.divergence):
            divergences.check_saved(one)
        return {
            "weight": self.weight,
            "temperature": self.temperature,
            "from_logits": self.from_logits,
            "divergence": keras.saving.serialize_keras_object(self.divergence),
        }

    @classmethod
    def from_config(cls, config):
        """Returns the distillation that `get_config` described."""
        config = dict(config)
        if "divergence" in config:
            config["divergence"] = keras.saving.deserialize_keras_object(config["divergence"])
        elif config.get("from_logits") is True:
            config["from_logits"] = "auto"  # True was the default, so it meant nothing
        return cls(**config)


class CompiledDivergence:
    """The divergence between the outputs of two percentages.

    Args:
        paths: For each output where it lies in the structure of the outputs.
        divergences: For each a `keras.losses.Loss`, or None: not taught.
        weights: For each its loss weight.
    """

    def __init__(self, paths, divergences, weights):
        self._outputs = list(zip(paths, divergences, weights, strict=True))

    def __call__(self, teacher, student, sample_weight=None):
        """Returns the sum of the weighted divergences, a scalar.

        Args:
            teacher: The outputs of the widest percentage, a structure.
            student: Those of the narrower one, likewise.
            sample_weight: A tensor for all outputs, a structure with one for each, or None.
        """
        pairs = zip(keras.tree.flatten(teacher), keras.tree.flatten(student), strict=True)
        total = 0.0
        for (t, s), (path, divergence, weight) in zip(pairs, self._outputs, strict=True):
            if divergence is not None:
                held = ops.stop_gradient(ops.convert_to_tensor(t))
                value = divergence(held, s, _at(path, sample_weight))
                total += weight * ops.cast(value, keras.config.floatx())
        return total


def _at(path, sample_weight):
    """The sample weights of one output, found as Keras finds them."""
    if keras.tree.is_nested(sample_weight):
        for key in path:
            sample_weight = sample_weight[key]
    return sample_weight


def get(identifier):
    """Returns the distillation that `identifier` means.

    Args:
        identifier: None, `"in_place"` or an `InPlaceDistillation`.

    Raises:
        ValueError: If it is none of these.
    """
    if identifier is None or isinstance(identifier, InPlaceDistillation):
        return identifier
    if identifier == "in_place":
        return InPlaceDistillation()
    raise ValueError(
        "`distillation` must be None, 'in_place' or an `InPlaceDistillation`. "
        f"Received: {identifier!r}"
    )
