"""Compressing the network at one percentage with tensorflow-model-optimization.

`tesla.at(p)` is a Keras 3 model; the tools take tf_keras (Keras 2) models. Every function here
rebuilds the former as the latter, and returns tf_keras models: compile and fit them like any other.
A call needs the TensorFlow backend and `pip install "keras-tesla[compression]"`; importing does
not.
"""

from keras_tesla.compression.bridge import to_tf_keras
from keras_tesla.compression.clustering import cluster
from keras_tesla.compression.export import to_tflite
from keras_tesla.compression.pruning import prune, prune_2_4, pruning_callback
from keras_tesla.compression.quantization import quantization_aware
from keras_tesla.compression.stripping import strip

__all__ = [
    "cluster",
    "prune",
    "prune_2_4",
    "pruning_callback",
    "quantization_aware",
    "strip",
    "to_tf_keras",
    "to_tflite",
]
