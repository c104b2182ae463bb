"""Ordering channels, so that the important ones come first.

Tensors whose channels must be permuted alike share a group. A producer (a layer with a kernel)
starts a group; layers that treat each channel separately pass it on; an addition unites the groups
of its inputs; a concatenation holds one group after the other. A group that something else reads or
writes keeps its order.
"""

import dataclasses
from typing import Any

import numpy as np
from keras import ops

from keras_tesla import cloning, functional
from keras_tesla import graph as graphs
from keras_tesla.channels import Channels, Selection
from keras_tesla.kinds.registry import is_incomplete, kind_of
from keras_tesla.layers import IncompleteDotProduct


def order_channels(model):
    """Returns a copy of a model whose channels are reordered: the most important come first.

    An incomplete layer keeps its first input channels, so these should be the ones that matter.
    The importance of channel i of a tensor is the L1 norm of all weights that read it,

    `importance_i = sum over readers l, outputs j, positions of |w_lij|`

    and the channels are sorted by it, equal ones left in their order; the w of a separable
    convolution is the product of its two kernels. The readers are the incomplete layers, whose dot
    products are cut; in a model without one, to be made incomplete later, all layers with a kernel
    over all channels: `Dense`, convolutions, transposed and separable ones. The size of the channel
    itself, such as the gamma of a batch normalization before it, does not count.

    What the model computes does not change, up to rounding: the outputs of a layer and what reads
    them are permuted together, through activations, batch normalizations, depthwise convolutions,
    pooling, `Flatten`, merges and layers called twice. Channels that are added together are ordered
    together; each part of a concatenation is ordered separately. Heads of attention, or its groups
    of heads, are ordered by the weights that read them. Inputs and outputs of the model,
    and what a layer reads or writes whose places matter or that is not understood (a convolution
    with groups of several channels, or your own layer before `register_kind`), keep their order.

    Lower percentages leave out different channels than before: fine-tune, or at least `recalibrate`
    the batch normalizations.

    Args:
        model: A trained, built `keras.Model`, with incomplete layers or without: Functional,
            Sequential, or subclassed as in `to_idp`. It is not changed. Layers that consist of
            others are opened (`to_functional`).

    Returns:
        A Functional `keras.Model`, not compiled.

    Raises:
        ValueError: If the model is not built or cannot be read, or an incomplete layer has a
            profile, shared or private, other than all ones: its coefficients belong to positions,
            not to channels.

    Example:

    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3), IDPDense(1)])
    >>> model.layers[-1].set_weights([np.array([[1.0], [-3.0], [2.0]]), np.zeros(1)])
    >>> order_channels(model).layers[-1].kernel.numpy().ravel().tolist()
    [-3.0, 2.0, 1.0]

    Reference:
        Cai, Gan, Wang, Zhang, Han: Once-for-All: Train One Network and Specialize it for Efficient
        Deployment, 2020, https://arxiv.org/abs/1908.09791 (channel sorting)
    """
    graphs.check_class(model)
    model, graph = functional.opened(model)
    for layer in graph.layers:
        _check_profile(layer)
    calls = graph.first_calls

    def clone_layer(layer):
        return cloning.copy_of(layer, call=calls.get(id(layer)))

    ordered, pairs = cloning.clone(model, clone_layer)
    for old, new in pairs:
        cloning.copy_weights(old, new)
    graph = graphs.read(ordered)
    reading = _Reading(graph)
    permutations = reading.permutations()
    for use in reading.uses.values():
        _permute(use, permutations)
    for layer in graph.layers:
        calls = [call for call in graph.calls if call.operation is layer]
        kind_of(layer).order_inside(layer, calls)
    return ordered


def _check_profile(layer):
    if not isinstance(layer, IncompleteDotProduct):
        return
    for profile in layer.private_of_all("profile"):
        if ops.convert_to_numpy(profile).any():
            raise ValueError(
                f"Layer {layer.name!r} has private profile coefficients that are not 0. They "
                "belong to blocks of positions, so a channel that moves would get another and "
                "the model would compute something else. Order the channels first and train then. "
                f"Received: {profile.name} with {ops.convert_to_numpy(profile)}"
            )
    if layer.coefficients is None:
        return
    coefficients = ops.convert_to_numpy(layer.coefficients)
    if (coefficients != 1).any():
        raise ValueError(
            f"Layer {layer.name!r} has profile coefficients that are not all one. They belong to "
            "positions, so a channel that moves would get another and the model would compute "
            "something else. Order the channels first and choose a profile then. "
            f"Received: {layer.profile!r} with {coefficients}"
        )


@dataclasses.dataclass(frozen=True)
class _Order:
    """The order of a tensor's channels.

    Args:
        groups: The channels' groups, one after the other.
        repeats: How often all of them are repeated, as in `Channels`.
    """

    groups: tuple[int, ...]
    repeats: int


