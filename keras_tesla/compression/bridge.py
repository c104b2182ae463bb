"""From Keras 3 to tf_keras, the Keras 2 that tensorflow-model-optimization takes."""

import inspect
import math

import keras
import numpy as np

from keras_tesla import graph as graphs
from keras_tesla.compression import packages
from keras_tesla.names import unique_name
from keras_tesla.tflite import verify
from keras_tesla.training.tesla import TESLA

# The layers that tensorflow-model-optimization puts around others.
PRUNING, CLUSTERING, QUANTIZATION = "PruneLowMagnitude", "ClusterWeights", "QuantizeWrapperV2"
WRAPPERS = (PRUNING, CLUSTERING, QUANTIZATION, "QuantizeLayer")

_RENAMED = {("LeakyReLU", "negative_slope"): "alpha"}
_EXAMPLES = 4


def to_tf_keras(model):
    """Returns the same network as a tf_keras (Keras 2) model with a copy of the weights.

    The two agree: every layer, and the model, was run in both on random inputs, and the outputs
    are equal within the rounding of float32, 1e-5 of the largest (more for a network of less
    precision, since the result computes in float32). Regularizers, constraints and `trainable`
    are kept, initializers are not. Nested models are inlined. A slice of the channels, as
    `tesla.at(p)` has them where layers read different parts of a tensor, becomes Reshape,
    Cropping2D, Reshape.

    Args:
        model: A Functional or Sequential `keras.Model` of stock layers, such as `tesla.at(p)`,
            with known dimensions but the batch.

    Returns:
        A Functional `tf_keras.Model` with the same structure of inputs and outputs and the same
        names, not compiled.

    Raises:
        ValueError: If `model` is something else; if a layer has no twin in tf_keras, or its
            twin gives other outputs. The message names the layer.
        RuntimeError: Another backend than TensorFlow.
        ImportError: If tf_keras or tensorflow-model-optimization is not installed.
    """
    tf_keras, _ = packages.load()
    _check(model)
    graph = graphs.read(model)
    for layer in graph.layers:
        _check_layer(layer)
    examples = verify.example_inputs(model, _EXAMPLES)
    allowed = verify.tolerance(model)
    symbols, values = {}, {}  # by the index of the tensor: of tf_keras; numbers that Keras computed
    for tensor, name in zip(keras.tree.flatten(graph.inputs), graph.input_names, strict=True):
        symbols[tensor.index] = tf_keras.Input(
            batch_shape=tensor.shape, dtype=tensor.dtype, name=name
        )
        values[tensor.index] = keras.ops.convert_to_tensor(examples[name])
    twins: dict[int, list] = {}  # by the id of the layer: one that is called twice stays one
    taken = set(graph.input_names)

    def rebuild(call, args, kwargs):
        operation = call.operation
        try:
            if id(operation) not in twins or not isinstance(operation, keras.Layer):
                twins[id(operation)] = _twin(call, unique_name(operation.name, taken), tf_keras)
            twin = twins[id(operation)]
            outputs = _run(twin, call, *graphs.filled((call.args, call.kwargs), symbols))
            if isinstance(operation, keras.Layer) and operation.weights:
                weights = [keras.ops.convert_to_numpy(w) for w in operation.weights]
                twin[0].set_weights([w.astype("float32") for w in weights])
            expected = operation(*args, **kwargs)
            _compare(_run(twin, call, args, kwargs), expected, allowed)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Layer {operation.name!r} of type {type(operation).__name__} cannot be rebuilt in "
                "tf_keras, the Keras that tensorflow-model-optimization takes. Replace it by stock "
                f"layers that both have. Received: {error}"
            ) from error
        indices = [t.index for t in call.output_tensors]
        symbols.update(zip(indices, keras.tree.flatten(outputs), strict=True))
        return keras.tree.flatten(expected)

    graphs.evaluate(graph.calls, values, rebuild)
    inputs, outputs = graphs.filled((graph.inputs, graph.outputs), symbols)
    bridged = tf_keras.Model(inputs, outputs, name=model.name)
    given = graphs.filled(graph.inputs, values)
    try:
        _compare(bridged(given, training=False), model(given, training=False), allowed)
    except ValueError as error:
        raise ValueError(f"Model {model.name!r} is different in tf_keras: {error}") from error
    return bridged


def copy_of(model):
    """Returns a new tf_keras model, from a Keras 3 or a tf_keras model.

    tensorflow-model-optimization wraps the very layers that it is given; training what it returns
    would train the user's model.

    Args:
        model: As in `to_tf_keras`, or a Functional or Sequential `tf_keras.Model` that is not
            wrapped.

    Raises:
        ValueError: As in `to_tf_keras`; if the model is wrapped or a subclassed one.
    """
    tf_keras, _ = packages.load()
    if not isinstance(model, tf_keras.Model):
        return to_tf_keras(model)
    wrapped = [n for layer in model.layers if (n := type(layer).__name__) in WRAPPERS]
    if wrapped:
        raise ValueError(
            "The model is being compressed already. Remove the wrappers first, with "
            "`keras_tesla.compression.strip(model)`; `quantization_aware` comes last and is kept. "
            f"Received layers of type: {sorted(set(wrapped))}"
        )
    check_has_shape(model)
    copy = tf_keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def check_has_shape(model):
    """Checks that a tf_keras model has a graph, and knows all its dimensions but the batch."""
    if not model.inputs or any(None in tensor.shape[1:] for tensor in model.inputs):
        raise ValueError(
            "A tf_keras model must be a Functional or Sequential one with the shape of its inputs, "
            f"all dimensions but the batch. Received: {model!r}"
        )


