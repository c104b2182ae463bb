"""Keras layers that depend on the percentage."""

from keras_tesla.layers.batch_normalization import IDPBatchNormalization
from keras_tesla.layers.conv2d import IDPConv2D
from keras_tesla.layers.dense import IDPDense
from keras_tesla.layers.per_range import PerRange

__all__ = ["IDPBatchNormalization", "IDPConv2D", "IDPDense", "PerRange"]
