"""AlternatingProfiles: weights and profile coefficients are trained alternately."""

import keras
import numpy as np

from keras_tesla.callbacks import checks, optimizer_reset
from keras_tesla.layers import IncompleteDotProduct

_PREFIX = "alternating_profiles_"


class AlternatingProfiles(keras.callbacks.Callback):
    """Trains the weights in one epoch and the trainable profiles in the next, and so on.

    In an even epoch (0, 2, ..) the coefficients are frozen, in an odd one everything else is. Each
    part has its own optimizer, whose slots are kept during the other's epochs; the coefficients'
    optimizer is like the model's with half its learning rate. When other percentages become active
    (`TaskWiseEarlyStopping`, put before this one in the list), the slots of both optimizers are
    reset, unless `reset_optimizer` is False: short random tasks learn more with slots that are
    kept. The coefficients stay non-increasing through the layers' constraint, a running minimum;
    those of private profiles, which are trained in the same epochs, are free.

    To survive a kill put `BackupAndRestore` after it.

    Args:
        optimizer: A `keras.optimizers.Optimizer` for the coefficients. Default: of the class and
            config of the model's, with half its learning rate.
        reset_optimizer: Bool, whether a new task starts with fresh slots of both optimizers.

    Raises:
        ValueError: When `fit` begins: a model that is not a `TESLA`, one without a trainable
            profile, or one whose optimizer has a learning rate schedule, with no `optimizer` given.

    Reference:
        Chang, Lin, Ou Yang, Lei, Chen: TESLA, 2018, https://openreview.net/forum?id=H1K6Tb-AZ
    """

    def __init__(self, optimizer=None, reset_optimizer=True):
        super().__init__()
        self.optimizer = optimizer
        self.reset_optimizer = reset_optimizer
        self._optimizers: tuple = ()
        self._variables: tuple[list, list] = ([], [])
        self._active: tuple[int, ...] = ()

    def on_train_begin(self, logs=None):
        checks.check_model(self)
        model = self.model
        profiles = {
            id(variable)
            for layer in model.graph.layers
            if isinstance(layer, IncompleteDotProduct)
            for variable in layer.profile_variables
        }
        variables = model.trainable_variables
        coefficients = [v for v in variables if id(v) in profiles]
        if not coefficients:
            raise ValueError(
                "No layer of the model has a trainable profile. Make an IDP layer with "
                "`trainable_profile=True` or `private_profile=True`."
            )
        weights = [v for v in variables if id(v) not in profiles]
        self._variables = (weights, coefficients)
        if not model.optimizer.built:  # BackupAndRestore loads it when the run goes on
            model.optimizer.build(variables)
        of_profiles = _slower(model.optimizer) if self.optimizer is None else self.optimizer
        of_profiles.build(coefficients)
        # The model's optimizer may have been built on all variables.
        of_weights = type(model.optimizer).from_config(model.optimizer.get_config())
        of_weights.build(weights)
        name = type(self).__name__
        of_weights = model.optimizer_of(f"{name}.weights", of_weights, weights)
        of_profiles = model.optimizer_of(
            f"{name}.profiles", of_profiles, coefficients, replaceable=self.optimizer is None
        )
        self._optimizers = (model.optimizer, of_weights, of_profiles)
        self._active = ()
        checks.keep_state(self, {})  # of another run; BackupAndRestore loads that of this one

    def on_epoch_begin(self, epoch, logs=None):
        state = checks.state_of(self)
        if not self._active and state:  # loaded by BackupAndRestore
            for name, variable in self._slots():
                variable.assign(state[name])
            # A task may have ended just before the kill: its successor starts afresh, as below.
            self._active = tuple(int(p) for p in state["active"])
        self._train(epoch % 2)

    def on_train_batch_begin(self, batch, logs=None):
        if batch != 0:
            return
        # Not in `on_epoch_begin`: another callback may activate the percentages there after us.
        active = self.model.active_percentages
        if self._active and self._active != active and self.reset_optimizer:
            for optimizer, variables in zip(self._optimizers[1:], self._variables, strict=True):
                optimizer_reset.reset(optimizer, variables)
        self._active = active

    def on_epoch_end(self, epoch, logs=None):
        slots = {name: np.array(keras.ops.convert_to_numpy(v)) for name, v in self._slots()}
        self._train(None)
        checks.keep_state(self, {**slots, "active": np.array(self._active)})

    def on_train_end(self, logs=None):
        self._train(None)
        checks.keep_state(self, {})

    def _slots(self):
        """Yields (name in the saved state, variable) of both optimizers."""
        for i, optimizer in enumerate(self._optimizers[1:]):
            for j, variable in enumerate(optimizer.variables):
                yield f"{i}_{j}", variable

    def _train(self, which):
        """Trains the weights (0), the coefficients (1), or, between epochs, all (None)."""
        for i, variables in enumerate(self._variables):
            for variable in variables:
                variable.trainable = which in (None, i)
        model = self.model
        model.optimizer = self._optimizers[0 if which is None else 1 + which]
        model.activate(model.active_percentages)


def _slower(optimizer):
    config = optimizer.get_config()
    if not isinstance(config["learning_rate"], float):
        raise ValueError(
            "Half of a learning rate schedule is not defined. Pass `optimizer=` for the profile "
            f"coefficients. Received: {config['learning_rate']!r}"
        )
    return type(optimizer).from_config({**config, "learning_rate": config["learning_rate"] / 2})
