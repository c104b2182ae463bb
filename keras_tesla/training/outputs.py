"""The outputs of a network, and what the arguments of `compile` say of each."""

import dataclasses

import keras

from keras_tesla.graph import Graph, Tensor

# These return their input's numbers, or averages of them: probabilities stay probabilities.
_PASSING = {
    *("Cast ExpandDims Flatten Identity Permute Reshape Squeeze Transpose".split()),
    *(f"{kind}{d}D" for kind in ("AveragePooling", "GlobalAveragePooling") for d in (1, 2, 3)),
    *(f"{kind}{d}D" for kind in ("Cropping", "UpSampling") for d in (1, 2, 3)),
    "ActivationRange",
}
# Layers and operations that are an activation by themselves: {class: name of the activation}.
_ACTIVATIONS = {
    **{"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sparsemax": "sparsemax"},
    **{"Sigmoid": "sigmoid", "HardSigmoid": "hard_sigmoid", "SparseSigmoid": "sparse_sigmoid"},
    **{"ReLU": "relu", "Relu": "relu", "Tanh": "tanh", "Softplus": "softplus"},
}


@dataclasses.dataclass(frozen=True)
class Output:
    """An output of a network.

    Args:
        name: As in the dicts that `compile` takes.
        path: The keys and indices that lead to it in the structure of the outputs.
        units: Int, the length of its last axis, or None.
        activation: Name of the last activation, `"linear"` if a layer has none; None if the last
            layer does not tell.
    """

    name: str
    path: tuple
    units: int | None
    activation: str | None


def read(graph: Graph, names=None) -> list[Output]:
    """Returns the outputs of a network in the order of `keras.tree.flatten`.

    Args:
        graph: The calls of the network.
        names: Names of the outputs where their structure has no keys. Default: the last layers'.
    """
    structure = graph.outputs
    if isinstance(structure, (list, tuple)) and len(structure) == 1:
        structure = structure[0]  # as Keras returns it
    sources = {t.index: call for call in graph.calls for t in call.output_tensors}
    outputs = []
    for i, (path, tensor) in enumerate(keras.tree.flatten_with_path(structure)):
        if path and isinstance(path[-1], str):
            name = "/".join(map(str, path))
        elif names:
            name = names[i]
        else:
            name = sources[tensor.index].operation.name if tensor.index in sources else "input"
        units = tensor.shape[-1] if tensor.shape else None
        outputs.append(Output(name, path, units, _activation(tensor, sources)))
    return outputs


def _activation(tensor: Tensor, sources) -> str | None:
    """The name of the activation that a tensor comes from."""
    while tensor.index in sources:
        call = sources[tensor.index]
        layer = call.operation
        if type(layer) is keras.layers.TimeDistributed:
            layer = layer.layer
        kind = type(layer).__name__
        if type(layer).__module__.split(".")[0] not in ("keras", "keras_tesla"):
            return None  # it may compute something else
        if kind in _ACTIVATIONS:
            return _ACTIVATIONS[kind]
        # The activation of a recurrent layer is not the last thing that it computes.
        if hasattr(layer, "activation") and not isinstance(layer, keras.layers.RNN):
            name = _name(layer.activation)
            if name != "linear" or kind != "Activation":
                return name
        elif kind not in _PASSING:
            return None
        (tensor,) = call.input_tensors
    return None


def _name(activation) -> str | None:
    if isinstance(activation, keras.Layer):
        return _ACTIVATIONS.get(type(activation).__name__)
    name = getattr(activation, "__name__", "")
    try:
        return name if activation is keras.activations.get(name) else None
    except ValueError:
        return None


def assign(value, outputs: list[Output], argument: str) -> list:
    """Returns what an argument in the manner of `compile(loss=)` says of each output.

    Args:
        value: One value for all outputs, a dict by output name, in which outputs may be missing, or
            a structure with a value for each output.
        outputs: The outputs.
        argument: Name of the argument, for the message.

    Raises:
        ValueError: If it is unclear which outputs are meant.
    """
    if not keras.tree.is_nested(value):
        return [value] * len(outputs)
    names = [output.name for output in outputs]
    if isinstance(value, dict) and set(value) <= set(names):
        return [value.get(name) for name in names]
    flat = keras.tree.flatten(value)
    if isinstance(value, dict) and not any(map(keras.tree.is_nested, value.values())):
        flat = []  # its keys are names, and not the outputs'
    if len(flat) != len(outputs):
        raise ValueError(
            f"`{argument}` must have one value for each output, {names}, in a list or in a dict by "
            f"name. Received: {value!r}"
        )
    return flat


def loss_weights(value, losses: list, outputs: list[Output]) -> list:
    """Returns the weight of each output's loss, as Keras reads them.

    Args:
        value: `loss_weights` of `compile`.
        losses: The loss of each output, or None.
        outputs: The outputs.
    """
    given = [i for i, loss in enumerate(losses) if loss is not None]
    flat = keras.tree.flatten(value) if isinstance(value, (list, tuple)) else None
    if flat is not None and len(flat) == len(given):  # of the outputs that have a loss
        spread = dict(zip(given, flat, strict=True))
        flat = [spread.get(i) for i in range(len(outputs))]
    weights = flat or assign(value, outputs, "loss_weights")
    return [1.0 if weight is None else weight for weight in weights]
