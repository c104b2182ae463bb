"""The base classes of all kinds, and what a kind answers with."""

import contextlib
import dataclasses
import operator
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_tesla.channels import Channels, Selection, pick
from keras_tesla.cloning import config_of
from keras_tesla.graph import Call

# The axis of the channels that are read and that of those that are computed.
Axes = tuple[int | None, int | None]


@dataclasses.dataclass(frozen=True)
class Widths:
    """What a call computes and what it reads, in channels.

    Args:
        outputs: For each output tensor the channels that are computed; None for all of it.
        inputs: For each input tensor the channels that are read; None for all of it.
        layouts: For each input tensor the channels as the layer sees them; None where it reads all.
    """

    outputs: list[Selection | None]
    inputs: list[Selection | None]
    layouts: list[Channels | None]


@dataclasses.dataclass(frozen=True)
class Narrowed:
    """The layer that computes a call on narrowed tensors.

    Args:
        cls: The layer's class.
        config: Its config.
        weights: Function returning {path of the weight, as in `weight_at`: tensor}. That of an
            incomplete layer also takes `private`, whether a private profile is folded into the
            kernel.
        state: {path: full variable}: statistics to be written back in training. What is not among
            the weights, such as the state of a random seed, is lent whole.
    """

    cls: Any
    config: dict
    weights: Callable[..., dict[str, Any]]
    state: dict[str, Any]


def weight_at(layer, path: str):
    """Returns a weight by its path from the layer: attributes with dots between them.

    `"kernel"` is `layer.kernel`, `"query_dense.kernel"` is `layer.query_dense.kernel`. What is
    there may be a variable, a tensor computed from several (a kernel with LoRA), or None.

    Args:
        layer: The layer.
        path: String.
    """
    return operator.attrgetter(path)(layer)


def last_or_first(layer, rank) -> int:
    """Returns the axis of the channels that a layer's data format says; without one, the last."""
    # Cropping1D and UpSampling1D have no data format: channels come last.
    return 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1


