"""IDPConv2DTranspose: a Conv2DTranspose layer that can leave out its last input channels."""

import keras

from keras_tesla.layers.convolution import IncompleteTransposedConvolution


@keras.saving.register_keras_serializable("keras_tesla")
class IDPConv2DTranspose(IncompleteTransposedConvolution, keras.layers.Conv2DTranspose):
    """`keras.layers.Conv2DTranspose` over an incomplete dot product.

    At percentage p each output channel j reads the first `k = max(1, floor(p / 100 * n))` of the n
    input channels:

    `y_j = activation(b_j + sum_{i < k} gamma_i * (w_ji (*) x_i))`, with `(*)` the transposed
    convolution.

    At 100 % and with the all-one profile the layer is `keras.layers.Conv2DTranspose`: same weights,
    same arguments, equal numbers.

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
        **kwargs: All other arguments of `keras.layers.Conv2DTranspose`.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)` with
        `data_format="channels_first"`; float.

    Output shape:
        That of `keras.layers.Conv2DTranspose`.

    Raises:
        ValueError: At construction or build: a profile that increases, is not finite or has the
            wrong length, and whatever `keras.layers.Conv2DTranspose` refuses.

    Example:

    >>> layer = IDPConv2DTranspose(1, 1, kernel_initializer="ones")
    >>> x = np.array([1.0, 2.0, 4.0, 8.0]).reshape(1, 1, 1, 4)
    >>> with percentage_scope(50):
    ...     layer(x).numpy().item()
    3.0

    Reference:
        McDanel, Teerapittayanon, Kung, 2017, https://arxiv.org/abs/1710.07830
    """