@dataclasses.dataclass(frozen=True)
class _Use:
    """The orders that a layer's weights follow.

    Args:
        layer: The layer.
        reads: The orders of the inputs that it projects, or of the one that it hands on; None:
            unknown, not to be permuted.
        writes: The order of its output, which may be another.
    """

    layer: Any
    reads: list[_Order | None]
    writes: _Order | None


class _Groups:
    """Groups of channels: a union-find, of which some groups keep their order."""

    def __init__(self):
        self._parents: list[int] = []
        self.sizes: list[int] = []
        self._fixed: set[int] = set()

    def new(self, size) -> int:
        self._parents.append(len(self.sizes))
        self.sizes.append(size)
        return len(self.sizes) - 1

    def root(self, group) -> int:
        while self._parents[group] != group:
            group = self._parents[group]
        return group

    def is_fixed(self, root) -> bool:
        return root in self._fixed

    def fix(self, order: _Order | None):
        """Makes the channels of `order` keep their places."""
        if order is not None:
            self._fixed.update(map(self.root, order.groups))

    def unite(self, a: _Order | None, b: _Order | None):
        """Makes two orders the same one, or keeps both where they do not fit each other."""
        if a is None or b is None or self._form(a) != self._form(b):
            self.fix(a)
            self.fix(b)
            return
        for one, other in zip(map(self.root, a.groups), map(self.root, b.groups), strict=True):
            if one in self._fixed:
                self._fixed.add(other)
            if one != other:
                self._parents[one] = other

    def _form(self, order):
        return order.repeats, [self.sizes[g] for g in order.groups]


