"""Keras callbacks for TESLA models."""

from keras_tesla.callbacks.task_wise_early_stopping import TaskWiseEarlyStopping

__all__ = ["TaskWiseEarlyStopping"]
