"""Making the layers of an ordinary Keras model incomplete."""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_tesla import cloning, profiles
from keras_tesla import graph as graphs
from keras_tesla.channels import Channels
from keras_tesla.layers import (
    IDPBatchNormalization,
    IDPConv1D,
    IDPConv2D,
    IDPConv2DTranspose,
    IDPDense,
    IDPSeparableConv2D,
)
from keras_tesla.narrowing.plan import DEPENDENT, layouts
from keras_tesla.narrowing.rules import rule_for
from keras_tesla.percentages import check_percentages

# Exactly these classes: a subclass may compute something else.
_INCOMPLETE: dict[type, Any] = {
    layers.Dense: IDPDense,
    layers.Conv1D: IDPConv1D,
    layers.Conv2D: IDPConv2D,
    layers.Conv2DTranspose: IDPConv2DTranspose,
    layers.SeparableConv2D: IDPSeparableConv2D,
}


@dataclasses.dataclass(frozen=True)
class ConvertedLayer:
    """A row of the report.

    Args:
        name: The layer's name.
        kind: Its class.
        became: The class of the layer in its place; that of itself if it was left.
        reason: What it does at a percentage, or why it was left as it is.
    """

    name: str
    kind: str
    became: str
    reason: str


class ConversionReport(tuple):
    """The `ConvertedLayer` of each layer that has weights or hides its channels; prints as a table.

    Layers without weights that work channel by channel, such as ReLU, have no row.
    """

    __slots__ = ()

    def __str__(self):
        rows = [(r.name, r.kind, r.became if r.became != r.kind else "-", r.reason) for r in self]
        table = [("Layer", "Class", "Became", "At a percentage"), *rows]
        widths = [max(len(row[i]) for row in table) for i in range(3)]
        lines = [
            "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]])
            for row in table
        ]
        return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def to_idp(
    model,
    percentages=range(100, 0, -10),
    profile="all_one",
    trainable_profile=False,
    skip=(),
    input_complete=True,
):
    """Returns a copy of a Keras model whose layers are incomplete, with the same weights.

    Each `Dense`, `Conv1D`, `Conv2D`, `Conv2DTranspose` and `SeparableConv2D` whose input channels
    come from other layers becomes its incomplete twin: at percentage p it reads the first
    `max(1, floor(p / 100 * n))` of its n input channels, and narrowing leaves out what no layer
    reads. A `BatchNormalization` behind one becomes an `IDPBatchNormalization`, all of whose
    statistics start at those of the model. Layers that work channel by channel are narrowed as they
    are: depthwise convolutions, group normalization, activations, pooling, merges. All others read
    and compute all of their channels, which is always right and saves nothing. The report says
    which layer is which.

    At 100 % the copy computes what the model does, up to rounding. With another profile than all
    ones its kernels are divided by the coefficients for that.

    At a lower percentage it leaves out channels that were trained to matter, so its accuracy is
    low at first: bring the important ones to the front (`order_channels`, before this), measure
    statistics (`recalibrate`) and train on (`TESLA`).

    Args:
        model: A built Functional or Sequential `keras.Model`, trained or not. It is not changed.
        percentages: Iterable of distinct ints, 1..100, that batch normalizations get statistics
            for: those to be trained and used. Must include 100.
        profile: What the incomplete layers take as `profile`.
        trainable_profile: Bool, whether their coefficients are trained.
        skip: Names of layers to leave as they are, or a function `layer -> bool`.
        input_complete: Bool, whether the first layers, which read the model's inputs, read all
            channels of them.

    Returns:
        A Functional `keras.Model`, not compiled. Its attribute `conversion_report` is the
        `ConversionReport`; it is not saved with the model. `TESLA(model).at(100)` turns the copy
        into stock layers again.

    Raises:
        ValueError: If the model is subclassed or not built; no layer could be made incomplete; a
            name in `skip` is unknown; `percentages` are none or without 100; or a kernel divided by
            its coefficients is not finite.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8,)), keras.layers.Dense(16, activation="relu", name="first"),
    ...     keras.layers.Dense(3, name="last")])
    >>> model = kt.to_idp(model)
    >>> print(model.conversion_report)
    Layer  Class  Became    At a percentage
    ----------------------------------------------------------------
    first  Dense  -         reads the model's inputs, which are kept
    last   Dense  IDPDense  reads a part of its 16 input channels
    >>> tesla = TESLA(model, percentages=[100, 50])
    """
    percentages = check_percentages(percentages)
    if percentages[0] != 100:
        raise ValueError(
            "`percentages` must include 100, at which the model stays as it is. "
            f"Received: {list(percentages)}"
        )
    profile = profiles.get(profile)
    graph = graphs.read(model)
    reading = _Reading(graph, _chosen(skip, graph), input_complete)
    if not reading.twins:
        raise ValueError(
            "No layer of the model could be made incomplete, so every percentage would be the same "
            f"network.\n{reading.report()}"
        )
    arguments = {"profile": profile, "trainable_profile": trainable_profile}

    def clone_layer(layer):
        twin = reading.twins.get(id(layer))
        config = layer.get_config()
        if twin is None:
            return cloning.copy_of(layer)
        if twin is IDPBatchNormalization:
            return twin.from_config({**config, "percentages": percentages})
        if twin is IDPDense:
            config["input_channels"] = reading.input_channels[id(layer)]
        return twin.from_config({**config, **arguments})

    copy, pairs = cloning.clone(model, clone_layer)
    for old, new in pairs:
        twin = reading.twins.get(id(old))
        if twin is None:
            cloning.copy_weights(old, new)
        elif twin is IDPBatchNormalization:
            _copy_statistics(old, new)
        else:
            _copy_kernels(old, new)
    copy.conversion_report = reading.report()
    return copy


