"""Which kind a layer is of."""

import copy

import keras

from keras_tesla.cloning import is_stock
from keras_tesla.graph import know
from keras_tesla.kinds.kind import Kind, Whole

_KINDS: dict[type | str, Kind] = {}  # a string: the class name of an operation of Keras' own
_UNKNOWN = Kind()
_TAUGHT: set[type] = set()  # by `register_kind`


def register(kind: Kind, *classes: type | str):
    """Declares that layers of exactly these classes are of a kind.

    Args:
        kind: The kind.
        *classes: Layer classes; a string for a class of Keras without a public name: `"Add"` for
            the operation `x + y`, `"applications.LayerScale"` for a layer of keras.applications.
    """
    _KINDS.update(dict.fromkeys(classes, kind))
    know(classes, narrowed=not isinstance(kind, Whole))


def register_kind(cls, kind=None, *, like=None):
    """Teaches the library a layer of your own, so that it is narrowed instead of computed in full.

    A layer that is not registered reads all of its inputs and computes all of its outputs at every
    percentage, which is right and saves nothing. Subclasses of `cls` are not registered with it:
    they may compute something else.

    Register before a model with the layer is given to keras_tesla, and again in a program that
    loads it: a kind is not saved.

    Args:
        cls: A subclass of `keras.layers.Layer`.
        kind: A `keras_tesla.kinds.Kind`. If it is wrong, for example says that each channel is
            computed separately although the layer mixes them, results at a percentage are wrong:
            compare `TESLA.at(p)` once with the model in a `percentage_scope`.
        like: Instead of `kind`, a class whose kind `cls` shares, such as `keras.layers.ReLU`. Its
            attributes that the kind reads (`activation`, `kernel`, ..) must mean what they mean
            there. `to_idp` leaves the layer as it is, even if it converts `like`.

    Raises:
        ValueError: If `cls` is not a layer class, or is one that the library already knows; if not
            exactly one of `kind` and `like` is given; if `kind` is not a `Kind`; if `like` has no
            kind, or depends on the percentage, as the incomplete layers do.

    Example:

    >>> class Shifted(keras.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.shift = self.add_weight(shape=input_shape[-1:], name="shift")
    ...
    ...     def call(self, x):
    ...         return x + self.shift
    >>> class ShiftedKind(kt.kinds.Channelwise):
    ...     weight_axes = {"shift": (None, 0)}
    >>> kt.register_kind(Shifted, ShiftedKind())
    >>> model = keras.Sequential(
    ...     [keras.Input((8,)), keras.layers.Dense(6), Shifted(), IDPDense(3)])
    >>> tuple(TESLA(model, percentages=[100, 50]).at(50).layers[2].shift.shape)
    (3,)
    """
    if not (isinstance(cls, type) and issubclass(cls, keras.Layer)):
        raise ValueError(f"`cls` must be a subclass of `keras.layers.Layer`. Received: {cls!r}")
    if cls in _KINDS and cls not in _TAUGHT:
        raise ValueError(
            f"What {cls.__name__} does is already known; register a class of your own. "
            f"Received: {cls!r}"
        )
    if (kind is None) == (like is None):
        raise ValueError(
            "Give either `kind` or `like`: how the layer treats channels, or a class that treats "
            f"them alike. Received: kind={kind!r}, like={like!r}"
        )
    if like is not None:
        known = isinstance(like, type) and like in _KINDS
        if not known or isinstance(_KINDS[like], Whole):
            raise ValueError(
                "`like` must be a layer class that the library understands, such as "
                f"`keras.layers.ReLU`. Received: {like!r}"
            )
        kind = copy.copy(_KINDS[like])
        if kind.depends:
            raise ValueError(
                f"No layer can be like {like.__name__}: at a percentage it becomes its stock "
                "layer, and what a subclass does besides would be lost. Give a `kind`. "
                f"Received: like={like.__name__} for {cls!r}"
            )
        kind.incomplete = None  # it would not compute what the layer does
    if not isinstance(kind, Kind):
        raise ValueError(
            "`kind` must be an object of a subclass of `keras_tesla.kinds.Kind`, such as "
            f"`Channelwise()`. Received: {kind!r}"
        )
    register(kind, cls)
    _TAUGHT.add(cls)


def kind_of(operation) -> Kind:
    """Returns the kind of a layer or operation of a graph; of a subclass of a known class, none."""
    return _KINDS.get(_key(type(operation)), _UNKNOWN).of(operation)


def _key(cls) -> type | str:
    """Returns what a class is registered under, if it is."""
    if cls.__module__.split(".")[0] != "keras":
        return cls
    if not issubclass(cls, keras.Layer):
        return cls.__name__
    return f"applications.{cls.__name__}" if ".applications." in cls.__module__ else cls


def inherited_kind_of(operation) -> Kind:
    """Returns the kind of the nearest known base class, for what a subclass may be taken to share.

    A subclass of an incomplete layer depends on the percentage, and one of Dense costs what that
    costs; how it treats channels is another question (`kind_of`).
    """
    if not isinstance(operation, keras.Layer):
        return kind_of(operation)
    found = (_KINDS[cls] for cls in type(operation).__mro__ if cls in _KINDS)
    return next(found, _UNKNOWN).of(operation)


def is_incomplete(layer) -> bool:
    """Whether the dot products of a layer are incomplete at a percentage."""
    kind = inherited_kind_of(layer)
    return kind.depends and kind.projects


def multiply_adds_of(call, weights=None) -> int | None:
    """Returns the multiply-adds of one example through one call of a layer or operation.

    Args:
        call: The call.
        weights: {path: weight} that the layer runs with. Default: all of its own.

    Returns:
        Int; None if nobody knows: for a layer of the user's that no kind counts, or a model.

    Raises:
        ValueError: If a dimension is unknown.
    """
    layer = call.operation
    kind = inherited_kind_of(layer)
    if type(kind) is Kind and (isinstance(layer, keras.Model) or not is_stock(layer)):
        return None
    return kind.multiply_adds(call, kind.weights(layer) if weights is None else weights)


def registered() -> dict[type | str, Kind]:
    """Returns {class: its kind} of all registered classes."""
    return dict(_KINDS)
