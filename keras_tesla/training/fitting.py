"""`fit`: what it leaves behind after an interruption, and what callbacks ask about it."""

from typing import TYPE_CHECKING, Any

import keras

from keras_tesla.training import monitors, progress, trainability

# To a type checker the mix-in is the model that it completes.
_Model: Any = keras.Model if TYPE_CHECKING else object


class Fitting(_Model):
    """The part of `TESLA` that trains over epochs."""

    optimizer: Any  # Keras sets them
    train_function: Any

    @progress.shown
    def fit(self, *args, **kwargs):
        """Trains, as `keras.Model.fit` does; `verbose="all"` shows all columns in the bar.

        After an exception or an interruption the active percentages, the model's optimizer and the
        weights that train are those from before; progress of callbacks is forgotten, unless
        `callbacks.BackupAndRestore` has saved it. Weights, slots and the learning rate stay as they
        are.
        """
        if not self.compiled:
            return super().fit(*args, **kwargs)  # Keras says what is missing
        optimizer, active = self.optimizer, self._tasks.active
        self._tasks.check_layers()
        trains = trainability.of(self.network, self.graph.layers)
        monitors.set_modes(kwargs.get("callbacks"))  # `shown` passes all arguments by name
        self._untracked.validation_freq = kwargs.get("validation_freq", 1)
        try:
            return super().fit(*args, **kwargs)
        except BaseException:
            trainability.restore(trains)
            self.callback_state = {}
            self.optimizer = optimizer
            self._set_active(active)
            self._use_train_function()
            raise

    def make_train_function(self, force=False):
        """Makes Keras' compiled step for the active percentages; it counts its calls."""
        before = self.train_function
        super().make_train_function(force)
        if self.train_function is before:
            return
        step, active, counts = self.train_function, self._tasks.active, self._untracked.steps

        def counted(*args):
            logs = step(*args)
            counts[active] += self.steps_per_execution
            return logs

        self.train_function = counted

    def optimizer_of(self, role: str, fresh, variables, replaceable: bool = True):
        """Returns the optimizer with which a callback trains a part of the variables.

        Compiled steps belong to an optimizer. So where only numbers differ, that of an earlier
        `fit` is taken again, with the numbers of the fresh one; where more does, its steps are
        forgotten.

        Args:
            role: String, who trains with it.
            fresh: A built `keras.optimizers.Optimizer`.
            variables: Those that it was built with.
            replaceable: Bool, whether it may be another object than `fresh`.
        """
        return self._untracked.compiled_steps.optimizer(role, fresh, variables, replaceable)

    @property
    def trained_steps(self) -> dict[int, int]:
        """{percentage: steps that trained it}, of all that were taken; saved with the weights.

        A step is one of `fit` or `train_on_batch` while the percentage is active. With
        `steps_per_execution` above 1, the last execution of an epoch counts as a whole one. Loops
        of your own are not seen.
        """
        steps = self._untracked.steps
        return {p: sum(n for active, n in steps.items() if p in active) for p in self.percentages}

    @trained_steps.setter
    def trained_steps(self, steps):
        counts = self._untracked.steps  # compiled steps count in it
        counts.clear()
        counts.update({(percentage,): n for percentage, n in steps.items() if n})

    def validates_after(self, epoch) -> bool:
        """Whether this `fit` evaluates after an epoch, if it has validation data.

        Args:
            epoch: Int, the first one is 0.
        """
        frequency = self._untracked.validation_freq
        if isinstance(frequency, int):
            return (epoch + 1) % frequency == 0
        return epoch + 1 in frequency
