"""What IDPDense and IDPConv2D share: the profile and the number of active terms."""

from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_tesla import profiles
from keras_tesla.percentages import active_terms

# To a type checker the mix-in is the layer that it completes.
_Layer: Any = keras.Layer if TYPE_CHECKING else object


class IncompleteDotProduct(_Layer):
    """Mix-in over a Keras layer with a kernel.

    Args:
        profile: What `keras_tesla.profiles.get` takes. Default: `"all_one"`.
        trainable_profile: Bool. If true the coefficients are a weight of shape `(terms,)` that
            starts at `profile` and is kept non-increasing.
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
        return self.coefficients is None and self.active_terms(percentage) == self.terms

    def _incomplete_coefficients(self, active, dtype):
        """The first `active` coefficients as a column `(active, 1)`, or None for all-one."""
        if self.coefficients is None:
            return None
        return ops.cast(ops.convert_to_tensor(self.coefficients)[:active, None], dtype)

    def save_own_variables(self, store):
        super().save_own_variables(store)  # Keras' layers name the variables that they save
        if self.trainable_profile and self.built:
            store["profile"] = self.coefficients

    def load_own_variables(self, store):
        super().load_own_variables(store)
        if self.trainable_profile and self.built:
            self.coefficients.assign(store["profile"])

    def get_config(self):
        return {
            **super().get_config(),
            "profile": profiles.serialize(self.profile),
            "trainable_profile": self.trainable_profile,
        }