def _check(model):
    if isinstance(model, TESLA):
        raise ValueError(
            "A TESLA model is compressed at one percentage: pass `tesla.at(p)`. "
            f"Received: {model.name!r} with percentages {list(model.percentages)}"
        )
    if not isinstance(model, keras.Model):
        raise ValueError(
            "The model must be a Functional or Sequential `keras.Model`, such as `tesla.at(p)`. "
            f"Received: {model!r}"
        )


def _check_layer(layer):
    kind, what = type(layer), f"{layer.name!r} of type {type(layer).__name__}"
    if kind.__module__.split(".")[0] == "keras_tesla":
        raise ValueError(
            f"Layer {what} exists in keras_tesla only. Compress the network at one percentage: "
            "`keras_tesla.TESLA(model, percentages).at(p)` has stock layers."
        )
    if kind is keras.layers.Lambda or kind is not getattr(keras.layers, kind.__name__, None):
        raise ValueError(
            f"Layer {what} is not a stock layer of Keras with a fixed meaning, so it cannot be "
            "rebuilt in tf_keras. Replace it by layers of `keras.layers`."
        )


def _twin(call, name, tf_keras) -> list:
    """Returns the tf_keras layers that, one after the other, compute a call."""
    operation = call.operation
    if isinstance(operation, keras.Layer):
        return [_twin_layer(operation, name, tf_keras)]
    source, result = call.input_tensors[0].shape[1:], call.output_tensors[0].shape[1:]
    layers = tf_keras.layers
    if type(operation).__name__ == "Reshape":
        return [layers.Reshape(result, name=name)]
    if type(operation).__name__ == "GetItem" and source[:-1] == result[:-1]:
        # Stock layers, since the tools take no slices. If the key is not that of leading channels,
        # the numbers do not agree.
        rest = source[-1] - result[-1]
        return [
            layers.Reshape((math.prod(source[:-1]), source[-1], 1), name=f"{name}_positions"),
            layers.Cropping2D(((0, 0), (0, rest)), "channels_last", name=f"{name}_channels"),
            layers.Reshape(result, name=name),
        ]
    raise ValueError("an operation that is not a layer")


def _twin_layer(layer, name, tf_keras):
    kind = type(layer).__name__
    cls = getattr(tf_keras.layers, kind, None)
    if cls is None:
        raise ValueError(f"tf_keras has no layer {kind}")
    known, defaults = _arguments(cls), _arguments(type(layer))
    config = {"name": name, "dtype": "float32"}
    for argument, value in layer.get_config().items():
        if argument in config or argument.endswith("_initializer"):
            continue
        argument = _RENAMED.get((kind, argument), argument)
        if argument in known:
            config[argument] = _translated(argument, value, tf_keras)
        elif value not in (None, False, defaults.get(argument)):  # the first two: not asked for
            raise ValueError(f"tf_keras has no argument {argument}={value!r}")
    return cls(**config)


def _arguments(cls) -> dict:
    """{name: default} of the arguments of a class's constructor, also those of its bases."""
    found = {"trainable": True}
    for base in reversed(cls.__mro__):
        for name, parameter in inspect.signature(base.__init__).parameters.items():
            found[name] = parameter.default
    return found


def _translated(argument, value, tf_keras):
    """An argument of a configuration of Keras 3 in the form of tf_keras."""
    if not isinstance(value, dict):
        return value
    for kind in ("regularizer", "constraint"):
        if argument.endswith(kind) and str(value.get("module")).startswith("keras."):
            short = {"class_name": value["class_name"], "config": value["config"]}
            return getattr(tf_keras, f"{kind}s").get(short)
    raise ValueError(f"a custom object, {argument}={value!r}")


def _run(twin, call, args, kwargs):
    if not isinstance(call.operation, keras.Layer):
        outputs = args[0]
        for layer in twin:
            outputs = layer(outputs)
        return outputs
    return twin[0](*args, **{name: x for name, x in kwargs.items() if x is not None})


def _compare(actual, expected, allowed):
    pairs = zip(*map(keras.tree.flatten, (actual, expected)), strict=True)
    for a, b in (map(keras.ops.convert_to_numpy, pair) for pair in pairs):
        a, b = a.astype("float64"), b.astype("float64")
        limit = allowed * max(1.0, np.max(np.abs(b), initial=0.0))
        difference = np.max(np.abs(a - b), initial=0.0) if a.shape == b.shape else np.inf
        if not difference <= limit:  # also when it is NaN
            raise ValueError(
                f"outputs on random inputs differ by {difference:.3g}, more than {limit:.3g}"
            )
