"""Pruning: weights of small magnitude become zero."""

import numpy as np

from keras_tesla.compression import bridge, packages
from keras_tesla.integers import check_integer


def prune(model, sparsity, steps=0):
    """Returns a tf_keras model whose kernels lose their smallest weights while it is trained.

    In a kernel of n weights the `round(sparsity * n)` of the smallest magnitude are zero, and stay
    so in training. With `steps` the share grows as `sparsity * (1 - (1 - t / steps)^3)` at step t,
    so that the others can adapt. Kernels of Dense, Conv and Embedding layers and the pointwise ones
    of SeparableConv are pruned; depthwise ones, biases and other layers are not. Zeros make
    a file smaller when it is zipped; a call takes as long as before.

    Train it with `pruning_callback()` and remove the wrappers with `strip`.

    Args:
        model: As `to_tf_keras` takes it, or a Functional tf_keras model. It is not changed.
        sparsity: Float, 0..1, both excluded.
        steps: Int, the training steps until `sparsity` is reached; 0: from the first one on.

    Returns:
        A `tf_keras.Model`, not compiled.

    Raises:
        ValueError: If an argument does not fit, or as in `to_tf_keras`.

    Example:

    ```python
    pruned = kt.compression.prune(tesla.at(50), sparsity=0.8, steps=1000)
    pruned.compile("adam", "mse")
    pruned.fit(x, y, epochs=5, callbacks=[kt.compression.pruning_callback()])
    content = kt.compression.to_tflite(kt.compression.strip(pruned))
    ```

    Reference:
        Zhu, Gupta: To prune, or not to prune, 2017, https://arxiv.org/abs/1710.01878
    """
    if not isinstance(sparsity, float | np.floating) or not 0 < sparsity < 1:
        raise ValueError(f"`sparsity` must be a float between 0 and 1. Received: {sparsity!r}")
    steps = check_integer("steps", steps, least=0)
    tf_keras, tfmot = packages.load()
    schedule = _from_the_start(tfmot, sparsity)
    if steps:
        # Masks are updated about a hundred times, and at the last step, which reaches the sparsity.
        every = max(1, steps // 100)
        schedule = tfmot.sparsity.keras.PolynomialDecay(
            0.0, float(sparsity), steps % every, steps, frequency=every
        )
    layers = tf_keras.layers
    kinds = (
        *(layers.Dense, layers.Embedding, layers.SeparableConv1D, layers.SeparableConv2D),
        *(layers.Conv1D, layers.Conv2D, layers.Conv3D),
        *(layers.Conv2DTranspose, layers.Conv3DTranspose),
    )
    return _wrapped(model, kinds, pruning_schedule=schedule)


def prune_2_4(model):
    """Returns a tf_keras model that keeps two of every four weights while it is trained.

    Of four weights in a row along the input channels of a Dense or Conv2D kernel the two of the
    smallest magnitude become zero: the pattern that hardware with sparse matrix units computes
    in half the time. Channels beyond the last multiple of 4 count as a group filled up by zeros.
    On a CPU a call takes as long as before.

    Train it with `pruning_callback()` and remove the wrappers with `strip`.

    Args:
        model: As `to_tf_keras` takes it, or a Functional tf_keras model. It is not changed.

    Returns:
        A `tf_keras.Model`, not compiled.

    Raises:
        ValueError: If the model has neither a Dense nor a Conv2D layer, or as in `to_tf_keras`.

    Reference:
        Mishra et al.: Accelerating Sparse Deep Neural Networks, 2021,
        https://arxiv.org/abs/2104.08378
    """
    tf_keras, tfmot = packages.load()
    return _wrapped(
        model,
        (tf_keras.layers.Dense, tf_keras.layers.Conv2D),
        pruning_schedule=_from_the_start(tfmot, 0.5),
        sparsity_m_by_n=(2, 4),
    )


def pruning_callback():
    """Returns the callback that a model of `prune` or `prune_2_4` needs in `fit`."""
    _, tfmot = packages.load()
    return tfmot.sparsity.keras.UpdatePruningStep()


def _from_the_start(tfmot, sparsity):
    # The steps count from 1, and masks are renewed when `frequency` divides `step - begin_step`:
    # by the default of 0 the first masks would come after a hundred steps.
    return tfmot.sparsity.keras.ConstantSparsity(float(sparsity), begin_step=1, frequency=100)


def _wrapped(model, kinds, **arguments):
    tf_keras, tfmot = packages.load()
    copy = bridge.copy_of(model)

    def wrap(layer):
        if type(layer) not in kinds:
            return layer
        return tfmot.sparsity.keras.prune_low_magnitude(layer, **arguments)

    wrapped = tf_keras.models.clone_model(copy, clone_function=wrap)
    if not any(getattr(layer, "pruning_vars", None) for layer in wrapped.layers):
        raise ValueError(
            "There is nothing to prune: the model has no layer with a kernel of this kind. "
            f"Received layers: {[layer.name for layer in copy.layers]}"
        )
    return wrapped
