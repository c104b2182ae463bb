"""`fit`: what it leaves behind after an interruption, and what callbacks ask about it."""

from typing import TYPE_CHECKING, Any

import keras

from keras_tesla.training import monitors, progress, trainability

# To a type checker the mix-in is the model that it completes.
_Model: Any = keras.Model if TYPE_CHECKING else object


class Fitting(_Model):
    """The part of `TESLA` that trains over epochs."""

    optimizer: Any  # Keras sets it

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
            self._use_function("train_function", self.make_train_function)
            raise

    def validates_after(self, epoch) -> bool:
        """Whether this `fit` evaluates after an epoch, if it has validation data.

        Args:
            epoch: Int, the first one is 0.
        """
        frequency = self._untracked.validation_freq
        if isinstance(frequency, int):
            return (epoch + 1) % frequency == 0
        return epoch + 1 in frequency
