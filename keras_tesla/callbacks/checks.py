"""The shared checks of callbacks for TESLA models, and where they keep their state."""

from keras_tesla.percentages import check_percentages
from keras_tesla.training.tesla import TESLA


def check_model(callback):
    """Refuses to drive a model that has no percentages.

    Raises:
        ValueError: If the callback's model is not a `TESLA`.
    """
    if not isinstance(callback.model, TESLA):
        raise ValueError(
            f"{type(callback).__name__} drives the training of a keras_tesla.TESLA model. "
            f"Received: {type(callback.model).__name__}"
        )


def check_probabilities(probabilities):
    """Refuses weights of percentages that cannot be drawn from.

    Raises:
        ValueError: If a key is no percentage, or a weight is not positive and finite.
    """
    check_percentages(probabilities)
    if not all(0 < float(w) < float("inf") for w in probabilities.values()):
        raise ValueError(
            f"`probabilities` must be positive and finite. Received: {probabilities!r}"
        )


def state_of(callback) -> dict:
    """Returns {name: NumPy array} that the callback kept, perhaps before a kill; {} if nothing."""
    return callback.model.callback_state.get(type(callback).__name__, {})


def keep_state(callback, state: dict):
    """Keeps {name: NumPy array} with the model's weights, in the callback's own place; {}: none."""
    others = dict(callback.model.callback_state)
    others.pop(type(callback).__name__, None)
    kept = {type(callback).__name__: state} if state else {}
    callback.model.callback_state = {**others, **kept}
