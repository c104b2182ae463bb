"""Copying a model layer by layer."""

import inspect

import keras
import numpy as np

from keras_tesla.graph import inside, trials

_WITH_VOCABULARY = (
    keras.layers.IntegerLookup,
    keras.layers.StringLookup,
    keras.layers.TextVectorization,
)


def clone(model, clone_layer):
    """Builds a copy of a model's graph from copies of its layers.

    Nested models stay nested, and a layer called twice is still one layer.

    Args:
        model: A built Functional or Sequential `keras.Model`.
        clone_layer: Function from a layer to its copy: `copy_of` or one that changes it.

    Returns:
        `(clone, pairs)`: a Functional `keras.Model`, not compiled, whose weights have their initial
        values, and the list of `(layer, its copy)`.
    """
    pairs = []

    def recorded(operation):
        if not isinstance(operation, keras.Layer):  # such as that of `x + y`, without weights
            return operation_like(operation)
        pairs.append((operation, clone_layer(operation)))
        return pairs[-1][1]

    # A new model of the same graph: `clone_model` would also copy losses and metrics, which it
    # cannot do for a function that is not registered.
    if isinstance(model, keras.Sequential):
        graph = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    else:
        graph = keras.Model(model.input, model.output, name=model.name)
    copy = keras.models.clone_model(graph, clone_function=recorded, recursive=True)
    return copy, pairs


def operation_like(operation):
    """Returns a `keras.Operation`, which has no weights, for another graph."""
    try:
        config = operation.get_config()
        config.pop("name", None)  # Keras finds one that is free there
        return type(operation).from_config(config)
    except Exception:  # it was made with a function or an array
        return operation


def copy_of(layer, name=None, dtype=None, call=None):
    """Returns a layer like `layer`, with weights of its own.

    It is made from the config. A class of the user's may have none, one that lacks something, or a
    constructor that does not take all of it: then the copy runs the layer itself, see `Copied`.

    Args:
        layer: The layer, built.
        name: String, the copy's name. Default: that of the layer.
        dtype: Dtype policy or its name. Default: that of the layer.
        call: The `keras_tesla.graph.Call` of the layer. With it, what is not Keras' own is compared
            on random inputs before it is made from a config.
    """
    if type(layer) is keras.layers.Lambda:
        return lambda_like(layer, name or layer.name, dtype or layer.dtype_policy)
    changes = {key: value for key, value in (("name", name), ("dtype", dtype)) if value}
    try:
        config = {"name": layer.name, **config_of(layer)}
        if call is None or is_described(call):
            return rebuilt(type(layer), {**config, **changes})
    except ValueError:
        pass  # the copy needs no config
    return Copied(layer, name=name or layer.name, dtype=dtype or layer.dtype_policy)


def config_of(layer) -> dict:
    """Returns the config of a layer from which another one is to be made.

    An activation, regularizer, constraint or initializer that is not Keras' own is in it as it is:
    by its name another one could be found, or none.

    Raises:
        ValueError: If the layer has none; naming the layer and what it lacks.
    """
    own = {name: x for name, x in _functions(layer).items() if not _is_known(x)}
    view = layer
    if own:  # one of the layer without them: they need no config of their own then
        view = object.__new__(type(layer))
        vars(view).update(vars(layer))
        vars(view).update({name: keras.activations.linear for name in own if name in vars(layer)})
    try:
        return {**view.get_config(), **own}
    except Exception as error:  # whatever a user's class raises
        if is_stock(layer) and _takes_nothing(type(layer)):
            # Keras writes no config of an Identity that was made with a policy object.
            return {"trainable": layer.trainable, "dtype": layer.dtype_policy}
        raise ValueError(
            f"Layer {layer.name!r} ({type(layer).__name__}) must be built again, and its "
            "`get_config` fails. Give it, and what it holds, one that works. "
            f"Received: {type(error).__name__}: {str(error).strip()}"
        ) from error


def _takes_nothing(cls) -> bool:
    """Whether a constructor takes only what every layer has."""
    _, *own = inspect.signature(cls.__init__).parameters.values()
    return all(p.kind is inspect.Parameter.VAR_KEYWORD for p in own)


def _functions(layer) -> dict:
    """Returns {argument: value} of the functions that a layer was made with."""
    arguments = {
        name
        for cls in type(layer).__mro__
        if issubclass(cls, keras.Layer) and "__init__" in vars(cls)
        for name in inspect.signature(vars(cls)["__init__"]).parameters
        if name.endswith(("activation", "constraint", "initializer", "regularizer"))
    }
    found = {name: getattr(layer, name, None) for name in sorted(arguments)}
    return {name: x for name, x in found.items() if callable(x) and not isinstance(x, keras.Layer)}


def _is_known(x) -> bool:
    """Whether Keras makes an activation, regularizer, .. again from its config."""
    if not inspect.isroutine(x):
        return type(x).__module__.split(".")[0] in ("keras", "keras_tesla")
    try:
        return x is keras.activations.get(x.__name__)
    except ValueError:  # no activation of Keras
        return False


