"""Calling a layer's `call` on KerasTensors."""

import inspect
import os
import pathlib
import re
import sys
import traceback

import keras
import numpy as np

from keras_tesla.graph.calls import Tensor, takes_training, tensors
from keras_tesla.graph.weight import Weight


class Refused(Exception):
    """What a layer computes cannot be read; the message says why."""


class Shadow(keras.Operation):
    """Stands for an operation in a graph, so that the operation itself is not called.

    Its `layer.output` stays as it is, and operations of one name can be in one graph.
    """

    def __init__(self, operation):
        super().__init__()
        self.operation = operation

    def compute_output_spec(self, *args, **kwargs):
        return self.operation.compute_output_spec(*args, **kwargs)


def traced(layer, args, kwargs, training):
    """Returns what a layer computes, as a Functional model of a `Shadow` for each of its layers.

    Its `call` runs on a view of the layer: an object of its class whose layers are shadows and
    whose weights are KerasTensors.

    Args:
        layer: The layer, built.
        args: Positional arguments of the call, with `Tensor` for each tensor.
        kwargs: Keyword arguments, likewise.
        training: Bool, the argument `training` of its `call`.

    Returns:
        A `keras.Model`. Its inputs are the tensors among the arguments, flat.

    Raises:
        Refused: If that fails, or something of it would be lost.
    """
    inputs = {
        t.index: keras.Input(batch_shape=t.shape, dtype=t.dtype) for t in tensors((args, kwargs))
    }
    if not inputs:
        raise Refused("it is called on no tensor")
    tracing = _Tracing(layer, next(iter(inputs.values())), training)
    given, named = keras.tree.map_structure(
        lambda x: tracing.autocast(inputs[x.index]) if isinstance(x, Tensor) else x, (args, kwargs)
    )
    if takes_training(layer):
        named["training"] = training
    with _Watch() as watch:
        try:
            outputs = tracing.view.call(*given, **named)
        except Refused:
            raise
        except Exception as error:  # whatever a user's class raises
            raise Refused(f"its `call` fails on KerasTensors: {_where(error)}") from error
    watch.check()
    tracing.check_unchanged()
    tracing.build_constants()
    if not all(keras.backend.is_keras_tensor(x) for x in keras.tree.flatten(outputs)):
        raise Refused("it returns what does not depend on its inputs, or is no tensor")
    try:
        return keras.Model(list(inputs.values()), outputs)
    except ValueError as error:  # such as two layers of one name in an object that holds them
        raise Refused(f"its layers make no graph: {error}") from error


class _Watch(keras.StatelessScope):
    """Notes whether a weight is read or assigned as a value."""

    def __init__(self):
        super().__init__(collect_losses=True)
        self._reasons = []

    def get_current_value(self, variable):
        self._reasons.append(f"it computes with the value of {variable.path!r} that it has now")
        return super().get_current_value(variable)

    def add_update(self, update):
        self._reasons.append(f"it changes the state {update[0].path!r}")

    def check(self):
        if self.losses:
            self._reasons.append("it adds losses")
        if self._reasons:
            # A change says more than that the old value was read for it.
            raise Refused(self._reasons[-1])


