"""TaskWiseEarlyStopping: the percentages are trained one after the other."""

import warnings
from typing import Any

import keras
import numpy as np

from keras_tesla import messages
from keras_tesla.callbacks import checks, optimizer_reset
from keras_tesla.training import monitors


class TaskWiseEarlyStopping(keras.callbacks.Callback):
    """Trains a `TESLA` model task by task, each until its monitored value stops improving.

    The tasks are the percentages from the highest to the lowest. Task t optimizes the aggregated
    loss of the first t percentages, starting from the best weights of task t - 1 with fresh
    optimizer slots. With `order="random"` (R-TESLA) each task is one percentage, drawn again when
    the last one has ended, until the epochs are used up. When a task stops improving, its best
    weights are kept and the next task begins; training ends after the last one. The arguments mean
    the same as in `keras.callbacks.EarlyStopping`, for each task separately. All tasks share the
    epochs.

    A killed run continues in the middle of its task if `BackupAndRestore` comes after this callback
    in the list: the state of the task is saved with the weights.

    A loss that is not finite ends training if `keras.callbacks.TerminateOnNaN` is in the list. The
    model then has the best weights of its task so far or, if there are none, those that the task
    began with, and the optimizer has fresh slots.

    Args:
        monitor: Name in the logs. `{percentage}` stands for the current task's:
            `"val_p{percentage}_accuracy"`. Default: `"val_loss"`, the aggregated loss of the tasks
            so far.
        min_delta: Float, the least change that counts as an improvement.
        patience: Int, epochs without improvement after which a task ends.
        last_patience: Int, the same for the last task, which trains every percentage: more patience
            there spends the remaining epochs where all percentages gain. Default: `patience`.
        verbose: 0, or 1 for a line at the end of each task.
        mode: `"auto"`, `"min"` or `"max"`. `"auto"`: min for a loss, max for an accuracy or AUC.
        restore_best_weights: Bool, whether a task passes on its best weights or its last ones.
        start_from_epoch: Int, epochs of each task before monitoring begins.
        reset_optimizer: Bool, whether each task starts with fresh optimizer slots (the step count
            included, so a learning rate schedule starts again).
        order: `"descending"` or `"random"`.
        probabilities: Dict {percentage: positive weight}, what a random task is drawn from, such as
            how often each percentage will run on the phone. Default: uniform.
        seed: Int, of the random order.

    Raises:
        ValueError: At construction: a monitor whose direction cannot be known from its name, with
            `mode="auto"`; an unknown order; probabilities that are not positive, or given for a
            descending order. When `fit` begins: a model that is not a `TESLA`; probabilities of
            percentages that it does not train. At the end of an epoch: a monitor that is not in
            the logs.

    Example:

    >>> stopping = TaskWiseEarlyStopping(monitor="val_p{percentage}_accuracy", patience=2)
    >>> stopping.monitor_of(30)
    'val_p30_accuracy'

    Reference:
        Chang, Lin, Ou Yang, Lei, Chen: TESLA, 2018, https://openreview.net/forum?id=H1K6Tb-AZ
    """

    def __init__(
        self,
        monitor="val_loss",
        min_delta=0,
        patience=0,
        last_patience=None,
        verbose=0,
        mode="auto",
        restore_best_weights=True,
        start_from_epoch=0,
        reset_optimizer=True,
        order="descending",
        probabilities=None,
        seed=0,
    ):
        super().__init__()
        self.monitor = monitor
        self.verbose = verbose
        self.reset_optimizer = reset_optimizer
        if order not in ("descending", "random"):
            raise ValueError(f"`order` must be 'descending' or 'random'. Received: {order!r}")
        if probabilities is not None:
            if order != "random":
                raise ValueError("`probabilities` are for `order='random'`.")
            checks.check_probabilities(probabilities)
        self.order = order
        self.probabilities = probabilities
        self.seed = seed
        self._patience = patience
        self._last_patience = patience if last_patience is None else last_patience
        self._settings = {
            "min_delta": min_delta,
            "mode": _direction(monitor) if mode == "auto" else mode,
            "restore_best_weights": restore_best_weights,
            "start_from_epoch": start_from_epoch,
        }
        self._stopper: Any = None
        self._task = 0
        self._begin = 0
        self._last_epoch = -1
        self._first_weights: list = []  # what a task began with, until it has best ones

    def monitor_of(self, percentage: int) -> str:
        """Returns the name in the logs that a task's end depends on."""
        return self.monitor.replace("{percentage}", str(percentage))

    @property
    def current_percentage(self) -> int:
        """The percentage of the current task."""
        return self._tasks(self._task + 1)[-1]

    def _tasks(self, count) -> tuple[int, ...]:
        """The percentages of the first `count` tasks."""
        known = self.model.percentages
        if self.order == "descending":
            return known[:count]
        weighted = self.probabilities or dict.fromkeys(known, 1)
        weights = np.array([weighted.get(p, 0) for p in known])
        # Drawn from the start, so that a run that continues after a kill draws the same.
        rng = np.random.default_rng(self.seed)
        return tuple(int(p) for p in rng.choice(known, count, p=weights / weights.sum()))

    def _is_last(self, task):
        return self.order == "descending" and task + 1 == len(self.model.percentages)

    def on_train_begin(self, logs=None):
        checks.check_model(self)
        unknown = sorted(set(self.probabilities or ()) - set(self.model.percentages))
        if unknown:
            raise ValueError(
                f"The model's percentages are {list(self.model.percentages)}. Received "
                f"probabilities of {unknown} in addition."
            )
        self._stopper, self._last_epoch = None, -1
        checks.keep_state(self, {})  # of another run; BackupAndRestore loads that of this one

    def on_epoch_begin(self, epoch, logs=None):
        # Not in `on_train_begin`: BackupAndRestore may load the weights there after us.
        if self._stopper is None:
            self._resume(epoch)
            self.model.reset_metrics()

    def on_epoch_end(self, epoch, logs=None):
        if not np.isfinite((logs or {}).get("loss", 0)) and self.model.stop_training:
            self._leave_finite()  # TerminateOnNaN ends the run
            return
        self._check_monitored(epoch, logs or {})
        self._last_epoch = epoch
        if self.model.stop_training:  # another callback does
            return
        self._stopper.on_epoch_end(epoch - self._begin, logs)
        if self.model.stop_training:
            self._finish(epoch)
            if not self._is_last(self._task):
                self.model.stop_training = False
                self._start(self._task + 1, epoch + 1)
                if self.reset_optimizer:
                    self._reset_optimizer()
        if self._stopper.best_weights:
            self._first_weights = []
        checks.keep_state(self, self._state())

    def _check_monitored(self, epoch, logs):
        """Refuses a column that the logs of an epoch should have and have not."""
        monitor = self._stopper.monitor
        validation = monitor.startswith("val_")
        if monitor in logs or (validation and not self.model.validates_after(epoch)):
            return
        why = ""
        if validation and not any(name.startswith("val_") for name in logs):
            why = ": `fit` got no validation data"
        raise ValueError(
            f"The logs have no column {monitor!r}{why}. They have {sorted(logs)}. "
            f"Received: monitor={self.monitor!r}"
        )

    def on_train_end(self, logs=None):
        if self._stopper is None:
            if not checks.state_of(self):
                return
            self._resume(0)  # killed after its last epoch: there is none left to begin
        self._stopper.on_train_end()
        # The epochs may be used up just when a task ends: the next one has begun, untrained.
        trained = self._task + (self._last_epoch >= self._begin)
        done = self._tasks(trained)
        untrained = [p for p in self.probabilities or self.model.percentages if p not in done]
        checks.keep_state(self, {})
        self.model.activate(self.model.percentages)
        self._stopper = None
        if untrained:
            warnings.warn(
                f"Training ended before the tasks of {untrained} %. Give `fit` more epochs, "
                "or the tasks less patience.",
                stacklevel=2,
            )

    def _start(self, task, epoch):
        self._task, self._begin = task, epoch
        tasks = self._tasks(task + 1)
        self.model.activate(tasks if self.order == "descending" else tasks[-1:])
        self._stopper = keras.callbacks.EarlyStopping(
            monitor=self.monitor_of(self.current_percentage),
            patience=self._last_patience if self._is_last(task) else self._patience,
            **self._settings,
        )
        self._stopper.set_model(self.model)
        self._stopper.on_train_begin()
        self._first_weights = self.model.get_weights()

    def _reset_optimizer(self):
        optimizer_reset.reset(self.model.optimizer, self.model.trainable_variables)

    def _leave_finite(self):
        self.model.set_weights(self._stopper.best_weights or self._first_weights)
        self._reset_optimizer()

    def _finish(self, epoch):
        self._stopper.on_train_end()
        if self.verbose:
            best = self._stopper.best
            messages.show(
                f"Epoch {epoch + 1}: task {self.current_percentage} % ends, best "
                f"{self._stopper.monitor} {float(best):.5g}"
            )

    def _state(self) -> dict:
        stopper = self._stopper
        state = {
            "task": self._task,
            "begin": self._begin,
            "last_epoch": self._last_epoch,
            "wait": stopper.wait,
        }
        if stopper.best is not None:
            state.update(best=float(stopper.best), best_epoch=stopper.best_epoch)
        for i, weight in enumerate(stopper.best_weights or []):
            state[f"best_weight_{i}"] = weight
        for i, weight in enumerate(self._first_weights):
            state[f"first_weight_{i}"] = weight
        return {name: np.asarray(value) for name, value in state.items()}

    def _resume(self, epoch):
        """Begins the first task, or continues the one that was killed."""
        state = checks.state_of(self)
        self._start(int(state["task"]) if state else 0, epoch)
        if state:
            self._restore(state)

    def _restore(self, state):
        stopper = self._stopper
        self._begin, self._last_epoch = int(state["begin"]), int(state["last_epoch"])
        stopper.wait = int(state["wait"])
        if "best" in state:
            stopper.best, stopper.best_epoch = float(state["best"]), int(state["best_epoch"])
        stopper.best_weights = _weights(state, "best") or None
        self._first_weights = _weights(state, "first")


def _weights(state, which) -> list:
    count = sum(name.startswith(f"{which}_weight_") for name in state)
    return [state[f"{which}_weight_{i}"] for i in range(count)]


def _direction(monitor):
    direction = monitors.direction(monitor)
    if direction is None:
        raise ValueError(
            f"Whether {monitor!r} should fall or rise cannot be told from its name. Pass "
            "`mode='min'` or `mode='max'`."
        )
    return direction
