"""What is not understood, or sees all channels, is computed in full and right."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tests.kinds.networks import merging, projection, through, wide, width


@keras.saving.register_keras_serializable("keras_tesla_tests")
class Reversed(layers.Layer):
    """Mixes the channels, as an unknown layer may."""

    def call(self, x):
        return ops.flip(x, axis=-1)


@keras.saving.register_keras_serializable("keras_tesla_tests")
class Summed(layers.Dense):
    """A Dense in name only: every output depends on every unit."""

    def call(self, inputs, training=None):
        return ops.cumsum(ops.flip(super().call(inputs), axis=-1), axis=-1)


@keras.saving.register_keras_serializable("keras_tesla_tests")
class ReversedReLU(layers.ReLU):
    def call(self, x):
        return ops.flip(super().call(x), axis=-1)


@keras.saving.register_keras_serializable("keras_tesla_tests")
def relu(x):
    """Has the name of an elementwise function and is none."""
    return ops.relu(ops.flip(x, axis=-1))


class Multiply(keras.Operation):
    """Has the class name of an operator and is none."""

    def call(self, x):
        return ops.flip(x, axis=-1)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


class Twice(layers.Layer):
    """A layer that returns two tensors."""

    def call(self, x):
        return x, ops.flip(x, axis=-1)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype), keras.KerasTensor(x.shape, x.dtype)


VARIABLE = keras.Variable(np.linspace(1, 2, 8).astype("float32"))

TRAPS = {
    "Softmax": lambda: through(layers.Softmax()),
    "PReLU of one slope": lambda: through(layers.PReLU(shared_axes=[1, 2, 3])),
    "LayerNormalization": lambda: through(layers.LayerNormalization()),
    "GroupNormalization of one group": lambda: through(layers.GroupNormalization(1)),
    "GroupNormalization of rows": lambda: through(layers.GroupNormalization(2, axis=1)),
    "Depthwise softmax": lambda: through(layers.DepthwiseConv2D(2, activation="softmax")),
    "UnitNormalization": lambda: through(layers.UnitNormalization()),
    "MultiHeadAttention": lambda: through(lambda x: layers.MultiHeadAttention(2, 4)(x, x), rank=1),
    "GroupQueryAttention": lambda: through(
        lambda x: layers.GroupQueryAttention(4, 4, 2)(x, x), rank=1
    ),
    "LSTM": lambda: through(layers.LSTM(8), rank=1),
    "ActivityRegularization": lambda: through(layers.ActivityRegularization(l2=0.1)),
    "TimeDistributed": lambda: through(layers.TimeDistributed(layers.Dense(8)), rank=1),
    "Masking, which looks at all channels": lambda: through(layers.Masking(), rank=1),
    "Permute": lambda: through(layers.Permute((1, 3, 2))),
    "own layer": lambda: through(Reversed()),
    "subclass of ReLU": lambda: through(ReversedReLU()),
    "subclass of Dense": lambda: through(Summed(8)),
    "own activation": lambda: through(layers.Activation(relu)),
    "two outputs": lambda: through(lambda x: Twice()(x)[1]),
    "PReLU as activation": lambda: through(layers.Activation(layers.PReLU(shared_axes=[1, 2]))),
    "Dropout with noise shape": lambda: through(layers.Dropout(0.5, noise_shape=(3, 1, 1, 8))),
    "statistics of rows": lambda: through(layers.BatchNormalization(axis=1)),
    "pooling over channels": lambda: through(
        layers.GlobalAveragePooling2D(data_format="channels_first", keepdims=True)
    ),
    "reshape of channels": lambda: through(layers.Reshape((96, 3)), rank=2),
    "reversed channels": lambda: through(lambda x: ops.flip(x, axis=-1)),
    "transpose": lambda: through(lambda x: ops.transpose(x, (0, 1, 3, 2))),
    "sum over channels": lambda: through(lambda x: x - ops.mean(x, axis=-1, keepdims=True)),
    "softmax over channels": lambda: through(ops.softmax),
    "mean over everything": lambda: through(lambda x: x * ops.mean(x)),
    "sorted channels": lambda: through(ops.sort),
    "padded channels": lambda: through(lambda x: ops.pad(x, [(0, 0), (0, 0), (0, 0), (1, 0)])),
    "rolled channels": lambda: through(lambda x: ops.roll(x, 1, axis=-1)),
    "rolled flat": lambda: through(lambda x: ops.roll(x, 1)),
    "clipped by a tensor": lambda: through(
        lambda x: ops.clip(x, ops.convert_to_tensor(np.linspace(-1, 0, 8).astype("float32")), 1)
    ),
    "variable operand": lambda: through(lambda x: x * VARIABLE),
    "array of more axes": lambda: through(lambda x: ops.sum(x * np.ones((2, 1, 1, 1, 8)), 0)),
    "array that makes channels": lambda: through(
        lambda x: ops.sum(x, -1, keepdims=True) * np.linspace(1, 2, 8).astype("float32")
    ),
    "Rescaling of more axes": lambda: through(layers.Rescaling(np.ones((6, 8)).tolist())),
    "broadcast of ranks": lambda: merging(
        lambda a, b: layers.Add()([a, layers.GlobalMaxPooling2D()(b)])
    ),
    "normalized merge": lambda: merging(lambda a, b: layers.Dot(axes=-1)([a, b]), rank=1),
    "flattened positions": lambda: through(layers.Flatten(), rank=2),
    "flattened rows": lambda: through(layers.Flatten("channels_first"), rank=2),
}


@pytest.mark.parametrize("name", TRAPS)
def test_what_is_not_understood_is_right_and_complete(name, check):
    for percentage in (20, 50, 100):
        assert width(check(TRAPS[name](), percentage)) == 8


def test_own_operation_with_the_name_of_an_operator(check):
    assert width(check(through(Multiply()))) == 8


def test_lambda(check):
    assert width(check(through(layers.Lambda(lambda x: ops.flip(x, axis=-1))))) == 8


@pytest.mark.parametrize(
    "make",
    [
        lambda: projection(wide(2, activity_regularizer="l2")),
        lambda: projection(wide(0, activity_regularizer="l1")),
        lambda: through(layers.ReLU(activity_regularizer="l2")),
        lambda: through(layers.BatchNormalization(activity_regularizer="l2")),
        pytest.param(lambda: merging(lambda a, b: layers.Add(activity_regularizer="l2")([a, b]))),
        pytest.param(
            lambda: merging(
                lambda a, b: layers.Concatenate(axis=1, activity_regularizer="l2")([a, b])
            )
        ),
    ],
)
def test_an_activity_regularizer_sees_every_channel(make, check):
    assert width(check(make())) == 8
