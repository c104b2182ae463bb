"""The gradient of the aggregated loss, one percentage after the other.

The gradient of a weighted sum is the weighted sum of the gradients. The activations of one
percentage are therefore no longer needed once its own gradient is known, and a step takes about the
memory of its widest percentage instead of that of all of them together. The multiply-adds are the
same: what all percentages share runs forward once, and backward once, on the sum of their
gradients.
"""

import dataclasses
from typing import Any

import keras
import numpy as np

from keras_tesla import cloning
from keras_tesla import graph as graphs
from keras_tesla.channels import Selection
from keras_tesla.narrowing.plan import layouts, narrow
from keras_tesla.training import outputs as network_outputs
from keras_tesla.training import replicas
from keras_tesla.training.aggregation import Linear


def possible(model) -> bool:
    """Whether a TESLA model can be differentiated this way.

    It cannot if its aggregation is not a weighted sum; if a layer may add losses of its own, as any
    layer that is not from Keras may, because the losses of all percentages form one list; or if an
    output that all percentages compute together may be probabilities.
    """
    aggregation = model.aggregation
    linear = isinstance(aggregation, Linear) and type(aggregation).__call__ is Linear.__call__
    if any(
        _may_add_losses(x) for layer in model.graph.layers for x in (layer, *cloning.inside(layer))
    ):
        return False
    return linear and not _shares_probabilities(model)


def _shares_probabilities(model):
    """Whether a softmax or sigmoid in the shared part is an output.

    On TensorFlow a cross-entropy of Keras goes back to the logits before it, which are not among
    the tensors that a percentage is given: their gradient would be lost.
    """
    steps = narrow(model.graph, model.percentages[0]).steps
    dependent = {t.index for s in steps if s.depends for t in s.call.output_tensors}
    shared = {
        t.index
        for s in steps
        if not any(x.index in dependent for x in s.call.input_tensors)
        for t in s.call.output_tensors
    }
    last = zip(graphs.tensors(model.graph.outputs), network_outputs.read(model.graph), strict=True)
    return any(
        tensor.index in shared and output.activation in (None, "softmax", "sigmoid")
        for tensor, output in last
    )


def _may_add_losses(layer):
    return not cloning.is_stock(layer) or layer.activity_regularizer is not None


def tensorflow(model, tasks, x, y, sample_weight):
    """Returns (outputs, aggregated loss, gradients of the scaled loss by the trainable weights).

    Args:
        model: The TESLA model.
        tasks: Its `Tasks`.
        x: A batch of inputs.
        y: Its targets.
        sample_weight: Its weights, or None.
    """
    import tensorflow as tf

    variables = [v.value for v in model.trainable_weights]
    coefficients = model.aggregation.coefficients(tasks.active)
    scale = model.optimizer.scale_loss
    inputs = {t.index for t in graphs.tensors(model.graph.inputs)}
    where = layouts(model.graph)
    with tf.GradientTape() as shared_tape:
        known = tasks.shared_part(x, model.add_loss, training=True)
        regularization = replicas.regularization(model)
        scaled_regularization = scale(regularization) if model.losses else None
    outputs, total = {}, regularization
    gradients = [tf.zeros((), v.dtype) for v in variables]
    shared: dict[int, tuple] = {}  # {id of a shared tensor: (it, its channels, gradient so far)}
    for percentage in _order(tasks.active, model.distillation):
        # The graph's executor would start all percentages at once and hold what each of them needs.
        with _after([*gradients, *(g.value for _, _, g in shared.values())]):
            cut = tasks.cut(percentage, known[percentage])
            # By identity: a layer may return its input, as a Dropout of 0 does, and a tape gives a
            # tensor that it is asked for twice its whole gradient twice. Inputs need none.
            found = {
                id(t): (key, t, width)
                for key, (t, width) in cut.items()
                if key not in inputs and isinstance(t, tf.Tensor) and t.dtype.is_floating
            }
            tensors = [t for _, t, _ in found.values()]
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                outputs[f"p{percentage}"] = tasks.outputs(percentage, cut, model.add_loss, True)
                loss = tasks.loss(percentage, x, y, outputs, sample_weight)
                weighted = coefficients[percentage] * loss
                scaled = scale(weighted)
            by_variables, by_tensors = tape.gradient(scaled, (variables, tensors))
            gradients = _added(gradients, by_variables)
            total += weighted
        with _after(gradients):  # when little else is held: these may be copied
            for (key, _, width), gradient in zip(found.values(), by_tensors, strict=True):
                if gradient is not None:
                    whole, whole_width = known[percentage][key]
                    # The key of what runs again for attenuated gradients ends with the index.
                    layout = where[key[-1] if isinstance(key, tuple) else key]
                    part = _Gradient.of(gradient, layout, width)
                    if id(whole) in shared:
                        part += shared[id(whole)][2]
                    full = _Gradient.of(None, layout, whole_width).channels
                    shared[id(whole)] = whole, full, part
    targets = [whole for whole, _, _ in shared.values()]
    by_targets = [part.padded(channels) for _, channels, part in shared.values()]
    if scaled_regularization is not None:
        targets.append(scaled_regularization)
        by_targets.append(tf.ones_like(scaled_regularization))
    if targets:
        by_variables = shared_tape.gradient(targets, variables, output_gradients=by_targets)
        gradients = _added(gradients, by_variables)
    # Zeros, not None, for a weight that no active percentage uses: of None Keras would warn.
    gradients = [
        g if g.shape.rank else tf.broadcast_to(g, v.shape)
        for g, v in zip(gradients, variables, strict=True)
    ]
    return outputs, total, gradients


def _after(tensors):
    """The operations made in this context run after the tensors are known.

    They wait for one operation that waits for the tensors: waiting for each tensor, they would take
    a number of edges that grows with the square of the model.
    """
    import tensorflow as tf

    return tf.control_dependencies([tf.group(*tensors)])


def _order(percentages, distillation):
    """Returns the percentages with the widest one last, or first where it teaches.

    It needs no slices besides the sum of gradients, so the peak of memory stays low. Of the others
    the widest is first, when there is no sum yet. Statistics of a stock BatchNormalization after an
    incomplete layer, which fit no percentage, end on the last one.
    """
    widest, *others = percentages
    return [*others, widest] if distillation is None else [widest, *others]


@dataclasses.dataclass(frozen=True)
class _Gradient:
    """The gradient by some channels of a tensor.

    They are those of the plan: TensorFlow does not know the shape of every tensor before it runs,
    such as that of a transposed convolution.

    Args:
        value: The gradient.
        axis: Int, of the channels; None where they are never cut.
        channels: The `Selection`; an empty one where they are never cut.
    """

    value: Any
    axis: int | None
    channels: Selection

    @classmethod
    def of(cls, value, layout, channels):
        """Returns a gradient by some channels (None: all) of a layout."""
        if layout is None or layout.repeats > 1:
            return cls(value, None, Selection())
        return cls(value, layout.axis, channels or Selection.first(layout.count))

    def __add__(self, other):
        channels = self.channels | other.channels
        return _Gradient(self.padded(channels) + other.padded(channels), self.axis, channels)

    def padded(self, channels):
        """Returns the value with zeros for further channels, so that it has `channels`."""
        import tensorflow as tf

        if self.axis is None or channels == self.channels:
            return self.value
        ends = [[0, 0] for _ in range(self.value.shape.rank)]
        places = self.channels.places(channels)
        if places == Selection.first(len(places)):
            ends[self.axis][1] = len(channels) - len(places)
            return tf.pad(self.value, ends)
        ends[self.axis][1] = 1  # the zero of all channels that are missing
        sources = np.full(len(channels), len(places))
        sources[places.indices()] = np.arange(len(places))
        return tf.gather(tf.pad(self.value, ends), sources, axis=self.axis)


def _added(gradients, more):
    """Adds gradients, of which some are None, to sums; those of an Embedding become dense."""
    import tensorflow as tf

    return [
        g if m is None else g + tf.convert_to_tensor(m)
        for g, m in zip(gradients, more, strict=True)
    ]


def torch(model, tasks, x, y, sample_weight):
    """Returns (outputs, aggregated loss), and adds the gradients to those of the weights.

    Args: As in `tensorflow`.
    """
    coefficients = model.aggregation.coefficients(tasks.active)
    scale = model.optimizer.scale_loss
    known = tasks.shared_part(x, model.add_loss, training=True)
    total = replicas.regularization(model)
    if model.losses:
        scale(total).backward()
    outputs = {}
    detached: dict[int, tuple] = {}  # {id of a shared tensor: (it, the same without a history)}
    for percentage in tasks.active:
        values = {i: (_without_history(t, detached), w) for i, (t, w) in known[percentage].items()}
        outputs[f"p{percentage}"] = tasks.outputs(percentage, values, model.add_loss, True)
        loss = coefficients[percentage] * tasks.loss(percentage, x, y, outputs, sample_weight)
        if loss.requires_grad:  # else no layer that this percentage reaches is trained
            scale(loss).backward()
        outputs = keras.tree.map_structure(_detached, outputs)
        total = total + loss.detach()
    ends = [(tensor, copy.grad) for tensor, copy in detached.values() if copy.grad is not None]
    if ends:
        import torch

        tensors, by_tensors = zip(*ends, strict=True)
        torch.autograd.backward(tensors, by_tensors)
    return outputs, total


def _without_history(tensor, detached):
    """The tensor without its history; one for all percentages, which sums up their gradients."""
    if not tensor.requires_grad:
        return tensor
    if id(tensor) not in detached:
        detached[id(tensor)] = tensor, _detached(tensor).requires_grad_()
    return detached[id(tensor)][1]


def _detached(tensor):
    """The tensor without its history, with its Keras mask."""
    copy = tensor.detach()
    mask = getattr(tensor, "_keras_mask", None)
    if mask is not None:
        copy._keras_mask = mask
    return copy