class Kind:
    """What is known about a layer class: here, nothing. The base class of all kinds.

    Such a layer reads all of its inputs and computes all of its outputs, which is always right and
    saves nothing. A subclass says more; for most layers, derive from `Channelwise`. The methods are
    about one layer, or one call of it, of the classes that the kind is registered for.

    Attributes:
        weight_axes: {path of a weight, as in `weight_at`: (axis of the channels that are read, axis
            of the channels that are computed)}, for example `{"kernel": (-2, -1), "bias": (None,
            0)}`. None: the weight has no such axis. The axis may hold the channels several times,
            one set after the other, as the kernel of a Dense layer after a Flatten does, or
            several numbers for each channel, as a pointwise kernel does.
        depends: Bool, whether the result differs between percentages even for equal inputs.
        projects: Bool, whether the layer makes new channels: each one from all that it reads.
        reduces: Bool, whether the layer takes statistics of its channels and applies them to each.
            In which order the channels are does not matter.
        incomplete: The class that `to_idp` puts in the layer's place, or None.
        takes_repeats: Bool, whether a layer that `projects` can read channels that repeat on their
            axis.
        takes_profile: Bool, whether the incomplete class has a profile.
        unit: What is left out, in the words of the conversion report.
        further: What the incomplete layer leaves out besides channels, in these words.
    """

    weight_axes: Mapping[str, Axes] = {}
    depends = False
    projects = False
    reduces = False
    incomplete: Any = None
    takes_repeats = False
    takes_profile = True
    unit = "by channel"
    further = ""

    def of(self, layer) -> "Kind":
        """Returns the kind of a layer of the class, where its arguments make it another."""
        return self

    # What a layer that `projects` reads.

    def projected(self, call) -> list[int]:
        """Returns the places among `input_tensors` of those that new channels are made of."""
        return [0]

    def read_by(self, path: str) -> int:
        """Returns which of `projected` the weight at a path reads: its place there."""
        return 0

    def read_axis(self, layer, rank: int) -> int | None:
        """Returns the axis on which a layer that `projects` reads channels."""
        return self.channel_axis(layer, rank)

    # How channels pass through a call.

    def channel_axis(self, layer, rank: int) -> int | None:
        """Returns the axis on which the layer takes channels; None: it works on any."""
        return last_or_first(layer, rank)

    def layouts(self, call: Call, inputs: list[Channels | None]) -> list[Channels | None]:
        """Returns where the channels of each output lie; None: unknown, never narrowed.

        Args:
            call: The call.
            inputs: Layout of each input tensor; None: unknown.
        """
        return [None for _ in call.output_tensors]

    def widths(self, call, percentage, inputs, outputs, demand) -> Widths:
        """Returns what is computed and read when `demand` channels of the outputs are needed.

        Args:
            call: The call.
            percentage: Int, 1..100.
            inputs: Layout of each input tensor.
            outputs: Layout of each output tensor.
            demand: For each output tensor the `Selection` of its channels that are needed; None:
                all of it.
        """
        count = len(call.input_tensors)
        return Widths([None for _ in demand], [None] * count, [None] * count)

    def narrow(self, call, percentage, widths: Widths) -> Narrowed | None:
        """Returns the layer that computes the call, or None if the layer serves as it is.

        Here: a layer of the same class and `config`, whose weights are cut as `weight_axes` says.
        """
        layer, width = call.operation, widths.outputs[0]
        reads = widths.inputs[0] if widths.inputs else None
        if width is None:
            return None
        self.check_weights(layer)
        if not self.weight_axes:
            return None

        def weights():
            found = {}
            for path, (read, computed) in self.weight_axes.items():
                weight = weight_at(layer, path)
                if weight is not None:
                    weight = ops.convert_to_tensor(weight)
                    weight = weight if read is None else pick(weight, reads, read)
                    found[path] = weight if computed is None else pick(weight, width, computed)
            return found

        return Narrowed(type(layer), self.config(call, widths), weights, {})

    def config(self, call, widths: Widths) -> dict:
        """Returns the config of the narrowed layer; here that of the layer."""
        return config_of(call.operation)

    def arguments(self, call, widths: Widths, args, kwargs):
        """Returns what to call the narrowed layer or operation on.

        Args:
            call: The call.
            widths: What it computes and reads.
            args: Its positional arguments, with what it reads of each tensor.
            kwargs: Its keyword arguments, likewise.
        """
        return args, kwargs

    # What a layer costs.

    def weights(self, layer) -> dict[str, Any]:
        """Returns {path: weight} of the layer's weights that `weight_axes` names."""
        found = {}
        for path in self.weight_axes:
            with contextlib.suppress(AttributeError):  # a subclass may have other weights
                found[path] = weight_at(layer, path)
        return {path: weight for path, weight in found.items() if weight is not None}

    def check_weights(self, layer):
        """Refuses a layer of the user's with weights that the kind does not name.

        The narrowed layer would have them at their initial values.

        Raises:
            ValueError: Naming them.
        """
        if type(layer).__module__.split(".")[0] in ("keras", "keras_tesla"):
            return
        known = {id(weight) for weight in self.weights(layer).values()}
        unknown = [v.path for v in layer.variables if id(v) not in known]
        if unknown:
            raise ValueError(
                f"The kind of layer {layer.name!r} ({type(layer).__name__}) does not say where its "
                f"channels lie in {unknown}. Name them in `weight_axes`, with (None, None) for a "
                "weight without channels; a layer with a random seed cannot have a kind."
            )

    def multiply_adds(self, call, weights: dict) -> int | None:
        """Returns the multiply-adds of one example through a call; None: they are not known.

        Args:
            call: The call; of its shapes only the positions matter.
            weights: {path: weight} that the layer runs with, perhaps narrowed.

        Raises:
            ValueError: If they depend on a dimension that is not known.
        """
        return 0

    # How the channels are permuted, by `order_channels`.

    def permuted(self, layer) -> list[tuple[Any, int | None, int | None]] | None:
        """Returns (variable, axis read, axis computed) for all weights; None: not to be permuted.

        Here those of `weight_axes`, and None if the layer has others.
        """
        axes = [(weight, *self.weight_axes[path]) for path, weight in self.weights(layer).items()]
        known = {id(weight) for weight, *_ in axes}
        return axes if all(id(v) in known for v in layer.weights) else None

    def in_any_order(self, call) -> bool:
        """Whether channels that are permuted before a call may be so after it.

        If not, there is something in the call that belongs to their places, such as an array.
        """
        return True

    def joins(self, call, outputs: list[Channels | None]) -> bool:
        """Whether the channels of the output are those of the inputs, one after the other."""
        return False

    def importance(self, layer, place: int = 0) -> np.ndarray:
        """Returns the L1 norm of the weights that read each channel, as they lie on the axis.

        Args:
            layer: The layer.
            place: Which of `projected` has the channels.
        """
        norms = []
        for path, weight in self.weights(layer).items():
            axis = self.weight_axes[path][0]
            if axis is not None and self.read_by(path) == place:
                rows = np.moveaxis(np.abs(ops.convert_to_numpy(weight)), axis, 0)
                norms.append(rows.reshape(len(rows), -1).sum(1, dtype="float64"))
        return np.sum(norms, axis=0)

    def order_inside(self, layer, calls: list[Call]):
        """Orders what only the layer itself sees, such as heads, the most important first."""

    # How the layer becomes incomplete, by `to_idp`.

    def why_complete(self, layer) -> str | None:
        """Returns why a layer of a kind with an incomplete class must stay as it is, or None."""
        return None

    def make_incomplete(self, layer, channels, percentages, profile, trainable_profile):
        """Returns the incomplete layer for the place of a layer, not built.

        Args:
            layer: The layer.
            channels: List of the `Channels` that it reads, of each of `projected`, for a kind that
                `projects`; else None.
            percentages: Those that get numbers of their own.
            profile: Of the incomplete dot product.
            trainable_profile: Likewise.
        """
        raise NotImplementedError

    def copy_weights(self, layer, incomplete):
        """Gives a built layer of `make_incomplete` the weights of the layer."""
        raise NotImplementedError


