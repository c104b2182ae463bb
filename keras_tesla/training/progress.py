"""What `fit` and `evaluate` print: a short bar, and a table with a row for each percentage."""

import functools
import inspect
import re

import keras
import numpy as np

from keras_tesla import messages

_COLUMN = re.compile(r"(val_)?p(\d+)_(.+)")


class Progress(keras.callbacks.ProgbarLogger):
    """Keras' bar with the columns of the widest and the narrowest active percentage only.

    With `verbose=1`, a table of all of them follows each epoch. With `verbose=2`, one line is
    printed for each epoch, and the table once at the end of training. It must be the first of the
    callbacks, so that what others print begins on a new line.

    Args:
        learning_rate: Bool, whether the bar shows the learning rate at the end of an epoch. Keras'
            callbacks that change it put it into the logs, but only after this one.
    """

    async_safe = True  # like Keras' own bar, which Keras does not ask

    def __init__(self, learning_rate=False):
        super().__init__()
        self._learning_rate = learning_rate
        self._in_fit = False  # Keras' class keeps this to itself
        self._logs: dict = {}

    def on_train_begin(self, logs=None):
        self._in_fit = True
        super().on_train_begin(logs)

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, _shortened(logs))

    def on_test_batch_end(self, batch, logs=None):
        super().on_test_batch_end(batch, _shortened(logs))

    def on_epoch_end(self, epoch, logs=None):
        self._logs = logs or {}
        shown = _shortened(logs)
        if self._learning_rate:
            rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
            shown["learning_rate"] = float(rate)
        super().on_epoch_end(epoch, shown)
        if self.verbose == 1:
            self._show_table()

    def on_train_end(self, logs=None):
        if self.verbose == 2:
            self._show_table()

    def on_test_end(self, logs=None):
        super().on_test_end(_shortened(logs))
        if self.verbose and not self._in_fit:
            self._logs = logs or {}
            self._show_table()

    def _show_table(self):
        rows = _rows(self._logs)
        if len(rows) > 2:  # else all of it is in the bar
            messages.show(_table(rows))


def _rows(logs) -> dict[int, dict]:
    """{percentage: {column: value}}, the widest first."""
    rows: dict[int, dict] = {}
    for name, value in (logs or {}).items():
        found = _COLUMN.fullmatch(name)
        if found:
            validation, percentage, column = found.groups()
            rows.setdefault(int(percentage), {})[(validation or "") + column] = value
    return dict(sorted(rows.items(), reverse=True))


def _shortened(logs) -> dict:
    """The logs without the percentages between the widest and the narrowest."""
    percentages = list(_rows(logs))
    between = {str(percentage) for percentage in percentages[1:-1]}
    shown = {}
    for name, value in (logs or {}).items():
        found = _COLUMN.fullmatch(name)
        if not found or found[2] not in between:
            shown[name] = value
    return shown


def _table(rows) -> str:
    """A row for each percentage, a column for each of its logs; in validation after training."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    names.sort(key=lambda name: name.startswith("val_"))
    cells = [["", *names]]
    for percentage, row in rows.items():
        cells.append([f"{percentage} %", *(_cell(row.get(n)) for n in names)])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    )


def _cell(value) -> str:
    """A number with four decimals; the mean of a metric that has several, as in Keras' bar."""
    return "-" if value is None else f"{float(np.mean(value)):.4f}"


# They put the learning rate into the logs.
_SCHEDULERS = (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)


def shown(method):
    """Decorates `fit` or `evaluate` of a model: `Progress` prints, unless `verbose="all"`.

    The method is given all arguments by name, positional ones as Keras' method calls them.
    """
    signature = inspect.signature(method)
    if "verbose" not in signature.parameters:
        signature = inspect.signature(getattr(keras.Model, method.__name__))

    @functools.wraps(method)
    def with_progress(self, *args, **kwargs):
        given = signature.bind(self, *args, **kwargs).arguments
        kwargs = {**given, **given.get("kwargs", {})}
        del kwargs["self"]
        kwargs.pop("kwargs", None)
        callbacks, verbose = kwargs.get("callbacks"), kwargs.get("verbose", "auto")
        if verbose == "all":
            kwargs["verbose"] = 1
        elif verbose and not isinstance(callbacks, keras.callbacks.CallbackList):
            used = [c for c in keras.tree.flatten(callbacks) if c is not None]
            if not any(isinstance(c, keras.callbacks.ProgbarLogger) for c in used):
                rate = any(isinstance(c, _SCHEDULERS) for c in used)
                kwargs["callbacks"] = [Progress(rate), *used]
        return method(self, **kwargs)

    return with_progress
