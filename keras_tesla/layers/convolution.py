"""What the incomplete convolutions share."""

from keras import ops

from keras_tesla.channels import Channels, Selection, take
from keras_tesla.layers.incomplete import IncompleteDotProduct
from keras_tesla.scope import current_percentage


class IncompleteConvolution(IncompleteDotProduct):
    """Mix-in over a Keras convolution. A subclass says where its kernel differs."""

    def build(self, input_shape):
        super().build(input_shape)
        self._build_profile(self._terms_of_kernel())

    def call(self, inputs):
        percentage = current_percentage()
        if self._is_complete(percentage):
            return super().call(inputs)
        layout = self.input_layout(inputs.shape)
        x = take(inputs, layout, Selection.first(self.terms), self.active(percentage))
        outputs = self._convolve(x, *self.incomplete_weights(percentage).values())
        if self.use_bias:
            last = self.data_format == "channels_last"
            ones = (1,) * self.rank
            shape = (1, *ones, -1) if last else (1, -1, *ones)
            # In this order: on TensorFlow Keras takes a vector that comes second for the bias of
            # the last axis wherever that is as long.
            outputs = ops.add(ops.reshape(self.trained_bias(percentage), shape), outputs)
        return self.activation(outputs)

    def input_layout(self, input_shape) -> Channels:
        """Returns where the channels of a filter lie in an input of `input_shape`."""
        axis = len(input_shape) - 1 if self.data_format == "channels_last" else 1
        return Channels(axis, self.terms, repeats=getattr(self, "groups", 1))

    def incomplete_kernel(self, percentage: int, private: bool = True):
        """Returns the kernel of the active terms, profiles folded in.

        Shape: `(*kernel_size, k, filters)` for k active channels.
        """
        return self._incomplete(ops.convert_to_tensor(self.kernel), percentage, private)

    def _terms_of_kernel(self):
        return self.kernel.shape[-2]

    def _convolve(self, inputs, *kernels):
        return self.convolution_op(inputs, *kernels)


class IncompleteTransposedConvolution(IncompleteConvolution):
    """Mix-in over a transposed Keras convolution, whose kernel has the terms last."""

    def incomplete_kernel(self, percentage: int, private: bool = True):
        """Returns the kernel of the active terms, profiles folded in.

        Shape: `(*kernel_size, filters, k)` for k active channels.
        """
        kernel = ops.swapaxes(self.kernel, -1, -2)  # the terms are its columns
        return ops.swapaxes(self._incomplete(kernel, percentage, private), -1, -2)

    def _terms_of_kernel(self):
        return self.kernel.shape[-1]

    def _convolve(self, inputs, *kernels):
        return ops.conv_transpose(
            inputs,
            *kernels,
            strides=list(self.strides),
            padding=self.padding,
            output_padding=self.output_padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )
