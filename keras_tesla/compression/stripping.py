"""Removing the wrappers of compression."""

from keras_tesla.compression import bridge, packages


def strip(model):
    """Returns a trained model of `prune`, `prune_2_4` or `cluster` without the wrappers.

    Args:
        model: A `tf_keras.Model` from one of these, trained.

    Returns:
        A `tf_keras.Model` of the layers that it had before, with the compressed weights; not
        compiled. It can be compressed further, or go to `to_tflite`.

    Raises:
        ValueError: If the model has no wrappers, or pruning is not finished.
    """
    tf_keras, tfmot = packages.load()
    if not isinstance(model, tf_keras.Model):
        raise ValueError(f"`strip` takes a tf_keras model that was compressed. Received: {model!r}")
    kinds = {type(layer).__name__ for layer in model.layers}
    if bridge.PRUNING in kinds:
        for layer in model.layers:
            if type(layer).__name__ == bridge.PRUNING:
                _check_finished(layer)
        stripped = tfmot.sparsity.keras.strip_pruning(model)
    elif bridge.CLUSTERING in kinds:
        stripped = tfmot.clustering.keras.strip_clustering(model)
    else:
        raise ValueError(
            "There is nothing to strip: `strip` is for models of `prune`, `prune_2_4` and "
            "`cluster`; one of `quantization_aware` goes to `to_tflite` as it is. "
            f"Received layers of type: {sorted(kinds)}"
        )
    return bridge.copy_of(stripped)  # the wrapped layers stay those of the wrapped model


def _check_finished(layer):
    step, last = int(layer.pruning_step), layer.pruning_schedule.end_step
    if step < max(1, last):
        raise ValueError(
            f"Pruning of {layer.layer.name!r} is not finished: its weights are not sparse "
            f"yet. Train for {max(1, last)} steps with `pruning_callback()`. Received a model that "
            f"was trained for {max(0, step)}"
        )
