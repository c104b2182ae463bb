"""What TESLA can train, and what XLA can speed up."""

import inspect

import keras

from keras_tesla import cloning
from keras_tesla.graph import Graph, trials
from keras_tesla.kinds.registry import inherited_kind_of, is_incomplete, kind_of
from keras_tesla.layers import (
    ChannelStatistics,
    IDPBatchNormalization,
    IDPDense,
    IncompleteDotProduct,
)
from keras_tesla.narrowing.plan import layouts
from keras_tesla.quantization.ranges import ActivationRange


def check_graph(graph: Graph):
    """Refuses a model that TESLA would train wrongly.

    Raises:
        ValueError: If there is no IDP layer, one is hidden inside another layer, an `IDPDense`
            would leave out positions instead of channels after a `Flatten`, Keras has quantized a
            layer, a layer to be narrowed computes something else once made from its config, or an
            unknown one depends on the percentage.
    """
    check_not_quantized(graph.layers)
    for layer in graph.layers:
        if type(layer).__module__.startswith("keras") and getattr(layer, "activation", "") is None:
            raise ValueError(
                f"Layer {layer.name!r} has `activation=None`, which was set after it was made: "
                "Keras can neither save nor copy it. Set `keras.activations.linear`."
            )
        hidden = next((x for x in cloning.inside(layer) if _is_idp(x)), None)
        if hidden is not None:
            why = graph.closed.get(id(layer))
            raise ValueError(
                f"Layer {layer.name!r} ({type(layer).__name__}) contains the IDP layer "
                f"{hidden.name!r}, which narrowing cannot see there"
                + (f": {why}" if why else "")
                + ". Use the IDP layer directly; IDPDense takes inputs of any rank."
            )
    for call in graph.first_calls.values():
        layer = call.operation
        known = cloning.is_stock(layer) or inherited_kind_of(layer).depends
        if not known and trials.reads_percentage(call):
            raise ValueError(
                f"Layer {layer.name!r} ({type(layer).__name__}) reads `current_percentage()`, and "
                "nothing says that it does: all percentages would share its result. Say it with "
                "`keras_tesla.register_kind` and a `Kind` that has `depends = True` and whose "
                "`narrow` gives the layer for a percentage."
            )
    if not any(map(is_incomplete, graph.layers)):
        raise ValueError(
            "The model has no incomplete layer (IDPDense, IDPConv2D and others), so every "
            "percentage would be the same network. Add one, or convert the model with "
            "`keras_tesla.to_idp`. "
            f"Received layers: {[layer.name for layer in graph.layers]}"
        )
    for call in graph.first_calls.values():
        layer = call.operation
        if kind_of(layer).weight_axes and not cloning.is_described(call):
            raise ValueError(
                f"Layer {layer.name!r} ({type(layer).__name__}) is narrowed, and one made from its "
                "config computes another function than the layer does. Its `get_config` must "
                "return all that `__init__` takes."
            )
    where = layouts(graph)
    for call in graph.calls:
        layer = call.operation
        if not isinstance(layer, IDPDense):
            continue
        (x,) = call.input_tensors
        layout = where[x.index]
        if layout and layout.repeats > 1 and layout != layer.input_layout(x.shape):
            raise ValueError(
                f"Layer {layer.name!r} reads a flattened feature map of {layout.count} channels at "
                f"{layout.repeats} positions. Pass `input_channels={layout.count}`, so that it "
                f"leaves out channels, not positions. Received: {layer.input_channels}"
            )


def percentages_of(graph: Graph):
    """Returns the percentages that all layers with `percentages` have; by default 100, 90, .., 10.

    Raises:
        ValueError: If those layers have none in common.
    """
    of_layers = {
        layer.name: set(layer.percentages)
        for layer in graph.layers
        if getattr(layer, "percentages", None) is not None
    }
    if not of_layers:
        return range(100, 0, -10)
    common = set.intersection(*of_layers.values())
    if not common:
        raise ValueError(
            f"The layers of the model have no percentage in common. Received: {of_layers}"
        )
    return common


def check_statistics(graph: Graph, percentages):
    """Refuses percentages for which a layer has no statistics, private numbers or int8 range.

    Raises:
        ValueError: Naming the layer and the percentage.
    """
    for layer in graph.layers:
        for percentage in percentages:
            if isinstance(layer, ActivationRange):
                layer.range_variables(percentage)
            elif isinstance(layer, IDPBatchNormalization):
                layer.statistics(percentage)
            elif isinstance(layer, IncompleteDotProduct):
                layer.private_variables(percentage)


def check_not_quantized(layers):
    """Refuses layers that Keras has quantized.

    Raises:
        ValueError: Naming them.
    """
    quantized = [
        layer.name
        for layer in layers
        if isinstance(layer.dtype_policy, keras.dtype_policies.QuantizedDTypePolicy)
    ]
    if quantized:
        raise ValueError(
            "Keras has quantized layers of the network, and narrowing knows their float weights "
            "only. Take the float network, and quantize it at export, "
            "`keras_tesla.tflite.export(.., quantization='int8')`, or train it in int8 with "
            f"`keras_tesla.quantization_aware`. Received quantized: {quantized}"
        )


def resolve_jit_compile(graph: Graph, functions=()):
    """Returns what `jit_compile="auto"` means for a TESLA model: a bool, or `"auto"` for Keras'.

    On TensorFlow with only a CPU, Keras turns XLA off. A TESLA step of an MLP runs faster with it
    and one of a CNN slower (`docs/decisions.md`). A loss or a metric that is not Keras' may do what
    XLA cannot compile, such as calling Python; it works in Keras, so then XLA stays off.

    Args:
        graph: The calls of the network.
        functions: Nested losses and metrics.
    """
    if keras.backend.backend() != "tensorflow":
        return "auto"
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU") or tf.distribute.has_strategy():
        return "auto"
    convolutions = any(hasattr(layer, "kernel_size") for layer in graph.layers)
    return (
        not convolutions
        and all(layer.supports_jit for layer in graph.layers)
        and all(map(_is_stock, keras.tree.flatten(functions)))
    )


def _is_stock(function):
    """Whether a function, or its name, is Keras' or ours and does not wrap another one."""
    if function is None or isinstance(function, str):
        return function not in keras.saving.get_custom_objects()
    named = function if inspect.isroutine(function) else type(function)
    wraps = type(function) is keras.metrics.MeanMetricWrapper
    return (named.__module__ or "").split(".")[0] in ("keras", "keras_tesla") and not wraps


def _is_idp(layer):
    return is_incomplete(layer) or isinstance(layer, (ChannelStatistics, IDPBatchNormalization))
