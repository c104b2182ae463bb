"""The training step on each backend.

On TensorFlow TESLA has its own `train_step`. On JAX and PyTorch Keras' own steps do the same:
they differentiate `compute_loss`, which TESLA overrides with the aggregated loss.
"""

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
        gradients = tape.gradient(scaled, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return self.compute_metrics(x, y, outputs, sample_weight)


class _KerasStep(_Model):
    """Keras' own `train_step`."""


if keras.backend.backend() == "tensorflow":
    TrainStep: Any = _TensorFlowStep

    def undistributed(loss):
        """Returns the loss of a replica as if it were alone; Keras divides it by their number."""
        import tensorflow as tf

        return loss * tf.distribute.get_strategy().num_replicas_in_sync

else:
    TrainStep = _KerasStep

    def undistributed(loss):
        """Returns the loss: only TensorFlow's replicas see a part of it."""
        return loss
