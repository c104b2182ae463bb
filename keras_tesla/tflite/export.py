"""Exporting a TESLA model to .tflite files."""

import hashlib
import importlib.metadata
import pathlib

import keras
import numpy as np

from keras_tesla import conversion
from keras_tesla.analysis.cost import multiply_adds
from keras_tesla.narrowing.plan import narrow
from keras_tesla.percentages import check_percentages
from keras_tesla.tflite import convert, folder, verify
from keras_tesla.tflite.bundle import Bundle, Entry
from keras_tesla.training.tesla import TESLA
from keras_tesla.version import __version__

_MODES = ("per_percentage",)
_EXAMPLES = 16


def export(
    tesla: TESLA,
    directory,
    mode: str = "per_percentage",
    percentages=None,
    batch_size: int = 1,
    inputs=None,
    overwrite: bool = False,
) -> Bundle:
    """Writes a trained model as .tflite files that hold their percentages only.

    Every file is run in LiteRT, with and without XNNPACK, and compared with Keras at its
    percentage before it gets its name: float32 outputs must agree within 1e-5 of the largest.

    Args:
        tesla: The trained model, on the TensorFlow backend.
        directory: The folder to be written. It appears whole or not at all.
        mode: `"per_percentage"`: one file, `p30.tflite`, for each percentage.
        percentages: Iterable of ints among those of `tesla`. Default: all of them.
        batch_size: Int, the fixed batch size of the files.
        inputs: {input name: array `(examples, ...)`}, or one array for a model with one input, on
            which files and Keras are compared. Default: 16 random examples.
        overwrite: Bool, whether an export in the folder may be replaced.

    Returns:
        A `Bundle`; the same is written as `manifest.json`.

    Raises:
        ValueError: An argument that does not fit, a percentage that was not trained.
        RuntimeError: Another backend than TensorFlow.
        VerificationError: A file computed something else than Keras.
        OSError: The folder is a file, holds an export already, or cannot be written.
    """
    if not isinstance(tesla, TESLA):
        raise ValueError(f"`export` takes a keras_tesla.TESLA model. Received: {tesla!r}")
    if mode not in _MODES:
        raise ValueError(f"`mode` must be one of {_MODES}. Received: {mode!r}")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"`batch_size` must be a positive integer. Received: {batch_size!r}")
    percentages = check_percentages(tesla.percentages if percentages is None else percentages)
    untrained = [p for p in percentages if p not in tesla.percentages]
    if untrained:
        raise ValueError(
            f"{untrained} % were not trained, so their accuracy is unknown. Trained: "
            f"{list(tesla.percentages)}"
        )
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "The converter needs the TensorFlow backend. Save the model with `tesla.save` and "
            "export it in a process with KERAS_BACKEND=tensorflow. "
            f"Received: {keras.backend.backend()!r}"
        )
    inputs = _checked_inputs(tesla, inputs, batch_size)
    entries = []
    with folder.whole(directory, overwrite) as temporary:
        for percentage in percentages:
            plan = narrow(tesla.graph, percentage)
            model = conversion.extract(plan, f"p{percentage}", batch_size, dtype="float32")
            content = convert.convert(model)
            difference = verify.compare(
                content,
                inputs,
                _expected(tesla, percentage, inputs, model),
                verify.tolerance(tesla.network),
                f"{percentage} %",
            )
            (temporary / f"p{percentage}.tflite").write_bytes(content)
            entries.append(
                Entry(
                    percentage=percentage,
                    file=f"p{percentage}.tflite",
                    sha256=hashlib.sha256(content).hexdigest(),
                    bytes=len(content),
                    multiply_adds=multiply_adds(model),
                    max_abs_difference=difference,
                )
            )
        bundle = Bundle(
            directory=pathlib.Path(directory),
            mode=mode,
            entries=tuple(entries),
            inputs=_specs([t.name for t in model.inputs], model.inputs),
            outputs=_specs(convert.output_names(model), keras.tree.flatten(model.output)),
            versions=_versions(),
        )
        (temporary / folder.MANIFEST).write_text(bundle.manifest())
    return bundle


def _checked_inputs(tesla, inputs, batch_size):
    examples = batch_size * max(1, _EXAMPLES // batch_size)
    if inputs is None:
        return verify.example_inputs(tesla.network, examples)
    names = [t.name for t in tesla.network.inputs]
    if not isinstance(inputs, dict):
        if len(names) != 1:
            raise ValueError(f"`inputs` must be a dict with an array for each of {names}.")
        inputs = {names[0]: inputs}
    if set(inputs) != set(names):
        raise ValueError(f"`inputs` must have the keys {names}. Received: {sorted(inputs)}")
    checked = {}
    for tensor in tesla.network.inputs:
        array = np.asarray(inputs[tensor.name], tensor.dtype)
        usable = len(array) // batch_size * batch_size if array.ndim else 0
        if array.shape[1:] != tuple(tensor.shape[1:]) or not usable:
            raise ValueError(
                f"`inputs` for {tensor.name!r} must hold at least {batch_size} examples of shape "
                f"{tuple(tensor.shape[1:])}. Received an array of shape {array.shape}"
            )
        checked[tensor.name] = array[:usable]
    return checked


def _expected(tesla, percentage, inputs, model):
    """What Keras computes: on the live weights, not on those that were converted."""
    names = [t.name for t in tesla.network.inputs]
    x = keras.tree.pack_sequence_as(tesla.graph.inputs, [inputs[name] for name in names])
    outputs = tesla.predict(x, percentage=percentage, verbose=0)
    flat = keras.tree.flatten(outputs)
    return dict(zip(convert.output_names(model), flat, strict=True))


def _specs(names, tensors):
    return {
        name: {"shape": list(t.shape), "dtype": t.dtype}
        for name, t in zip(names, tensors, strict=True)
    }


def _versions():
    packages = ("tensorflow", "keras", "ai-edge-litert")
    return {"keras-tesla": __version__, **{p: importlib.metadata.version(p) for p in packages}}
