"""Quantization-aware training: the network learns with the rounding of int8."""

from keras_tesla.compression import bridge, packages


def quantization_aware(model, preserve_sparsity=False, preserve_clusters=False):
    """Returns a tf_keras model that computes with int8 rounding, to be trained as such.

    Kernels and activations are rounded as in the int8 file; gradients pass through the rounding.
    Convolutions have a scale for each output channel. The range of an activation starts as -6..6
    and moves by a thousandth a step towards that of the batch, so a few thousand steps are needed
    where it differs. A batch normalization after a convolution is fused into it in the
    file.

    Train it for an epoch or a few with a small learning rate; `to_tflite` makes it an int8 file.

    Args:
        model: A trained model, as `to_tf_keras` takes it, or a Functional tf_keras model, such as
            one that was pruned or clustered and stripped. It is not changed.
        preserve_sparsity: Bool, whether zeros stay zeros.
        preserve_clusters: Bool, whether the weights of a kernel keep sharing their values.

    Returns:
        A `tf_keras.Model`, not compiled.

    Raises:
        ValueError: If the model has a layer that tensorflow-model-optimization cannot quantize,
            such as Conv1D, MaxPooling1D or LayerNormalization, or as in `to_tf_keras`.

    Reference:
        Jacob et al.: Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference, 2018, https://arxiv.org/abs/1712.05877
    """
    _, tfmot = packages.load()
    combined, quantization = tfmot.experimental.combine, tfmot.quantization.keras
    arguments = {}
    if preserve_clusters:
        arguments["scheme"] = combined.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity)
    elif preserve_sparsity:
        arguments["scheme"] = combined.Default8BitPrunePreserveQuantizeScheme()
    copy = bridge.copy_of(model)
    try:
        annotated = quantization.quantize_annotate_model(copy)
        return quantization.quantize_apply(annotated, quantized_layer_name_prefix="", **arguments)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            "tensorflow-model-optimization cannot quantize this model while it is trained. After "
            "training, `to_tflite(model, quantization='int8', representative_data=...)` quantizes "
            f"it. Received: {error}"
        ) from error
