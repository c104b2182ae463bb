"""IDPGroupQueryAttention: grouped-query attention that can leave out channels and heads."""

import keras

from keras_tesla.layers.attention import IncompleteAttention


@keras.saving.register_keras_serializable("keras_tesla")
class IDPGroupQueryAttention(IncompleteAttention, keras.layers.GroupQueryAttention):
    """`keras.layers.GroupQueryAttention` over incomplete dot products, with fewer groups of heads.

    At percentage p it reads the first `max(1, floor(p / 100 * n))` of the n channels of query,
    value and key each, as `IDPMultiHeadAttention` does. It uses the first
    `g = max(1, floor(p / 100 * num_key_value_heads))` heads of keys and values, and the
    `g * num_query_heads / num_key_value_heads` heads of the query that belong to them. So at p it
    is a `keras.layers.GroupQueryAttention` of fewer groups. At 100 % it is the Keras class: same
    weights, same arguments, equal numbers. A call with `return_attention_scores=True`, or
    with a mask for each head, uses all heads at every percentage.

    The Keras class returns as many channels as the query has, and wants as many of the value. At a
    percentage that reads fewer than are needed of its output, the narrowed layer reads further
    ones, with zeros in its kernels for them.

    Args:
        head_dim: Int, size of each head; no percentage changes it.
        num_query_heads: Int, number of heads of the query.
        num_key_value_heads: Int, number of heads of keys and values, a divisor of
            `num_query_heads`.
        query_parts, value_parts, key_parts: After a concatenation, the channels of each tensor in
            it: the first of each are read. Default: None, one part.
        percentages: Iterable of distinct ints, 1..100: what a `TESLA` model trains if it is given
            no others.
        **kwargs: All other arguments of `keras.layers.GroupQueryAttention`.

    Input shape:
        Query `(batch, T, n)`, value `(batch, S, n)`, key (default: the value) `(batch, S, n_k)`,
        float, and the masks of the Keras class.

    Output shape:
        `(batch, T, n)`, float.

    Raises:
        ValueError: At construction or build: parts that do not sum up to the channels, invalid
            percentages, a quantized dtype, and whatever the Keras class refuses.

    Example:

    >>> layer = IDPGroupQueryAttention(4, num_query_heads=4, num_key_value_heads=2)
    >>> x = np.ones((1, 3, 8), "float32")
    >>> layer(x, x).shape
    TensorShape([1, 3, 8])
    >>> {n: tuple(w["kernel"].shape) for n, w in layer.incomplete_weights(50, groups=1).items()}
    {'query': (4, 2, 4), 'key': (4, 1, 4), 'value': (4, 1, 4), 'attention_output': (2, 4, 8)}

    Reference:
        Ainslie et al.: GQA: Training Generalized Multi-Query Transformer Models from Multi-Head
        Checkpoints, 2023, https://arxiv.org/abs/2305.13245
    """
