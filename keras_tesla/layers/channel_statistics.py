"""What layer and RMS normalization over a part of the channels share."""

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from keras_tesla.channels import Selection, pick
from keras_tesla.layers.incomplete import active_parts, checked_parts
from keras_tesla.percentages import check_percentages
from keras_tesla.scope import current_percentage

# To a type checker the mix-in is the layer that it completes.
_Layer: Any = keras.Layer if TYPE_CHECKING else object


class ChannelStatistics(_Layer):
    """Mix-in over a Keras normalization of the last axis: statistics of a part of the channels.

    At percentage p the statistics are those of the first `active_terms(n, p)` of the n channels,
    and all channels are normalized by them. After a concatenation the channels can have parts, one
    for each tensor that was concatenated, of which the first channels each are taken.

    Args:
        percentages: Iterable of distinct ints, 1..100: what a `TESLA` model trains if it is given
            no others.
        input_parts: Iterable of positive ints whose sum is the number of channels, or None
            (default): all channels are one part.
        statistics_of: None (default), or the channels whose statistics are taken at every
            percentage, as pairs (first, end): so a model extracted at one percentage has them.
    """

    def __init__(self, *args, percentages=None, input_parts=None, statistics_of=None, **kwargs):
        super().__init__(*args, **kwargs)
        if np.size(self.axis) != 1:
            raise ValueError(
                f"{type(self).__name__} normalizes over one axis, that of the channels. "
                f"Received: axis={self.axis}"
            )
        self.percentages: Any = None if percentages is None else check_percentages(percentages)
        self.input_parts = (
            None if input_parts is None else checked_parts("input_parts", input_parts)
        )
        self.statistics_of: Any = None
        if statistics_of is not None:
            self.statistics_of = Selection.of((a, b) for a, b in statistics_of)
        self.parts: Any = None

    def build(self, input_shape):
        rank, count = len(input_shape), input_shape[-1]
        if np.ravel(self.axis)[0] % rank != rank - 1:
            raise ValueError(
                f"Layer {self.name!r} normalizes over the last axis. On another one Keras (3.15) "
                "normalizes wrongly on PyTorch, and scales RMS normalization along the last. "
                f"Received: axis={self.axis} of {rank} axes"
            )
        super().build(input_shape)
        self.parts = self.input_parts or (count,)
        if sum(self.parts) != count:
            raise ValueError(
                f"`input_parts` of layer {self.name!r} must sum up to its {count} channels. "
                f"Received: {self.input_parts}, whose sum is {sum(self.parts)}"
            )
        runs = self.statistics_of.runs if self.statistics_of is not None else ((0, count),)
        if not runs or runs[0][0] < 0 or runs[-1][1] > count:
            raise ValueError(
                f"`statistics_of` of layer {self.name!r} must be some of its {count} channels. "
                f"Received: {runs}"
            )

    def active(self, percentage: int) -> Selection:
        """Returns the channels whose statistics are taken at `percentage`."""
        return self.statistics_of or active_parts(self.parts, percentage)

    def call(self, inputs):
        active = self.active(current_percentage())
        if len(active) == sum(self.parts):
            return super().call(inputs)
        # In float32 at least, as the Keras class.
        dtype = keras.backend.result_type(inputs.dtype, "float32")
        x = ops.cast(inputs, dtype)
        y = self._normalized(x, pick(x, active, -1))
        return ops.cast(ops.cast(y, inputs.dtype), self.compute_dtype)

    def _normalized(self, x, chosen):
        """Returns `x` normalized by the statistics of `chosen`, the channels taken from it."""
        raise NotImplementedError

    def get_config(self):
        runs = self.statistics_of and [list(run) for run in self.statistics_of.runs]
        return {
            **super().get_config(),
            "percentages": None if self.percentages is None else list(self.percentages),
            "input_parts": None if self.input_parts is None else list(self.input_parts),
            "statistics_of": runs,
        }
