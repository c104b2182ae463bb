"""`to_tf_keras`: the same numbers in Keras 2, or a message that names the layer."""

import importlib.util
import os
import sys

import keras
import numpy as np
import pytest
from keras import layers

from keras_tesla import TESLA, compression
from keras_tesla.layers import IDPConv1D, IDPConv2D, IDPDense
from tests.helpers import normal, randomize

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow_model_optimization") is None,
        reason="needs tensorflow-model-optimization",
    ),
]


def chain(shape, *chained, dtype=None):
    x = y = keras.Input(shape, dtype=dtype)
    for layer in chained:
        y = layer(y)
    return randomize(keras.Model(x, y))


def assert_same(model, *inputs):
    """The bridged model computes what plain Keras does, on inputs that the bridge did not see."""
    bridged = compression.to_tf_keras(model)
    given = inputs[0] if len(inputs) == 1 else list(inputs)
    expected, actual = model(given, training=False), bridged(given, training=False)
    keras.tree.assert_same_structure(expected, actual)
    for a, b in zip(keras.tree.flatten(actual), keras.tree.flatten(expected), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        # The same float32 operations of TensorFlow, now and then in another order.
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(b).max()))
    return bridged


# Every kind of layer.

IMAGES, SEQUENCES, ROWS = (6, 6, 4), (8, 4), (6,)
CHAINS = {
    "dense": (ROWS, lambda: [layers.Dense(5, activation="relu"), layers.Dense(3, use_bias=False)]),
    "conv": (
        IMAGES,
        lambda: [
            layers.Conv2D(4, 3, padding="same", strides=2, activation="relu"),
            layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2),
            layers.Conv2D(8, 2, groups=2, padding="same", dilation_rate=2),
            layers.SeparableConv2D(4, 3, padding="same"),
            layers.Conv2DTranspose(3, 3),
        ],
    ),
    "conv_1d": (
        SEQUENCES,
        lambda: [
            layers.Conv1D(6, 3, padding="causal", activation="tanh"),
            layers.SeparableConv1D(4, 3),
            layers.MaxPooling1D(2),
            layers.GlobalAveragePooling1D(),
        ],
    ),
    "normalization": (
        IMAGES,
        lambda: [
            layers.BatchNormalization(epsilon=0.1),
            layers.BatchNormalization(scale=False, trainable=False),
            layers.LayerNormalization(),
            layers.GroupNormalization(2),
        ],
    ),
    "activation": (
        ROWS,
        lambda: [
            *(layers.Activation(a) for a in ("relu", "elu", "selu", "gelu", "silu", "swish")),
            *(layers.Activation(a) for a in ("tanh", "sigmoid", "softplus", "softmax")),
            layers.ReLU(6.0, negative_slope=0.1, threshold=0.2),
            layers.LeakyReLU(0.1),
            layers.PReLU(),
            layers.ELU(0.5),
            layers.Softmax(),
        ],
    ),
    "pooling": (
        (12, 12, 4),
        lambda: [
            layers.ZeroPadding2D(1),
            layers.MaxPooling2D(2, padding="same"),
            layers.AveragePooling2D(3, strides=1),
            layers.UpSampling2D(2, interpolation="bilinear"),
            layers.Cropping2D(1),
            layers.GlobalMaxPooling2D(keepdims=True),
        ],
    ),
    "shape": (
        IMAGES,
        lambda: [
            layers.Permute((3, 1, 2)),
            layers.Reshape((9, -1)),
            layers.Dropout(0.5),
            layers.SpatialDropout1D(0.5, seed=3),
            layers.GaussianNoise(0.1),
            layers.Rescaling(0.5, 1.0),
            layers.Flatten(),
            layers.RepeatVector(2),
        ],
    ),
    "recurrent": (SEQUENCES, lambda: [layers.LSTM(3, return_sequences=True), layers.GRU(3)]),
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.slow
def test_stock_layers(name):
    shape, made = CHAINS[name]
    assert_same(chain(shape, *made()), normal(5, *shape, seed=9))


def test_embedding():
    model = chain((7,), layers.Embedding(2, 4), layers.Flatten(), dtype="int32")
    assert_same(model, np.arange(14).reshape(2, 7).astype("int32") % 2)


def test_attention():
    x = keras.Input((5, 4))
    model = keras.Model(x, layers.MultiHeadAttention(2, 3)(x, x))
    assert_same(randomize(model), normal(2, 5, 4))


def test_merges_shared_layers_and_nested_models():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    shared = layers.Dense(4, name="shared")
    nested = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="shared")], name="nested")
    y = [shared(a), shared(b), nested(b)]
    merges = [layers.Add, layers.Average, layers.Maximum, layers.Multiply, layers.Concatenate]
    y = layers.concatenate([merge()(y) for merge in merges])
    y = layers.Subtract()([y, layers.Minimum()([y, y])])
    model = randomize(keras.Model([a, b], [y, layers.Dot(1)([a, b])], name="two"))
    bridged = assert_same(model, normal(5, 4), normal(5, 4, seed=1))
    assert bridged.name == "two"
    assert bridged.input_names == ["a", "b"]
    assert [layer.name for layer in bridged.layers].count("shared") == 1


def test_dictionaries_of_inputs_and_outputs():
    inputs = {"b": keras.Input((4,), name="b"), "a": keras.Input((3,), name="a")}
    outputs = {"y": layers.Dense(2)(inputs["a"]), "x": layers.Dense(5)(inputs["b"])}
    assert_same(keras.Model(inputs, outputs), {"a": normal(5, 3), "b": normal(5, 4)})


