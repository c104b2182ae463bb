"""IDPSeparableConv2D: a SeparableConv2D layer that can leave out its last input channels."""

import keras
from keras import ops

from keras_tesla.channels import pick
from keras_tesla.layers.convolution import IncompleteConvolution


@keras.saving.register_keras_serializable("keras_tesla")
class IDPSeparableConv2D(IncompleteConvolution, keras.layers.SeparableConv2D):
    """`keras.layers.SeparableConv2D` over an incomplete dot product.

    At percentage p only the first `k = max(1, floor(p / 100 * n))` of the n input channels are
    filtered and read. With m the `depth_multiplier`

    `y_j = activation(b_j + sum_{i < k} gamma_i * sum_{l < m} v_ilj * (w_il (*) x_i))`

    with w the depthwise and v the pointwise kernel, and `(*)` the convolution. At 100 % and with
    the all-one profile the layer is `keras.layers.SeparableConv2D`: same weights, same arguments,
    equal numbers.

    Args:
        filters: Positive int, number of output channels.
        kernel_size: Int or pair of ints, in pixels.
        profile: The coefficients gamma: a name, a `keras_tesla.profiles.Profile`, an array of n
            floats, or a function of n. Default: `"all_one"`.
        trainable_profile: Bool, whether gamma is trained (and kept non-increasing).
        percentages, private_bias, private_profile, complete: Numbers that belong to one percentage
            each; see `IncompleteDotProduct`.
        input_parts: After a concatenation, the channels of each tensor in it: the first of each are
            read; see `IncompleteDotProduct`.
        **kwargs: All other arguments of `keras.layers.SeparableConv2D`.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)` with
        `data_format="channels_first"`; float.

    Output shape:
        That of `keras.layers.SeparableConv2D`.

    Raises:
        ValueError: At construction or build: a profile that increases, is not finite or has the
            wrong length, and whatever `keras.layers.SeparableConv2D` refuses.

    Example:

    >>> layer = IDPSeparableConv2D(
    ...     1, 1, depthwise_initializer="ones", pointwise_initializer="ones")
    >>> x = np.array([1.0, 2.0, 4.0, 8.0]).reshape(1, 1, 1, 4)
    >>> with percentage_scope(50):
    ...     layer(x).numpy().item()
    3.0

    Reference:
        McDanel, Teerapittayanon, Kung, 2017, https://arxiv.org/abs/1710.07830
    """

    def incomplete_weights(self, percentage: int, private: bool = True) -> dict:
        """Returns both kernels of the active terms, the profiles folded into the pointwise one.

        Shapes: `(*kernel_size, k, m)` and `(1, 1, k * m, filters)` for k active channels.
        """
        terms, multiplier = self.depthwise_kernel.shape[-2:]
        depthwise = self._trained_terms(ops.convert_to_tensor(self.depthwise_kernel))
        pointwise = ops.reshape(self.pointwise_kernel, (terms, multiplier, self.filters))
        pointwise = self._incomplete(ops.swapaxes(pointwise, 0, 1), percentage, private)
        pointwise = ops.reshape(ops.swapaxes(pointwise, 0, 1), (1, 1, -1, self.filters))
        depthwise = pick(depthwise, self.active(percentage), 2)
        return {"depthwise_kernel": depthwise, "pointwise_kernel": pointwise}

    def _terms_of_kernel(self):
        return self.depthwise_kernel.shape[-2]

    def _convolve(self, inputs, *kernels):
        return ops.separable_conv(
            inputs,
            *kernels,
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )
