"""Own percentages: the narrowest percentage that reads each channel of each weight."""

from typing import Any

import keras
import numpy as np

from keras_tesla.kinds.kind import weight_at
from keras_tesla.kinds.registry import kind_of
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
    read: dict[int, tuple] = {}  # {id: (variable, {percentage: [mask of each axis]})}
    for plan in plans:
        for step in plan.steps:
            for variable, masks in _reads(step, plan):
                _, by_percentage = read.setdefault(id(variable), (variable, {}))
                before = by_percentage.get(plan.percentage, masks)  # a layer called twice
                by_percentage[plan.percentage] = [a | b for a, b in zip(before, masks, strict=True)]
    found = {}
    for key, (variable, by_percentage) in read.items():
        axes = {
            axis: _narrowest({p: masks[axis] for p, masks in by_percentage.items()})
            for axis in range(len(variable.shape))
            if len({masks[axis].tobytes() for masks in by_percentage.values()}) > 1
        }
        if axes:
            found[key] = axes
    return found


def _narrowest(masks):
    # Channels that no percentage reads keep the widest one: they get no gradient at all.
    narrowest = np.full(len(masks[max(masks)]), max(masks))
    for percentage in sorted(masks, reverse=True):
        narrowest[masks[percentage]] = percentage
    return narrowest


class _Reading(keras.StatelessScope):
    """Notes the variables whose value is read."""

    def __init__(self):
        super().__init__()
        self.variables: dict[int, Any] = {}

    def get_current_value(self, variable):
        self.variables[id(variable)] = variable
        return super().get_current_value(variable)


def _reads(step: Step, plan: Plan):
    """Yields (weight, for each of its axes a bool array: which entries are read)."""
    layer, narrowed = step.call.operation, step.narrowed
    if narrowed is None:
        for variable in getattr(layer, "variables", []):
            yield variable, [np.ones(size, bool) for size in variable.shape]
        return
    # The kind itself says what is read: it may lend a percentage weights that only it uses.
    with _Reading() as reading:  # some are read only where their value is asked for
        extents_of = {path: tuple(value_of(w).shape) for path, w in narrowed.weights().items()}
    running = layer.layer_at(plan.percentage) if isinstance(layer, PerRange) else layer
    kind = kind_of(running)
    masks = {}
    for path, extents in extents_of.items():
        if path not in narrowed.state:
            axes = kind.weight_axes.get(path, (None, None))
            weight = weight_at(running, path)
            reads = kind.projected(step.call)[kind.read_by(path)]
            masks[id(weight)] = _masks(weight, extents, axes, running, step, plan, reads)
    if isinstance(running, IncompleteDotProduct) and running.trainable_profile:
        read = np.isin(np.arange(running.terms), running.active(plan.percentage).indices())
        masks[id(running.coefficients)] = [read]
    statistics = {id(v) for v in narrowed.state.values()}
    for key, variable in reading.variables.items():
        if key not in statistics:
            yield variable, masks.get(key) or [np.ones(size, bool) for size in variable.shape]


def _masks(weight, extents, axes, layer, step, plan, reads):
    """For each axis of a weight which entries are in the narrowed one of the shape `extents`.

    It reads the input of the place `reads`.
    """
    masks = [np.arange(size) < extent for size, extent in zip(weight.shape, extents, strict=True)]
    widths = step.widths
    # After a Flatten the axis has the channels once for each position.
    positions = layer.positions if isinstance(layer, IDPDense) else 1
    output_layout = plan.layouts[step.call.output_tensors[0].index]
    # A weight that is an operand itself is called on nothing.
    (read, read_layout) = (*widths.inputs, None)[reads], (*widths.layouts, None)[reads]
    for axis, channels, layout, repeats in [
        (axes[0], read, read_layout, positions),
        (axes[1], widths.outputs[0], output_layout, 1),
    ]:
        if axis is None or channels is None or layout is None or masks[axis].all():
            continue
        of_channels = np.isin(np.arange(layout.count), channels.indices())
        block = len(masks[axis]) // (repeats * layout.count)  # several numbers for each channel
        masks[axis] = np.tile(np.repeat(of_channels, block), repeats)
    return masks
