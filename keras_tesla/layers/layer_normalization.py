"""IDPLayerNormalization: layer normalization by the statistics of a part of the channels."""

import keras
from keras import ops

from keras_tesla.layers.channel_statistics import ChannelStatistics


@keras.saving.register_keras_serializable("keras_tesla")
class IDPLayerNormalization(ChannelStatistics, keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` whose statistics are those of the first channels.

    At percentage p, with k = max(1, floor(p / 100 * n)) of n channels,

    `y_j = gamma_j * (x_j - mean(x_1 .. x_k)) / sqrt(variance(x_1 .. x_k) + epsilon) + beta_j`

    for every channel j. So where only the first k channels are read, the layer is a
    `keras.layers.LayerNormalization` of k channels, and nothing before it computes more. At 100 %
    it is `keras.layers.LayerNormalization`: same weights, same arguments, equal numbers.

    Args:
        percentages: Iterable of distinct ints, 1..100: what a `TESLA` model trains if it is given
            no others.
        input_parts: After a concatenation, the channels of each tensor in it: the statistics are
            those of the first `max(1, floor(p / 100 * n_j))` channels of each part j. Default:
            None, one part.
        statistics_of: None (default), or the channels whose statistics are taken at every
            percentage, as pairs (first, end). `TESLA.at` sets it where more channels are read than
            the statistics are taken of.
        **kwargs: All arguments of `keras.layers.LayerNormalization`; `axis` is the last one.

    Input shape:
        Any, float, with the channels on the last axis.

    Output shape:
        That of the input.

    Raises:
        ValueError: At construction: several axes, `rms_scaling`, invalid percentages. At build:
            another axis than the last, parts that do not sum up to the channels, or channels that
            there are not.

    Example:

    >>> layer = IDPLayerNormalization()
    >>> x = np.array([[-4.0, 4.0, 8.0, 20.0]], "float32")
    >>> with percentage_scope(50):
    ...     y = layer(x)
    >>> [round(v) for v in keras.ops.convert_to_numpy(y)[0].tolist()]
    [-1, 1, 2, 5]

    Reference:
        Ba, Kiros, Hinton: Layer Normalization, 2016, https://arxiv.org/abs/1607.06450
    """

    def __init__(self, axis=-1, **kwargs):
        if kwargs.get("rms_scaling"):
            raise ValueError(
                "IDPLayerNormalization does not take the deprecated `rms_scaling=True`; "
                "IDPRMSNormalization normalizes by the root mean square. Received: rms_scaling=True"
            )
        super().__init__(axis, **kwargs)

    def _normalized(self, x, chosen):
        mean = ops.mean(chosen, -1, keepdims=True)
        variance = ops.var(chosen, -1, keepdims=True)
        y = (x - mean) * ops.rsqrt(variance + self.epsilon)
        if self.gamma is not None:
            y = y * ops.cast(self.gamma, x.dtype)
        return y if self.beta is None else y + ops.cast(self.beta, x.dtype)
