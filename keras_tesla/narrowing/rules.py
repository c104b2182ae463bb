"""How channels pass through each layer kind.

A rule answers three questions about one call: where the channels of its outputs lie; which prefix
of its inputs it needs for a prefix of its outputs; and which stock layer computes just that. A
layer without a rule needs all of its inputs and computes all of its outputs, which is always right
and only costs more. Rules hold for exactly the classes they are registered for: a subclass may
compute something else.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from keras_tesla.channels import Channels, leading
from keras_tesla.graph import Call, Tensor
from keras_tesla.layers import (
    IDPBatchNormalization,
    IDPConv1D,
    IDPConv2D,
    IDPConv2DTranspose,
    IDPDense,
    IDPSeparableConv2D,
    IncompleteDotProduct,
    PerRange,
)
from keras_tesla.quantization import kernels
from keras_tesla.quantization.ranges import ActivationRange


@dataclasses.dataclass(frozen=True)
class Widths:
    """What a call computes and what it reads, in channels.

    Args:
        outputs: For each output tensor the width of the computed prefix; None for all of it.
        inputs: For each input tensor the width of the prefix that is read; None for all of it.
        views: For each input tensor the channels as the layer sees them; None where it reads all.
    """

    outputs: list[int | None]
    inputs: list[int | None]
    views: list[Channels | None]


@dataclasses.dataclass(frozen=True)
class Narrowed:
    """The stock layer that computes a call on narrowed tensors.

    Args:
        cls: The layer's class.
        config: Its config.
        weights: Function returning {name of the weight attribute: tensor}.
        state: {name of the attribute: full variable}: statistics to be written back in training.
    """

    cls: Any
    config: dict
    weights: Callable[[], dict[str, Any]]
    state: dict[str, Any]


# Activations that treat each number on its own. softmax, log_softmax, sparsemax and glu mix the
# channels: narrowing before them would change values.
_ELEMENTWISE = {
    *("celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh".split()),
    *("leaky_relu linear log_sigmoid mish relu relu6 selu sigmoid silu soft_shrink".split()),
    *("softplus softsign sparse_plus sparse_sigmoid squareplus swish tanh".split()),
    *("tanh_shrink threshold".split()),
}


def _is_elementwise(activation) -> bool:
    if isinstance(activation, keras.Layer):
        return type(activation) in _CHANNELWISE_LAYERS
    name = getattr(activation, "__name__", "")
    return name in _ELEMENTWISE and activation is keras.activations.get(name)


def _is_regularized(operation) -> bool:
    """Whether an activity regularizer sees every channel, so that all must be computed."""
    return getattr(operation, "activity_regularizer", None) is not None


class Rule:
    """The rule of a layer that is not understood, and the base of all others."""

    def layouts(self, call: Call, inputs: list[Channels | None]) -> list[Channels | None]:
        """Returns where the channels of each output lie; None: unknown, never narrowed."""
        return [None for _ in call.output_tensors]

    def widths(self, call, percentage, inputs, outputs, demand) -> Widths:
        """Returns what is computed and read when `demand` channels of the outputs are needed.

        Args:
            call: The call.
            percentage: Int, 1..100.
            inputs: Layout of each input tensor.
            outputs: Layout of each output tensor.
            demand: For each output tensor the needed width; None: all of it.
        """
        count = len(call.input_tensors)
        return Widths([None for _ in demand], [None] * count, [None] * count)

    def narrow(self, call, percentage, widths: Widths) -> Narrowed | None:
        """Returns the stock layer for the call, or None if the layer serves as it is."""
        return None


class _Channelwise(Rule):
    """Channel i of the output depends on channel i of the first input alone.

    Further inputs, such as a mask, are read whole.
    """

    def layouts(self, call, inputs):
        return [inputs[0]]

    def widths(self, call, percentage, inputs, outputs, demand):
        if inputs[0] is None or outputs[0] is None or _is_regularized(call.operation):
            return super().widths(call, percentage, inputs, outputs, demand)
        others = [None] * (len(inputs) - 1)
        return Widths(list(demand), [demand[0], *others], [inputs[0], *others])


class _ElementwiseActivation(_Channelwise):
    def layouts(self, call, inputs):
        return [inputs[0] if _is_elementwise(call.operation.activation) else None]


class _Dropout(_Channelwise):
    def layouts(self, call, inputs):
        shape, view = getattr(call.operation, "noise_shape", None), inputs[0]
        # A noise shape may be written for the full number of channels.
        fits = shape is None or (view and shape[view.axis] in (None, 1))
        return [view if fits else None]


class _ScalarRescaling(_Channelwise):
    def layouts(self, call, inputs):
        layer = call.operation
        scalars = all(isinstance(v, (int, float)) for v in (layer.scale, layer.offset))
        return [inputs[0] if scalars else None]


def _channel_axis(layer, rank):
    # Cropping1D and UpSampling1D have no data format: channels come last.
    return 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1


class _Spatial(_Channelwise):
    """Pooling, padding, cropping, up-sampling: positions change, channels stay."""

    def layouts(self, call, inputs):
        x = call.input_tensors[0]
        view = inputs[0]
        agrees = (
            view and view.copies == 1 and view.axis == _channel_axis(call.operation, len(x.shape))
        )
        return [view if agrees else None]


class _GlobalPooling(_Spatial):
    def layouts(self, call, inputs):
        (view,) = super().layouts(call, inputs)
        if view is None or call.operation.keepdims:
            return [view]
        return [Channels(axis=1, count=view.count)]


class _Flatten(_Channelwise):
    def layouts(self, call, inputs):
        x = call.input_tensors[0]
        view = inputs[0]
        if view is None or None in x.shape[1:]:
            return [None]
        if len(x.shape) > 2 and view.axis != _channel_axis(call.operation, len(x.shape)):
            return [None]
        # Keras moves channels_first to channels_last before it flattens: channels come last.
        features = math.prod(x.shape[1:])
        return [Channels(axis=1, count=view.count, copies=features // view.count)]


class _Reshape(_Channelwise):
    """A reshape that keeps the last axis only regroups positions."""

    def layouts(self, call, inputs):
        x, y, view = call.input_tensors[0], call.output_tensors[0], inputs[0]
        keeps = view and view.axis == len(x.shape) - 1 and view.copies == 1
        keeps = keeps and y.shape[-1] == x.shape[-1]
        return [Channels(len(y.shape) - 1, view.count) if keeps else None]

    def narrow(self, call, percentage, widths):
        if widths.outputs[0] is None:
            return None
        layer = call.operation
        config = layer.get_config()
        config["target_shape"] = (*layer.target_shape[:-1], widths.outputs[0])
        return Narrowed(type(layer), config, dict, {})


def _has_arrays(call) -> bool:
    """Whether constants are merged, which have channels that no layout tells; a number has none."""
    leaves = keras.tree.flatten((call.args, call.kwargs))
    return not all(isinstance(x, (Tensor, int, float, type(None))) for x in leaves)


class _Merge(Rule):
    """Several inputs with equal channels, combined number by number (or broadcast)."""

    def layouts(self, call, inputs):
        (y,) = call.output_tensors
        same = len(set(inputs)) == 1 and all(
            len(t.shape) == len(y.shape) for t in call.input_tensors
        )
        return [inputs[0] if same and not _has_arrays(call) else None]

    def widths(self, call, percentage, inputs, outputs, demand):
        if outputs[0] is None or _is_regularized(call.operation):
            return super().widths(call, percentage, inputs, outputs, demand)
        return Widths(list(demand), list(demand) * len(inputs), list(inputs))


class _Concatenate(Rule):
    """On the channel axis a prefix of the output is a prefix of the inputs, one after another."""

    def layouts(self, call, inputs):
        (y,) = call.output_tensors
        axis = call.operation.axis % len(y.shape)
        if any(v is None for v in inputs) or _has_arrays(call):
            return [None]
        if all(v.axis == axis and v.copies == 1 for v in inputs):
            return [Channels(axis, sum(v.count for v in inputs))]
        return [inputs[0] if len(set(inputs)) == 1 and inputs[0].axis != axis else None]

    def widths(self, call, percentage, inputs, outputs, demand):
        if outputs[0] is None or demand[0] is None or _is_regularized(call.operation):
            return super().widths(call, percentage, inputs, outputs, demand)
        if outputs[0].axis != call.operation.axis % len(call.output_tensors[0].shape):
            return Widths(list(demand), list(demand) * len(inputs), list(inputs))
        left, needs = demand[0], []
        for view in inputs:
            needs.append(min(left, view.count))
            left -= needs[-1]
        return Widths(list(demand), needs, list(inputs))


class _Normalization(_Channelwise):
    def layouts(self, call, inputs):
        x, view = call.input_tensors[0], inputs[0]
        agrees = view and view.copies == 1 and call.operation.axis % len(x.shape) == view.axis
        return [view if agrees else None]


class _BatchNormalization(_Normalization):
    def narrow(self, call, percentage, widths):
        layer, width = call.operation, widths.outputs[0]
        config = layer.get_config()
        names = ["moving_mean", "moving_variance"]
        if layer.renorm:
            names += ["moving_stddev", "renorm_mean", "renorm_stddev"]
        if isinstance(layer, IDPBatchNormalization):
            del config["percentages"]
            state = dict(zip(names, layer.statistics(percentage), strict=True))
        elif width is None:
            return None
        else:
            state = {name: getattr(layer, name) for name in names}
        shared = {"gamma": layer.gamma, "beta": layer.beta}
        variables = {n: v for n, v in {**shared, **state}.items() if v is not None}
        return Narrowed(
            keras.layers.BatchNormalization,
            config,
            lambda: {n: leading(ops.convert_to_tensor(v), width) for n, v in variables.items()},
            state,
        )


class _Projection(Rule):
    """A layer with a kernel, last axis outputs: each output channel is a dot product."""

    def __init__(self, stock: type, size: str, kernels=("kernel",), outputs_axis=-1):
        self._stock = stock
        self._size = size
        self._kernels = kernels  # the last one has the outputs
        self._outputs_axis = outputs_axis

    def _axis(self, call, rank):
        return rank - 1 if self._stock is layers.Dense else _channel_axis(call.operation, rank)

    def layouts(self, call, inputs):
        (y,) = call.output_tensors
        return [Channels(self._axis(call, len(y.shape)), getattr(call.operation, self._size))]

    def widths(self, call, percentage, inputs, outputs, demand):
        layer = call.operation
        out = demand[0]
        if (
            not _is_elementwise(layer.activation)
            or _is_regularized(layer)
            or layer.dtype_policy.quantization_mode is not None
            or getattr(layer, "groups", 1) > 1
        ):
            out = None
        if not isinstance(layer, IncompleteDotProduct):
            return Widths([out], [None], [None])
        view = layer.input_view(call.input_tensors[0].shape)
        return Widths([out], [layer.active_terms(percentage)], [view])

    def narrow(self, call, percentage, widths):
        if widths.outputs[0] is None and not isinstance(call.operation, IncompleteDotProduct):
            return None
        return self.stock(call, percentage, widths)

    def stock(self, call, percentage, widths) -> Narrowed:
        """Returns the stock layer for the call, also where the layer would serve as it is."""
        layer, width = call.operation, widths.outputs[0]
        incomplete = isinstance(layer, IncompleteDotProduct)
        config = {k: v for k, v in layer.get_config().items() if k not in _NOT_STOCK}
        if width is not None:
            config[self._size] = width

        def weights():
            if incomplete:
                narrowed = layer.incomplete_weights(percentage)
            else:
                narrowed = {n: ops.convert_to_tensor(getattr(layer, n)) for n in self._kernels}
            last = self._kernels[-1]
            narrowed[last] = leading(narrowed[last], width, self._outputs_axis)
            if layer.use_bias:
                bias = layer.trained_bias() if incomplete else ops.convert_to_tensor(layer.bias)
                narrowed["bias"] = leading(bias, width)
            return narrowed

        return Narrowed(self._stock, config, weights, {})


class _Depthwise(_Channelwise):
    """Each input channel has `depth_multiplier` output channels, side by side."""

    def layouts(self, call, inputs):
        layer, view = call.operation, inputs[0]
        axis = _channel_axis(layer, len(call.input_tensors[0].shape))
        agrees = (
            view and (view.axis, view.copies) == (axis, 1) and _is_elementwise(layer.activation)
        )
        return [Channels(axis, view.count * layer.depth_multiplier) if agrees else None]

    def widths(self, call, percentage, inputs, outputs, demand):
        widths = super().widths(call, percentage, inputs, outputs, demand)
        if widths.outputs[0] is None:
            return widths
        multiplier = call.operation.depth_multiplier
        reads = -(-demand[0] // multiplier)
        return dataclasses.replace(widths, outputs=[reads * multiplier], inputs=[reads])

    def narrow(self, call, percentage, widths):
        layer, reads, width = call.operation, widths.inputs[0], widths.outputs[0]
        if width is None:
            return None

        def weights():
            narrowed = {"kernel": leading(ops.convert_to_tensor(layer.kernel), reads, -2)}
            if layer.use_bias:
                narrowed["bias"] = leading(ops.convert_to_tensor(layer.bias), width)
            return narrowed

        return Narrowed(type(layer), layer.get_config(), weights, {})


class _GroupNormalization(_Normalization):
    """A group of channels is normalized by its own statistics: whole groups can be left out."""

    def widths(self, call, percentage, inputs, outputs, demand):
        widths = super().widths(call, percentage, inputs, outputs, demand)
        if widths.outputs[0] is None:
            return widths
        size = inputs[0].count // call.operation.groups
        width = -(-demand[0] // size) * size
        return dataclasses.replace(widths, outputs=[width], inputs=[width, *widths.inputs[1:]])

    def narrow(self, call, percentage, widths):
        layer, width = call.operation, widths.outputs[0]
        if width is None:
            return None
        config = layer.get_config()
        full = call.input_tensors[0].shape[layer.axis]
        config["groups"] = width * layer.groups // full
        variables = {n: getattr(layer, n) for n in ("gamma", "beta")}
        return Narrowed(
            type(layer),
            config,
            lambda: {
                n: leading(ops.convert_to_tensor(v), width)
                for n, v in variables.items()
                if v is not None
            },
            {},
        )


class _PerRange(Rule):
    """What the rule of the layer says that runs at the percentage."""

    def _chosen(self, call, percentage):
        layer = call.operation.layer_at(percentage)
        rule: Any = _RULES[type(layer)]  # a _Projection
        return rule, dataclasses.replace(call, operation=layer)

    def layouts(self, call, inputs):
        rule, chosen = self._chosen(call, 100)  # class and shapes of all of its layers are the same
        return rule.layouts(chosen, inputs)

    def widths(self, call, percentage, inputs, outputs, demand):
        rule, chosen = self._chosen(call, percentage)
        return rule.widths(chosen, percentage, inputs, outputs, demand)

    def narrow(self, call, percentage, widths):
        rule, chosen = self._chosen(call, percentage)
        narrowed = rule.stock(chosen, percentage, widths)
        # The name of an output must not depend on the percentage.
        return dataclasses.replace(
            narrowed, config={**narrowed.config, "name": call.operation.name}
        )


class _FakeQuantized(Rule):
    """The rule of a stock class, for its twin with a rounded kernel."""

    def __init__(self, stock: type):
        self._stock = stock

    def layouts(self, call, inputs):
        return _RULES[self._stock].layouts(call, inputs)

    def widths(self, call, percentage, inputs, outputs, demand):
        return _RULES[self._stock].widths(call, percentage, inputs, outputs, demand)

    def narrow(self, call, percentage, widths):
        layer = call.operation
        narrowed = _RULES[self._stock].narrow(call, percentage, widths)

        def weights():
            if narrowed is None:
                values = {v.name: ops.convert_to_tensor(v) for v in layer.weights}
            else:
                values = narrowed.weights()
            corner = tuple(slice(count) for count in values["kernel"].shape)
            return {**values, "kernel": layer.incomplete_kernel(percentage)[corner]}

        config = layer.get_config() if narrowed is None else narrowed.config
        return Narrowed(self._stock, config, weights, {})


# Config keys of a projection that its narrowed layer has not: the kernel has them folded in.
_NOT_STOCK = {"profile", "trainable_profile", "input_channels", "lora_rank", "lora_alpha"}

_SEPARABLE = ("depthwise_kernel", "pointwise_kernel")

_CHANNELWISE_LAYERS = {
    *(layers.ELU, layers.GaussianDropout, layers.GaussianNoise, layers.Identity),
    *(layers.LeakyReLU, layers.ReLU),
    *(layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
}

_RULES: dict[type | str, Rule] = {
    **dict.fromkeys(_CHANNELWISE_LAYERS, _Channelwise()),
    **dict.fromkeys([layers.Dropout, layers.AlphaDropout], _Dropout()),
    layers.Activation: _ElementwiseActivation(),
    layers.Rescaling: _ScalarRescaling(),
    **{
        getattr(layers, f"{kind}{rank}D"): rule
        for rank in (1, 2, 3)
        for kind, rule in {
            "MaxPooling": _Spatial(),
            "AveragePooling": _Spatial(),
            "ZeroPadding": _Spatial(),
            "Cropping": _Spatial(),
            "UpSampling": _Spatial(),
            "GlobalMaxPooling": _GlobalPooling(),
            "GlobalAveragePooling": _GlobalPooling(),
            "Conv": _Projection(getattr(layers, f"Conv{rank}D"), "filters"),
        }.items()
    },
    **{
        layer: _Projection(layer, "filters", outputs_axis=-2)
        for layer in (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
    },
    **{
        layer: _Projection(layer, "filters", _SEPARABLE)
        for layer in (layers.SeparableConv1D, layers.SeparableConv2D)
    },
    **dict.fromkeys([layers.DepthwiseConv1D, layers.DepthwiseConv2D], _Depthwise()),
    layers.Flatten: _Flatten(),
    layers.Reshape: _Reshape(),
    layers.Concatenate: _Concatenate(),
    **dict.fromkeys([layers.Add, layers.Average, layers.Maximum], _Merge()),
    **dict.fromkeys([layers.Minimum, layers.Multiply, layers.Subtract], _Merge()),
    **dict.fromkeys(["Add", "Maximum", "Minimum", "Multiply", "Subtract"], _Merge()),
    layers.BatchNormalization: _BatchNormalization(),
    IDPBatchNormalization: _BatchNormalization(),
    layers.GroupNormalization: _GroupNormalization(),
    layers.Dense: _Projection(layers.Dense, "units"),
    IDPDense: _Projection(layers.Dense, "units"),
    IDPConv1D: _Projection(layers.Conv1D, "filters"),
    IDPConv2D: _Projection(layers.Conv2D, "filters"),
    IDPConv2DTranspose: _Projection(layers.Conv2DTranspose, "filters", outputs_axis=-2),
    IDPSeparableConv2D: _Projection(layers.SeparableConv2D, "filters", _SEPARABLE),
    PerRange: _PerRange(),
    ActivationRange: _Channelwise(),
}
_RULES.update(
    (twin, _RULES[cls] if issubclass(cls, IncompleteDotProduct) else _FakeQuantized(cls))
    for cls, twin in kernels.FAKE_QUANTIZED.items()
)

_UNKNOWN = Rule()


def rule_for(operation) -> Rule:
    """Returns the rule for a layer or operation of a graph."""
    if isinstance(operation, keras.Layer):
        return _RULES.get(type(operation), _UNKNOWN)
    # The operation classes behind `x + y` and the like have no public name but this one.
    cls = type(operation)
    of_keras = cls.__module__.split(".")[0] == "keras"
    return _RULES.get(cls.__name__, _UNKNOWN) if of_keras else _UNKNOWN
