"""What all incomplete layers share: the profile and the number of active terms."""

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from keras_tesla import profiles
from keras_tesla.channels import leading
from keras_tesla.percentages import active_terms, check_percentage

# To a type checker the mix-in is the layer that it completes.
_Layer: Any = keras.Layer if TYPE_CHECKING else object


class IncompleteDotProduct(_Layer):
    """Mix-in over a Keras layer with a kernel.

    Args:
        profile: What `keras_tesla.profiles.get` takes. Default: `"all_one"`.
        trainable_profile: Bool. If true the coefficients are a weight of shape `(terms,)` that
            starts at `profile` and is kept non-increasing.

    Attributes:
        trained_range: None (default), or two percentages `(low, high)`, 0 <= low < high <= 100. Of
            n channels those from `active_terms(n, low)` (from 0 for low = 0) up to
            `active_terms(n, high)`, exclusive, are then in the range, and gradients reach only: the
            kernel where its input channel and its output channel are, the bias where the output
            channel is, the trainable profile where the input channel is. It changes no output and
            is not saved. A compiled function must be compiled anew (`TESLA.activate`).
        complete_outputs: Bool, default False: whether `trained_range` cuts the inputs alone,
            because every percentage computes all outputs, as before a complete layer. The bias is
            then trained by a range that begins at 0.
    """

    def __init__(self, *args, profile="all_one", trainable_profile=False, **kwargs):
        super().__init__(*args, **kwargs)
        if self.dtype_policy.quantization_mode is not None:
            raise ValueError(
                f"{type(self).__name__} does not run on a quantized dtype policy; quantize at "
                f"export instead. Received: dtype={self.dtype_policy.name!r}"
            )
        self.profile = profiles.get(profile)
        self.trainable_profile = trainable_profile
        self.terms: Any = None
        self.coefficients: Any = None
        self.trained_range = None
        self.complete_outputs = False

    @property
    def trained_range(self) -> tuple[int, int] | None:
        """The percentages between which gradients reach the weights; None: all weights train."""
        return self._trained_range

    @trained_range.setter
    def trained_range(self, percentages):
        if percentages is not None:
            low, high = percentages
            if low != 0:
                check_percentage(low)
            if low >= check_percentage(high):
                raise ValueError(
                    "`trained_range` must be None or two percentages (low, high) with "
                    f"0 <= low < high. Received: {percentages}"
                )
        self._trained_range: Any = percentages

    def _build_profile(self, terms):
        """Fixes the number of terms of the complete dot product and their coefficients."""
        values = self.profile(terms)
        self.terms = terms
        if self.trainable_profile:
            self.coefficients = self.add_weight(
                name="profile",
                shape=(terms,),
                initializer=lambda shape, dtype: ops.convert_to_tensor(values, dtype),
                constraint=profiles.NonIncreasing(),
            )
        elif (values != 1).any():
            self.coefficients = values

    def active_terms(self, percentage: int) -> int:
        """Returns how many leading terms each dot product keeps at `percentage`."""
        return active_terms(self.terms, percentage)

    def _is_complete(self, percentage):
        """Whether the layer is its Keras class at `percentage`."""
        return (
            self.coefficients is None
            and self.trained_range is None
            and self.active_terms(percentage) == self.terms
        )

    def trained_bias(self):
        """Returns the bias `(outputs,)`; gradients reach its entries in `trained_range`."""
        bias = ops.convert_to_tensor(self.bias)
        if self.trained_range is None:
            return bias
        return _train(bias, self._outputs_in_range(bias.shape[0], self.trained_range[0] == 0))

    def _trained_kernel(self, kernel):
        """The kernel `(.., terms, outputs)`; gradients reach its entries in `trained_range`."""
        if self.trained_range is None:
            return kernel
        terms, outputs = kernel.shape[-2:]
        return _train(
            kernel, self._in_range(terms)[:, None] & self._outputs_in_range(outputs, True)
        )

    def _trained_terms(self, kernel):
        """The kernel `(.., terms, multiplier)`; gradients reach its terms in `trained_range`."""
        if self.trained_range is None:
            return kernel
        return _train(kernel, self._in_range(kernel.shape[-2])[:, None])

    def _outputs_in_range(self, count, complete):
        """Which of `count` outputs train; `complete` for all of them with `complete_outputs`."""
        return np.full(count, complete) if self.complete_outputs else self._in_range(count)

    def _in_range(self, count):
        """Which of `count` channels are in `trained_range`: bool array `(count,)`."""
        low, high = self._trained_range
        first = active_terms(count, low) if low else 0
        return (np.arange(count) >= first) & (np.arange(count) < active_terms(count, high))

    def incomplete_weights(self, percentage: int) -> dict:
        """Returns {name: tensor} of the kernels that the stock layer runs with at `percentage`."""
        return {"kernel": self.incomplete_kernel(percentage)}

    def _incomplete(self, kernel, percentage):
        """The active terms of a kernel `(.., terms, outputs)`, profile folded in."""
        active = self.active_terms(percentage)
        kernel = leading(self._trained_kernel(kernel), active, -2)
        gamma = self._incomplete_coefficients(active, kernel.dtype)
        return kernel if gamma is None else kernel * gamma

    def _incomplete_coefficients(self, active, dtype):
        """The first `active` coefficients as a column `(active, 1)`, or None for all-one."""
        if self.coefficients is None:
            return None
        coefficients = ops.convert_to_tensor(self.coefficients)
        if self.trainable_profile and self.trained_range is not None:
            coefficients = _train(coefficients, self._in_range(self.terms))
        return ops.cast(coefficients[:active, None], dtype)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        # Some of Keras' layers save the variables that they name, others save all of them.
        if self.trainable_profile and self.built and len(store.keys()) < len(self.weights):
            store["profile"] = self.coefficients

    def load_own_variables(self, store):
        super().load_own_variables(store)
        if self.trainable_profile and self.built and "profile" in set(store.keys()):
            self.coefficients.assign(store["profile"])

    def get_config(self):
        return {
            **super().get_config(),
            "profile": profiles.serialize(self.profile),
            "trainable_profile": self.trainable_profile,
        }


def _train(weight, mask):
    """The weight, with gradients only where the mask is true."""
    return ops.where(mask, weight, ops.stop_gradient(weight))
