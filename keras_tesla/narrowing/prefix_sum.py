"""An incomplete dot product at several percentages as one prefix sum.

Where the input of an IDPDense layer does not depend on the percentage, the first k terms of the
dot product at one percentage begin that of the next wider one. So each block of terms is
multiplied once: one full product for all percentages, and one concatenation as its gradient. With
a private profile a percentage's sum is one of these products times its coefficients.
"""

import functools
import itertools

import keras
import numpy as np
from keras import ops

from keras_tesla.channels import Selection, is_sparse, pick
from keras_tesla.kinds.registry import kind_of
from keras_tesla.layers import IDPDense
from keras_tesla.narrowing.gradients import attenuated, value_of


def run(lives: list, values: dict) -> dict[int, dict]:
    """Runs the layers that read tensors which do not depend on the percentage.

    Args:
        lives: The `LivePlan` of each active percentage, the widest first.
        values: {index of a tensor: (value, computed channels)} of those tensors.

    Returns:
        {percentage: {index of an output tensor: (value, computed channels)}}, for as many of the
        layers as can be run this way.
    """
    done: dict[int, dict] = {live.plan.percentage: {} for live in lives}
    for step, widths in _steps(lives, values):
        layer, x = step.call.operation, step.call.input_tensors[0]
        value, have = values[x.index]
        read = layer.active(max(widths))
        places = read if have is None else read.places(have)
        outputs = _PrefixSum(layer, widths, places)(value)
        _note(done, step, widths, outputs)
    return done


def run_attenuated(lives: list, values: dict, attenuator, shared) -> dict[int, dict]:
    """Does the same with attenuated gradients.

    Args:
        lives: As in `run`.
        values: {percentage: values of the tensors that do not depend on the percentage}.
        attenuator: The factors: a `keras_tesla.training.attenuator.Attenuator`.
        shared: Where the values come from, a `SharedPart` of that module.
    """
    done: dict[int, dict] = {live.plan.percentage: {} for live in lives}
    known = values[lives[0].plan.percentage]
    for step, widths in _steps(lives, known):
        paths = shared.paths(step.call.input_tensors[0].index, known)
        if paths is not None:
            layer = _AttenuatedSum(step.call.operation, widths, attenuator, [p[1] for p in paths])
            if layer.is_exact():
                x = known[step.call.input_tensors[0].index][0]
                _note(done, step, widths, layer([x, *(value for value, _ in paths)]))
    return done


def _note(done, step, widths, outputs):
    (y,) = step.call.output_tensors
    for (percentage, width), output in zip(widths.items(), outputs, strict=True):
        done[percentage][y.index] = (output, width)


def _steps(lives, values):
    """Yields (step, {percentage: width of its output}) of what can run this way."""
    if len(lives) == 1:
        return
    for step in lives[0].plan.steps:
        if step.depends and _applies(step, values):
            # Perhaps not of all percentages: a concatenation does not reach its last parts at each.
            yield (
                step,
                {
                    live.plan.percentage: s.widths.outputs[0]
                    for live in lives
                    for s in live.plan.steps
                    if s.call is step.call
                },
            )


def _applies(step, values):
    layer = step.call.operation
    return (
        isinstance(layer, IDPDense)
        and kind_of(layer).depends  # a subclass may compute something else
        and layer.positions == 1
        and layer.activity_regularizer is None
        # A prefix sum of ten parts in half precision would round more than one product.
        and layer.compute_dtype in ("float32", "float64")
        and step.call.input_tensors[0].index in values
        and not is_sparse(values[step.call.input_tensors[0].index][0])  # which are not split
    )


def _nested(layer, percentages) -> list[Selection]:
    """The terms that are read at one of the percentages or more, the fewest first."""
    return sorted({layer.active(percentage) for percentage in percentages}, key=len)


