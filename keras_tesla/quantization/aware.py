"""Making a model compute in training as int8 inference will."""

import keras
from keras import layers

from keras_tesla import cloning, functional
from keras_tesla import graph as graphs
from keras_tesla.kinds.registry import is_incomplete
from keras_tesla.layers import IDPBatchNormalization, IncompleteDotProduct
from keras_tesla.names import unique_name
from keras_tesla.narrowing.plan import dependent
from keras_tesla.percentages import check_percentages
from keras_tesla.quantization.kernels import FAKE_QUANTIZED
from keras_tesla.quantization.ranges import ActivationRange

# How LiteRT computes an operator in int8.
_COMPUTES = "computes"  # new values, which need a range
_KEEPS = "keeps"  # the values and the range of its input
_FIXED = "fixed"  # values in a range that LiteRT knows: 0..1 or -1..1
_NORMALIZES = "normalizes"  # fused into the convolution before it
_CLIPS = "clips"  # fused into the operator before it

_ACTIVATIONS = {
    "linear": _KEEPS,
    "relu": _CLIPS,
    "relu6": _CLIPS,
    "leaky_relu": _COMPUTES,
    **dict.fromkeys(("sigmoid", "softmax", "tanh"), _FIXED),
}
_LAYERS = {
    **dict.fromkeys((layers.Add, layers.Concatenate, layers.Multiply, layers.Subtract), _COMPUTES),
    **dict.fromkeys((layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D), _COMPUTES),
    **dict.fromkeys((layers.BatchNormalization, IDPBatchNormalization), _NORMALIZES),
    **dict.fromkeys((layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D), _KEEPS),
    **dict.fromkeys((layers.AveragePooling2D, layers.MaxPooling2D), _KEEPS),
    **dict.fromkeys((layers.Flatten, layers.Reshape, layers.Identity), _KEEPS),
    layers.ZeroPadding2D: _KEEPS,
}
_OPERATIONS = {"Add": _COMPUTES, "Multiply": _COMPUTES, "Subtract": _COMPUTES}


def quantization_aware(model, percentages=range(100, 0, -10), momentum=0.99):
    """Returns a copy of a model that computes as int8 inference will, with the same weights.

    Kernels are rounded to int8 (`keras_tesla.quantization.kernels`), with one set of quantized
    values for all percentages: each reads a slice of them. Inputs and the outputs of layers are
    rounded to int8 within a range that training tracks separately for each percentage
    (`keras_tesla.quantization.ranges.ActivationRange`). Layers that LiteRT fuses, such as a
    convolution with the batch normalization and the ReLU after it, are rounded once.

    Train the copy with `TESLA`, preferably starting from a trained model and with a small learning
    rate; then `keras_tesla.tflite.export(.., quantization="int8")` needs no representative data.

    Args:
        model: A built `keras.Model` with incomplete layers, in float32. It is not changed.
        percentages: Iterable of distinct ints, 1..100, that get ranges: those to be trained and
            exported.
        momentum: Float, 0 <= m < 1: how slowly the ranges follow the batches.

    Returns:
        A Functional `keras.Model`, not compiled. Nested models are inlined; outputs keep their
        names.

    Raises:
        ValueError: If the model is not built, cannot be read or is without an incomplete layer;
            percentages are invalid, or a layer has no statistics or private numbers for them; or a
            layer has no int8 form here, such as one with a private profile. The message names it.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8,)), keras.layers.Dense(16, activation="relu"), IDPDense(3)])
    >>> model = kt.quantization_aware(model, percentages=[100, 50])
    >>> [type(layer).__name__ for layer in model.layers[1:4]]
    ['ActivationRange', 'FakeQuantizedDense', 'ActivationRange']
    >>> tesla = TESLA(model, percentages=[100, 50])

    Reference:
        Jacob et al.: Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference, 2018, https://arxiv.org/abs/1712.05877
    """
    percentages = check_percentages(percentages)
    graphs.check_class(model)
    model, graph = functional.opened(model)
    if not any(map(is_incomplete, graph.layers)):
        raise ValueError(
            "The model has no incomplete layer (IDPDense, IDPConv2D and others), so every "
            "percentage would be the same network. Convert it with `keras_tesla.to_idp` first. "
            f"Received layers: {[layer.name for layer in graph.layers]}"
        )
    for layer in graph.layers:
        if isinstance(layer, (IDPBatchNormalization, IncompleteDotProduct)):
            for percentage in percentages:
                layer.private_variables(percentage)
    return _Builder(graph, percentages, momentum).build(model.name)


