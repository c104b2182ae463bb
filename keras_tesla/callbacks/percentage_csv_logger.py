"""PercentageCSVLogger: the logs of every percentage as a table."""

import csv
import os
import re

import keras


class PercentageCSVLogger(keras.callbacks.Callback):
    """Writes what an epoch logs to a CSV file, one row for each percentage and metric.

    `keras.callbacks.CSVLogger` keeps the columns of the first epoch; a `TESLA` model logs different
    names when different percentages are active. Columns here: `epoch` (from 0), `split` (`train` or
    `validation`), `percentage` (empty for what belongs to none), `metric`, `value`.

    A run that continues at a later epoch appends to the file.

    Args:
        filename: Path of the file; its folder must exist.
    """

    _COLUMNS = ("epoch", "split", "percentage", "metric", "value")

    def __init__(self, filename):
        super().__init__()
        self.filename = filename

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 0 or not os.path.exists(self.filename):
            with open(self.filename, "w", newline="") as file:
                csv.writer(file).writerow(self._COLUMNS)

    def on_epoch_end(self, epoch, logs=None):
        with open(self.filename, "a", newline="") as file:
            writer = csv.writer(file)
            for name, value in (logs or {}).items():
                split = "validation" if name.startswith("val_") else "train"
                found = re.fullmatch(r"(?:p(\d+)_)?(.+)", name.removeprefix("val_"))
                assert found is not None
                writer.writerow((epoch, split, found[1] or "", found[2], float(value)))
