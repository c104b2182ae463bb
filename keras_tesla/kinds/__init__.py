"""Everything known about each kind of layer, one file per family.

A kind tells where a layer's channels lie, which of them it needs and computes at a percentage,
which layer computes just those, what it costs, how its channels are permuted, and which incomplete
layer can take its place. A layer of a class without a kind reads and computes all of its channels:
always correct, just more expensive. Kinds hold for exactly the classes they are registered for: a
subclass may compute something else.
"""

from keras_tesla.channels import Channels, Selection
from keras_tesla.kinds import (
    attention,
    channel_normalization,
    channelwise,
    einsum_dense,
    embedding,
    grouped,
    merging,
    normalization,
    operations,
    products,
    projection,
    reshaping,
    slicing,
    weight,
    whole,
)
from keras_tesla.kinds.kind import Channelwise, Kind, Narrowed, Widths
from keras_tesla.kinds.registry import register_kind

# Importing a family registers its kinds.
_FAMILIES = (
    *(attention, channel_normalization, channelwise, einsum_dense, embedding, grouped),
    *(merging, normalization, operations, projection, products, reshaping, slicing),
    *(weight, whole),
)

__all__ = ["Channels", "Channelwise", "Kind", "Narrowed", "Selection", "Widths", "register_kind"]
