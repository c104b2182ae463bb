"""The loss of `keras-tesla train`: it fits the labels and the last layer, or is asked for."""

import dataclasses
from typing import Any

from keras_tesla_cli import tool

_REGRESSION = "mean_squared_error"
# {name: (class of the loss, class of the accuracy)}, from the most special kind of labels on.
_CROSSENTROPIES = {
    "sparse_categorical_crossentropy": (
        "SparseCategoricalCrossentropy",
        "SparseCategoricalAccuracy",
    ),
    "binary_crossentropy": ("BinaryCrossentropy", "BinaryAccuracy"),
    "categorical_crossentropy": ("CategoricalCrossentropy", "CategoricalAccuracy"),
}


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A loss with what goes with it.

    Args:
        loss: For `compile`.
        metrics: List for `compile`.
        said: What was chosen, for the output.
    """

    loss: Any
    metrics: list
    said: str


def choose(name: str, labels: dict, tesla) -> Chosen:
    """Returns the loss of a model with one output.

    A cross-entropy reads logits where the last activation is linear, else probabilities.

    Args:
        name: `"auto"`, what `keras.losses.get` takes, or "package>name" of a registered loss.
        labels: {split: y}, which are to fit the output.
        tesla: The model.

    Raises:
        UsageError: If the labels do not fit the output, or the loss cannot be told from them.
        ValueError: If there is no loss of that name.
    """
    from keras_tesla.training import outputs

    (output,) = outputs.read(tesla.graph)
    shape = tuple(tesla.network.outputs[0].shape)
    said = f"loss {name}"
    if name == "auto":
        order = [*_CROSSENTROPIES, _REGRESSION]
        # A few labels may happen to be of a more special kind than all of them are.
        name = max((_kind(y, shape, output, split) for split, y in labels.items()), key=order.index)
        said = f"loss {name} (auto)"
        if name != _REGRESSION and output.activation not in ("softmax", "sigmoid", "linear"):
            raise tool.UsageError(
                f"The labels ask for {name}, but whether the network returns probabilities cannot "
                f"be told from its last activation, {output.activation!r}. If it does: "
                f"--loss={name}"
            )
    if name == "sparse_categorical_crossentropy":
        for split, y in labels.items():
            _check_classes(y, shape[-1], split)
    return _made(name, output.activation == "linear", said)


def _kind(y, shape, output, split) -> str:
    """Returns the name of the loss that fits labels."""
    import numpy as np

    integers = y.dtype.kind in "iu"
    binary = (integers or output.activation == "sigmoid") and set(np.unique(y)) <= {0, 1}
    if shape[-1] == 1 and y.shape[1:] in ((), shape[1:]):
        return "binary_crossentropy" if binary else _REGRESSION
    if integers and (y.ndim == len(shape) - 1 or y.shape[1:] == (*shape[1:-1], 1)):
        return "sparse_categorical_crossentropy"
    if y.ndim != len(shape) or y.shape[-1] != shape[-1]:
        raise tool.UsageError(
            f"The network returns numbers of shape {shape[1:]} for an example. Expected labels of "
            "this shape, or integers without its last axis. "
            f"Received for {split}: {y.dtype} of shape {y.shape[1:]}"
        )
    if binary and output.activation == "sigmoid":
        return "binary_crossentropy"
    shares = y.min() >= 0 and np.allclose(y.sum(-1), 1, atol=1e-3)
    return "categorical_crossentropy" if shares else _REGRESSION


def _check_classes(y, classes, split):
    if y.min() < 0 or y.max() >= classes:
        raise tool.UsageError(
            f"The network has {classes} classes, so labels are 0..{classes - 1}. Received for "
            f"{split}: {y.min()}..{y.max()}"
        )


def _made(name, logits, said) -> Chosen:
    import keras

    if name not in _CROSSENTROPIES:
        registered = keras.saving.get_registered_object(name)
        if isinstance(registered, type):  # of a class, as Keras does
            registered = registered()
        return Chosen(registered or keras.losses.get(name), [], said)
    loss, accuracy = _CROSSENTROPIES[name]
    # Keras' binary accuracy has no threshold for logits.
    known = not (logits and name == "binary_crossentropy")
    return Chosen(
        getattr(keras.losses, loss)(from_logits=logits),
        [getattr(keras.metrics, accuracy)("accuracy")] if known else [],
        f"{said} of {'logits' if logits else 'probabilities'}",
    )
