"""Whether a model can be exported as requested."""

import re
import warnings

import keras
import numpy as np

from keras_tesla.quantization.ranges import ActivationRange
from keras_tesla.tflite import examples
from keras_tesla.tflite.graphs import merge
from keras_tesla.tflite.interface import Interface
from keras_tesla.tflite.settings import Settings
from keras_tesla.training.tesla import TESLA

_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9._/-]*")


def has_trained_ranges(tesla) -> bool:
    """Whether a model holds the ranges of its int8 activations.

    Raises:
        ValueError: If it is not a `TESLA` model.
    """
    if not isinstance(tesla, TESLA):
        raise ValueError(f"`export` takes a keras_tesla.TESLA model. Received: {tesla!r}")
    return any(isinstance(layer, ActivationRange) for layer in tesla.graph.layers)


def check_model(tesla: TESLA, interface: Interface, settings: Settings) -> tuple[int, ...]:
    """Returns the percentages to export, from the highest to the lowest.

    Args:
        tesla: The model.
        interface: What its files take.
        settings: Those of the export.

    Raises:
        ValueError: Percentages that the model does not have; names or types of inputs that a file
            does not take; labels or normalization that do not fit the model.
        RuntimeError: Another backend than TensorFlow.
    """
    percentages = tesla.percentages if settings.percentages is None else settings.percentages
    missing = [p for p in percentages if p not in tesla.percentages]
    if missing:
        raise ValueError(
            f"The model does not have {missing} %, so their accuracy is unknown. Make it with "
            f"these percentages and train them. Received a model of {list(tesla.percentages)} %."
        )
    ends = keras.tree.flatten((tesla.network.inputs, tesla.network.outputs))
    if any(tensor.dtype == "int8" for tensor in ends):
        raise ValueError(
            "In a .tflite file an int8 input or output is a quantized float. Give it another type, "
            f"such as int16. Received: {[(x.name, x.dtype) for x in ends]}"
        )
    names = interface.graph.input_names
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(
                "A .tflite file takes input names of letters, digits and . _ - / only. Rename "
                f"input {name!r}."
            )
    if settings.percentage_input and merge.PERCENTAGE in names:
        raise ValueError(
            f"mode='percentage_input' adds an input {merge.PERCENTAGE!r}, and the model has one of "
            "that name. Rename it, or use mode='signatures'."
        )
    unknown = [n for n in settings.normalization or () if n not in names]
    if unknown:
        raise ValueError(
            f"`normalization` must name inputs of the model, {names}. Received: {unknown}"
        )
    outputs = keras.tree.flatten(tesla.network.outputs)
    labels = settings.labels
    if labels is not None and any(x.shape[-1:] != (len(labels),) for x in outputs):
        raise ValueError(
            "`labels` must name each number along the last axis of the outputs. Received: "
            f"{len(labels)} labels for outputs of the shapes {[x.shape for x in outputs]}"
        )
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "The converter needs the TensorFlow backend. Save the model with `tesla.save` and "
            "export it in a process with KERAS_BACKEND=tensorflow. "
            f"Received: {keras.backend.backend()!r}"
        )
    return tuple(percentages)


def warn_of_untrained(tesla: TESLA, percentages):
    """Warns of percentages that no step has trained; of a model without any, nothing is expected.

    Args:
        tesla: The model.
        percentages: Those to export.
    """
    steps = tesla.trained_steps
    trained = [p for p, count in steps.items() if count]
    untrained = [p for p in percentages if p not in trained]
    if trained and untrained:
        warnings.warn(
            f"No known step trained {untrained} %, but {trained} % were trained, and a percentage "
            "is as accurate as its own training makes it, also between two trained ones. Train "
            f"them, look at `tesla.evaluate(x, y, percentages={untrained})`, or leave them out "
            "with `percentages=`.",
            stacklevel=3,
        )


def validation(
    tesla: TESLA, interface: Interface, settings: Settings
) -> tuple[dict, np.ndarray] | None:
    """Returns `validation_data` as (inputs of the file, class of each example), None if none.

    Args:
        tesla: The model.
        interface: What its files take.
        settings: Those of the export.

    Raises:
        ValueError: Data that do not fit the model, or a model whose accuracy is not defined.
    """
    if settings.validation_data is None:
        return None
    given, labels = settings.validation_data
    size = settings.batch_size
    arrays = examples.checked("validation_data", given, interface.specs, size)
    labels = np.asarray(labels)
    count = len(next(iter(arrays.values())))
    outputs = keras.tree.flatten(tesla.network.outputs)
    if len(outputs) != 1 or len(outputs[0].shape) != 2 or outputs[0].shape[-1] < 2:
        raise ValueError(
            "The accuracy on `validation_data` is that of one output with a score for each class. "
            f"Received a model with outputs of shape {[tuple(o.shape) for o in outputs]}"
        )
    if labels.ndim == 2 and labels.shape[1] == outputs[0].shape[-1]:
        labels = labels.argmax(-1)  # one-hot
    if labels.ndim != 1 or not count <= len(labels) < count + size:
        raise ValueError(
            f"`validation_data` must have a label for each of the {count} examples. Received "
            f"labels of shape {labels.shape}"
        )
    return interface.of_file(arrays), labels[:count]
