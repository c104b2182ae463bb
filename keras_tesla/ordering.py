"""Ordering channels, so that the important ones come first.

Tensors whose channels must be permuted alike share a group. A producer (a layer with a kernel)
starts a group; layers that treat each channel alone hand it on; an addition unites the groups of
its inputs; a concatenation holds one group after the other. A group that something else reads or
writes keeps its order.
"""

import dataclasses
from typing import Any

import numpy as np
from keras import layers, ops

from keras_tesla import cloning
from keras_tesla import graph as graphs
from keras_tesla.channels import Channels
from keras_tesla.layers import IDPBatchNormalization, IDPConv1D, IDPConv2D, IDPDense
from keras_tesla.narrowing.rules import rule_for

_IDP = (IDPDense, IDPConv1D, IDPConv2D)
# Exactly these classes: a subclass may compute something else.
_PROJECTIONS = {layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D, *_IDP}
_DEPTHWISE = {layers.DepthwiseConv1D, layers.DepthwiseConv2D}
_NORMALIZATIONS = {layers.BatchNormalization, IDPBatchNormalization}


def order_channels(model):
    """Returns a copy of a model whose channels are reordered: the most important come first.

    An incomplete layer keeps its first input channels, so these should be the ones that matter.
    The importance of channel i of a tensor is the L1 norm of all weights that read it,

    `importance_i = sum over readers l, outputs j, positions of |w_lij|`

    and the channels are sorted by it, equal ones left in their order. The readers are the
    incomplete layers, whose dot products are cut; in a model without one, to be made incomplete
    later, all `Dense` and `Conv` layers. The size of the channel itself, such as the gamma of a
    batch normalization before it, does not enter.

    What the model computes does not change, up to rounding: the outputs of a layer and what reads
    them are permuted together, through activations, batch normalizations, depthwise convolutions,
    pooling, `Flatten`, merges and layers called twice. Channels that are added together are ordered
    together, the parts of a concatenation each for itself. Inputs and outputs of the model, and
    what a layer reads or writes that is not understood (your own, a grouped, transposed or
    separable convolution), keep their order.

    At lower percentages other channels are left out than before: train on, or at least
    `recalibrate` the batch normalizations.

    Args:
        model: A trained, built Functional or Sequential `keras.Model`, with incomplete layers or
            without. It is not changed.

    Returns:
        A Functional `keras.Model`, not compiled.

    Raises:
        ValueError: If the model is subclassed or not built, or an incomplete layer has a profile
            other than all ones: its coefficients belong to places, not to channels.

    Example:

    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3), IDPDense(1)])
    >>> model.layers[-1].set_weights([np.array([[1.0], [-3.0], [2.0]]), np.zeros(1)])
    >>> order_channels(model).layers[-1].kernel.numpy().ravel().tolist()
    [-3.0, 2.0, 1.0]

    Reference:
        Cai, Gan, Wang, Zhang, Han: Once-for-All: Train One Network and Specialize it for Efficient
        Deployment, 2020, https://arxiv.org/abs/1908.09791 (channel sorting)
    """
    for layer in graphs.read(model).layers:
        _check_profile(layer)
    ordered, pairs = cloning.clone(model, cloning.copy_of)
    for old, new in pairs:
        cloning.copy_weights(old, new)
    reading = _Reading(graphs.read(ordered))
    permutations = reading.permutations()
    for use in reading.uses.values():
        _permute(use, permutations)
    return ordered


def _check_profile(layer):
    if not isinstance(layer, _IDP) or layer.coefficients is None:
        return
    coefficients = ops.convert_to_numpy(layer.coefficients)
    if (coefficients != 1).any():
        raise ValueError(
            f"Layer {layer.name!r} has profile coefficients that are not all one. They belong to "
            "places, so a channel that moves would get another one and the model would compute "
            "something else. Order the channels first and choose a profile then. "
            f"Received: {layer.profile!r} with {coefficients}"
        )


@dataclasses.dataclass(frozen=True)
class _Order:
    """The order of a tensor's channels.

    Args:
        groups: The channels' groups, one after the other.
        copies: How often all of them are repeated, as in `Channels`.
    """

    groups: tuple[int, ...]
    copies: int


@dataclasses.dataclass(frozen=True)
class _Use:
    """The orders that a layer's weights follow.

    Args:
        layer: The layer.
        reads: The order of its input; None: unknown, not to be permuted.
        writes: The order of its output, if it is another.
    """

    layer: Any
    reads: _Order | None
    writes: _Order | None = None


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
        return order.copies, [self.sizes[g] for g in order.groups]


