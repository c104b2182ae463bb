"""Attention with heads: projections of query, key and value, and one of the heads."""

import inspect
import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_tesla.channels import Channels, Selection, pick
from keras_tesla.cloning import config_of, copy_weights
from keras_tesla.graph import Call, Tensor
from keras_tesla.kinds.kind import Axes, Kind, Narrowed, Widths, is_regularized
from keras_tesla.kinds.registry import register
from keras_tesla.kinds.sizes import product
from keras_tesla.layers import IDPGroupQueryAttention, IDPMultiHeadAttention
from keras_tesla.layers.attention import PROJECTIONS, needs_all_heads, projections

# Config keys of an incomplete layer that its Keras class has not.
_NOT_STOCK = ("query_parts", "value_parts", "key_parts", "percentages")
# The tensors that are projected, and which of them each projection reads.
_READ = ("query", "value", "key")
_READS = {PROJECTIONS[name]: name for name in _READ} | {PROJECTIONS["gate"]: "query"}
_SEED = "_dropout_layer.seed_generator.state"


def arguments_of(call: Call) -> dict[str, Any]:
    """Returns the arguments of a call by name, with `Tensor` for each tensor."""
    return inspect.signature(call.operation.call).bind(*call.args, **call.kwargs).arguments


def _places(call) -> dict[str, int]:
    """Returns {argument: its place among `input_tensors`}; a key that is not given is the value."""
    numbers = iter(range(len(call.input_tensors)))
    args, kwargs = keras.tree.map_structure(
        lambda x: next(numbers) if isinstance(x, Tensor) else None, (call.args, call.kwargs)
    )
    given = inspect.signature(call.operation.call).bind(*args, **kwargs).arguments
    places = {name: place for name, place in given.items() if place is not None}
    return {"key": places["value"], **places}


class _MultiHeadAttention(Kind):
    """In its stock form, or the incomplete one, which leaves out heads and channels that it reads.

    Args:
        incomplete: For the kind of a stock class: its incomplete class.
        stock: For the kind of an incomplete class: its stock class.
    """

    weight_axes: Mapping[str, Axes] = {
        **{f"{PROJECTIONS[name]}.kernel": (0, None) for name in ("query", "key", "value", "gate")},
        **{f"{PROJECTIONS[name]}.bias": (None, None) for name in ("query", "key", "value", "gate")},
        "_output_dense.kernel": (None, -1),
        "_output_dense.bias": (None, -1),
    }
    projects = True
    takes_profile = False
    further = "its heads"

    def __init__(self, incomplete=None, stock=None):
        self.incomplete = incomplete
        self.depends = stock is not None
        self._stock = stock

    def channel_axis(self, layer, rank):
        return rank - 1

    def projected(self, call):
        places = _places(call)
        return [places[name] for name in _READ]

    def read_by(self, path):
        return _READ.index(_READS.get(path.split(".")[0], "query"))

    def layouts(self, call, inputs):
        y, *scores = call.output_tensors
        sizes = call.operation._output_dense.kernel.shape[2:]
        layout = Channels(len(y.shape) - 1, sizes[0]) if len(sizes) == 1 else None
        return [layout, *(None for _ in scores)]

    def widths(self, call, percentage, inputs, outputs, demand):
        layer, count = call.operation, len(inputs)
        width = demand[0]
        if width == Selection():  # only the scores are read
            width = Selection.first(1)
        if outputs[0] is None or not self._computes_any(layer):
            width = None
        reads: list[Selection | None] = [None] * count
        layouts: list[Channels | None] = [None] * count
        if self.depends:
            places, active = _places(call), layer.reads(percentage)
            layer.check_key(places["key"] != places["value"])
            for name in _READ:
                place = places[name]
                shape = call.input_tensors[place].shape
                reads[place] = active[name]
                layouts[place] = Channels(len(shape) - 1, shape[-1])
        return Widths([width, *demand[1:]], reads, layouts)

    def _computes_any(self, layer) -> bool:
        """Whether the layer may compute some of its output channels."""
        dense = layer._output_dense
        return dense.quantization_mode is None and not is_regularized(dense)

    def narrow(self, call, percentage, widths):
        layer = call.operation
        if not self.depends and widths.outputs[0] is None:
            return None
        self.check_weights(layer)
        groups, width = self._groups(call, percentage), widths.outputs[0]
        config = {k: v for k, v in config_of(layer).items() if k not in _NOT_STOCK}
        config["flash_attention"] = layer._flash_attention  # Keras does not write it
        config.update(self._sizes(layer, groups, width))
        state = {}
        if layer._dropout_layer.rate > 0:
            state[_SEED] = layer._dropout_layer.seed_generator.state

        def weights():
            found = {}
            for name, own in self._weights(call, percentage, widths, groups).items():
                for n, weight in own.items():
                    if name == "attention_output":
                        weight = pick(weight, width, -1)
                    found[f"{PROJECTIONS[name]}.{n}"] = weight
            return found

        return Narrowed(self._stock or type(layer), config, weights, state)

    def _groups(self, call, percentage) -> int:
        """How many heads of keys and values a call uses."""
        layer = call.operation
        if not self.depends or needs_all_heads(layer, **arguments_of(call)):
            return layer._key_dense.kernel.shape[1]
        return layer.active_groups(percentage)

    def _sizes(self, layer, groups, width) -> dict:
        """The config of a layer of `groups` heads and `width` output channels."""
        sizes = layer._output_dense.kernel.shape[2:] if width is None else (len(width),)
        return {"num_heads": groups, "output_shape": tuple(sizes)}

    def _weights(self, call, percentage, widths, groups) -> dict[str, dict[str, Any]]:
        """Returns {name of a projection: {`"kernel"`, `"bias"`: tensor}}, of all outputs."""
        if self.depends:
            return call.operation.incomplete_weights(percentage, groups)
        return {
            name: {
                n: ops.convert_to_tensor(w)
                for n in ("kernel", "bias")
                if (w := getattr(d, n)) is not None
            }
            for name, d in projections(call.operation).items()
        }

    def multiply_adds(self, call, weights):
        layer, given = call.operation, arguments_of(call)
        if "_output_dense.kernel" not in weights:
            return None  # a subclass with other projections
        query, value = given["query"].shape, given["value"].shape
        axes = getattr(layer, "attention_axes", None) or (1,)
        queries, keys = (product(layer, x, [x[axis] for axis in axes]) for x in (query, value))
        apart = [size for i, size in enumerate(query[1:-1], 1) if i not in axes]
        of_keys = ("_key_dense.kernel", "_value_dense.kernel")
        projected = sum(
            math.prod(weight.shape) * (keys if path in of_keys else queries)
            for path, weight in weights.items()
            if path.endswith("kernel")
        )
        heads, size, _ = weights["_output_dense.kernel"].shape[:3]
        size += weights["_query_dense.kernel"].shape[-1]
        return product(layer, query, apart) * (projected + heads * queries * keys * size)

    def order_inside(self, layer, calls):
        if any(needs_all_heads(layer, **arguments_of(call)) for call in calls):
            return  # the heads are an axis of an output or a mask
        of_projections = projections(layer)
        output = ops.convert_to_numpy(of_projections["attention_output"].kernel)
        groups = layer._key_dense.kernel.shape[1]
        importance = np.abs(output).reshape(groups, -1).sum(1, dtype="float64")
        order = np.argsort(-importance, stable=True)
        for name, dense in of_projections.items():
            reads_heads = name == "attention_output"
            for variable, axis in ((dense._kernel, 0 if reads_heads else 1), (dense.bias, 0)):
                if variable is None or (reads_heads and variable is dense.bias):
                    continue
                size = variable.shape[axis] // groups  # heads of a group
                heads = (order[:, None] * size + np.arange(size)).ravel()
                value = np.take(ops.convert_to_numpy(variable), heads, axis)
                variable.assign(value)

    # How the layer becomes incomplete.

    def why_complete(self, layer):
        if any(dense.quantization_mode is not None for dense in projections(layer).values()):
            return "has quantized weights"
        if any(dense.lora_enabled for dense in projections(layer).values()):
            return "has LoRA weights; merge them into the kernel first"
        return None

    def make_incomplete(self, layer, channels, percentages, profile, trainable_profile):
        query, value, key = (c.parts if len(c.parts) > 1 else None for c in channels)
        config = {
            **config_of(layer),
            "flash_attention": layer._flash_attention,
            "percentages": percentages,  # those that `TESLA` trains if it is given no others
            "query_parts": query,
            "value_parts": value,
            "key_parts": key,
        }
        return self.incomplete.from_config(config)

    def copy_weights(self, layer, incomplete):
        copy_weights(layer, incomplete)


