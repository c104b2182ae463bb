"""The training step on each backend.

On TensorFlow TESLA has its own `train_step`. On JAX and PyTorch Keras' own steps do the same:
they differentiate `compute_loss`, which TESLA overrides with the aggregated loss.
"""

import functools
from typing import TYPE_CHECKING, Any

import keras

# To a type checker the mix-ins are the model that they complete.
_Model: Any = keras.Model if TYPE_CHECKING else object


class _TensorFlowStep(_Model):
    """`train_step` for TensorFlow: all active percentages on one tape, one update."""

    def train_step(self, data):
        """Takes one optimizer step on the aggregated loss of the active percentages.

        Args:
            data: A batch: `x`, `(x, y)` or `(x, y, sample_weight)`.

        Returns:
            {name: value} of the loss and of all metrics.
        """
        import tensorflow as tf

        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            outputs = self(x, training=True)
            loss = self.compute_loss(x, y, outputs, sample_weight, training=True)
            scaled = self.optimizer.scale_loss(loss)
        batch = tf.shape(keras.tree.flatten(x)[0])[0]
        self.metrics[0].update_state(undistributed(loss), sample_weight=batch)
        variables = self.trainable_weights
        # Zero, not None, for a weight that no active percentage uses: of None Keras would warn.
        gradients = tape.gradient(
            scaled,
            [v.value for v in variables],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return self.compute_metrics(x, y, outputs, sample_weight)


class _JAXStep(_Model):
    """Keras' own steps for JAX, each compiled from a function of its own.

    `jax.jit` finds the trace of an equal function again, and a method equals itself whatever
    percentages are active.
    """

    def make_train_function(self, force=False):
        if force or self.train_function is None:
            own_class: Any = type(self)
            self.train_step = functools.partial(own_class.train_step, self)
        super().make_train_function(force)

    def make_test_function(self, force=False):
        if force or self.test_function is None:
            own_class: Any = type(self)
            self.test_step = functools.partial(own_class.test_step, self)
        super().make_test_function(force)


class _TorchStep(_Model):
    """Keras' own `train_step` for PyTorch; a weight that is not used has a gradient of zero."""

    def zero_grad(self, set_to_none=True):
        """Sets the gradients to zero: of None, for a weight that is not used, Keras would warn."""
        import torch

        super().zero_grad(set_to_none)
        for variable in self.trainable_weights:
            variable.value.grad = torch.zeros_like(variable.value)


if keras.backend.backend() == "tensorflow":
    TrainStep: Any = _TensorFlowStep

    def undistributed(loss):
        """Returns the loss of a replica as if it were alone; Keras divides it by their number."""
        import tensorflow as tf

        return loss * tf.distribute.get_strategy().num_replicas_in_sync

    def distributed(loss):
        """Returns a replica's share of a loss that every replica computes whole."""
        import tensorflow as tf

        return loss / tf.distribute.get_strategy().num_replicas_in_sync

else:
    TrainStep = {"jax": _JAXStep, "torch": _TorchStep}[keras.backend.backend()]

    def undistributed(loss):
        """Returns the loss: only TensorFlow's replicas see a part of it."""
        return loss

    def distributed(loss):
        """Returns the loss: only TensorFlow's replicas add theirs up."""
        return loss
