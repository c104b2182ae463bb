"""The papers' networks."""

from keras_tesla.literature.mlp import mlp
from keras_tesla.literature.vgg16 import vgg16

__all__ = ["mlp", "vgg16"]
