"""Keras layers that depend on the percentage."""

from keras_tesla.layers.attention import IncompleteAttention
from keras_tesla.layers.batch_normalization import IDPBatchNormalization
from keras_tesla.layers.channel_statistics import ChannelStatistics
from keras_tesla.layers.conv1d import IDPConv1D
from keras_tesla.layers.conv1d_transpose import IDPConv1DTranspose
from keras_tesla.layers.conv2d import IDPConv2D
from keras_tesla.layers.conv2d_transpose import IDPConv2DTranspose
from keras_tesla.layers.conv3d import IDPConv3D
from keras_tesla.layers.dense import IDPDense
from keras_tesla.layers.einsum_dense import IDPEinsumDense
from keras_tesla.layers.group_query_attention import IDPGroupQueryAttention
from keras_tesla.layers.incomplete import IncompleteDotProduct
from keras_tesla.layers.layer_normalization import IDPLayerNormalization
from keras_tesla.layers.multi_head_attention import IDPMultiHeadAttention
from keras_tesla.layers.per_range import PerRange
from keras_tesla.layers.rms_normalization import IDPRMSNormalization
from keras_tesla.layers.separable_conv2d import IDPSeparableConv2D

__all__ = [
    "ChannelStatistics",
    "IDPBatchNormalization",
    "IDPConv1D",
    "IDPConv1DTranspose",
    "IDPConv2D",
    "IDPConv2DTranspose",
    "IDPConv3D",
    "IDPDense",
    "IDPEinsumDense",
    "IDPGroupQueryAttention",
    "IDPLayerNormalization",
    "IDPMultiHeadAttention",
    "IDPRMSNormalization",
    "IDPSeparableConv2D",
    "IncompleteAttention",
    "IncompleteDotProduct",
    "PerRange",
]