class _Tracing:
    """Makes the view of a layer, and what is in place of its layers and weights.

    Args:
        layer: The layer.
        token: A KerasTensor of the graph: operations must have an input.
        training: Bool, what `training` is in this call.
    """

    def __init__(self, layer, token, training):
        self._layer = layer
        self._token = token
        self._training = training
        self._constants: list[tuple] = []
        self._known: dict[int, tuple] = {}  # {id: (a layer or weight, what is in its place)}
        self.view = object.__new__(type(layer))
        self._attributes = {name: self.in_place_of(x) for name, x in vars(layer).items()}
        vars(self.view).update({name: _copied(x) for name, x in self._attributes.items()})

    def in_place_of(self, x):
        """Returns what the view has in place of an attribute of the layer."""
        if isinstance(x, (keras.Variable, keras.Layer)):
            if id(x) not in self._known:
                is_layer = isinstance(x, keras.Layer)
                made = _StandIn(x, self) if is_layer else self._weight(x)
                self._known[id(x)] = x, made
            return self._known[id(x)][1]
        if isinstance(x, dict):
            return {key: self.in_place_of(value) for key, value in x.items()}
        if isinstance(x, list):
            return [self.in_place_of(value) for value in x]
        if isinstance(x, set):
            return {self.in_place_of(value) for value in x}
        if isinstance(x, tuple):  # on TensorFlow of a class of its own
            values = [self.in_place_of(value) for value in x]
            return x._make(values) if hasattr(x, "_make") else tuple(values)
        return x

    def _weight(self, variable):
        return Shadow(Weight.of(variable, self._layer.dtype_policy))(self._token)

    def constant(self, value):
        """Returns a KerasTensor for an array that a layer is called on."""
        if not (isinstance(value, np.ndarray) or keras.ops.is_tensor(value)):
            return value
        array = np.asarray(keras.ops.convert_to_numpy(value))
        self._constants.append((Weight.like(array), array))
        return Shadow(self._constants[-1][0])(self._token)

    def build_constants(self):
        """Gives the constants their values, outside of the scope in which `call` ran."""
        for weight, array in self._constants:
            weight.build()
            weight.value.assign(array)

    def autocast(self, x):
        """Does to an argument what `__call__` of the layer does."""
        dtype = self._layer.input_dtype
        casts = self._layer.autocast and keras.backend.is_float_dtype(x.dtype)
        return keras.ops.cast(x, dtype) if casts and x.dtype != dtype else x

    def without_training(self, layer, args, kwargs):
        """Returns the arguments of a call without `training`, which comes from the model's call."""
        names = [
            p.name
            for p in inspect.signature(layer.call).parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        if "training" in names and len(args) > (place := names.index("training")):
            kwargs = {**kwargs, **dict(zip(names[place:], args[place:], strict=False))}
            args = args[:place]
        training = kwargs.pop("training", None)
        if training is not None and training is not self._training:
            raise Refused(f"it calls {layer.name!r} with training={training}, always")
        return args, kwargs

    def check_unchanged(self):
        """Refuses a layer whose `call` changed one of its attributes."""
        now = {name: keras.tree.flatten(x) for name, x in vars(self.view).items()}
        before = {name: keras.tree.flatten(x) for name, x in self._attributes.items()}
        changed = [
            name
            for name in sorted({*now, *before})
            if len(now.get(name, [])) != len(before.get(name, []))
            or name not in before
            or any(a is not b for a, b in zip(now[name], before[name], strict=True))
        ]
        if changed:
            raise Refused(f"its `call` changes its attributes {changed}")


class _StandIn(Shadow):
    """Stands for a layer inside of the traced one; its attributes are those of the layer."""

    def __init__(self, layer, tracing):
        super().__init__(layer)
        self._tracing = tracing

    def __call__(self, *args, **kwargs):
        tracing = self._tracing
        args, kwargs = tracing.without_training(self.operation, args, dict(kwargs))
        if not any(map(keras.backend.is_keras_tensor, keras.tree.flatten((args, kwargs)))):
            args, kwargs = keras.tree.map_structure(tracing.constant, (args, kwargs))
            if not any(map(keras.backend.is_keras_tensor, keras.tree.flatten((args, kwargs)))):
                raise Refused(f"it calls {self.operation.name!r} on no tensor")
        return super().__call__(*args, **kwargs)

    def __getattr__(self, name):
        if name in ("operation", "_tracing"):  # not set yet
            raise AttributeError(name)
        return self._tracing.in_place_of(getattr(self.operation, name))


def _copied(x):
    return type(x)(x) if type(x) in (dict, list) else x


def message(error) -> str:
    """Returns the class and the first line of an error, without what Keras puts around it."""
    plain = re.sub(r"\x1b\[\d*m", "", str(error))
    lines = [line.strip() for line in plain.split("\n")]
    rest = [x for x in lines if x and not x.startswith("Exception encountered when calling")]
    return f"{type(error).__name__}: {rest[0]}" if rest else type(error).__name__


def _where(error) -> str:
    """Returns the error with the line of the user's code that raised it."""
    packages = ("keras", "keras_tesla", "numpy", "tensorflow", "jax", "torch")
    below = [
        str(pathlib.Path(sys.modules[name].__file__ or "").parent) + os.sep
        for name in packages
        if name in sys.modules
    ]
    lines = [
        f"{pathlib.Path(frame.filename).name}:{frame.lineno}: `{frame.line}`"
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(tuple(below))
    ]
    return message(error) + (f" ({lines[-1]})" if lines else "")
