"""IDPConv2D: a Conv2D layer that can leave out its last input channels."""

import keras

from keras_tesla.layers.convolution import IncompleteConvolution


@keras.saving.register_keras_serializable("keras_tesla")
class IDPConv2D(IncompleteConvolution, keras.layers.Conv2D):
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
        percentages, private_bias, private_profile, complete: Numbers that belong to one percentage
            each; see `IncompleteDotProduct`.
        input_parts: After a concatenation, the channels of each tensor in it: the first of each are
            read; see `IncompleteDotProduct`.
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