def _products(x, kernel, nested) -> list:
    """Returns the product of each block of terms: those that one selection adds to the one before.

    Args:
        x: The terms of the largest selection.
        kernel: Their rows.
        nested: From `_nested`.
    """
    if len(nested) == 1:  # TensorFlow refuses an empty list of positions to split at
        return [ops.matmul(x, kernel)]
    if all(len(selection.runs) == 1 for selection in nested):
        ends = [len(selection) for selection in nested[:-1]]
        terms, rows = ops.split(x, ends, axis=-1), ops.split(kernel, ends, axis=0)
    else:
        before = [Selection(), *nested]
        blocks = [(b - a).places(nested[-1]) for a, b in zip(before, nested, strict=False)]
        terms, rows = [pick(x, b, -1) for b in blocks], [pick(kernel, b, 0) for b in blocks]
    return [ops.matmul(*block) for block in zip(terms, rows, strict=True)]


class _PrefixSum(keras.Layer):
    """A layer, because layers pass on the Keras mask.

    Args:
        layer: The IDPDense layer.
        widths: {percentage: the channels of its output that are needed; None for all of it}.
        places: Where in the input the terms are that the widest percentage reads.
    """

    def __init__(self, layer, widths, places):
        super().__init__(dtype=layer.dtype_policy, name="prefix_sum")
        self.supports_masking = True
        self._layer = [layer]  # in a list: not a sub-layer
        self._widths = widths
        self._places = places

    def call(self, x):
        (layer,) = self._layer
        sums = self._weighed_sums(x) if layer.private_profile else self._sums(x)
        return [
            layer.activation(pick(sums[percentage], width, -1))
            for percentage, width in self._widths.items()
        ]

    def _products(self, x, nested):
        (layer,) = self._layer
        kernel = layer.incomplete_kernel(max(self._widths), private=False)
        return _products(pick(x, self._places, -1), kernel, nested)

    def _sums(self, x) -> dict:
        """The sum and the bias at each percentage."""
        (layer,) = self._layer
        active = {percentage: layer.active_terms(percentage) for percentage in self._widths}
        nested = _nested(layer, self._widths)
        shared = layer.use_bias and not layer.private_bias
        total = layer.trained_bias(max(self._widths)) if shared else 0.0
        totals = {}
        for terms, product in zip(nested, self._products(x, nested), strict=True):
            totals[len(terms)] = total = ops.add(product, total)
        if layer.private_bias:
            return {p: ops.add(totals[k], layer.trained_bias(p)) for p, k in active.items()}
        return {p: totals[k] for p, k in active.items()}

    def _weighed_sums(self, x) -> dict:
        """The same, each block's product times the coefficient that a percentage has."""
        (layer,) = self._layer
        widest = max(self._widths)
        nested = _nested(layer, [p for p in layer.percentages if p <= widest])
        products = ops.stack(list(self._products(x, nested)))
        weights = [layer.private_coefficients(percentage) for percentage in self._widths]
        weights = [ops.pad(w, [(0, len(nested) - w.shape[0])]) for w in weights]
        totals = ops.tensordot(ops.stack(weights), products, 1)
        return {
            p: ops.add(total, layer.trained_bias(p)) if layer.use_bias else total
            for p, total in zip(self._widths, ops.unstack(totals, len(weights)), strict=True)
        }

    def compute_mask(self, inputs, previous_mask):
        return [previous_mask] * len(self._widths)


