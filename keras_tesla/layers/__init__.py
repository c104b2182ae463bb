"""Keras layers that compute with a leading part of their input channels."""

from keras_tesla.layers.batch_normalization import IDPBatchNormalization
from keras_tesla.layers.conv2d import IDPConv2D
from keras_tesla.layers.dense import IDPDense

__all__ = ["IDPBatchNormalization", "IDPConv2D", "IDPDense"]
