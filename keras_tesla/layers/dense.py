"""IDPDense: a Dense layer that can leave out its last input channels."""

from typing import Any

import keras
from keras import ops

from keras_tesla.channels import Channels, Selection, take
from keras_tesla.integers import check_integer
from keras_tesla.layers.incomplete import IncompleteDotProduct
from keras_tesla.scope import current_percentage


@keras.saving.register_keras_serializable("keras_tesla")
class IDPDense(IncompleteDotProduct, keras.layers.Dense):
    """`keras.layers.Dense` over an incomplete dot product.

    At percentage p the layer reads the first `k = max(1, floor(p / 100 * n))` of its n input
    channels:

    `y_j = activation(b_j + sum_{i < k} gamma_i * w_ij * x_i)`

    At 100 % and with the all-one profile it is `keras.layers.Dense`: same weights, same arguments,
    equal numbers.

    Args:
        units: Positive int, number of outputs.
        profile: The coefficients gamma: a name, a `keras_tesla.profiles.Profile`, an array of n
            floats, or a function of n. Default: `"all_one"`.
        trainable_profile: Bool, whether gamma is trained (and kept non-increasing).
        percentages, private_bias, private_profile, complete: Numbers that belong to one percentage
            each; see `IncompleteDotProduct`.
        input_parts: After a concatenation, the channels of each tensor in it: the first of each are
            read; see `IncompleteDotProduct`.
        input_channels: Int or None. After a `Flatten` over a feature map of C channels set it to
            C: the layer then leaves out channels at every position, not positions. The input
            features must be a multiple of it. None: each input feature is a channel. After a
            `Flatten` over a concatenation, `input_parts` are parts of these channels.
        **kwargs: All other arguments of `keras.layers.Dense`.

    Input shape:
        `(batch, ..., features)`, float; `features = n`, or `positions * n` with `input_channels`.

    Output shape:
        `(batch, ..., units)`, float.

    Raises:
        ValueError: At construction or build: a profile that increases, is not finite or has the
            wrong length; `input_channels` that does not divide the features.

    Example:

    >>> layer = IDPDense(2, kernel_initializer="ones", profile=[1.0, 1.0, 0.5, 0.5])
    >>> x = np.array([[1.0, 2.0, 4.0, 8.0]])
    >>> layer(x).numpy().tolist()
    [[9.0, 9.0]]
    >>> with percentage_scope(50):
    ...     layer(x).numpy().tolist()
    [[3.0, 3.0]]

    Reference:
        McDanel, Teerapittayanon, Kung, 2017, https://arxiv.org/abs/1710.07830
    """

    def __init__(self, units, *args, input_channels=None, **kwargs):
        super().__init__(units, *args, **kwargs)
        if input_channels is not None:
            input_channels = check_integer("input_channels", input_channels)
        self.input_channels = input_channels
        self.positions: Any = None

    def build(self, input_shape):
        features = input_shape[-1]
        channels = self.input_channels or features
        if features % channels:
            raise ValueError(
                f"`input_channels` of layer {self.name!r} must divide its input features. "
                f"Received: input_channels={channels}, input_shape={tuple(input_shape)}"
            )
        self.positions = features // channels
        super().build(input_shape)
        self._build_profile(channels)

    def call(self, inputs, training=None):
        percentage = current_percentage()
        if self._is_complete(percentage):
            return super().call(inputs, training=training)
        layout, full = self.input_layout(inputs.shape), Selection.first(self.terms)
        x = take(inputs, layout, full, self.active(percentage))
        x = ops.matmul(x, self.incomplete_kernel(percentage))
        if self.use_bias:
            x = ops.add(x, self.trained_bias(percentage))
        return self.activation(x)

    def input_layout(self, input_shape) -> Channels:
        """Returns where the channels lie in an input of `input_shape`."""
        return Channels(axis=len(input_shape) - 1, count=self.terms, repeats=self.positions)

    def incomplete_kernel(self, percentage: int, private: bool = True):
        """Returns the kernel of the active terms, profiles folded in.

        Shape: `(positions * k, units)` for k active channels.
        """
        kernel = ops.reshape(self.kernel, (self.positions, self.terms, self.units))
        return ops.reshape(self._incomplete(kernel, percentage, private), (-1, self.units))

    def get_config(self):
        return {**super().get_config(), "input_channels": self.input_channels}
