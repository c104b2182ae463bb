"""IDPMultiHeadAttention: attention that can leave out channels and heads."""

import keras

from keras_tesla.layers.attention import IncompleteAttention


@keras.saving.register_keras_serializable("keras_tesla")
class IDPMultiHeadAttention(IncompleteAttention, keras.layers.MultiHeadAttention):
    """`keras.layers.MultiHeadAttention` over incomplete dot products, with fewer heads.

    At percentage p, with `active(n) = max(1, floor(p / 100 * n))`, head j projects the first
    channels of query x, key z and value v, and only the first heads are used:

    `q_j = a_j + sum_{i < active(n_q)} A_ij * x_i`, likewise `k_j` of z and `w_j` of v

    `y = b + sum_{j < active(num_heads)} B_j * softmax(q_j k_j / sqrt(key_dim)) w_j`

    So at p it is a `keras.layers.MultiHeadAttention` of fewer heads on fewer channels. At 100 % it
    is `keras.layers.MultiHeadAttention`: same weights, same arguments, equal numbers. A call with
    `return_attention_scores=True` uses all heads at every percentage, because the scores have an
    axis of heads; so does one with an `attention_mask` that has a mask for each head.

    Args:
        num_heads: Positive int, number of heads.
        key_dim: Positive int, size of each head for query and key; no percentage changes it.
        query_parts, value_parts, key_parts: After a concatenation, the channels of each tensor in
            it: the first of each are read. Default: None, one part.
        percentages: Iterable of distinct ints, 1..100: what a `TESLA` model trains if it is given
            no others.
        **kwargs: All other arguments of `keras.layers.MultiHeadAttention`.

    Input shape:
        Query `(batch, .., T, .., n_q)`, value `(batch, .., S, .., n_v)`, key (default: the value)
        `(batch, .., S, .., n_k)`, float, and the masks of the Keras class.

    Output shape:
        That of `keras.layers.MultiHeadAttention`.

    Raises:
        ValueError: At construction or build: parts that do not sum up to the channels, invalid
            percentages, a quantized dtype, and whatever the Keras class refuses.

    Example:

    >>> layer = IDPMultiHeadAttention(2, 4)
    >>> x = np.ones((1, 3, 8), "float32")
    >>> layer(x, x).shape
    TensorShape([1, 3, 8])
    >>> {n: tuple(w["kernel"].shape) for n, w in layer.incomplete_weights(50, groups=1).items()}
    {'query': (4, 1, 4), 'key': (4, 1, 4), 'value': (4, 1, 4), 'attention_output': (1, 4, 8)}

    Reference:
        Vaswani et al.: Attention is all you need, 2017, https://arxiv.org/abs/1706.03762.
        Haberer et al.: HydraViT: Stacking Heads for a Scalable ViT, 2024,
        https://arxiv.org/abs/2409.17978 (the first heads of a shared network)
    """