class _Reading:
    """Reads the groups of a graph.

    Args:
        graph: The calls of a model.
    """

    def __init__(self, graph):
        self.groups = _Groups()
        self.uses: dict[int, _Use] = {}  # by the id of the layer
        incomplete = any(isinstance(layer, _IDP) for layer in graph.layers)
        self._cut = _IDP if incomplete else tuple(_PROJECTIONS)
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
        layer, kind = call.operation, type(call.operation)
        outputs, order = rule_for(layer).layouts(call, inputs), None
        if kind in _PROJECTIONS and _is_plain(layer):
            order = self._project(call, inputs, outputs)
        elif kind in _DEPTHWISE:
            if layer.depth_multiplier == 1 and _is_narrowed(call, inputs, outputs):
                order = orders[0]
            self._use(layer, order)
        elif _concatenates_channels(call, outputs):
            order = _Order(sum((x.groups for x in orders if x is not None), ()), 1)
        elif kind in _NORMALIZATIONS or not getattr(layer, "weights", []):
            order = self._hand_on(call, inputs, outputs)
            if kind in _NORMALIZATIONS:
                self._use(layer, order)
        if order is None:
            for x in orders:
                self.groups.fix(x)
        for tensor, layout in zip(call.output_tensors, outputs, strict=True):
            self._layouts[tensor.index] = layout
            self._orders[tensor.index] = order or self._fixed(layout)

    def _project(self, call, inputs, outputs):
        """A layer with a kernel: permutes its rows, and its columns if nothing mixes them."""
        layer, x = call.operation, call.input_tensors[0]
        (layout,), order = inputs, self._orders[x.index]
        if layout is not None:
            view = dataclasses.replace(layout, axis=outputs[0].axis)
            if isinstance(layer, _IDP):
                view = layer.input_view(x.shape)
            if layout != view:  # other channels than those of the layers before
                self.groups.fix(order)
                order = None
        known = self.uses.get(id(layer))
        writes = known.writes if known else _Order((self.groups.new(outputs[0].count),), 1)
        if not _is_narrowed(call, inputs, outputs):
            self.groups.fix(writes)
        self._use(layer, order, writes)
        return writes

    def _hand_on(self, call, inputs, outputs):
        """A layer that treats each channel alone, in all of its inputs: they have one order."""
        if len(outputs) != 1 or not _is_narrowed(call, inputs, outputs):
            return None
        views = rule_for(call.operation).widths(call, 100, inputs, outputs, [1]).views
        same: list[_Order] = []
        for tensor, view in zip(call.input_tensors, views, strict=True):
            order = self._orders[tensor.index]
            if view is None or order is None:  # read whole, such as a mask
                self.groups.fix(order)
            else:
                same.append(order)
        for order in same[1:]:
            self.groups.unite(same[0], order)
        return dataclasses.replace(same[0], copies=outputs[0].copies)

    def _use(self, layer, reads, writes=None):
        """Notes the orders of a layer's weights; a layer called twice has one for its calls."""
        known = self.uses.setdefault(id(layer), _Use(layer, reads, writes))
        if known.reads is not reads:
            self.groups.unite(known.reads, reads)

    def _fixed(self, layout):
        """Returns an order that is kept for a tensor of that layout."""
        if layout is None:
            return None
        order = _Order((self.groups.new(layout.count),), layout.copies)
        self.groups.fix(order)
        return order

    def permutations(self) -> list[np.ndarray]:
        """Returns for each group where its channels were before, the most important first."""
        groups = self.groups
        importance = [np.zeros(size) for size in groups.sizes]
        for use in self.uses.values():
            if use.reads is None or not isinstance(use.layer, self._cut):
                continue
            rows = np.moveaxis(np.abs(ops.convert_to_numpy(use.layer.kernel)), -2, 0)
            norms = rows.reshape(use.reads.copies, -1, rows[0].size).sum((0, 2), dtype="float64")
            start = 0
            for group in use.reads.groups:
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


def _is_plain(layer):
    """Whether a layer with a kernel is a dot product of all channels, without LoRA or the like."""
    own = {variable.name for variable in layer.weights}
    return getattr(layer, "groups", 1) == 1 and own <= {"kernel", "bias", "profile"}


def _concatenates_channels(call, outputs):
    if type(call.operation) is not layers.Concatenate or outputs[0] is None:
        return False
    return outputs[0].axis == call.operation.axis % len(call.output_tensors[0].shape)


def _is_narrowed(call, inputs, outputs):
    """Whether narrowing could compute the first output channel alone: no channels are mixed."""
    widths = rule_for(call.operation).widths(call, 100, inputs, outputs, [1])
    return widths.outputs == [1]


def _permute(use, permutations):
    """Permutes the weights of a layer."""
    layer = use.layer
    if type(layer) in _NORMALIZATIONS:
        axes = [(variable, 0, use.reads) for variable in layer.weights]
    elif type(layer) in _DEPTHWISE:
        axes = [(layer.kernel, -2, use.reads), (layer.bias, 0, use.reads)]
    else:
        axes = [(layer.kernel, -2, use.reads), (layer.kernel, -1, use.writes)]
        axes.append((layer.bias, 0, use.writes))
    for variable, axis, order in axes:
        if variable is not None and order is not None:
            places = _places(order, permutations)
            variable.assign(np.take(ops.convert_to_numpy(variable), places, axis))


def _places(order, permutations):
    """Returns for each place on a tensor's axis which place its channel had before."""
    places = np.zeros(0, int)
    for group in order.groups:
        places = np.concatenate([places, len(places) + permutations[group]])
    return (np.arange(order.copies)[:, None] * len(places) + places).ravel()