def _chosen(skip, graph):
    """Returns the ids of the layers to skip."""
    if callable(skip):
        return {id(layer) for layer in graph.layers if skip(layer)}
    names = {skip} if isinstance(skip, str) else set(skip)
    unknown = names - {layer.name for layer in graph.layers}
    if unknown:
        raise ValueError(
            f"`skip` names layers that the model does not have: {sorted(unknown)}. Its layers are "
            f"{[layer.name for layer in graph.layers]}"
        )
    return {id(layer) for layer in graph.layers if layer.name in names}


class _Reading:
    """Decides for each layer of a graph.

    Args:
        graph: The calls of the model.
        skipped: The ids of the layers to leave.
        input_complete: Bool, as in `to_idp`.

    Attributes:
        twins: {id of a layer: the incomplete class it becomes}.
        input_channels: {id of a Dense layer: its `input_channels`}.
    """

    def __init__(self, graph, skipped, input_complete):
        self.twins: dict[int, Any] = {}
        self.input_channels: dict[int, int | None] = {}
        self._counts: dict[int, int] = {}
        self._graph = graph
        self._skipped = skipped
        self._keep_inputs = input_complete
        self._where = layouts(graph)
        # What no layer with weights has touched yet, and where its channels are then.
        self._raw = {
            t.index: Channels(len(t.shape) - 1, t.shape[-1])
            if len(t.shape) > 1 and t.shape[-1] is not None
            else None
            for t in graphs.tensors(graph.inputs)
        }
        calls: dict[int, list] = {}
        for call in graph.calls:
            self._follow_inputs(call)
            calls.setdefault(id(call.operation), []).append(call)
        projections = {
            key: self._why_not_projection(of_layer)
            for key, of_layer in calls.items()
            if type(of_layer[0].operation) in _INCOMPLETE
        }
        for key, why_not in projections.items():
            if why_not is None:
                self.twins[key] = _INCOMPLETE[type(calls[key][0].operation)]
        depends = self._dependent_tensors()
        self._rows = []
        for key, of_layer in calls.items():
            layer = of_layer[0].operation
            if not isinstance(layer, keras.Layer):
                continue
            if type(layer) is layers.BatchNormalization:
                varies = any(t.index in depends for c in of_layer for t in c.input_tensors)
                if varies and key not in skipped:
                    self.twins[key] = IDPBatchNormalization
            reason = projections.get(key) or self._reason(of_layer)
            if reason is not None:
                became = self.twins.get(key, type(layer))
                row = ConvertedLayer(layer.name, type(layer).__name__, became.__name__, reason)
                self._rows.append(row)

    def report(self) -> ConversionReport:
        """Returns the rows of all layers."""
        return ConversionReport(self._rows)

    def _follow_inputs(self, call):
        """Notes the channels of what is still an input of the model, scaled or reshaped."""
        inputs = call.input_tensors
        prepares = not getattr(call.operation, "weights", None) or isinstance(
            call.operation, layers.Normalization
        )
        if prepares and inputs and all(t.index in self._raw for t in inputs):
            found = [self._raw[t.index] for t in inputs]
            outputs = rule_for(call.operation).layouts(call, found)
            self._raw.update(zip((t.index for t in call.output_tensors), outputs, strict=True))

    def _why_not_projection(self, calls) -> str | None:
        """Returns why a layer with a kernel must read all of its input, or None."""
        layer = calls[0].operation
        if id(layer) in self._skipped:
            return "skipped"
        if layer.dtype_policy.quantization_mode is not None:
            return "has quantized weights"
        if getattr(layer, "lora_enabled", False):
            return "has LoRA weights; merge them into the kernel first"
        if getattr(layer, "groups", 1) > 1:
            return "is grouped: its groups read different channels"
        views = set()
        for call in calls:
            (x,) = call.input_tensors
            raw = x.index in self._raw
            view = self._raw[x.index] if raw else self._where[x.index]
            if raw and self._keep_inputs:
                return "reads the model's inputs, which are kept"
            if view is None:
                return "reads channels that could not be followed"
            rank = len(x.shape)
            first = getattr(layer, "data_format", "channels_last") == "channels_first"
            axis = 1 if first else rank - 1
            if view.axis != axis or (view.copies > 1 and not isinstance(layer, layers.Dense)):
                return "reads along another axis than that of the channels"
            views.add((view.count, view.copies))
        if len(views) > 1:
            return "is called on inputs of different channels"
        ((count, copies),) = views
        self._counts[id(layer)] = count
        self.input_channels[id(layer)] = count if copies > 1 else None
        return None

    def _dependent_tensors(self):
        """Returns the indices of the tensors whose values depend on the percentage."""
        depends: set[int] = set()
        for call in self._graph.calls:
            own = id(call.operation) in self.twins or isinstance(call.operation, DEPENDENT)
            if own or any(t.index in depends for t in call.input_tensors):
                depends.update(t.index for t in call.output_tensors)
        return depends

    def _reason(self, calls) -> str | None:
        """Returns what a layer does at a percentage, or None if there is nothing to say."""
        layer, call = calls[0].operation, calls[0]
        twin = self.twins.get(id(layer))
        if twin is IDPBatchNormalization:
            return "has statistics for each percentage"
        if twin is not None:
            return f"reads a part of its {self._counts[id(layer)]} input channels"
        if type(layer) is layers.BatchNormalization:
            skipped = id(layer) in self._skipped
            return "skipped" if skipped else "its input is the same at every percentage"
        if all(t.index in self._raw for t in call.input_tensors):
            return None
        ins = [self._where[t.index] for t in call.input_tensors]
        outs = [self._where[t.index] for t in call.output_tensors]
        if all(ins) and not any(outs):
            return "is not understood, or mixes channels: reads and computes all of them"
        if not layer.weights:
            return None
        if isinstance(layer, DEPENDENT):
            return "depends on the percentage already"
        if ins[0] is not None:
            reads = rule_for(layer).widths(call, 100, ins, outs, [1]).inputs[0]
            if reads is not None and reads < ins[0].count:
                groups = type(layer) is layers.GroupNormalization
                return f"is narrowed as it is, {'in whole groups' if groups else 'by channel'}"
        return "reads all of its channels"


def _copy_statistics(old, new):
    """Gives an IDPBatchNormalization the weights of a BatchNormalization, at every percentage."""
    weights = [np.array(weight) for weight in old.get_weights()]
    statistics = weights[old.scale + old.center :]
    # Copies: JAX would let the percentages share a buffer and give it away.
    others = [s.copy() for _ in new.percentages[1:] for s in statistics]
    new.set_weights(weights + others)


def _copy_kernels(old, new):
    """Gives an incomplete layer the weights of its Keras class, with the profile divided out."""
    weights = {v.name: np.array(ops.convert_to_numpy(v)) for v in old.weights}
    if new.coefficients is not None:
        for name in new.incomplete_weights(100):
            getattr(new, name).assign(np.ones_like(weights[name]))
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            for name, factors in new.incomplete_weights(100).items():
                weights[name] = weights[name] / ops.convert_to_numpy(factors)
                if not np.isfinite(weights[name]).all():
                    raise ValueError(
                        f"The profile {new.profile!r} has coefficients too small for the "
                        f"{new.terms} terms of layer {new.name!r}: its kernel divided by them is "
                        "not finite. Choose another profile, or skip the layer."
                    )
    for name, value in weights.items():
        getattr(new, name).assign(value)
