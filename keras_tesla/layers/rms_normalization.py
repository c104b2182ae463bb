"""IDPRMSNormalization: RMS normalization by a part of the channels."""

import keras
from keras import ops

from keras_tesla.layers.channel_statistics import ChannelStatistics


@keras.saving.register_keras_serializable("keras_tesla")
class IDPRMSNormalization(ChannelStatistics, keras.layers.RMSNormalization):
    """`keras.layers.RMSNormalization` whose root mean square is that of the first channels.

    At percentage p, with k = max(1, floor(p / 100 * n)) of n channels,

    `y_j = scale_j * x_j / sqrt(mean(x_1^2 .. x_k^2) + epsilon)`

    for every channel j. So where only the first k channels are read, the layer is a
    `keras.layers.RMSNormalization` of k channels. At 100 % it is `keras.layers.RMSNormalization`:
    same weights, same arguments, equal numbers.

    Args:
        percentages: As in `IDPLayerNormalization`.
        input_parts: Likewise.
        statistics_of: Likewise.
        **kwargs: All arguments of `keras.layers.RMSNormalization`; `axis` is the last one.

    Input shape:
        Any, float, with the channels on the last axis.

    Output shape:
        That of the input.

    Raises:
        ValueError: As `IDPLayerNormalization`.

    Example:

    >>> layer = IDPRMSNormalization()
    >>> x = np.array([[3.0, 3.0, 300.0, 600.0]], "float32")
    >>> with percentage_scope(50):
    ...     y = layer(x)
    >>> np.round(keras.ops.convert_to_numpy(y), 2).tolist()
    [[1.0, 1.0, 100.0, 200.0]]

    Reference:
        Zhang, Sennrich: Root Mean Square Layer Normalization, 2019,
        https://arxiv.org/abs/1910.07467
    """

    def __init__(self, axis=-1, **kwargs):
        super().__init__(axis, **kwargs)

    def _normalized(self, x, chosen):
        square = ops.mean(ops.square(chosen), -1, keepdims=True)
        return x * ops.rsqrt(square + self.epsilon) * ops.cast(self.scale, x.dtype)
