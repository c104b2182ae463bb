"""Making the layers of an ordinary Keras model incomplete."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from keras_tesla import cloning, functional, profiles
from keras_tesla import graph as graphs
from keras_tesla.channels import Channels, Selection, common_parts
from keras_tesla.kinds.registry import inherited_kind_of, kind_of
from keras_tesla.narrowing.plan import dependent, layouts, narrow
from keras_tesla.narrowing.widths import computed_channels
from keras_tesla.percentages import check_percentages


@dataclasses.dataclass(frozen=True)
class ConvertedLayer:
    """A row of the report.

    Args:
        name: The layer's name.
        kind: Its class.
        became: The class of the layer in its place; that of itself if it was left.
        reason: What it does at a percentage, or why it was left as it is.
        computed: How many of its channels are computed at the report's percentage, as `"8 of 16"`;
            `"all"`: it has none that could be left out; `"-"`: the layer is not computed.
    """

    name: str
    kind: str
    became: str
    reason: str
    computed: str = ""


@dataclasses.dataclass(frozen=True)
class ConversionReport(Sequence):
    """The `ConvertedLayer` of each layer that has weights or hides its channels; prints as a table.

    Layers without weights that work channel by channel, such as ReLU, have no row.

    Args:
        rows: The rows.
        percentage: The percentage, of those asked for the one nearest to 50, at which `computed`
            says what is computed; None: no model was made.
        not_read: What is left out at that percentage, a sentence each: inputs of the model that are
            read at 100 %, layers that are not computed, and inputs of a concatenation.
    """

    rows: tuple[ConvertedLayer, ...]
    percentage: int | None = None
    not_read: tuple[str, ...] = ()

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]

    def __str__(self):
        at = [] if self.percentage is None else [f"At {self.percentage} %"]
        table = [["Layer", "Class", "Became", *at, "At a percentage"]]
        for row in self:
            became = row.became if row.became != row.kind else "-"
            table.append([row.name, row.kind, became, *([row.computed] if at else []), row.reason])
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
        return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:], *self.not_read])


def to_idp(
    model,
    percentages=range(100, 0, -10),
    profile="all_one",
    trainable_profile=False,
    skip=(),
    input_complete=True,
):
    """Returns a copy of a Keras model whose layers are incomplete, with the same weights.

    Each layer that `keras_tesla.layers` has an incomplete class for (`Dense`, `Conv2D` and others)
    and whose input channels come from other layers becomes one of that class: at percentage p it
    reads the first `max(1, floor(p / 100 * n))` of its n input channels, and narrowing leaves out
    what no layer reads. After a concatenation it reads the first channels of each part, so that no
    branch and no skip connection is lost (`input_parts`). A `BatchNormalization` after an
    incomplete layer becomes an `IDPBatchNormalization`, all of whose statistics start at those of
    the model. Attention with heads leaves out channels and heads; `LayerNormalization` and
    `RMSNormalization` take the statistics of the first channels. Layers that work channel by
    channel, or group by group, are narrowed as they are: depthwise and grouped convolutions, group
    normalization, activations, pooling, merges, reshapes and products of operations. All
    others read and compute all of their channels, which is always right and saves nothing. The
    report says which layer is which.

    At 100 % the copy computes what the model does, up to rounding. If the profile is not all ones,
    the kernels are divided by its coefficients to keep this true.

    Your own layers that consist of others are opened where that is possible, and subclassed models
    are read, as by `to_functional`: the layers inside are converted. The report says why a layer
    is not opened.

    At a lower percentage it leaves out channels that were trained to matter, so its accuracy is low
    at first: move the important ones to the front (`order_channels`, before this), measure
    statistics (`recalibrate`) and fine-tune (`TESLA`).

    Args:
        model: A built `keras.Model`, trained or not: Functional, Sequential, or a subclassed one
            that was called on floats of a known shape. It is not changed.
        percentages: Iterable of distinct ints, 1..100, that batch normalizations get statistics
            for: those to be trained and used. Must include 100.
        profile: What the incomplete layers take as `profile`. Those of attention have none, and
            the report says so.
        trainable_profile: Bool, whether their coefficients are trained.
        skip: Names of layers to leave as they are, or a function `layer -> bool`. One that
            consists of others is not opened then.
        input_complete: Bool, whether the first layers, which read the model's inputs, read all
            channels of them.

    Returns:
        A Functional `keras.Model`, not compiled. Its attribute `conversion_report` is the
        `ConversionReport`; it is not saved with the model. `TESLA(model).at(100)` turns the copy
        into stock layers again.

    Raises:
        ValueError: If the model is not built or cannot be read; no layer could be made incomplete;
            a name in `skip` is unknown; `percentages` are invalid or without 100; or a kernel
            divided by its coefficients is not finite.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8,)), keras.layers.Dense(16, activation="relu", name="first"),
    ...     keras.layers.Dense(3, name="last")])
    >>> model = kt.to_idp(model)
    >>> print(model.conversion_report)
    Layer  Class  Became    At 50 %  At a percentage
    -------------------------------------------------------------------------
    first  Dense  -         8 of 16  reads the model's inputs, which are kept
    last   Dense  IDPDense  3 of 3   reads a part of its 16 input channels
    >>> tesla = TESLA(model, percentages=[100, 50])
    """
    percentages = check_percentages(percentages)
    if percentages[0] != 100:
        raise ValueError(
            "`percentages` must include 100, at which the model stays as it is. "
            f"Received: {list(percentages)}"
        )
    profile = profiles.get(profile)
    graphs.check_class(model)
    skipped = _Skip(skip)
    model, graph = functional.opened(model, opens=lambda layer: not skipped(layer))
    weighed = trainable_profile or not isinstance(profile, profiles.AllOne)
    reading = _Reading(graph, skipped.ids(graph), input_complete, weighed)
    if not reading.cuts:
        raise ValueError(
            "No layer of the model could be made incomplete, so every percentage would be the same "
            f"network.\n{reading.report()}"
        )
    calls = graph.first_calls

    def clone_layer(layer):
        if id(layer) not in reading.became:
            return cloning.copy_of(layer, call=calls.get(id(layer)))
        channels = reading.reads.get(id(layer))
        return kind_of(layer).make_incomplete(
            layer, channels, percentages, profile, trainable_profile
        )

    copy, pairs = cloning.clone(model, clone_layer)
    for old, new in pairs:
        if id(old) in reading.became:
            kind_of(old).copy_weights(old, new)
        else:
            cloning.copy_weights(old, new)
    of_copy = graphs.read(copy, opens=lambda _: False)
    copy.conversion_report = _at(reading.report(), of_copy, percentages)
    return copy


def _at(report, graph, percentages) -> ConversionReport:
    """Adds to the report of a converted model what is computed at a middle percentage."""
    plan = narrow(graph, min(percentages, key=lambda p: abs(p - 50)))
    of_100 = narrow(graph, 100)
    percentage = f"at {plan.percentage} %"
    computed = computed_channels(plan)
    rows, not_read = [], []
    for row in report:
        now = computed.get(row.name, "-")
        if now == "-":
            row = dataclasses.replace(row, reason=f"is not computed {percentage}")
            not_read.append(f"Layer {row.name!r} is not computed {percentage}.")
        rows.append(dataclasses.replace(row, computed=now))
    for tensor, name in zip(graphs.tensors(graph.inputs), graph.input_names, strict=True):
        nothing = Selection()
        if plan.widths[tensor.index] == nothing != of_100.widths[tensor.index]:
            not_read.append(f"Input {name!r} of the model is not read {percentage}.")
    makers = {t.index: call.operation.name for call in graph.calls for t in call.output_tensors}
    for step in plan.steps:
        for tensor, width in zip(step.call.input_tensors, step.widths.inputs, strict=True):
            if width == Selection():
                source = makers.get(tensor.index, "an input of the model")
                not_read.append(
                    f"{step.call.operation.name!r} reads nothing of {source!r} {percentage}."
                )
    return ConversionReport(tuple(rows), plan.percentage, tuple(not_read))


class _Skip:
    """Which layers are left as they are.

    Args:
        skip: As in `to_idp`.
    """

    def __init__(self, skip):
        self._says = skip if callable(skip) else None
        self._names = set() if callable(skip) else {skip} if isinstance(skip, str) else set(skip)
        self._found: set[str] = set()

    def __call__(self, layer) -> bool:
        self._found.add(layer.name)
        return bool(self._says(layer)) if self._says else layer.name in self._names

    def ids(self, graph) -> set[int]:
        """Returns the ids of a graph's layers to skip.

        Raises:
            ValueError: If no layer has one of the names, nor had one that was opened.
        """
        ids = {id(layer) for layer in graph.layers if self(layer)}
        unknown = self._names - self._found
        if unknown:
            raise ValueError(
                f"`skip` names layers that the model does not have: {sorted(unknown)}. Its layers "
                f"are {[layer.name for layer in graph.layers]}"
            )
        return ids


class _Reading:
    """Decides for each layer of a graph.

    Args:
        graph: The calls of the model.
        skipped: The ids of the layers to leave.
        input_complete: Bool, as in `to_idp`.
        weighed: Bool, whether there is a profile other than all ones, or a trainable one.

    Attributes:
        became: {id of a layer: the incomplete class it becomes}.
        reads: {id of such a layer, unless it only follows: the `Channels` of each tensor that it
            reads}.
        cuts: Bool, whether a dot product becomes incomplete.
    """

    def __init__(self, graph, skipped, input_complete, weighed):
        self.became: dict[int, Any] = {}
        self.reads: dict[int, list[Channels]] = {}
        self.cuts = False
        self._skipped = skipped
        self._keep_inputs = input_complete
        self._weighed = weighed
        self._where = layouts(graph)
        self._closed = graph.closed
        self._makers = {t.index: call for call in graph.calls for t in call.output_tensors}
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
        reasons = {}
        for key, of_layer in calls.items():
            kind = kind_of(of_layer[0].operation)
            if kind.incomplete is not None and (kind.projects or kind.reduces):
                reasons[key] = self._why_complete(of_layer)
                if reasons[key] is None:
                    self.became[key] = kind.incomplete
                    self.cuts |= kind.projects
        depends = dependent(graph, self.became)
        self._rows = []
        for key, of_layer in calls.items():
            layer = of_layer[0].operation
            if not isinstance(layer, keras.Layer):
                continue
            kind = kind_of(layer)
            varies = any(t.index in depends for c in of_layer for t in c.input_tensors)
            follows = kind.incomplete is not None and key not in reasons
            if follows and varies and key not in skipped:
                self.became[key] = kind.incomplete
            reason = reasons.get(key) or self._reason(of_layer)
            if reason is not None:
                cls = type(layer.source if isinstance(layer, cloning.Copied) else layer)
                became = self.became.get(key, cls)
                row = ConvertedLayer(layer.name, cls.__name__, became.__name__, reason)
                self._rows.append(row)

    def report(self) -> ConversionReport:
        """Returns the rows of all layers."""
        return ConversionReport(tuple(self._rows))

    def _follow_inputs(self, call):
        """Notes the channels of what is still an input of the model, scaled or reshaped."""
        inputs = call.input_tensors
        prepares = not getattr(call.operation, "weights", None) or isinstance(
            call.operation, layers.Normalization
        )
        if prepares and inputs and all(t.index in self._raw for t in inputs):
            found = [self._raw[t.index] for t in inputs]
            outputs = kind_of(call.operation).layouts(call, found)
            self._raw.update(zip((t.index for t in call.output_tensors), outputs, strict=True))

    def _why_complete(self, calls) -> str | None:
        """Returns why a layer with a kernel must read all of its input, or None."""
        layer = calls[0].operation
        if id(layer) in self._skipped:
            return "skipped"
        kind = kind_of(layer)
        reason = kind.why_complete(layer)
        if reason is not None:
            return reason
        found: dict[int, list[Channels]] = {}  # by the place among `projected`
        for call in calls:
            for place, number in enumerate(kind.projected(call)):
                x = call.input_tensors[number]
                raw = x.index in self._raw
                layout: Any = self._raw[x.index] if raw else self._where[x.index]
                if raw and self._keep_inputs:
                    return "reads the model's inputs, which are kept"
                if layout is None:
                    return f"reads channels that could not be followed through {self._lost(x)}"
                axis = kind.read_axis(layer, len(x.shape))
                if layout.axis != axis or (layout.repeats > 1 and not kind.takes_repeats):
                    return "reads along another axis than that of the channels"
                found.setdefault(place, []).append(layout)
        if any(len({(x.count, x.repeats) for x in same}) > 1 for same in found.values()):
            return "is called on inputs of different channels"
        self.reads[id(layer)] = [
            dataclasses.replace(same[0], parts=common_parts(same)) for same in found.values()
        ]
        return None

    def _lost(self, tensor) -> str:
        """Returns the name of the operation where the channels of a tensor were lost."""
        call = self._makers.get(tensor.index)
        if call is None:
            return "an input of the model"
        for x in call.input_tensors:
            # Of an input of the model none are known: those are kept, or read by a layer here.
            if self._where[x.index] is None and x.index in self._makers:
                return self._lost(x)
        return f"{call.operation.name!r} ({type(call.operation).__name__})"

    def _reason(self, calls) -> str | None:
        """Returns what a layer does at a percentage, or None if there is nothing to say."""
        layer, call = calls[0].operation, calls[0]
        kind = kind_of(layer)
        if id(layer) in self.reads:
            reads, *_ = self.reads[id(layer)]
            parts = f"each of the {len(reads.parts)} parts of " if len(reads.parts) > 1 else ""
            further = f", uses a part of {kind.further}" if kind.further else ""
            profile = "; has no profile" if self._weighed and not kind.takes_profile else ""
            return f"reads a part of {parts}its {reads.count} input channels{further}{profile}"
        if id(layer) in self.became:
            return "has statistics for each percentage"
        if kind.incomplete is not None:
            skipped = id(layer) in self._skipped
            return "skipped" if skipped else "its input is the same at every percentage"
        if all(t.index in self._raw for t in call.input_tensors):
            return None
        ins = [self._where[t.index] for t in call.input_tensors]
        outs = [self._where[t.index] for t in call.output_tensors]
        if id(layer) in self._closed:
            return f"is not opened: {self._closed[id(layer)]}"
        if all(ins) and not any(outs):
            return "is not understood, or mixes channels: reads and computes all of them"
        if not layer.weights:
            return None
        if inherited_kind_of(layer).depends:
            return "already depends on the percentage"
        if ins[0] is not None:
            one = kind.widths(call, 100, ins, outs, [Selection.first(1)]).inputs[0]
            if one is not None and len(one) < ins[0].count:
                return f"is narrowed as it is, {kind.unit}"
        return "reads all of its channels"
