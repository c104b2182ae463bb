"""Which way the column of a percentage gets better, for Keras' callbacks."""

import re

import keras

_OF_PERCENTAGE = re.compile(r"(val_)?p\d+_")


def direction(monitor: str) -> str | None:
    """Returns `"min"` or `"max"` by the name of a column, None if it does not say.

    Example:

    >>> direction("val_p50_accuracy")
    'max'
    """
    if monitor.endswith(("loss", "distillation")):
        return "min"
    if monitor.endswith(("acc", "accuracy", "auc")):
        return "max"
    return None


def set_modes(callbacks):
    """Gives callbacks that monitor the column of a percentage the mode that its name says.

    Keras' `mode="auto"` looks for a metric of the column's name, and all percentages have metrics
    of the same names. Where a name does not say it, Keras asks for `mode`.

    Args:
        callbacks: As in `fit`.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    for callback in keras.tree.flatten(callbacks):
        monitor = getattr(callback, "monitor", None)
        if getattr(callback, "mode", None) != "auto" or not isinstance(monitor, str):
            continue
        if _OF_PERCENTAGE.match(monitor):
            callback.mode = direction(monitor) or "auto"
