"""An incomplete dot product at several percentages as one running sum.

Where the input of an IDPDense layer does not depend on the percentage, the first k terms of the
dot product at one percentage begin that of the next wider one. So each block of terms is
multiplied once: one full product for all percentages, and one concatenation as its gradient. With
a private profile a percentage's sum is one of these products times its coefficients.
"""

import keras
import numpy as np
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
        # All percentages need this call: the graph behind it is the same for each of them.
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
        sums = self._weighed_sums(x) if layer.private_profile else self._sums(x)
        return [
            layer.activation(leading(sums[percentage], width, -1))
            for percentage, width in self._widths.items()
        ]

    def _products(self, x, ends):
        """Yields the product of each block of terms; `ends` says where the blocks end."""
        (layer,) = self._layer
        kernel = layer.incomplete_kernel(max(self._widths), private=False)
        x = leading(x, ends[-1], -1)
        if len(ends) == 1:  # TensorFlow refuses to split at no place
            yield ops.matmul(x, kernel)
            return
        parts = (ops.split(x, ends[:-1], axis=-1), ops.split(kernel, ends[:-1], axis=0))
        for terms, rows in zip(*parts, strict=True):
            yield ops.matmul(terms, rows)

    def _sums(self, x) -> dict:
        """The sum and the bias at each percentage."""
        (layer,) = self._layer
        active = {percentage: layer.active_terms(percentage) for percentage in self._widths}
        ends = sorted(set(active.values()))
        shared = layer.use_bias and not layer.private_bias
        total = layer.trained_bias(max(self._widths)) if shared else 0.0
        totals = {}
        for end, product in zip(ends, self._products(x, ends), strict=True):
            totals[end] = total = ops.add(product, total)
        if layer.private_bias:
            return {p: ops.add(totals[k], layer.trained_bias(p)) for p, k in active.items()}
        return {p: totals[k] for p, k in active.items()}

    def _weighed_sums(self, x) -> dict:
        """The same, each block's product times the percentage's own coefficient."""
        (layer,) = self._layer
        ends = np.cumsum(layer.blocks(max(self._widths))).tolist()
        products = ops.stack(list(self._products(x, ends)))
        weights = [layer.private_coefficients(percentage) for percentage in self._widths]
        weights = [ops.pad(w, [(0, len(ends) - w.shape[0])]) for w in weights]
        totals = ops.tensordot(ops.stack(weights), products, 1)
        return {
            p: ops.add(total, layer.trained_bias(p)) if layer.use_bias else total
            for p, total in zip(self._widths, ops.unstack(totals, len(weights)), strict=True)
        }

    def compute_mask(self, inputs, previous_mask):
        return [previous_mask] * len(self._widths)
