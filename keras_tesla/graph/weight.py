"""A weight as a tensor of the graph."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_tesla")
class Weight(keras.Layer):
    """Returns its weight, whatever it is called on.

    A layer of the user's may compute with weights of its own, `x * self.gamma`. Where the graph has
    the operations of such a layer, it has this layer for each of these weights, and its output is
    an operand like any other.

    Args:
        shape: Tuple of ints, the weight's shape.
        weight_dtype: String, the weight's dtype. What is returned has the compute dtype instead,
            if the dtype policy is a mixed one and the weight is of floats.
        constraint: As in Keras.
        **kwargs: `name`, `dtype` and `trainable`.

    Output shape:
        `shape`, without a batch.
    """

    def __init__(self, shape, weight_dtype="float32", constraint=None, **kwargs):
        super().__init__(**kwargs)
        self.shape = tuple(shape)
        self.weight_dtype = weight_dtype
        self.constraint = keras.constraints.get(constraint)
        self.value: Any = None

    @classmethod
    def of(cls, variable, dtype):
        """Returns a layer whose weight is a variable itself.

        Args:
            variable: A `keras.Variable`.
            dtype: Dtype policy of the layer that it belongs to.
        """
        layer = cls(
            variable.shape,
            variable.dtype,
            variable.constraint,
            trainable=variable.trainable,
            name=variable.name,
            dtype=dtype,
        )
        layer.value = variable
        layer.built = True
        return layer

    @classmethod
    def like(cls, array):
        """Returns a layer for the value of an array, which is not trained; it is not built."""
        return cls(array.shape, array.dtype.name, trainable=False, dtype=array.dtype.name)

    def build(self):
        self.value = self.add_weight(
            name=self.name,
            shape=self.shape,
            dtype=self.weight_dtype,
            initializer="zeros",
            trainable=self.trainable,
            constraint=self.constraint,
        )

    def call(self, inputs=None):
        value = self.value.value
        # Read now: on TensorFlow the variable itself would be read later, perhaps after a stateless
        # scope that lends it another value has ended.
        return ops.cast(value, keras.backend.standardize_dtype(value.dtype))

    def compute_output_spec(self, inputs=None):
        casts = self.compute_dtype != self.variable_dtype  # as `__call__` does
        casts = casts and keras.backend.is_float_dtype(self.weight_dtype)
        return keras.KerasTensor(self.shape, self.compute_dtype if casts else self.weight_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "shape": self.shape,
            "weight_dtype": self.weight_dtype,
            "constraint": keras.constraints.serialize(self.constraint),
        }
