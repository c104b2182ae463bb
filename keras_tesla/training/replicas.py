"""What a replica of `tf.distribute` has of a loss; elsewhere a model has none."""

import keras
from keras import ops


def regularization(model):
    """Returns a replica's share of what a model's layers add to the loss; 0 if nothing."""
    return distributed(sum(ops.sum(loss) for loss in model.losses))


if keras.backend.backend() == "tensorflow":

    def undistributed(loss):
        """Returns the loss as if there were one replica; Keras divides it by their number."""
        import tensorflow as tf

        return loss * tf.distribute.get_strategy().num_replicas_in_sync

    def distributed(loss):
        """Returns a replica's share of a loss that every replica computes whole."""
        import tensorflow as tf

        return loss / tf.distribute.get_strategy().num_replicas_in_sync

else:

    def undistributed(loss):
        """Returns the loss: only TensorFlow's replicas see a part of it."""
        return loss

    def distributed(loss):
        """Returns the loss: only TensorFlow's replicas add theirs up."""
        return loss
