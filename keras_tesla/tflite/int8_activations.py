"""Activations in forms that int8 holds.

An int8 file rounds every number between two operators to one of 256 values of its tensor's range.
LiteRT has no softplus, mish or selu, so the converter takes them apart, and what is between the
parts may need more: softplus as `log(1 + exp(x))` has exp(x), whose values at x = 5 and x = -1 are
148 and .37, less than one of 256 steps. celu's ReLU and minimum are fused into a convolution, whose
negative numbers are lost. Here the same functions are written so that all in between is of the size
of x or at most 1. The numbers are equal but for the rounding of float32.
"""

import inspect

import keras
from keras import ops

from keras_tesla.cloning import inside

_ALPHA, _SCALE = 1.6732632423543772, 1.0507009873554805  # of selu


def replace(model):
    """Replaces activations of a model by the same functions in forms that int8 holds.

    Args:
        model: A plain Keras model that is converted next, and not used otherwise; it is changed.
    """
    for layer in model.layers:
        for part in (layer, *inside(layer)):  # a cell, what a wrapper wraps
            activation = getattr(part, "activation", None)
            if inspect.isfunction(activation) and activation in _FORMS:
                part.activation = _FORMS[activation]


# Not ReLU: the converter would give the layer before it ReLU's range.
def _positive(x):
    return 0.5 * (x + ops.abs(x))


def _negative(x):
    return 0.5 * (x - ops.abs(x))


def _softplus(x):
    """log(1 + exp(x)); sigmoid(abs(x)) is in .5..1."""
    return _positive(x) - ops.log(ops.sigmoid(ops.abs(x)))


def _mish(x):
    return x * ops.tanh(_softplus(x))


def _log_sigmoid(x):
    return _negative(x) + ops.log(ops.sigmoid(ops.abs(x)))


def _selu(x):
    return _SCALE * (_positive(x) + _ALPHA * ops.elu(_negative(x)))


_FORMS = {
    keras.activations.softplus: _softplus,
    keras.activations.mish: _mish,
    keras.activations.log_sigmoid: _log_sigmoid,
    keras.activations.selu: _selu,
    keras.activations.celu: keras.activations.elu,  # equal at alpha = 1
}