class _GroupQueryAttention(_MultiHeadAttention):
    """It returns as many channels as the query has, and wants as many of the value."""

    def widths(self, call, percentage, inputs, outputs, demand):
        widths = super().widths(call, percentage, inputs, outputs, demand)
        if not self.depends:
            return Widths([None, *demand[1:]], widths.inputs, widths.layouts)
        places = [_places(call)[name] for name in ("query", "value")]
        count, width = call.input_tensors[places[0]].shape[-1], widths.outputs[0]
        least = max(
            count if width is None else len(width), *(len(widths.inputs[p]) for p in places)
        )
        for place in places:
            widths.inputs[place] = _widened(widths.inputs[place], least, count)
        width = None if width is None or least == count else _widened(width, least, count)
        return Widths([width, *widths.outputs[1:]], widths.inputs, widths.layouts)

    def _computes_any(self, layer):
        return super()._computes_any(layer) and not is_regularized(layer)

    def _sizes(self, layer, groups, width):
        return {
            "num_query_heads": groups * layer.num_repeats,
            "num_key_value_heads": groups,
        }

    def _weights(self, call, percentage, widths, groups):
        found, reads = super()._weights(call, percentage, widths, groups), widths.inputs
        places, active = _places(call), call.operation.reads(percentage)
        places["gate"] = places["query"]
        for name in found.keys() - {"attention_output"}:
            kernel = found[name]["kernel"]
            found[name]["kernel"] = _with_zeros(kernel, active[name], reads[places[name]])
        return found


def _widened(width: Selection, least: int, count: int) -> Selection:
    """Returns at least so many of `count` channels, those of `width` among them."""
    others = (Selection.first(count) - width).indices()[: max(0, least - len(width))]
    return width | Selection.of((i, i + 1) for i in others.tolist())


def _with_zeros(kernel, have: Selection, want: Selection):
    """Returns a kernel that reads the channels `want`: zeros for those that are not in `have`."""
    if want == have:
        return kernel
    kernel = ops.pad(kernel, [(0, len(want) - len(have)), (0, 0), (0, 0)])
    order = np.argsort([*have.indices(), *(want - have).indices()])
    return ops.take(kernel, order, axis=0)


for _kind, _stock, _incomplete in [
    (_MultiHeadAttention, layers.MultiHeadAttention, IDPMultiHeadAttention),
    (_GroupQueryAttention, layers.GroupQueryAttention, IDPGroupQueryAttention),
]:
    register(_kind(incomplete=_incomplete), _stock)
    register(_kind(stock=_stock), _incomplete)
