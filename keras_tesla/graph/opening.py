"""Which layers are opened: read as the layers and operations that their `call` consists of."""

import contextlib
import hashlib
import inspect
import weakref

import keras

from keras_tesla.graph import trials
from keras_tesla.graph.calls import Graph, Tensor, evaluate, filled, takes_training, tensors
from keras_tesla.graph.tracing import Refused, message
from keras_tesla.graph.weight import Weight

# {class of a layer, or class name of an operation of Keras: whether narrowing it saves something}
_KNOWN: dict[type | str, bool] = {}

# {layer: {what its graph is: why that is not what the layer computes, or None}}
_TRIED: weakref.WeakKeyDictionary[keras.Layer, dict] = weakref.WeakKeyDictionary()


def know(classes, narrowed: bool):
    """Declares classes that are not opened, because it is known what they do as they are.

    Args:
        classes: Layer classes; a string for an operation class of Keras' own.
        narrowed: Bool, whether narrowing saves something in them.
    """
    _KNOWN.update(dict.fromkeys(classes, narrowed))


def is_composite(layer) -> bool:
    """Whether a layer is one of the user's, or runs an activation that is."""
    if type(layer) is keras.layers.Activation:
        return inspect.isfunction(layer.activation) and not _is_keras(layer.activation)
    return is_own(layer)


def is_own(layer) -> bool:
    """Whether all of what a layer does is the user's, as far as its class says.

    Of a class that is derived from another layer than `keras.Layer` and `keras.Model`, something
    else is known: a subclass of an incomplete layer depends on the percentage, for example.
    """
    bases = [cls for cls in type(layer).__mro__ if issubclass(cls, keras.Layer)]
    return (
        bool(bases)
        and not _is_keras(bases[0])
        and {cls for cls in bases if _is_keras(cls)} <= {keras.Layer, keras.Model}
        and not any(cls in _KNOWN for cls in bases)
    )


def inside(layer):
    """Yields the layers held by a layer's attributes, at any depth."""
    seen = {id(layer)}
    queue = [layer]
    while queue:
        for value in vars(queue.pop()).values():
            if isinstance(value, dict):
                value = list(value.values())
            for x in value if isinstance(value, (list, tuple, set)) else [value]:
                if isinstance(x, keras.Layer) and id(x) not in seen:
                    seen.add(id(x))
                    queue.append(x)
                    yield x


def _is_keras(cls):
    return cls.__module__.split(".")[0] in ("keras", "keras_tesla")


def check(layer, masked: bool):
    """Refuses a layer with something that a graph does not have.

    Args:
        layer: The layer.
        masked: Bool, whether a Keras mask may reach it.

    Raises:
        Refused: Saying what.
    """
    if not layer.built:
        raise Refused("it is not built")
    if masked:
        raise Refused("a mask may reach it")
    for name in ("__call__", "compute_mask"):
        if not _is_keras(inspect.unwrap(getattr(type(layer), name))):
            raise Refused(f"its class has a `{name}` of its own")
    if getattr(layer, "activity_regularizer", None) is not None:
        raise Refused("it has an activity regularizer")
    inner = {id(v) for x in inside(layer) for v in x.variables}
    for variable in layer.variables:
        if variable.regularizer is not None and id(variable) not in inner:
            # At a percentage the weight is a constant.
            raise Refused(f"its weight {variable.name!r} has a regularizer")


def check_same(first: Graph, second: Graph):
    """Refuses a layer that is another graph in training, or each time that it is called.

    Raises:
        Refused: Saying that.
    """
    if _described(first) != _described(second):
        raise Refused(
            "its `call` is not the same each time, or depends on `training` or on the percentage"
        )


def check_variables(calls):
    """Refuses calls with a variable among their arguments, of which a copy has none of its own.

    Raises:
        Refused: Naming it.
    """
    arguments = keras.tree.flatten([(call.args, call.kwargs) for call in calls])
    for x in arguments:
        if isinstance(x, keras.Variable):
            raise Refused(f"it uses {x.path!r}, which is in no attribute of it, or by a method")


def gains(calls) -> bool:
    """Whether something among the calls can be narrowed."""
    return any(_KNOWN.get(_class_of(call.operation), False) for call in calls)


def _class_of(operation):
    if isinstance(operation, keras.Layer):
        return type(operation)
    return type(operation).__name__ if _is_keras(type(operation)) else None


