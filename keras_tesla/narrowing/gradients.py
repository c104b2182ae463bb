"""A tensor whose gradient is multiplied, or shared out among several tensors of its value."""

import functools

import keras
from keras import ops


class Attenuated(keras.Layer):
    """The value of the first input; each input's gradient is a multiple of the output's.

    A layer, because layers pass on the Keras mask.

    Args:
        factors: For each input an array, or a list of arrays whose maximum counts, that broadcasts
            to the shape of the inputs; None: the gradient itself.

    Call arguments:
        inputs: A list of tensors of one shape. The values of all but the first do not matter.
    """

    def __init__(self, factors):
        super().__init__(autocast=False, name="attenuated")
        self.supports_masking = True
        self._factors = factors

    def call(self, inputs):
        return attenuated(inputs, self._factors)

    def compute_mask(self, inputs, previous_mask):
        return previous_mask[0]


def attenuated(tensors, factors):
    """Returns the first of `tensors`, without its mask; see `Attenuated`."""

    @ops.custom_gradient
    def first(*tensors):
        def gradients(*arguments, upstream=None):
            if upstream is None:
                (upstream,) = arguments  # PyTorch also passes the tensors, the others do not
            found = [_times(upstream, factor) for factor in factors]
            return tuple(found) if len(found) > 1 else found[0]

        return tensors[0], gradients

    return first(*tensors)


def value_of(weight):
    """Returns the value that a variable has now, or a tensor itself.

    On TensorFlow `convert_to_tensor` returns a Keras variable itself: it is read only later,
    perhaps after a stateless scope that lends it another value has ended.
    """
    return ops.cast(weight, weight.dtype) if isinstance(weight, keras.Variable) else weight


def _times(gradient, factor):
    if factor is None:
        return gradient
    if isinstance(factor, list):
        # Of vectors, not of a whole kernel's array for each percentage.
        factor = functools.reduce(ops.maximum, factor)
    return gradient * ops.cast(factor, gradient.dtype)
