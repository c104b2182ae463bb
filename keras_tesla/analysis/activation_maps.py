"""Class activation maps: which positions of an image support a class."""

import dataclasses

import keras
import numpy as np
from keras import layers, ops

from keras_tesla import graph as graphs


def class_activation_maps(model, images, classes=None, layer=None) -> np.ndarray:
    """Returns where a classification model sees a class in images.

    With f_k the channels of the last feature map and y_c the score of class c before softmax, the
    map is

    `M_c(x, y) = max(0, sum_k w_kc * f_k(x, y))`

    where w_kc is

    - for a model that ends in `GlobalAveragePooling2D`, any `Dropout` or `Identity`, and one
      `Dense`, linear or softmax: the kernel of that layer (CAM),
    - for any other model: the mean over all places of the derivative dy_c / df_k (Grad-CAM).

    On a model of the first kind both are the same map up to a factor. It is resized to the image,
    bilinearly, and divided by its maximum; a map of zeros stays one. The last feature map is the
    last tensor `(batch, height, width, channels)`, or channels first, that has more than one place.
    All images run as one batch.

    Args:
        model: A built Functional or Sequential classification model, such as `TESLA.at(30)`: one
            input of images, one output `(batch, classes)`.
        images: Array of the shape that the model takes, `(n, height, width, channels)` or
            `(n, channels, height, width)`.
        classes: Integer array `(n,)`: the class to look for in each image. Default: the class that
            the model predicts.
        layer: Name of the layer whose output is the feature map f, for a network whose last one is
            too coarse, such as the 2x2 places of VGG-16 on 32x32 images. Default: the last one.

    Returns:
        A float32 array `(n, height, width)` of values 0..1.

    Raises:
        ValueError: If the model is subclassed, not built, has other inputs or outputs, or no
            feature map (of the layer); if the images have another shape than the model takes; or if
            the classes are not n integers among those of the model.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.ReLU(),
    ...     keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)])
    >>> kt.analysis.class_activation_maps(model, np.ones((2, 8, 8, 3)), classes=[7, 3]).shape
    (2, 8, 8)

    Reference:
        - Zhou, Khosla, Lapedriza, Oliva, Torralba: Learning Deep Features for Discriminative
          Localization, 2016, https://arxiv.org/abs/1512.04150
        - Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra: Grad-CAM, 2017,
          https://arxiv.org/abs/1610.02391
    """
    graph = graphs.read(model)
    image, output = _image_and_output(graph)
    before, feature, head, data_format = _split(graph, layer)
    images = ops.convert_to_tensor(images)
    _check_images(images, image)
    # Calling layers on values, unlike on KerasTensors, leaves no trace in the model.
    values = graphs.evaluate(before, {image.index: ops.cast(images, image.dtype)})
    if classes is None:
        classes = ops.convert_to_numpy(
            ops.argmax(graphs.evaluate(head, values)[output.index], axis=-1)
        )
    classes = _checked(classes, len(images), output.shape[-1])
    scoring = _before_softmax(head)
    if _is_pooled_and_linear(scoring):
        weights = _array(scoring[-1].operation.kernel).T[classes]
    else:
        weights = _mean_derivatives(scoring, values, feature, data_format, classes)
    channels = "nkhw" if data_format == "channels_first" else "nhwk"
    maps = np.einsum(f"{channels},nk->nhw", _array(values[feature.index]), weights).clip(0)
    size = images.shape[2:] if data_format == "channels_first" else images.shape[1:3]
    resized = ops.image.resize(
        maps[..., None], tuple(size), interpolation="bilinear", data_format="channels_last"
    )
    maps = _array(resized)[..., 0]
    largest = maps.max(axis=(1, 2), keepdims=True)
    return maps / np.where(largest > 0, largest, 1)