def check_numbers(layer, args, kwargs, calls, outputs):
    """Refuses a layer that computes something else than its graph on random inputs.

    Also its changes of state are compared, and in training, unless its results are random then.

    Args:
        layer: The layer.
        args: Positional arguments of its call, with `Tensor` for each tensor.
        kwargs: Keyword arguments, likewise.
        calls: The calls that it consists of.
        outputs: What it returns, as a structure of `Tensor`.

    Raises:
        Refused: Saying what differs.
    """
    of_layer = _TRIED.setdefault(layer, {})
    key = str(_described(Graph(tensors((args, kwargs)), outputs, [], calls)))
    if key not in of_layer:
        of_layer[key] = _difference(layer, args, kwargs, calls, outputs)
    if of_layer[key] is not None:
        raise Refused(of_layer[key])


def _difference(layer, args, kwargs, calls, outputs) -> str | None:
    try:
        values = {t.index: trials.random_value(t) for t in tensors((args, kwargs))}
    except Exception as error:  # there are no random strings
        return f"it cannot be compared on random inputs: {message(error)}"
    given, named = filled((args, kwargs), values)

    def opened(**training):
        def compute(call, args, kwargs):
            given = training if takes_training(call.operation) else {}
            return keras.tree.flatten(call.operation(*args, **kwargs, **given))

        return filled(outputs, evaluate(calls, values, compute))

    def results(run, **training):
        with _Noting() as noting:
            computed = trials.arrays(run(**training))
        updates = [noting.updates[key] for key in sorted(noting.updates)]
        return computed + trials.arrays(updates), sorted(noting.updates), len(noting.losses)

    def whole(**training):
        return layer(*given, **named, **training)

    for training in ({}, {"training": True}):
        try:
            first, again = results(whole, **training), results(whole, **training)
        except Exception as error:  # whatever a user's class raises
            return f"it fails on random inputs, so it cannot be compared: {message(error)}"
        if not (trials.equal(first[0], again[0]) and first[1:] == again[1:]):
            if training:
                continue
            return "its results are random"
        try:
            other = results(opened, **training)
        except Exception as error:
            return f"what it consists of fails on random inputs: {message(error)}"
        if not trials.equal(first[0], other[0]) or first[1:] != other[1:]:
            return "what it consists of computes something else" + (
                " in training" if training else ""
            )
    return None


class _Noting(keras.StatelessScope):
    """Nothing changes inside; notes what would have."""

    def __init__(self):
        super().__init__(collect_losses=True)
        self.updates = {}

    def add_update(self, update):
        super().add_update(update)
        self.updates[id(update[0])] = update[1]


def _described(graph) -> list:
    """Returns what a graph computes: equal for equal graphs, with the same layers."""
    numbers: dict[int, int] = {}

    def described(x):
        if isinstance(x, Tensor):
            return "tensor", numbers.setdefault(x.index, len(numbers)), x.shape, x.dtype
        if keras.tree.is_nested(x):
            keys = list(x) if isinstance(x, dict) else None
            return type(x).__name__, keys, [described(v) for v in keras.tree.flatten(x)]
        return _value(x)

    def operation(x):
        if isinstance(x, Weight):
            return "weight", id(x.value) if x.value.trainable else _value(x.value)
        if isinstance(x, keras.Layer) and (x.variables or not _is_keras(type(x))):
            return "layer", id(x)
        if isinstance(x, keras.Layer):  # perhaps one that each call makes
            config = x.get_config()
            config.pop("name")
            return "layer", type(x), str(config)
        held = {name: value for name, value in vars(x).items() if name[0] != "_"}
        held.pop("name", None)
        return type(x).__name__, [(name, described(v)) for name, v in sorted(held.items())]

    return [
        described(graph.inputs),
        [
            (operation(c.operation), described(c.args), described(c.kwargs), described(c.outputs))
            for c in graph.calls
        ],
        described(graph.outputs),
    ]


def _value(x):
    """What tells a constant from another one."""
    if isinstance(x, keras.Variable) or keras.ops.is_tensor(x) or hasattr(x, "tobytes"):
        array = trials.arrays([x])[0]
        return "array", array.shape, str(array.dtype), hashlib.sha256(array.tobytes()).hexdigest()
    with contextlib.suppress(AttributeError):
        return "object", x.__qualname__, id(x)
    return type(x).__name__, str(x)
