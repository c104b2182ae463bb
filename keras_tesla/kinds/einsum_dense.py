"""EinsumDense, whose equation says where its channels lie."""

from keras import layers

from keras_tesla.kinds.kind import Whole
from keras_tesla.kinds.products import of_einsum
from keras_tesla.kinds.projection import Projection
from keras_tesla.kinds.registry import register
from keras_tesla.layers import IDPEinsumDense
from keras_tesla.layers.einsum_dense import EinsumAxes


class _EinsumDense(Projection):
    """The first axis that is summed up is read, the first new one computed.

    Args:
        axes: Of the layer's equation; None: of layers in general, see `of`.
        bias_axes: Of the layer.
        **kwargs: As in `Projection`.
    """

    def __init__(self, axes=None, bias_axes=None, **kwargs):
        self._axes = axes
        if axes is not None:
            self.weight_axes = {"kernel": axes.kernel, "bias": (None, axes.of_bias(bias_axes))}
        self._arguments_of_all = kwargs
        super().__init__(**kwargs)

    def of(self, layer):
        axes = EinsumAxes.of(layer.equation)
        if axes is None:
            return _WHOLE
        return _EinsumDense(axes, layer.bias_axes, **self._arguments_of_all)

    def channel_axis(self, layer, rank):
        return rank + self._axes.computed

    def read_axis(self, layer, rank):
        return rank + self._axes.read

    def resize(self, layer, config, count):
        shape = list(layer.partial_output_shape)
        shape[self._axes.computed] = count
        config["output_shape"] = shape

    def multiply_adds(self, call, weights):
        (x,), layer = call.input_tensors, call.operation
        return of_einsum(call, layer.equation, [x.shape, weights["kernel"].shape])


class _Whole(Whole):
    """With an equation of another form, such as a sum over positions alone."""

    def multiply_adds(self, call, weights):
        (x,), layer = call.input_tensors, call.operation
        return of_einsum(call, layer.equation, [x.shape, layer.kernel.shape])


_WHOLE = _Whole()

register(_EinsumDense(incomplete=IDPEinsumDense), layers.EinsumDense)
register(_EinsumDense(stock=layers.EinsumDense), IDPEinsumDense)