def test_what_training_needs_is_kept():
    dense = layers.Dense(
        3, kernel_regularizer="l2", kernel_constraint=keras.constraints.MaxNorm(2), trainable=False
    )
    twin = compression.to_tf_keras(chain(ROWS, dense)).layers[1]
    assert float(twin.kernel_regularizer.l2) == pytest.approx(0.01)
    assert twin.kernel_constraint.max_value == 2
    assert not twin.trainable


def test_weights_are_copies():
    model = chain(ROWS, layers.Dense(3))
    bridged = compression.to_tf_keras(model)
    before = [w.copy() for w in model.get_weights()]
    bridged.compile("sgd", "mse")
    bridged.fit(normal(8, 6), normal(8, 3), verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])
    assert np.any(bridged.get_weights()[0] != before[0])


def test_mixed_precision_becomes_float32():
    model = chain(ROWS, layers.Dense(3, dtype="mixed_float16"), layers.Dense(2, dtype="float16"))
    bridged = compression.to_tf_keras(model)
    assert {layer.compute_dtype for layer in bridged.layers} == {"float32"}
    np.testing.assert_array_equal(bridged.get_weights()[0], model.get_weights()[0])


# Networks of this library.


def sliced(rank):
    """Layers that read different parts of a tensor: `at(50)` has slices, after Flatten too."""
    if rank == 2:
        x = keras.Input((5,))
        y = layers.Dense(8)(x)
        read = IDPDense(8)(y)
    elif rank == 3:
        x = keras.Input((6, 3))
        y = layers.Conv1D(8, 3, padding="same")(x)
        read = IDPConv1D(8, 3, padding="same")(y)
    else:
        x = keras.Input((6, 6, 3))
        y = layers.Conv2D(8, 3, padding="same")(x)
        read = IDPConv2D(8, 3, padding="same")(y)
    y = layers.Flatten()(layers.Concatenate()([y, read]))
    y = layers.Concatenate()([IDPDense(4, input_channels=16)(y), layers.Dense(2)(y)])
    return TESLA(randomize(keras.Model(x, y)), [100, 50]).at(50)


@pytest.mark.parametrize("rank", [2, 3, 4])
def test_slices_of_the_channels(rank):
    model = sliced(rank)
    assert any("GetItem" in type(o).__name__ for o in model.operations)
    assert_same(model, normal(5, *model.input_shape[1:], seed=9))


# What is refused.


class Own(layers.Dense):
    pass


def own_regularizer(kernel):
    return 0.0


class Subclassed(keras.Model):
    def call(self, x):
        return x


def test_models_of_another_kind_are_refused():
    network = keras.Sequential([keras.Input((4,)), layers.Dense(8), IDPDense(3, name="narrow")])
    with pytest.raises(ValueError, match=r"one percentage: pass `tesla\.at\(p\)`"):
        compression.to_tf_keras(TESLA(network, [100, 50]))
    with pytest.raises(ValueError, match="'narrow' of type IDPDense exists in keras_tesla only"):
        compression.to_tf_keras(network)
    with pytest.raises(ValueError, match="what a subclassed model computes cannot be read"):
        compression.to_tf_keras(Subclassed())
    with pytest.raises(ValueError, match="must be a Functional or Sequential `keras.Model`"):
        compression.to_tf_keras("model.keras")
    with pytest.raises(ValueError, match="is not built"):
        compression.to_tf_keras(keras.Sequential([layers.Dense(3)]))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: layers.Lambda(abs, name="odd"), "'odd' of type Lambda is not a stock layer"),
        (lambda: Own(3, name="odd"), "'odd' of type Own is not a stock layer"),
        (lambda: layers.RMSNormalization(name="odd"), "tf_keras has no layer RMSNormalization"),
        # Another straight line in Keras 2.
        (
            lambda: layers.Activation("hard_sigmoid", name="odd"),
            "'odd' of type Activation cannot be rebuilt.* differ by",
        ),
        (
            lambda: layers.Dense(3, kernel_regularizer=own_regularizer, name="odd"),
            "a custom object, kernel_regularizer",
        ),
        (
            lambda: layers.Dense(3, activation=keras.ops.square, name="odd"),
            "'odd' of type Dense cannot be rebuilt",
        ),
    ],
)
def test_layers_without_a_twin_are_named(layer, message):
    with pytest.raises(ValueError, match=message):
        compression.to_tf_keras(chain(ROWS, layer()))


def test_operations_are_refused():
    for operation in (keras.ops.square, lambda y: y[:, ::2], lambda y: y[:, 1:]):
        x = keras.Input(ROWS)
        with pytest.raises(ValueError, match="cannot be rebuilt in tf_keras"):
            compression.to_tf_keras(keras.Model(x, operation(x)))


def test_open_dimensions_are_refused():
    with pytest.raises(ValueError, match="every dimension but the batch"):
        compression.to_tf_keras(chain((None, 4), layers.Conv1D(3, 1)))


# The packages.


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    with pytest.raises(ImportError, match=r'pip install "keras-tesla\[compression\]"'):
        compression.to_tf_keras(chain(ROWS, layers.Dense(3)))
    assert "TF_USE_LEGACY_KERAS" not in os.environ


def test_other_backends_are_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    for function in (compression.to_tf_keras, compression.strip, compression.to_tflite):
        with pytest.raises(RuntimeError, match="Received: 'jax'"):
            function(None)