class _Reading:
    """Reads the groups of a graph.

    Args:
        graph: The calls of a model.
    """

    def __init__(self, graph):
        self.groups = _Groups()
        self.uses: dict[int, _Use] = {}  # by the id of the layer
        self._of_positions: set[int] = set()  # ids of layers that mix positions in some call
        self._incomplete = any(map(is_incomplete, graph.layers))
        # Where a layout is known there is an order, and only there.
        inputs = [t.index for t in graphs.tensors(graph.inputs)]
        self._layouts: dict[int, Channels | None] = dict.fromkeys(inputs)
        self._orders: dict[int, _Order | None] = dict.fromkeys(inputs)
        for call in graph.calls:
            self._read(call)
        for tensor in graphs.tensors(graph.outputs):
            self.groups.fix(self._orders[tensor.index])

    def _read(self, call):
        """Finds the layout and the order of a call's outputs."""
        inputs = [self._layouts[t.index] for t in call.input_tensors]
        orders = [self._orders[t.index] for t in call.input_tensors]
        outputs = kind_of(call.operation).layouts(call, inputs)
        order = self._order(call, inputs, outputs)
        if order is None:
            for x in orders:
                self.groups.fix(x)
        for tensor, layout in zip(call.output_tensors, outputs, strict=True):
            self._layouts[tensor.index] = layout
            known = order if layout is not None else None
            self._orders[tensor.index] = known or self._fixed(layout)

    def _order(self, call, inputs, outputs) -> _Order | None:
        """Returns the order of the outputs; None if the channels of the inputs keep theirs."""
        layer, kind = call.operation, kind_of(call.operation)
        if not kind.in_any_order(call):
            return None
        if kind.joins(call, outputs):
            orders = [self._orders[t.index] for t in call.input_tensors]
            return _Order(sum((x.groups * x.repeats for x in orders if x is not None), ()), 1)
        if not getattr(layer, "weights", []):
            return self._hand_on(call, inputs, outputs)
        if kind.permuted(layer) is None:
            return None
        if not inputs:  # a weight that is an operand itself
            return self._operand(call, inputs, outputs)
        if kind.projects:
            if outputs[0] is None:
                return None
            rank = len(call.output_tensors[0].shape)
            if outputs[0].axis != kind.channel_axis(layer, rank):
                return self._mix_positions(call, inputs, outputs)
            return self._project(call, inputs, outputs)
        if kind.reduces:
            order = self._orders[call.input_tensors[0].index] if outputs[0] else None
        else:
            order = self._hand_on(call, inputs, outputs)
        self._use(layer, [order], order)
        return order

    def _project(self, call, inputs, outputs):
        """A layer with a kernel: permutes its rows, and its columns if nothing mixes them."""
        layer, kind = call.operation, kind_of(call.operation)
        orders: list[_Order | None] = []
        projected = kind.projected(call)
        for number in projected:
            layout, x = inputs[number], call.input_tensors[number]
            order = self._orders[x.index]
            if layout is not None:
                reads = dataclasses.replace(layout, axis=kind.read_axis(layer, len(x.shape)))
                if isinstance(layer, IncompleteDotProduct):
                    reads = layer.input_layout(x.shape)
                if layout != reads:  # other channels than those of the layers before
                    self.groups.fix(order)
                    order = None
            orders.append(order)
        for number, x in enumerate(call.input_tensors):
            if number not in projected:  # read whole, such as a mask
                self.groups.fix(self._orders[x.index])
        known = self.uses.get(id(layer))
        writes = known.writes if known else _Order((self.groups.new(outputs[0].count),), 1)
        if not _is_narrowed(call, inputs, outputs):
            self.groups.fix(writes)
        if id(layer) in self._of_positions:
            for order in (*orders, writes):
                self.groups.fix(order)
        self._use(layer, orders, writes)
        return writes

    def _mix_positions(self, call, inputs, outputs):
        """A layer along another axis than that of the channels: its kernel is not permuted."""
        self._of_positions.add(id(call.operation))
        known = self.uses.get(id(call.operation))
        if known:
            for order in (*known.reads, known.writes):
                self.groups.fix(order)
        return self._hand_on(call, inputs, outputs)

    def _operand(self, call, inputs, outputs):
        if outputs[0] is None or not _is_narrowed(call, inputs, outputs):
            return None
        known = self.uses.get(id(call.operation))  # the weight of a layer that is called twice
        order = known.writes if known else _Order((self.groups.new(outputs[0].count),), 1)
        self._use(call.operation, [None], order)
        return order

    def _hand_on(self, call, inputs, outputs):
        """A layer that treats each channel separately: all of its inputs have one order."""
        if len(outputs) != 1 or not _is_narrowed(call, inputs, outputs):
            return None
        first = [Selection.first(1)]
        layouts = kind_of(call.operation).widths(call, 100, inputs, outputs, first).layouts
        same: list[_Order] = []
        for tensor, layout in zip(call.input_tensors, layouts, strict=True):
            order = self._orders[tensor.index]
            if layout is None or order is None:  # read whole, such as a mask
                self.groups.fix(order)
            else:
                same.append(order)
        if sum(self.groups.sizes[group] for group in same[0].groups) != outputs[0].count:
            return None  # a slice of the channels
        for order in same[1:]:
            self.groups.unite(same[0], order)
        return dataclasses.replace(same[0], repeats=outputs[0].repeats)

    def _use(self, layer, reads, writes):
        """Notes the orders of a layer's weights; a layer called twice has one for its calls."""
        known = self.uses.setdefault(id(layer), _Use(layer, reads, writes))
        for before, now in zip(known.reads, reads, strict=True):
            if before is not now:
                self.groups.unite(before, now)

    def _fixed(self, layout):
        """Returns an order that is kept for a tensor of that layout."""
        if layout is None:
            return None
        order = _Order((self.groups.new(layout.count),), layout.repeats)
        self.groups.fix(order)
        return order

    def permutations(self) -> list[np.ndarray]:
        """Returns for each group where its channels were before, the most important first."""
        groups = self.groups
        importance = [np.zeros(size) for size in groups.sizes]
        for use in self.uses.values():
            kind = kind_of(use.layer)
            cut = is_incomplete(use.layer) or not self._incomplete
            if not (kind.projects and cut) or getattr(use.layer, "complete", False):
                continue
            for place, reads in enumerate(use.reads):
                if reads is None:
                    continue
                norms = kind.importance(use.layer, place).reshape(reads.repeats, -1).sum(0)
                start = 0
                for group in reads.groups:
                    size = groups.sizes[group]
                    importance[groups.root(group)] += norms[start : start + size]
                    start += size
        by_root = {
            root: np.arange(groups.sizes[root])
            if groups.is_fixed(root)
            else np.argsort(-importance[root], stable=True)
            for root in map(groups.root, range(len(groups.sizes)))
        }
        return [by_root[groups.root(group)] for group in range(len(groups.sizes))]


def _is_narrowed(call, inputs, outputs):
    """Whether narrowing could compute only the first output channel: no channels are mixed."""
    first = [Selection.first(1)]
    # At 1 %: some layers compute as many channels as they read.
    return kind_of(call.operation).widths(call, 1, inputs, outputs, first).outputs == first


def _permute(use, permutations):
    """Permutes the weights of a layer."""
    kind = kind_of(use.layer)
    read_by = {id(weight): kind.read_by(path) for path, weight in kind.weights(use.layer).items()}
    for variable, *axes in kind.permuted(use.layer) or []:
        reads = use.reads[read_by.get(id(variable), 0)]
        for axis, order in zip(axes, (reads, use.writes), strict=True):
            if axis is not None and order is not None:
                places = _places(order, permutations, variable.shape[axis])
                variable.assign(np.take(ops.convert_to_numpy(variable), places, axis))


def _places(order, permutations, size):
    """Returns for each place on an axis of that size which place its channel had before."""
    places = np.zeros(0, int)
    for group in order.groups:
        places = np.concatenate([places, len(places) + permutations[group]])
    places = (np.arange(order.repeats)[:, None] * len(places) + places).ravel()
    block = size // len(places)  # several numbers for each channel, side by side
    return (places[:, None] * block + np.arange(block)).ravel()
