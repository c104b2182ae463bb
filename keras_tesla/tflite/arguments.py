"""The arguments of an export, checked before anything is converted."""

import dataclasses
import re

import keras
import numpy as np

from keras_tesla.integers import check_integer
from keras_tesla.percentages import check_percentages
from keras_tesla.quantization.ranges import ActivationRange
from keras_tesla.tflite import convert, verify
from keras_tesla.tflite.graphs import merge
from keras_tesla.training.tesla import TESLA

_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9._/-]*")

MODES = ("per_percentage", "signatures", "percentage_input")
STORAGES = ("shared", "plain")
_EXAMPLES = 16


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What `keras_tesla.tflite.export` was asked for, in one form.

    Args:
        percentages: Tuple of ints, descending.
        inputs: {input name: array `(examples, ...)`} to compare on.
        representative: [{input name: array of one batch}, ..] or None.
        validation: ({input name: array}, labels) or None.
    """

    percentages: tuple[int, ...]
    inputs: dict
    representative: list[dict] | None
    validation: tuple[dict, np.ndarray] | None


def check(
    tesla,
    mode,
    storage,
    quantization,
    int8_io,
    percentages,
    batch_size,
    inputs,
    representative_data,
    validation_data,
) -> Arguments:
    """Checks the arguments of `keras_tesla.tflite.export`.

    Raises:
        ValueError: One that does not fit.
        RuntimeError: Another backend than TensorFlow.
    """
    if not isinstance(tesla, TESLA):
        raise ValueError(f"`export` takes a keras_tesla.TESLA model. Received: {tesla!r}")
    _check_choice("mode", mode, MODES)
    _check_choice("storage", storage, STORAGES)
    _check_choice("quantization", quantization, convert.QUANTIZATIONS)
    check_integer("batch_size", batch_size)
    aware = any(isinstance(layer, ActivationRange) for layer in tesla.graph.layers)
    if aware and (quantization != "int8" or representative_data is not None):
        raise ValueError(
            "A quantization-aware model is exported with quantization='int8' and without "
            "`representative_data`: its ranges were trained. Received: "
            f"quantization={quantization!r} and "
            f"{'no' if representative_data is None else 'some'} representative_data"
        )
    if not aware and (quantization == "int8") != (representative_data is not None):
        raise ValueError(
            "`representative_data`, typical inputs, goes with quantization='int8': the ranges of "
            f"the activations are measured on it. Received: quantization={quantization!r} and "
            f"{'no' if representative_data is None else 'some'} representative_data. "
            "A model made by `quantization_aware` needs none."
        )
    if int8_io and quantization != "int8":
        raise ValueError(
            f"`int8_io` goes with quantization='int8'. Received: quantization={quantization!r}"
        )
    percentages = check_percentages(tesla.percentages if percentages is None else percentages)
    untrained = [p for p in percentages if p not in tesla.percentages]
    if untrained:
        raise ValueError(
            f"{untrained} % were not trained, so their accuracy is unknown. Trained: "
            f"{list(tesla.percentages)}"
        )
    for name in tesla.graph.input_names:
        if not _NAME.fullmatch(name):
            raise ValueError(
                "A .tflite file takes input names of letters, digits and . _ - / only. Rename "
                f"input {name!r}."
            )
    if mode == "percentage_input" and merge.PERCENTAGE in tesla.graph.input_names:
        raise ValueError(
            f"mode='percentage_input' adds an input {merge.PERCENTAGE!r}, and the model has one of "
            "that name. Rename it, or take mode='signatures'."
        )
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "The converter needs the TensorFlow backend. Save the model with `tesla.save` and "
            "export it in a process with KERAS_BACKEND=tensorflow. "
            f"Received: {keras.backend.backend()!r}"
        )
    checked = verify.example_inputs(tesla.network, batch_size * max(1, _EXAMPLES // batch_size))
    representative = None
    if representative_data is not None:
        arrays = _arrays(tesla, "representative_data", representative_data, batch_size)
        count = len(next(iter(arrays.values())))
        representative = [
            {name: x[start : start + batch_size] for name, x in arrays.items()}
            for start in range(0, count, batch_size)
        ]
        if inputs is None:  # random numbers are not what the ranges were measured for
            inputs = {n: x[: max(batch_size, _EXAMPLES)] for n, x in arrays.items()}
    if inputs is not None:
        checked = _arrays(tesla, "inputs", inputs, batch_size)
    validation = None
    if validation_data is not None:
        validation = _validation(tesla, validation_data, batch_size)
    return Arguments(percentages, checked, representative, validation)


def _check_choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {choices}. Received: {value!r}")


def _arrays(tesla, what, given, batch_size):
    """{input name: array}, with as many examples as fill batches."""
    names = [t.name for t in tesla.network.inputs]
    if not isinstance(given, dict):
        if len(names) != 1:
            raise ValueError(f"`{what}` must be a dict with an array for each of {names}.")
        given = {names[0]: given}
    if set(given) != set(names):
        raise ValueError(f"`{what}` must have the keys {names}. Received: {sorted(given)}")
    checked = {}
    for tensor in tesla.network.inputs:
        array = np.asarray(given[tensor.name], tensor.dtype)
        usable = len(array) // batch_size * batch_size if array.ndim else 0
        if array.shape[1:] != tuple(tensor.shape[1:]) or not usable:
            raise ValueError(
                f"`{what}` for {tensor.name!r} must hold at least {batch_size} examples of shape "
                f"{tuple(tensor.shape[1:])}. Received an array of shape {array.shape}"
            )
        checked[tensor.name] = array[:usable]
    if len({len(x) for x in checked.values()}) > 1:
        raise ValueError(
            f"`{what}` must hold equally many examples for each input. Received: "
            f"{ {name: len(x) for name, x in checked.items()} }"
        )
    return checked


def _validation(tesla, given, batch_size):
    if not isinstance(given, tuple) or len(given) != 2:
        raise ValueError(
            f"`validation_data` must be a tuple (inputs, labels). Received: {type(given).__name__}"
        )
    arrays = _arrays(tesla, "validation_data", given[0], batch_size)
    labels = np.asarray(given[1])
    count = len(next(iter(arrays.values())))
    outputs = keras.tree.flatten(tesla.network.outputs)
    if len(outputs) != 1 or len(outputs[0].shape) != 2 or outputs[0].shape[-1] < 2:
        raise ValueError(
            "The accuracy on `validation_data` is that of one output with a score for each class. "
            f"Received a model with outputs of shape {[tuple(o.shape) for o in outputs]}"
        )
    if labels.ndim == 2 and labels.shape[1] == outputs[0].shape[-1]:
        labels = labels.argmax(-1)  # one-hot
    if labels.ndim != 1 or not count <= len(labels) < count + batch_size:
        raise ValueError(
            f"`validation_data` must have a label for each of the {count} examples. Received "
            f"labels of shape {labels.shape}"
        )
    return arrays, labels[:count]
