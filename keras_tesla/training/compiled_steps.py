"""Keeps Keras' compiled steps, so that returning percentages need no new compilation."""


class CompiledSteps:
    """The train and test functions of a model by what they were compiled for."""

    def __init__(self):
        self._functions: dict[tuple, tuple] = {}

    def clear(self):
        """Forgets all of them."""
        self._functions.clear()

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
