"""IDPBatchNormalization: batch normalization with statistics for each percentage."""

import keras
from keras import ops

from keras_tesla.percentages import check_percentages
from keras_tesla.scope import current_percentage


@keras.saving.register_keras_serializable("keras_tesla")
class IDPBatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` with moving statistics for each percentage.

    A layer after an incomplete dot product sees different sums at every percentage, so one moving
    mean and variance fit none of them. Here gamma and beta are shared and the moving statistics
    are not: at percentage p

    `y = gamma_p * (x - mean_p) / sqrt(variance_p + epsilon) + beta_p`

    with `gamma_p = gamma`, `beta_p = beta`, or with `private_affine`

    `gamma_p = gamma * (1 + gain_p)`, `beta_p = beta + shift_p`

    where gain and shift start at 0 and belong to one percentage each.

    At the highest percentage the layer is `keras.layers.BatchNormalization`: same weights under the
    same names, same arguments, equal numbers; with `private_affine` it is until its gains and
    shifts are trained. The accuracy of a small network at 10 / 25 % was .455 / .800 with shared
    statistics and .498 / .816 with separate ones (`docs/concepts.md`).

    Args:
        percentages: Iterable of distinct ints, 1..100: the percentages that get statistics. They
            must include those that the model is trained at.
        private_affine: Bool, whether each percentage has its own gain and shift.
        **kwargs: All arguments of `keras.layers.BatchNormalization`.

    Input shape:
        Any, float, with the channels on `axis`.

    Output shape:
        That of the input.

    Raises:
        ValueError: At construction: invalid percentages. When called at a percentage without
            statistics.

    Example:

    >>> layer = IDPBatchNormalization([100, 50])
    >>> layer.build((None, 3))
    >>> [v.name for v in layer.non_trainable_variables]
    ['moving_mean', 'moving_variance', 'moving_mean_p50', 'moving_variance_p50']
    >>> layer = IDPBatchNormalization([100, 50], private_affine=True)
    >>> layer.build((None, 3))
    >>> [v.name for v in layer.trainable_variables]
    ['gamma', 'beta', 'gain_p100', 'shift_p100', 'gain_p50', 'shift_p50']

    Reference:
        Yu, Yang, Xu, Yang, Huang: Slimmable Neural Networks, 2018,
        https://arxiv.org/abs/1812.08928 (a batch normalization for each width)
    """

    def __init__(self, percentages, private_affine=False, **kwargs):
        super().__init__(**kwargs)
        self.percentages = check_percentages(percentages)
        self.private_affine = private_affine

    def build(self, input_shape):
        super().build(input_shape)
        # The variables of the Keras class serve the highest percentage; the others get their own.
        first = [v for v in self.variables if v is not self.gamma and v is not self.beta]
        self._statistics = {self.percentages[0]: first}
        for percentage in self.percentages[1:]:
            self._statistics[percentage] = [
                self.add_weight(
                    name=f"{v.name}_p{percentage}",
                    shape=v.shape,
                    initializer=_start_of(v),
                    trainable=False,
                    autocast=False,
                )
                for v in first
            ]
        self._private = {p: self._build_private(p) for p in self.percentages}

    def _build_private(self, percentage):
        """Returns {name: variable} of the numbers that only `percentage` uses."""
        shared = {"gain": self.gamma, "shift": self.beta} if self.private_affine else {}
        return {
            name: self.add_weight(
                name=f"{name}_p{percentage}", shape=v.shape, initializer="zeros", autocast=False
            )
            for name, v in shared.items()
            if v is not None
        }

    def statistics(self, percentage: int) -> list:
        """Returns the statistics' variables at `percentage`, in the order of the Keras class.

        Raises:
            ValueError: If the layer has no statistics for it.
        """
        self._check_known(percentage)
        return self._statistics[percentage]

    def private_variables(self, percentage: int) -> dict:
        """Returns {`"gain"`, `"shift"`: variable} of those that only `percentage` uses.

        Raises:
            ValueError: If the layer was not made for it.
        """
        self._check_known(percentage)
        return self._private[percentage]

    def affine(self, percentage: int) -> dict:
        """Returns {`"gamma"`, `"beta"`: tensor `(channels,)`} at `percentage`, where there are any.

        Raises:
            ValueError: If the layer was not made for it.
        """
        private = self.private_variables(percentage)
        affine = {}
        if self.gamma is not None:
            affine["gamma"] = ops.convert_to_tensor(self.gamma)
            if "gain" in private:
                affine["gamma"] = affine["gamma"] * (1 + ops.convert_to_tensor(private["gain"]))
        if self.beta is not None:
            affine["beta"] = ops.convert_to_tensor(self.beta)
            if "shift" in private:
                affine["beta"] = affine["beta"] + ops.convert_to_tensor(private["shift"])
        return affine

    def _check_known(self, percentage):
        if percentage not in self._statistics:
            raise ValueError(
                f"Layer {self.name!r} has statistics for {list(self.percentages)} percent. "
                f"Received: {percentage}. Pass it in `percentages` when the layer is made, or to "
                "`to_idp`."
            )

    def call(self, inputs, training=None, mask=None):
        percentage = current_percentage()
        statistics = self.statistics(percentage)
        first = self.statistics(self.percentages[0])
        if statistics is first and not self.private_affine:
            return super().call(inputs, training=training, mask=mask)
        # The Keras class reads and writes `moving_mean` and `moving_variance`, and reads `gamma`
        # and `beta`: lend it those of this percentage.
        lent = [(getattr(self, name), value) for name, value in self.affine(percentage).items()]
        lent += zip(first, [v.value for v in statistics], strict=True)
        with keras.StatelessScope(state_mapping=lent) as scope:
            outputs = super().call(inputs, training=training, mask=mask)
            updated = [scope.get_current_value(v) for v in first]
        if training and self.trainable:
            for variable, value in zip(statistics, updated, strict=True):
                variable.assign(value)
        return outputs

    def get_config(self):
        return {
            **super().get_config(),
            "percentages": list(self.percentages),
            "private_affine": self.private_affine,
        }


def _start_of(variable):
    """An initializer that starts a variable where another one starts, in a buffer of its own."""
    values = ops.convert_to_numpy(variable)
    return lambda shape, dtype: ops.convert_to_tensor(values.copy(), dtype)
