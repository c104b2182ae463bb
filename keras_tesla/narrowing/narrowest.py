"""Own percentages: the narrowest percentage that reads each channel of each weight."""

from typing import Any

import keras
import numpy as np

from keras_tesla.kinds.kind import weight_at
from keras_tesla.layers import IDPDense, IncompleteDotProduct, PerRange
from keras_tesla.narrowing.gradients import value_of
from keras_tesla.narrowing.plan import Plan, Step


def narrowest_percentages(plans: list[Plan]) -> dict[int, dict[int, np.ndarray]]:
    """Returns {id of a weight: {axis: the narrowest percentage at each place on it}}.

    An axis is listed only if the percentages that read the weight read different parts of it. So
    it is not listed if only one percentage reads the weight, or if all read the axis whole. The
    narrowest percentage of an entry is the largest of its axes': it is read where all of them are.

    Args:
        plans: The plans of a graph at all percentages of a model.
    """
    read: dict[int, tuple] = {}  # {id: (variable, repeats on each axis, {percentage: extents})}
    for plan in plans:
        for step in plan.steps:
            for variable, repeats, extents in _reads(step, plan.percentage):
                _, _, by_percentage = read.setdefault(id(variable), (variable, repeats, {}))
                before = by_percentage.get(plan.percentage, extents)  # a layer called twice
                by_percentage[plan.percentage] = np.maximum(before, extents)
    found = {}
    for key, (variable, repeats, by_percentage) in read.items():
        axes = {
            axis: _narrowest(by_percentage, axis, size // repeats[axis], repeats[axis])
            for axis, size in enumerate(variable.shape)
            if len({int(extents[axis]) for extents in by_percentage.values()}) > 1
        }
        if axes:
            found[key] = axes
    return found


def _narrowest(by_percentage, axis, count, repeats):
    # Channels that no percentage reads keep the widest one: they get no gradient at all.
    narrowest = np.full(count, max(by_percentage))
    for percentage in sorted(by_percentage, reverse=True):
        narrowest[: by_percentage[percentage][axis]] = percentage
    return np.tile(narrowest, repeats)


class _Reading(keras.StatelessScope):
    """Notes the variables whose value is read."""

    def __init__(self):
        super().__init__()
        self.variables: dict[int, Any] = {}

    def get_current_value(self, variable):
        self.variables[id(variable)] = variable
        return super().get_current_value(variable)


def _reads(step: Step, percentage: int):
    """Yields (weight, repeats of the channels on each axis, channels of a copy that are read)."""
    layer, narrowed = step.call.operation, step.narrowed
    if narrowed is None:
        for variable in getattr(layer, "variables", []):
            yield variable, (1,) * len(variable.shape), tuple(variable.shape)
        return
    # The kind itself says what is read: it may lend a percentage weights that only it uses.
    with _Reading() as reading:  # some are read only where their value is asked for
        extents_of = {path: tuple(value_of(w).shape) for path, w in narrowed.weights().items()}
    running = layer.layer_at(percentage) if isinstance(layer, PerRange) else layer
    shapes = {
        id(weight_at(running, path)): extents
        for path, extents in extents_of.items()
        if path not in narrowed.state
    }
    if isinstance(layer, IncompleteDotProduct) and layer.trainable_profile:
        shapes[id(layer.coefficients)] = (layer.active_terms(percentage),)
    statistics = {id(v) for v in narrowed.state.values()}
    for key, variable in reading.variables.items():
        if key in statistics:
            continue
        extents = list(shapes.get(key, variable.shape))
        repeats = [1] * len(extents)
        if isinstance(layer, IDPDense) and variable is layer.kernel:  # after a Flatten
            repeats[0] = layer.positions
            extents[0] //= repeats[0]
        yield variable, tuple(repeats), tuple(extents)
