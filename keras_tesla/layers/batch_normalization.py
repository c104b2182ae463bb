"""IDPBatchNormalization: batch normalization with statistics for each percentage."""

import keras
from keras import ops

from keras_tesla.percentages import check_percentages
from keras_tesla.scope import current_percentage


@keras.saving.register_keras_serializable("keras_tesla")
class IDPBatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` with moving statistics for each percentage.

    A layer behind an incomplete dot product sees other sums at every percentage, so one moving
    mean and variance fit none of them. Here gamma and beta are shared and the moving statistics
    are not: at percentage p

    `y = gamma * (x - mean_p) / sqrt(variance_p + epsilon) + beta`

    At the highest percentage the layer is `keras.layers.BatchNormalization`: same weights under the
    same names, same arguments, equal numbers. Two tries showed what it brings: with shared
    statistics .455 / .800 accuracy at 10 / 25 %, with these .498 / .816 (`docs/concepts.md`).

    Args:
        percentages: Iterable of distinct ints, 1..100: the percentages that get statistics. They
            must include those that the model is trained at.
        **kwargs: All arguments of `keras.layers.BatchNormalization`.

    Input shape:
        Any, float, with the channels on `axis`.

    Output shape:
        That of the input.

    Raises:
        ValueError: At construction: percentages that are none. When called at a percentage without
            statistics.

    Example:

    >>> layer = IDPBatchNormalization([100, 50])
    >>> layer.build((None, 3))
    >>> [v.name for v in layer.non_trainable_variables]
    ['moving_mean', 'moving_variance', 'moving_mean_p50', 'moving_variance_p50']
    """

    def __init__(self, percentages, **kwargs):
        super().__init__(**kwargs)
        self.percentages = check_percentages(percentages)

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

    def statistics(self, percentage: int) -> list:
        """Returns the statistics' variables at `percentage`, in the order of the Keras class.

        Raises:
            ValueError: If the layer has no statistics for it.
        """
        if percentage not in self._statistics:
            raise ValueError(
                f"Layer {self.name!r} has statistics for {list(self.percentages)} percent. "
                f"Received: {percentage}. Pass it in `percentages` when the layer is made, or to "
                "`to_idp`."
            )
        return self._statistics[percentage]

    def call(self, inputs, training=None, mask=None):
        own = self.statistics(current_percentage())
        first = self.statistics(self.percentages[0])
        if own is first:
            return super().call(inputs, training=training, mask=mask)
        # The Keras class reads and writes `moving_mean` and its like: lend it those of this
        # percentage. A stateless scope hides the one around it, so gamma and beta are passed too.
        shared = [v for v in (self.gamma, self.beta) if v is not None]
        lent = [(v, v.value) for v in shared] + list(
            zip(first, [v.value for v in own], strict=True)
        )
        with keras.StatelessScope(state_mapping=lent) as scope:
            outputs = super().call(inputs, training=training, mask=mask)
            updated = [scope.get_current_value(v) for v in first]
        if training and self.trainable:
            for variable, value in zip(own, updated, strict=True):
                variable.assign(value)
        return outputs

    def get_config(self):
        return {**super().get_config(), "percentages": list(self.percentages)}


def _start_of(variable):
    """An initializer that starts a variable where another one starts, in a buffer of its own."""
    values = ops.convert_to_numpy(variable)
    return lambda shape, dtype: ops.convert_to_tensor(values.copy(), dtype)
