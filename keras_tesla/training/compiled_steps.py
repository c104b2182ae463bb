"""Keeps Keras' compiled steps, so that returning percentages need no new compilation."""

import dataclasses
from typing import Any


class CompiledSteps:
    """The train and test functions of a model by what they were compiled for.

    A train function holds the optimizer that it was compiled for. Those of callbacks are kept too,
    one for each role, so that another `fit` adds no further functions.
    """

    def __init__(self):
        self._functions: dict[tuple, tuple] = {}
        self._optimizers: dict[str, _Kept] = {}

    def __len__(self):
        return len(self._functions)

    def clear(self):
        """Forgets all of them."""
        self._functions.clear()
        self._optimizers.clear()

    def use(self, model, name: str, make, settings: tuple, owners: tuple):
        """Sets a function of a model to the one for some settings; makes it if there is none.

        Args:
            model: The model.
            name: `"train_function"` or `"test_function"`.
            make: Keras' method that makes it.
            settings: Hashable values that the compiled function depends on.
            owners: Objects that it depends on. They are kept, so that no other one gets their id.
        """
        key = (name, settings, tuple(map(id, owners)))
        if key not in self._functions:
            make(force=True)
            self._functions[key] = getattr(model, name), owners
        setattr(model, name, self._functions[key][0])

    def optimizer(self, role: str, fresh, variables: list, replaceable: bool):
        """Returns the optimizer of a role: the kept one as if it were fresh, or the fresh one.

        Args:
            role: Who trains with it.
            fresh: A `keras.optimizers.Optimizer`, built.
            variables: What it was built with.
            replaceable: Bool, whether the kept one may be used in its place, where the two differ
                in numbers only. If not, what was compiled for the kept one is forgotten.
        """
        new, kept = _Kept(fresh, variables), self._optimizers.get(role)
        if kept is not None and kept.optimizer is not fresh:
            if replaceable and kept.is_like(new):
                kept.assign(new)
                return kept.optimizer
            self._forget(kept.optimizer)
        self._optimizers[role] = new
        return fresh

    def _forget(self, owner):
        self._functions = {
            key: (function, owners)
            for key, (function, owners) in self._functions.items()
            if not any(other is owner for other in owners)
        }


@dataclasses.dataclass(frozen=True, eq=False)
class _Kept:
    """An optimizer and the variables that it was built with."""

    optimizer: Any
    variables: list

    def is_like(self, other) -> bool:
        """Whether a step compiled for this one computes what one for another would."""
        return self._kind() == other._kind()

    def assign(self, other):
        """Gives the learning rate, the counters and the slots of another one to this one."""
        for variable, value in zip(
            self.optimizer.variables, other.optimizer.variables, strict=True
        ):
            variable.assign(value)

    def _kind(self):
        config = self.optimizer.get_config()
        if isinstance(config.get("learning_rate"), float):
            del config["learning_rate"]  # a variable
        return type(self.optimizer), config, [id(variable) for variable in self.variables]
