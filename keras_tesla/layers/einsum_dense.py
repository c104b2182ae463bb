"""IDPEinsumDense: an EinsumDense layer that can leave out its last input channels."""

from typing import NamedTuple

import keras
from keras import ops

from keras_tesla.channels import Channels, Selection, take
from keras_tesla.layers.incomplete import IncompleteDotProduct
from keras_tesla.scope import current_percentage


class EinsumAxes(NamedTuple):
    """The axes of channels in an equation, counted from the end.

    Args:
        read: That of the input with the channels that are read, the first one that is summed up.
        kernel: Those of the kernel: `(channels that are read, channels that are computed)`.
        computed: That of the output with the channels that are computed, the first new one.
        result: The letters of the output, without an ellipsis.
    """

    read: int
    kernel: tuple[int, int]
    computed: int
    result: str

    @classmethod
    def of(cls, equation: str):
        """Returns the axes; None where an incomplete dot product has no meaning."""
        if equation.endswith("..."):
            return None
        operands, _, result = equation.replace("...", "").partition("->")
        term, _, kernel = operands.partition(",")
        # Axis 0 is the batch, unless that is in the ellipsis.
        first = 0 if equation.startswith("...") else 1
        summed = [x for x in term[first:] if x in kernel and x not in result]
        new = [x for x in result[first:] if x in kernel and x not in term]
        distinct = all(len(set(letters)) == len(letters) for letters in (term, kernel, result))
        if not (summed and new and distinct):
            return None
        read, computed = summed[0], new[0]
        return cls(
            term.index(read) - len(term),
            (kernel.index(read) - len(kernel), kernel.index(computed) - len(kernel)),
            result.index(computed) - len(result),
            result,
        )

    def of_bias(self, bias_axes: str | None) -> int | None:
        """Returns the axis of the bias with the channels that are computed, or None."""
        has = bias_axes is not None and self.result[self.computed] in bias_axes
        return self.computed if has else None


@keras.saving.register_keras_serializable("keras_tesla")
class IDPEinsumDense(IncompleteDotProduct, keras.layers.EinsumDense):
    """`keras.layers.EinsumDense` over an incomplete dot product.

    The channels that are read lie on the first axis of the input that the equation sums up. At
    percentage p the layer reads the first `k = max(1, floor(p / 100 * n))` of these n. In
    `"abc,cd->abd"` they are those of c:

    `y_abd = activation(b_d + sum_{c < k} gamma_c * w_cd * x_abc)`

    In `"abcd,cde->abe"`, the last layer of an attention, they are its heads c, of which each is
    read whole. At 100 % and with the all-one profile the layer is `keras.layers.EinsumDense`: same
    weights, same arguments, equal numbers.

    Args:
        equation: String, as in Keras: `"ab,bc->ac"`, or `"...b,bc->...c"`. It must sum up an axis
            of the input other than the batch, and the output must have an axis that is new.
        output_shape: As in Keras.
        profile: The coefficients gamma: a name, a `keras_tesla.profiles.Profile`, an array of n
            floats, or a function of n. Default: `"all_one"`.
        trainable_profile: Bool, whether gamma is trained (and kept non-increasing).
        percentages, private_bias, private_profile, complete: Numbers that belong to one percentage
            each; see `IncompleteDotProduct`.
        input_parts: After a concatenation, the channels of each tensor in it: the first of each are
            read; see `IncompleteDotProduct`.
        **kwargs: All other arguments of `keras.layers.EinsumDense`.

    Input shape:
        As the equation says, float.

    Output shape:
        As the equation and `output_shape` say.

    Raises:
        ValueError: At construction or build: another equation, a profile that increases, is not
            finite or has the wrong length, and whatever `keras.layers.EinsumDense` refuses.

    Example:

    >>> layer = IDPEinsumDense("ab,bc->ac", 1, kernel_initializer="ones")
    >>> with percentage_scope(50):
    ...     layer(np.array([[1.0, 2.0, 4.0, 8.0]])).numpy().tolist()
    [[3.0]]

    Reference:
        McDanel, Teerapittayanon, Kung, 2017, https://arxiv.org/abs/1710.07830
    """

    def __init__(self, equation, *args, **kwargs):
        super().__init__(equation, *args, **kwargs)
        axes = EinsumAxes.of(equation)
        if axes is None:
            raise ValueError(
                "`equation` must sum up an axis of the input that is not the batch, and have a new "
                "axis in the output, with no ellipsis but at the front, as in 'abc,cd->abd' or "
                f"'...c,cd->...d'. Received: {equation!r}"
            )
        self._axes: EinsumAxes = axes

    @property
    def use_bias(self) -> bool:
        """Whether the layer has a bias."""
        return self.bias_axes is not None

    def build(self, input_shape):
        super().build(input_shape)
        self._build_profile(self.kernel.shape[self._axes.kernel[0]])

    def call(self, inputs, training=None):
        percentage = current_percentage()
        if self._is_complete(percentage):
            return super().call(inputs, training=training)
        layout, full = self.input_layout(inputs.shape), Selection.first(self.terms)
        x = take(inputs, layout, full, self.active(percentage))
        x = ops.einsum(self.equation, x, self.incomplete_kernel(percentage))
        if self.use_bias:
            x = ops.add(x, self.trained_bias(percentage))
        return self.activation(x)

    def input_layout(self, input_shape) -> Channels:
        """Returns where the channels lie in an input of `input_shape`."""
        return Channels(len(input_shape) + self._axes.read, self.terms)

    def incomplete_kernel(self, percentage: int, private: bool = True):
        """Returns the kernel of the active terms, profiles folded in."""
        axes = self._axes.kernel
        kernel = ops.moveaxis(self.kernel, axes, (-2, -1))
        return ops.moveaxis(self._incomplete(kernel, percentage, private), (-2, -1), axes)

    def _bias_in_range(self, bias, complete):
        axis = self._axes.of_bias(self.bias_axes)
        if axis is None:  # one number for all outputs
            return complete or not self.complete_outputs
        mask = self._outputs_in_range(bias.shape[axis], complete)
        return mask.reshape(-1, *[1] * (-1 - axis))
