"""The gradient of the aggregated loss, one percentage after the other.

The gradient of a weighted sum is the weighted sum of the gradients. What one percentage computed on
its way forward is therefore needed no longer once its own gradient is known, and a step takes about
the memory of its widest percentage instead of that of all of them together. The multiply-adds are
the same: what all percentages share runs forward once, and backward once, on the sum of their
gradients.
"""

import keras

from keras_tesla import cloning
from keras_tesla.training.aggregation import Linear


def possible(model) -> bool:
    """Whether a TESLA model can be differentiated so.

    It cannot if its aggregation is another function of all losses, or if a layer adds losses of its
    own: those of all percentages are one list.
    """
    return isinstance(model.aggregation, Linear) and not any(
        _adds_losses(x) for layer in model.graph.layers for x in (layer, *cloning.inside(layer))
    )


def _adds_losses(layer):
    stock = type(layer).__module__.split(".")[0] in ("keras", "keras_tesla")
    return not stock or layer.activity_regularizer is not None


def tensorflow(model, x, y, sample_weight):
    """Returns (outputs, aggregated loss, gradients of the scaled loss by the trainable weights)."""
    import tensorflow as tf

    variables = [v.value for v in model.trainable_weights]
    coefficients = model.aggregation.coefficients(model.active_percentages)
    scale = model.optimizer.scale_loss
    with tf.GradientTape() as shared_tape:
        known = model.shared_part(x, training=True)
        regularization = model.regularization()
        scaled_regularization = scale(regularization) if model.losses else None
    outputs, total = {}, regularization
    gradients = [tf.zeros((), v.dtype) for v in variables]
    shared: dict[int, tuple] = {}  # {id of a shared tensor: (it, the gradient by it so far)}
    for percentage in model.active_percentages:
        tensors = [t for t, _ in known[percentage].values() if t.dtype.is_floating]
        # The graph's executor would start all percentages at once and hold what each of them needs.
        with tf.control_dependencies([*gradients, *(g for _, g in shared.values())]):
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                outputs[f"p{percentage}"] = model.part_of(percentage, known[percentage], True)
                loss = model.loss_of(percentage, x, y, outputs, sample_weight)
                weighted = coefficients[percentage] * loss
                scaled = scale(weighted)
            by_variables, by_tensors = tape.gradient(scaled, (variables, tensors))
            gradients = _added(gradients, by_variables)
            for tensor, gradient in zip(tensors, by_tensors, strict=True):
                if gradient is not None:
                    so_far = shared[id(tensor)][1] + gradient if id(tensor) in shared else gradient
                    shared[id(tensor)] = tensor, so_far
            total += weighted
    targets = [tensor for tensor, _ in shared.values()]
    by_targets = [gradient for _, gradient in shared.values()]
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


def _added(gradients, more):
    """Adds gradients, of which some are None, to sums; those of an Embedding become dense."""
    import tensorflow as tf

    return [
        g if m is None else g + tf.convert_to_tensor(m)
        for g, m in zip(gradients, more, strict=True)
    ]


def torch(model, x, y, sample_weight):
    """Returns (outputs, aggregated loss), and adds the gradients to those of the weights."""
    coefficients = model.aggregation.coefficients(model.active_percentages)
    scale = model.optimizer.scale_loss
    known = model.shared_part(x, training=True)
    total = model.regularization()
    if model.losses:
        scale(total).backward()
    outputs = {}
    leaves: dict[int, tuple] = {}  # {id of a shared tensor: (it, the same without a history)}
    for percentage in model.active_percentages:
        cut = {i: (_leaf(t, leaves), width) for i, (t, width) in known[percentage].items()}
        outputs[f"p{percentage}"] = model.part_of(percentage, cut, True)
        loss = coefficients[percentage] * model.loss_of(percentage, x, y, outputs, sample_weight)
        scale(loss).backward()
        outputs = keras.tree.map_structure(lambda t: t.detach(), outputs)
        total = total + loss.detach()
    ends = [(tensor, leaf.grad) for tensor, leaf in leaves.values() if leaf.grad is not None]
    if ends:
        import torch

        tensors, by_tensors = zip(*ends, strict=True)
        torch.autograd.backward(tensors, by_tensors)
    return outputs, total


def _leaf(tensor, leaves):
    """The tensor without its history; one for all percentages, which sums up their gradients."""
    if not tensor.requires_grad:
        return tensor
    if id(tensor) not in leaves:
        leaf = tensor.detach().requires_grad_()
        mask = getattr(tensor, "_keras_mask", None)
        if mask is not None:
            leaf._keras_mask = mask
        leaves[id(tensor)] = tensor, leaf
    return leaves[id(tensor)][1]
