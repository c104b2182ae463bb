"""The training step on each backend.

All of them differentiate the aggregated loss. On TensorFlow and PyTorch they do so one percentage
after the other where that is possible (`sequential_backward`). On JAX Keras' own step
differentiates `compute_loss`, which TESLA overrides.
"""

import functools
import inspect
import warnings
from typing import TYPE_CHECKING, Any

import keras

from keras_tesla.training import replicas, sequential_backward

# To a type checker the mix-ins are the model that they complete.
_Model: Any = keras.Model if TYPE_CHECKING else object


class _TensorFlowStep(_Model):
    """`train_step` for TensorFlow: all active percentages, one update."""

    def train_step(self, data):
        """Takes one optimizer step on the aggregated loss of the active percentages.

        Args:
            data: A batch: `x`, `(x, y)` or `(x, y, sample_weight)`.

        Returns:
            {name: value} of the loss and of all metrics.
        """
        import tensorflow as tf

        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if self.backward_is_sequential:
            outputs, loss, gradients = sequential_backward.tensorflow(
                self, self._tasks, x, y, sample_weight
            )
        else:
            outputs, loss, gradients = self._gradients_together(x, y, sample_weight)
        batch = tf.shape(keras.tree.flatten(x)[0])[0]
        self.metrics[0].update_state(replicas.undistributed(loss), sample_weight=batch)
        if self.trainable_weights:
            self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        else:
            warnings.warn("The model does not have any trainable weights.", stacklevel=2)
        return self.compute_metrics(x, y, outputs, sample_weight)

    def _in_training(self):
        """The argument that says so; a `compute_loss` of a subclass may lack it, as in Keras."""
        takes = "training" in inspect.signature(self.compute_loss).parameters
        return {"training": True} if takes else {}

    def _gradients_together(self, x, y, sample_weight):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            outputs = self(x, training=True)
            loss = self.compute_loss(x, y, outputs, sample_weight, **self._in_training())
            scaled = self.optimizer.scale_loss(loss)
        # Zero, not None, for a weight that no active percentage uses: of None Keras would warn.
        gradients = tape.gradient(
            scaled,
            [v.value for v in self.trainable_weights],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return outputs, loss, gradients


class _JAXStep(_Model):
    """Keras' own steps for JAX, each compiled from a new function.

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
    """`train_step` for PyTorch; a weight that is not used has a gradient of zero."""

    def train_step(self, data):
        """Takes one optimizer step; see `_TensorFlowStep.train_step`."""
        if not self.backward_is_sequential:
            return super().train_step(data)
        import torch

        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self.zero_grad()
        outputs, loss = sequential_backward.torch(self, self._tasks, x, y, sample_weight)
        batch = keras.ops.shape(keras.tree.flatten(x)[0])[0]
        self.metrics[0].update_state(loss, sample_weight=batch)
        weights = self.trainable_weights
        with torch.no_grad():
            self.optimizer.apply([v.value.grad for v in weights], weights)
        return self.compute_metrics(x, y, outputs, sample_weight)

    def zero_grad(self, set_to_none=True):
        """Sets the gradients to zero: of None, for a weight that is not used, Keras would warn."""
        import torch

        super().zero_grad(set_to_none)
        for variable in self.trainable_weights:
            variable.value.grad = torch.zeros_like(variable.value)


TrainStep: Any = {"tensorflow": _TensorFlowStep, "jax": _JAXStep, "torch": _TorchStep}[
    keras.backend.backend()
]
