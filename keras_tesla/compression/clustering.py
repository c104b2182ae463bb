"""Clustering: the weights of a layer share a few values."""

import numpy as np

from keras_tesla.compression import bridge, packages
from keras_tesla.integers import check_integer


def cluster(model, number_of_clusters, preserve_sparsity=False):
    """Returns a tf_keras model whose kernels have few distinct values, trained as such.

    Each weight of a kernel is replaced by the nearest of `number_of_clusters` centroids, which
    start as those of k-means++ and are trained. Clustered are Dense, Conv and Embedding layers and
    the pointwise kernels of SeparableConv, those with more weights than centroids. Repeated values
    make a file smaller when it is zipped; a call takes as long as before.

    Train it for an epoch or a few with a small learning rate, remove the wrappers with `strip`.

    Args:
        model: A trained model, as `to_tf_keras` takes it, or a Functional tf_keras model. It is
            not changed.
        number_of_clusters: Int, 2 or more.
        preserve_sparsity: Bool, whether zeros stay zeros: for a model that was pruned and stripped.

    Returns:
        A `tf_keras.Model`, not compiled.

    Raises:
        ValueError: If an argument does not fit, no layer can be clustered, or as in `to_tf_keras`.

    Reference:
        Han, Mao, Dally: Deep Compression, 2016, https://arxiv.org/abs/1510.00149
    """
    count = check_integer("number_of_clusters", number_of_clusters, least=2)
    tf_keras, tfmot = packages.load()
    # The public part of the package does not have `preserve_sparsity`.
    from tensorflow_model_optimization.python.core.clustering.keras.experimental import (
        cluster as experimental,
    )

    start = tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS

    def wrap(layer):
        name = _kernel(layer, tf_keras)
        # A kernel with no more distinct weights than centroids is not clustered either.
        if name is None or np.count_nonzero(getattr(layer, name).numpy()) <= count:
            return layer
        return experimental.cluster_weights(
            layer, count, start, preserve_sparsity=bool(preserve_sparsity)
        )

    wrapped = tf_keras.models.clone_model(bridge.copy_of(model), clone_function=wrap)
    if not any(type(layer).__name__ == bridge.CLUSTERING for layer in wrapped.layers):
        raise ValueError(
            f"There is nothing to cluster: no layer has a kernel of more than {count} weights. "
            f"Received layers: {[layer.name for layer in wrapped.layers]}"
        )
    return wrapped


def _kernel(layer, tf_keras) -> str | None:
    """The name of the weight that is clustered."""
    layers = tf_keras.layers
    if type(layer) in (layers.SeparableConv1D, layers.SeparableConv2D):
        return "pointwise_kernel"
    if type(layer) is layers.Embedding:
        return "embeddings"
    kinds = (
        *(layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D),
        *(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose),
    )
    return "kernel" if type(layer) in kinds else None