class Channelwise(Kind):
    """Channel i of the output depends only on channel i of the first input.

    Further inputs, such as a mask, are read whole. With `weight_axes` the channels must lie where
    the layer's `data_format` says, or on the last axis.
    """

    def channel_axis(self, layer, rank):
        return last_or_first(layer, rank) if self.weight_axes else None

    def layouts(self, call, inputs):
        rank, layout = len(call.input_tensors[0].shape), inputs[0]
        axis = self.channel_axis(call.operation, rank)
        agrees = axis is None or (layout and layout.repeats == 1 and layout.axis == axis)
        return [layout if agrees else None]

    def widths(self, call, percentage, inputs, outputs, demand):
        if inputs[0] is None or outputs[0] is None or is_regularized(call.operation):
            return super().widths(call, percentage, inputs, outputs, demand)
        others = [None] * (len(inputs) - 1)
        return Widths(list(demand), [demand[0], *others], [inputs[0], *others])


class Whole(Kind):
    """A layer that is known to mix all of its channels: it says only what it costs."""

    def multiply_adds(self, call, weights):
        raise NotImplementedError


def is_regularized(operation) -> bool:
    """Whether an activity regularizer sees every channel, so that all must be computed."""
    return getattr(operation, "activity_regularizer", None) is not None


def with_room_for_bias(call, width: Selection | None, count: int) -> Selection | None:
    """Returns which channels of a biased layer are computed so that Keras adds the bias rightly.

    On TensorFlow, Keras (3.15) adds a bias to the last axis wherever that is as long as the bias,
    also in the format "channels_first", where the channels are on axis 1. One channel more is
    another length.

    Args:
        call: The call of a convolution.
        width: The channels that are needed; None: all.
        count: All channels.

    Raises:
        ValueError: If that is so of the layer at full width, which Keras itself computes wrongly.
    """
    layer, size = call.operation, call.output_tensors[0].shape[-1]
    if (
        getattr(layer, "data_format", None) != "channels_first"
        or not layer.use_bias
        or keras.backend.backend() != "tensorflow"
    ):
        return width
    if width is not None and len(width) == size:
        more = int(np.setdiff1d(np.arange(size + 1), width.indices())[0])
        width = width | Selection.of([(more, more + 1)]) if size + 1 < count else None
    if width is None and count == size:
        raise ValueError(
            f"Layer {layer.name!r} has data_format='channels_first' and {count} channels, as many "
            "as the last axis of its output is long: there Keras on TensorFlow adds the bias along "
            "the last axis. Take data_format='channels_last', use_bias=False or another number of "
            "channels."
        )
    return width