def _array(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


# The parts of the model.


def _image_and_output(graph):
    inputs, outputs = graphs.tensors(graph.inputs), graphs.tensors(graph.outputs)
    shapes = [t.shape for t in inputs], [t.shape for t in outputs]
    if [len(shape) for shape in shapes[0]] != [4]:
        raise ValueError(
            "The model must have one input of images, (batch, height, width, channels) or "
            f"(batch, channels, height, width). Received: inputs of shapes {shapes[0]}"
        )
    if [len(shape) for shape in shapes[1]] != [2]:
        raise ValueError(
            "The model must be a classification model with one output, (batch, classes). "
            f"Received: outputs of shapes {shapes[1]}"
        )
    return inputs[0], outputs[0]


def _split(graph, layer):
    """Returns the calls up to the feature map, the map, the calls after it and its format."""
    data_format, found = keras.config.image_data_format(), None
    for index, call in enumerate(graph.calls):
        for tensor in call.output_tensors:
            if len(tensor.shape) != 4:
                continue
            # Layers without a format of their own, such as an activation, keep the last one.
            data_format = getattr(call.operation, "data_format", data_format)
            first = data_format == "channels_first"
            named = layer is None or call.operation.name == layer
            if named and (tensor.shape[2:] if first else tensor.shape[1:3]) != (1, 1):
                found = index + 1, tensor, data_format
    if found is None:
        raise ValueError(
            f"The {'model' if layer is None else f'layer {layer!r}'} must compute a feature map of "
            "more than one place, for example with a Conv2D. Received layers: "
            f"{[layer.name for layer in graph.layers]}"
        )
    end, feature, data_format = found
    return graph.calls[:end], feature, graph.calls[end:], data_format


def _before_softmax(calls):
    """Returns calls that compute the scores: the same without the softmax at their end."""
    *others, last = calls
    layer = last.operation
    # `keras.ops.softmax` has no public class, but is called as the layer.
    if type(layer).__name__ == "Softmax" or _is_softmax(layer, layers.Activation):
        return others
    if not _is_softmax(layer, layers.Dense):
        return calls
    linear = type(layer).from_config({**layer.get_config(), "activation": "linear"})
    linear.build(last.input_tensors[0].shape)
    linear.set_weights(layer.get_weights())
    return [*others, dataclasses.replace(last, operation=linear)]


def _is_softmax(layer, kind):
    return isinstance(layer, kind) and layer.activation is keras.activations.softmax


def _is_pooled_and_linear(scoring):
    """Whether the scores are an average over all places and one linear map."""
    operations = [call.operation for call in scoring]
    first, others, last = operations[0], operations[1:-1], operations[-1]
    return (
        type(first) is layers.GlobalAveragePooling2D
        and all(type(layer) in (layers.Dropout, layers.Identity) for layer in others)
        and type(last) is layers.Dense
        and last.activation is keras.activations.linear
    )


# Derivatives.


def _mean_derivatives(scoring, values, feature, data_format, classes):
    """Returns the mean over all places of dy_c / df_k, shape (n, channels)."""
    (scores,) = scoring[-1].output_tensors
    chosen = ops.one_hot(classes, scores.shape[-1], dtype="float32")

    def score(x):
        computed = graphs.evaluate(scoring, {**values, feature.index: x})[scores.index]
        # No image sees another one, so the derivative of the sum is that of each.
        return ops.sum(ops.cast(computed, "float32") * chosen)

    derivatives = _array(_gradient(score, values[feature.index]))
    return derivatives.mean(axis=(2, 3) if data_format == "channels_first" else (1, 2))


def _gradient(function, x):
    """Returns the derivative of a scalar function at `x`."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return tape.gradient(y, x)
    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(function)(x)
    import torch

    x = x.detach().requires_grad_()
    return torch.autograd.grad(function(x), x)[0]


# What the caller gives.


def _check_images(images, image):
    shape, expected = tuple(images.shape), image.shape
    fits = len(shape) == 4 and all(e in (None, s) for e, s in zip(expected, shape, strict=True))
    if not fits or shape[0] == 0:
        raise ValueError(
            f"The images must be one array of the shape that the model takes, {expected}, at least "
            f"one. Received: shape {shape}"
        )


def _checked(classes, images, count):
    given = ops.convert_to_numpy(classes)
    fits = given.shape == (images,) and given.dtype.kind in "iu"
    if not fits or given.min() < 0 or given.max() >= count:
        raise ValueError(
            f"The classes must be {images} integers from 0 to {count - 1}, one for each image. "
            f"Received: {classes!r}"
        )
    return given
