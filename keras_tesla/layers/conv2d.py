"""IDPConv2D: a Conv2D layer that can leave out its last input channels."""

import keras
from keras import ops

from keras_tesla.channels import Channels, take
from keras_tesla.layers.incomplete import IncompleteDotProduct
from keras_tesla.scope import current_percentage


@keras.saving.register_keras_serializable("keras_tesla")
class IDPConv2D(IncompleteDotProduct, keras.layers.Conv2D):
    """`keras.layers.Conv2D` over an incomplete dot product.

    At percentage p each filter j reads the first `k = max(1, floor(p / 100 * n))` of its n input
    channels:

    `y_j = activation(b_j + sum_{i < k} gamma_i * (w_ij (*) x_i))`, with `(*)` the convolution.

    With `groups > 1` a filter has `n = channels / groups` input channels, and the first k of each
    group are read. At 100 % and with the all-one profile the layer is `keras.layers.Conv2D`: same
    weights, same arguments, equal numbers.

    Args:
        filters: Positive int, number of output channels.
        kernel_size: Int or pair of ints, in pixels.
        profile: The coefficients gamma: a name, a `keras_tesla.profiles.Profile`, an array of n
            floats, or a function of n. Default: `"all_one"`.
        trainable_profile: Bool, whether gamma is trained (and kept non-increasing).
        **kwargs: All other arguments of `keras.layers.Conv2D`.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)` with
        `data_format="channels_first"`; float.

    Output shape:
        That of `keras.layers.Conv2D`.

    Raises:
        ValueError: At construction or build: a profile that increases, is not finite or has the
            wrong length, and whatever `keras.layers.Conv2D` refuses.

    Example:

    >>> layer = IDPConv2D(1, 1, kernel_initializer="ones")
    >>> x = np.array([1.0, 2.0, 4.0, 8.0]).reshape(1, 1, 1, 4)
    >>> with percentage_scope(50):
    ...     layer(x).numpy().item()
    3.0

    Reference:
        McDanel, Teerapittayanon, Kung, 2017, https://arxiv.org/abs/1710.07830
    """

    def build(self, input_shape):
        super().build(input_shape)
        self._build_profile(self.kernel.shape[-2])

    def call(self, inputs):
        if self.trained_range is None:
            return super().call(inputs)
        outputs = self.convolution_op(inputs, self.kernel)
        if self.use_bias:
            last = self.data_format == "channels_last"
            shape = (1, 1, 1, -1) if last else (1, -1, 1, 1)
            outputs = ops.add(outputs, ops.reshape(self.trained_bias(), shape))
        return self.activation(outputs)

    def convolution_op(self, inputs, kernel):
        percentage = current_percentage()
        if not self._is_complete(percentage):
            view = self.input_view(inputs.shape)
            inputs = take(inputs, view, self.terms, self.active_terms(percentage))
            kernel = self.incomplete_kernel(percentage)
        return super().convolution_op(inputs, kernel)

    def input_view(self, input_shape) -> Channels:
        """Returns where the channels of a filter lie in an input of `input_shape`."""
        axis = len(input_shape) - 1 if self.data_format == "channels_last" else 1
        return Channels(axis=axis, count=self.terms, copies=self.groups)

    def incomplete_kernel(self, percentage: int):
        """Returns the kernel of the active terms, profile folded in.

        Shape: `(height, width, k, filters)` for k active channels.
        """
        active = self.active_terms(percentage)
        kernel = self._trained_kernel(ops.convert_to_tensor(self.kernel))[:, :, :active]
        gamma = self._incomplete_coefficients(active, kernel.dtype)
        return kernel if gamma is None else kernel * gamma
