"""Keras callbacks for TESLA models."""

from keras_tesla.callbacks.alternating_profiles import AlternatingProfiles
from keras_tesla.callbacks.backup_and_restore import BackupAndRestore
from keras_tesla.callbacks.multi_profile import MultiProfile
from keras_tesla.callbacks.percentage_csv_logger import PercentageCSVLogger
from keras_tesla.callbacks.random_percentages import RandomPercentages
from keras_tesla.callbacks.task_wise_early_stopping import TaskWiseEarlyStopping

__all__ = [
    "AlternatingProfiles",
    "BackupAndRestore",
    "MultiProfile",
    "PercentageCSVLogger",
    "RandomPercentages",
    "TaskWiseEarlyStopping",
]