class _AttenuatedSum(keras.Layer):
    """A prefix sum whose gradients are attenuated.

    With P_b = x_b K_b, the product of block b of terms, percentage p has Z_p = P_1 + .. + P_b(p).
    Its gradient reaches K_b through P_b, multiplied by S_p of the kernel, and the weights before x
    multiplied by their own S_p. Where these are equal, one product serves both; elsewhere each has
    its own.

    Args:
        layer: The IDPDense layer.
        widths: {percentage: the channels of its output that are needed; None for all of it}.
        attenuator: The factors.
        narrowest: For each path along which the gradient of the input continues, the narrowest
            percentages of the channels, by which it is attenuated; None: it is not attenuated.

    Call arguments:
        inputs: A list of the input and of its counterpart on each of these paths.
    """

    def __init__(self, layer, widths, attenuator, narrowest):
        super().__init__(dtype=layer.dtype_policy, name="attenuated_sum")
        self.supports_masking = True
        self._layer = [layer]  # in a list: not a sub-layer
        self._widths = widths
        self._attenuator = attenuator
        self._narrowest = narrowest
        # A block has one narrowest percentage: blocks end where any percentage of the model ends.
        widest = max(widths)
        self._nested = _nested(layer, [p for p in attenuator.percentages if p <= widest])
        self._ends = [len(terms) for terms in self._nested]
        self._starts = [0, *self._ends[:-1]]

    def is_exact(self) -> bool:
        """Whether the gradients are those of the definition."""
        (layer,) = self._layer
        if layer.private_profile or layer.private_bias:  # which are not attenuated
            return False
        if len(layer.parts) > 1:  # a block is no run of channels, which have one factor
            return False
        # The product has the profile folded into the kernel: one factor for both.
        if layer.trainable_profile and set(self._attenuator.narrowest(layer.kernel)) != {0}:
            return False
        blocks = list(zip(self._starts, self._ends, strict=True))
        ways = [narrowest for narrowest in self._narrowest if narrowest is not None]
        return all(len(set(narrowest[a:b])) == 1 for narrowest in ways for a, b in blocks)

    def call(self, inputs):
        (layer,) = self._layer
        # The first terms, wherever further ones are left out.
        x, *others = [pick(x, self._nested[-1], -1) for x in inputs]
        kernel = layer.incomplete_kernel(max(self._widths), private=False)
        if not self._narrowest or self._is_one():
            sources = [(x, kernel, self._of_kernel)]
        else:
            sources = [(ops.stop_gradient(x), kernel, self._of_kernel)]
            fixed = ops.stop_gradient(kernel)
            for other, narrowest in zip(others, self._narrowest, strict=True):
                sources.append((other, fixed, functools.partial(self._of_input, narrowest)))
        products = [(_products(x, kernel, self._nested), f) for x, kernel, f in sources]
        sums = list(itertools.accumulate(products[0][0], ops.add))
        outputs = []
        for percentage, width in self._widths.items():
            last = self._ends.index(layer.active_terms(percentage)) + 1
            tensors, factors = [ops.stop_gradient(sums[last - 1])], [None]
            for of_blocks, factor in products:
                tensors += of_blocks[:last]
                factors += [factor(percentage, start) for start in self._starts[:last]]
            total = attenuated(tensors, factors)
            if layer.use_bias:
                total = ops.add(total, self._bias(percentage))
            outputs.append(layer.activation(pick(total, width, -1)))
        return outputs

    def _is_one(self):
        """Whether input and kernel are attenuated equally, for every output channel."""
        of_kernel = self._attenuator.narrowest(self._layer[0].kernel)
        (first, *others) = self._narrowest
        one_way = first is not None and not others
        return one_way and set(of_kernel) == {0} and (of_kernel[0] == first).all()

    def _of_kernel(self, percentage, start):
        """S of a block's rows: for each output channel, or one for all."""
        of_kernel = self._attenuator.narrowest(self._layer[0].kernel)
        of_axes = [
            self._attenuator.of_channels(percentage, of_kernel[axis][places])
            for axis, places in [(0, slice(start, start + 1)), (1, slice(None))]
            if axis in of_kernel
        ]
        return functools.reduce(np.maximum, of_axes) if of_axes else None

    def _of_input(self, narrowest, percentage, start):
        if narrowest is None:
            return None
        return self._attenuator.of_channels(percentage, narrowest[start])

    def _bias(self, percentage):
        layer = self._layer[0]
        factors = self._attenuator.factors(layer.bias, percentage)
        bias = value_of(layer.trained_bias(percentage))
        return attenuated([bias], [factors]) if factors else bias

    def compute_mask(self, inputs, previous_mask):
        return [previous_mask[0]] * len(self._widths)
