"""How a TESLA model is saved: in Keras' own formats, with the state its callbacks resume from."""

from typing import TYPE_CHECKING, Any

import keras
import numpy as np

_STEPS = "trained_steps"  # the names of callbacks' states have a dot

# To a type checker the mix-in is the model that it completes.
_Model: Any = keras.Model if TYPE_CHECKING else object


class Saved(_Model):
    """The part of `TESLA` that Keras calls to save and load it."""

    @property
    def callback_state(self) -> dict:
        """{callback: {name: NumPy array}} that callbacks find again; saved with the weights.

        A run that `callbacks.BackupAndRestore` resumes continues from it. A new `fit` does not.
        """
        return self._untracked.callback_state

    @callback_state.setter
    def callback_state(self, state):
        self._untracked.callback_state = dict(state)

    @property
    def settings(self) -> dict:
        """The constructor's arguments without the model, the percentages and the name."""
        return {key: getattr(self, key) for key in self.OBJECTS}

    def save_own_variables(self, store):
        # TESLA has no variables of its own: all are the network's.
        steps = [(percentage, n) for percentage, n in self.trained_steps.items() if n]
        if steps:
            store[_STEPS] = np.array(steps)
        for callback, state in self.callback_state.items():
            for name, value in state.items():
                store[f"{callback}.{name}"] = value

    def load_own_variables(self, store):
        states: dict[str, dict] = {}
        for key in set(store.keys()) - {_STEPS}:
            callback, _, name = key.partition(".")
            states.setdefault(callback, {})[name] = np.array(store[key])
        self.callback_state = states
        # A file of an earlier version does not say it.
        steps = np.array(store[_STEPS]).tolist() if _STEPS in store.keys() else []  # noqa: SIM118
        self.trained_steps = dict(steps)

    def get_config(self):
        return {
            "model": keras.saving.serialize_keras_object(self.network),
            **{k: keras.saving.serialize_keras_object(v) for k, v in self.settings.items()},
            "percentages": list(self.percentages),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for key in ("model", *cls.OBJECTS):
            config[key] = keras.saving.deserialize_keras_object(config.get(key), custom_objects)
        return cls(**config)

    def get_compile_config(self):
        config = super().get_compile_config()
        if config:
            config["jit_compile"] = self._untracked.jit_compile  # may be loaded on another backend
        return config

    def compile_from_config(self, config):
        config = keras.saving.deserialize_keras_object(config)
        if keras.backend.backend() == "torch":
            config["jit_compile"] = "auto"  # which cannot be True there
        self.compile(**config)
        self.optimizer.build(self.trainable_variables)