def is_described(call) -> bool:
    """Whether a layer's config says all about it, so that one made from it computes the same.

    If all in it is Keras' own, it does. Else both are called on random inputs, to find what a
    `get_config` of the user's forgets. A layer of random results, or one that refuses these inputs,
    is believed.

    Args:
        call: The `keras_tesla.graph.Call` of the layer, which is built.

    Raises:
        ValueError: If the layer has no config or cannot be made from it.
    """
    layer = call.operation
    if is_stock(layer) and all(
        is_stock(x) and all(map(_is_known, _functions(x).values())) for x in inside(layer)
    ):
        return True
    made = rebuilt(type(layer), {"name": layer.name, **config_of(layer)})

    def results(*runs):
        args, kwargs = (
            trials.with_tensors(x, trials.random_value) for x in (call.args, call.kwargs)
        )
        with keras.StatelessScope(collect_losses=True):  # nothing changes
            return [trials.arrays(run(*args, **kwargs)) for run in runs]

    try:
        first, again = results(layer, layer)
    except Exception:  # whatever a user's class raises
        return True
    try:
        made(
            *trials.with_tensors(call.args, trials.symbol),
            **trials.with_tensors(call.kwargs, trials.symbol),
        )
        copy_weights(layer, made)
        (other,) = results(made)
    except Exception:  # it lacks what it needs to run
        return False
    return not trials.equal(first, again) or trials.equal(first, other)


def rebuilt(cls, config):
    """Returns a layer of a class from a config, also where its constructor takes a part of it.

    Keras writes the config of a class that has no `get_config`. It holds what every layer has, too,
    which such a constructor need not take.

    Raises:
        ValueError: If the constructor refuses the rest.
    """
    parameters = inspect.signature(cls.__init__).parameters.values()
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    reads_config = cls.from_config.__func__ is not keras.Layer.from_config.__func__
    common = {"name", "trainable", "dtype"} - {p.name for p in parameters}
    left = {} if takes_all or reads_config else {k: v for k, v in config.items() if k in common}
    try:
        layer = cls.from_config({k: v for k, v in config.items() if k not in left})
    except Exception as error:  # whatever a user's class raises
        raise ValueError(
            f"Layer {config.get('name')!r} ({cls.__name__}) must be built again, and cannot be from"
            f" its config: {str(error).strip()}"
        ) from error
    if "dtype" in left:
        layer.dtype_policy = keras.dtype_policies.get(left.pop("dtype"))
    for attribute, value in left.items():
        setattr(layer, attribute, value)
    return layer


def is_stock(layer) -> bool:
    """Whether a layer is one of Keras or of keras_tesla, so that what it does is known."""
    return type(layer).__module__.split(".")[0] in ("keras", "keras_tesla") and not isinstance(
        layer, Copied
    )


class Copied(keras.Layer):
    """Runs another layer with weights of its own.

    For a layer that cannot be made from a config. A model with one cannot be saved, but for its
    weights; nor can the model that the layer is from.

    Args:
        layer: The layer, built; it is not changed.
        **kwargs: `name` and `dtype`.
    """

    def __init__(self, layer, **kwargs):
        super().__init__(trainable=layer.trainable, autocast=False, **kwargs)
        self.supports_masking = layer.supports_masking
        self._source = lambda: layer  # a function: not a sub-layer
        self._takes_training = "training" in inspect.signature(layer.call).parameters
        self._copies = [self._like(variable) for variable in layer.variables]
        self.built = True

    @property
    def source(self):
        """The layer that runs."""
        return self._source()

    def _like(self, variable):
        made = self.add_weight(
            name=variable.name,
            shape=variable.shape,
            dtype=variable.dtype,
            initializer="zeros",
            trainable=variable.trainable,
            regularizer=variable.regularizer,
            constraint=variable.constraint,
        )
        made.assign(np.array(keras.ops.convert_to_numpy(variable)))
        return made

    def call(self, *args, training=None, **kwargs):
        layer = self.source
        if self._takes_training:
            kwargs["training"] = training
        mapping = [
            (variable, keras.ops.cast(copy, copy.dtype))
            for variable, copy in zip(layer.variables, self._copies, strict=True)
        ]
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
            outputs = layer(*args, **kwargs)
            after = [scope.get_current_value(variable) for variable, _ in mapping]
        for copy, (_, old), new in zip(self._copies, mapping, after, strict=True):
            if new is not old:
                copy.assign(new)
        for loss in scope.losses:
            self.add_loss(loss)
        return outputs

    def compute_output_spec(self, *args, **kwargs):
        return self.source.compute_output_spec(*args, **kwargs)

    def compute_mask(self, *args, **kwargs):
        return self.source.compute_mask(*args, **kwargs)

    def get_config(self):
        raise NotImplementedError(
            f"The layer {self.name!r} runs one that has no config: give "
            f"{type(self.source).__name__} a `get_config`."
        )


def lambda_like(layer, name, dtype):
    """Returns a `Lambda` with the function of another: its config would lack the globals."""
    return keras.layers.Lambda(
        layer.function, mask=layer.mask, arguments=layer.arguments, name=name, dtype=dtype
    )


def copy_weights(source, target):
    """Gives the layer `target` the weights of its equal `source`."""
    if isinstance(target, Copied):
        return  # it has them
    # A copy: JAX would let the two share a buffer and give it away.
    target.set_weights([np.array(weight) for weight in source.get_weights()])
    for layer in (target, *inside(target)):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it computes with values that are made of its weights
    if isinstance(target, _WITH_VOCABULARY):
        vocabulary = source.get_vocabulary(include_special_tokens=False)
        if len(vocabulary):  # what it has adapted to is no weight and not in the config
            target.set_vocabulary(vocabulary)