def _activation_of(layer):
    """The name of an activation if it is Keras' own and has its usual arguments, else None."""
    activation = getattr(layer, "activation", None)
    if type(layer) is layers.Softmax:
        return "softmax" if layer.axis in (-1, (-1,), [-1]) else None
    if type(layer) is layers.LeakyReLU:
        return "leaky_relu"
    if type(layer) is layers.ReLU:
        highest = {None: "relu", 6: "relu6"}.get(layer.max_value)
        return highest if layer.negative_slope == 0 and layer.threshold == 0 else None
    name = getattr(activation, "__name__", "")
    return name if name in _ACTIVATIONS and activation is keras.activations.get(name) else None


class _Builder:
    """Calls the layers of a graph again, on rounded kernels and with ranges between them.

    Args:
        graph: The calls of the model.
        percentages: Those that get ranges.
        momentum: Of the ranges.
    """

    def __init__(self, graph, percentages, momentum):
        self._graph = graph
        self._arguments = {"percentages": percentages, "momentum": momentum}
        self._readers: dict[int, list] = {}
        for call in graph.calls:
            for tensor in call.input_tensors:
                self._readers.setdefault(tensor.index, []).append(call)
        self._outputs = {t.index for t in graphs.tensors(graph.outputs)}
        self._maker = {t.index: call for call in graph.calls for t in call.output_tensors}
        self._depends = dependent(graph)
        self._copies: dict[int, tuple] = {}  # {id of an operation: (it, its copy)}
        self._names = {layer.name for layer in graph.layers} | set(graph.input_names)

    def build(self, name):
        graph = self._graph
        flat = graphs.tensors(graph.inputs)
        inputs = [
            keras.Input(batch_shape=t.shape, dtype=t.dtype, name=n)
            for t, n in zip(flat, graph.input_names, strict=True)
        ]
        values = {}
        for tensor, x, input_name in zip(flat, inputs, graph.input_names, strict=True):
            if not keras.backend.is_float_dtype(tensor.dtype):
                raise ValueError(
                    f"Input {input_name!r} has dtype {tensor.dtype}: int8 networks take float "
                    "inputs."
                )
            values[tensor.index] = self._rounded(x, tensor, f"{input_name}_range")
        values = graphs.evaluate(graph.calls, values, self._call)
        outputs = graphs.filled(graph.outputs, values)
        if isinstance(outputs, (list, tuple)) and len(outputs) == 1:
            outputs = outputs[0]
        input_of = {t.index: x for t, x in zip(flat, inputs, strict=True)}
        structure = graphs.filled(graph.inputs, input_of)
        if isinstance(structure, (list, tuple)) and len(structure) == 1:
            structure = structure[0]
        model = keras.Model(structure, outputs, name=name)
        for operation, copy in self._copies.values():
            if isinstance(operation, keras.Layer):
                cloning.copy_weights(operation, copy)
        return model

    def _call(self, call, args, kwargs):
        """Calls the copy of a layer and rounds what int8 rounds."""
        operation = call.operation
        kind, split = self._kind(call)
        (tensor,) = call.output_tensors
        # An output keeps its name, so the layer before its range gets another one.
        ends = tensor.index in self._outputs
        ranged = kind == _COMPUTES and not self._fuses_with_next(call, tensor)
        name = getattr(operation, "name", "operation")
        first = self._unique(f"{name}_sums") if ends and (ranged or split) else name
        copy = self._copy(operation, first, split)
        value = copy(*args, **kwargs)
        if split:
            value = self._rounded(value, tensor, self._unique(f"{first}_range"))
            last = name if ends and not ranged else self._unique(f"{name}_activation")
            value = layers.Activation(operation.activation, name=last)(value)
        if ranged:
            value = self._rounded(value, tensor, name if ends else self._unique(f"{name}_range"))
        return [value]

    def _kind(self, call):
        """Returns what a call does, and whether its activation must be called by itself."""
        operation = call.operation
        if getattr(operation, "private_profile", False):
            self._refuse(call, "its private profile gives each percentage another kernel")
        if type(operation) in FAKE_QUANTIZED:
            activation = _activation_of(operation)
            if activation is None:
                self._refuse(call, f"its activation is {operation.activation!r}")
            split = _ACTIVATIONS[activation] in (_COMPUTES, _FIXED)
            return (_ACTIVATIONS[activation] if split else _COMPUTES), split
        if type(operation) in (layers.Activation, layers.ReLU, layers.LeakyReLU, layers.Softmax):
            activation = _activation_of(operation)
            if activation is None:
                self._refuse(call, "its activation is not known")
            kind = _ACTIVATIONS[activation]
            return (_COMPUTES if kind == _CLIPS else kind), False
        kind = _LAYERS.get(type(operation)) or self._operation_kind(operation)
        if kind is None:
            self._refuse(call, "its class is not known")
        if kind == _NORMALIZES:
            before = self._maker.get(call.input_tensors[0].index)
            if before is None or not self._fuses_with_next(before, call.input_tensors[0]):
                self._refuse(
                    call, "it is not all that reads a Conv2D or DepthwiseConv2D without activation"
                )
            return _COMPUTES, False
        return kind, False

    def _operation_kind(self, operation):
        of_keras = type(operation).__module__.split(".")[0] == "keras"
        is_layer = isinstance(operation, keras.Layer)
        return _OPERATIONS.get(type(operation).__name__) if of_keras and not is_layer else None

    def _fuses_with_next(self, call, tensor) -> bool:
        """Whether LiteRT computes a call and the one that reads it as one operator."""
        readers = self._readers.get(tensor.index, [])
        if len(readers) != 1 or tensor.index in self._outputs:
            return False
        operation, reader = call.operation, readers[0].operation
        groups, filters = (getattr(operation, name, 1) for name in ("groups", "filters"))
        if getattr(operation, "depth_multiplier", 1) > 1 or 1 < groups < filters:
            return False  # narrowed, it may compute more channels than are read: a slice is between
        if _LAYERS.get(type(reader)) == _NORMALIZES:
            # One scale for all channels does not take the factors of a normalization.
            twin = FAKE_QUANTIZED.get(type(operation))
            return bool(twin and twin.scaled_axes) and _activation_of(operation) == "linear"
        if _ACTIVATIONS.get(_activation_of(reader) or "") != _CLIPS or hasattr(reader, "kernel"):
            return False
        if type(operation) in FAKE_QUANTIZED:
            return _activation_of(operation) == "linear"
        fusible = (layers.Add, layers.Subtract, layers.Multiply)
        return (
            _LAYERS.get(type(operation)) == _NORMALIZES
            or type(operation) in fusible
            or self._operation_kind(operation) is not None
        )

    def _copy(self, operation, name, split):
        """Returns the copy of a layer; one that is called twice stays one layer."""
        if id(operation) not in self._copies:
            config = operation.get_config()
            cls = FAKE_QUANTIZED.get(type(operation), type(operation))
            if not isinstance(operation, keras.Layer):
                config.pop("name", None)  # Keras finds one
            elif operation.compute_dtype != "float32":
                raise ValueError(
                    f"Layer {operation.name!r} computes in {operation.compute_dtype}, and int8 "
                    "values are rounded in float32. Build the model with the policy 'float32'."
                )
            else:
                config["name"] = name
                if split:
                    config["activation"] = "linear"
            self._copies[id(operation)] = operation, cls.from_config(config)
        return self._copies[id(operation)][1]

    def _rounded(self, value, tensor, name):
        arguments = dict(self._arguments)
        if tensor.index not in self._depends:
            arguments["percentages"] = None  # one range: the tensor is the same everywhere
        return ActivationRange(name=name, **arguments)(value)

    def _unique(self, name):
        return unique_name(name, self._names)

    def _refuse(self, call, reason):
        operation = call.operation
        raise ValueError(
            f"Layer {operation.name!r} ({type(operation).__name__}) has no int8 form here: "
            f"{reason}. Known are {sorted(c.__name__ for c in {*FAKE_QUANTIZED, *_LAYERS})}, the "
            f"activations {sorted(_ACTIVATIONS)}, and a batch normalization directly after a "
            "Conv2D or DepthwiseConv2D without activation. Replace the layer, or quantize the "
            "trained model at export with `representative_data`."
        )
