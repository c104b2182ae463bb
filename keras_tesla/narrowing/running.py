"""An incomplete dot product at several percentages as one running sum.

Where the input of an IDPDense layer does not depend on the percentage, the first k terms of the
dot product at one percentage begin that of the next wider one. So each block of terms is
multiplied once: one full product for all percentages, and one concatenation as its gradient.
"""

import keras
from keras import ops

from keras_tesla.channels import leading
from keras_tesla.layers import IDPDense


def run(lives: list, values: dict) -> dict[int, dict]:
    """Runs the layers that read tensors which do not depend on the percentage.

    Args:
        lives: The `LivePlan` of each active percentage, the widest first.
        values: {index of a tensor: (value, computed width)} of those tensors.

    Returns:
        {percentage: {index of an output tensor: (value, computed width)}}, for as many of the
        layers as can be run so.
    """
    done: dict[int, dict] = {live.plan.percentage: {} for live in lives}
    if len(lives) == 1:
        return done
    for step in lives[0].plan.steps:
        if not (step.depends and _applies(step, values)):
            continue
        # Perhaps not of all percentages: a concatenation does not reach its last parts at each.
        widths = {
            live.plan.percentage: s.widths.outputs[0]
            for live in lives
            for s in live.plan.steps
            if s.call is step.call
        }
        x, y = step.call.input_tensors[0], step.call.output_tensors[0]
        outputs = _RunningSum(step.call.operation, widths)(values[x.index][0])
        for (percentage, width), output in zip(widths.items(), outputs, strict=True):
            done[percentage][y.index] = (output, width)
    return done


def _applies(step, values):
    layer = step.call.operation
    return (
        isinstance(layer, IDPDense)
        and layer.positions == 1
        and layer.activity_regularizer is None
        # A running sum of ten parts in half precision would round more than one product.
        and layer.compute_dtype in ("float32", "float64")
        and step.call.input_tensors[0].index in values
    )


class _RunningSum(keras.Layer):
    """A layer, because layers hand on the Keras mask.

    Args:
        layer: The IDPDense layer.
        widths: {percentage: width of its output that is needed; None for all of it}.
    """

    def __init__(self, layer, widths):
        super().__init__(dtype=layer.dtype_policy, name="running_sum")
        self.supports_masking = True
        self._layer = [layer]  # in a list: not a sub-layer
        self._widths = widths

    def call(self, x):
        (layer,) = self._layer
        ends = sorted({layer.active_terms(p) for p in self._widths})
        kernel = layer.incomplete_kernel(max(self._widths))
        parts = zip(
            _split(leading(x, ends[-1], -1), ends[:-1], axis=-1),
            _split(kernel, ends[:-1], axis=0),
            strict=True,
        )
        total = layer.trained_bias() if layer.use_bias else 0.0
        sums = {}
        for end, (terms, rows) in zip(ends, parts, strict=True):
            total = ops.add(ops.matmul(terms, rows), total)
            sums[end] = total
        return [
            layer.activation(leading(sums[layer.active_terms(percentage)], width, -1))
            for percentage, width in self._widths.items()
        ]

    def compute_mask(self, inputs, previous_mask):
        return [previous_mask] * len(self._widths)


def _split(x, places, axis):
    """`keras.ops.split`, which TensorFlow refuses to do at no place."""
    return ops.split(x, places, axis=axis) if places else [x]
