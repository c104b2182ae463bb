"""ActivationRange: rounds activations to int8 within a range that it tracks."""

import keras
from keras import ops

from keras_tesla.kinds.kind import Channelwise
from keras_tesla.kinds.registry import register
from keras_tesla.percentages import check_percentages
from keras_tesla.scope import current_percentage


@keras.saving.register_keras_serializable("keras_tesla")
class ActivationRange(keras.layers.Layer):
    """Rounds a tensor as int8 inference does, and tracks the range that this needs.

    The output of an incomplete dot product differs between percentages, so each percentage has a
    separate range there. In training, with a and b the smallest and the largest number of the batch
    and 0,

    `low_p = m * low_p + (1 - m) * a`, `high_p = m * high_p + (1 - m) * b`

    and the first batch sets both. The output is, with `s = (high_p - low_p) / 255`,

    `y = s * round(clip(x, low_p, high_p) / s)`

    where both ends are moved slightly so that 0 is one of the 256 values. Gradients pass where x is
    within the range. Before the first batch of training there is no range, and `y = x`.

    Args:
        percentages: Iterable of distinct ints, 1..100, that get separate ranges; None: one range
            for all percentages, for a tensor that does not depend on them.
        momentum: Float m, 0 <= m < 1.
        **kwargs: All arguments of `keras.layers.Layer`. With `trainable=False` ranges stay.

    Input shape:
        Any, float.

    Output shape:
        That of the input.

    Raises:
        ValueError: At construction: invalid percentages or momentum. When called at a percentage
            without a range.

    Example:

    >>> layer = ActivationRange([100, 50])
    >>> x = np.array([[-1.0, 0.002, 1.55]])  # in steps of .01
    >>> (100 * layer(x, training=True).numpy()).round().tolist()
    [[-100.0, 0.0, 155.0]]
    >>> layer.at(100)
    (-1.0, 1.5499999523162842)

    Reference:
        Jacob et al.: Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference, 2018, https://arxiv.org/abs/1712.05877
    """

    def __init__(self, percentages=None, momentum=0.99, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(momentum, (int, float)) or not 0 <= momentum < 1:
            raise ValueError(f"`momentum` must be at least 0 and below 1. Received: {momentum!r}")
        self.percentages = None if percentages is None else check_percentages(percentages)
        self.momentum = momentum
        self.supports_masking = True

    def build(self, input_shape):
        self._ranges = {
            percentage: [
                self.add_weight(
                    name=name if percentage is None else f"{name}_p{percentage}",
                    shape=(),
                    initializer="zeros",
                    trainable=False,
                    autocast=False,
                )
                for name in ("low", "high")
            ]
            for percentage in self.percentages or [None]
        }

    def range_variables(self, percentage: int) -> list:
        """Returns the variables `[low, high]` at `percentage`.

        Raises:
            ValueError: If the layer has no range for it.
        """
        key = None if self.percentages is None else percentage
        if key not in self._ranges:
            raise ValueError(
                f"Layer {self.name!r} has ranges for {list(self._ranges)} percent. "
                f"Received: {percentage}. Pass it in `percentages` of `quantization_aware`."
            )
        return self._ranges[key]

    def at(self, percentage: int) -> tuple[float, float]:
        """Returns the range `(low, high)` at `percentage`.

        Raises:
            ValueError: If the layer has no range for this percentage, or none yet.
        """
        low, high = (float(ops.convert_to_numpy(v)) for v in self.range_variables(percentage))
        if not high > low:
            raise ValueError(
                f"Layer {self.name!r} has no range at {percentage} % yet: it was not trained "
                f"there, or has seen only zeros. Received: low={low}, high={high}. Train the "
                "quantization-aware model (`TESLA.fit`) with this percentage active."
            )
        return low, high

    def call(self, inputs, training=None):
        variables = self.range_variables(current_percentage())
        if training and self.trainable:
            self._track(inputs, *variables)
        low, high = (ops.convert_to_tensor(v) for v in variables)
        empty = ops.equal(high, low)
        # The branch that is not chosen must be finite too, or its gradient is NaN.
        rounded = fake_quantized(inputs, low, ops.where(empty, low + 1.0, high))
        return ops.where(empty, inputs, rounded)

    def _track(self, inputs, low, high):
        fresh = ops.equal(ops.convert_to_tensor(low), ops.convert_to_tensor(high))
        x = ops.cast(ops.stop_gradient(inputs), low.dtype)
        m = ops.where(fresh, 0.0, self.momentum)
        for variable, seen in (
            (low, ops.minimum(ops.min(x), 0.0)),
            (high, ops.maximum(ops.max(x), 0.0)),
        ):
            variable.assign(m * variable + (1.0 - m) * seen)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        percentages = None if self.percentages is None else list(self.percentages)
        return {**super().get_config(), "percentages": percentages, "momentum": self.momentum}


register(Channelwise(), ActivationRange)


def fake_quantized(x, low, high):
    """Returns `x`, a tensor or a KerasTensor, rounded to the 256 values of int8 in a range.

    The converter makes int8 operators of it.
    """
    return keras.quantizers.fake_quant_with_min_max_vars(x, low, high)
