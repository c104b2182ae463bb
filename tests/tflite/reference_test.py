"""Which examples Keras gives numbers on, and that it gives the same ones again."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_tesla as kt
from keras_tesla.layers import IDPDense
from keras_tesla.tflite import interface, reference
from keras_tesla.tflite.settings import Settings

pytestmark = pytest.mark.tensorflow


class Sampling(layers.Layer):
    """Of a variational autoencoder."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, mean, deviation):
        return mean + deviation * keras.random.normal(ops.shape(mean), seed=self.seeds)


def chosen(outputs, inputs):
    model = keras.Model(inputs, outputs)
    settings = Settings()
    return reference.choose(model, interface.of(model, kt.TESLA(model, [100]).graph), settings, 100)


def test_where_standard_normal_numbers_give_nan_positive_ones_are_taken(tmp_path):
    x, ids = keras.Input((8,), name="x"), keras.Input((2,), dtype="int32", name="ids")
    y = layers.Concatenate()([ops.log(x), layers.Flatten()(layers.Embedding(30, 4)(ids))])
    y = IDPDense(3)(layers.Dense(8)(y))
    found = chosen(y, [x, ids])
    assert found.random["x"] == "floats from 0 to 1"
    assert found.inputs["x"].min() >= 0
    assert found.inputs["ids"].max() > 1  # still of the vocabulary
    kt.tflite.export(kt.TESLA(keras.Model([x, ids], y), [100, 50]), tmp_path / "out")


def test_where_normal_numbers_are_right_they_stay():
    x = keras.Input((8,), name="x")
    assert chosen(IDPDense(3)(layers.Dense(8)(x)), x).random["x"] == "standard normal floats"


def test_layers_that_draw_random_numbers_are_named(tmp_path):
    x = keras.Input((6,), name="x")
    hidden = layers.Dense(8, activation="relu")(x)
    mean, deviation = IDPDense(4, name="mean")(hidden), IDPDense(4, name="deviation")(hidden)
    z = Sampling(name="z")(mean, deviation)
    model = keras.Model(x, [mean, IDPDense(2, name="decoded")(z)])
    with pytest.raises(ValueError, match=r"Layers \['z'\] draw random numbers.*ends before"):
        kt.tflite.export(kt.TESLA(model, [100, 50]), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    # As the message says: a model that ends before it.
    tesla = kt.TESLA(keras.Model(x, [mean, deviation]), [100, 50])
    bundle = kt.tflite.export(tesla, tmp_path / "out")
    given = np.random.default_rng(0).standard_normal((3, 6)).astype("float32")
    got = kt.tflite.load(bundle.directory)(given, percentage=50)
    with kt.percentage_scope(50):
        expected = tesla.network(given)
    for name, y in zip(("mean", "deviation"), expected, strict=True):
        np.testing.assert_allclose(got[name], y, atol=1e-5)


def test_what_is_random_in_training_only_is_not_refused(tmp_path):
    x = keras.Input((6,))
    y = layers.Dropout(0.5)(layers.GaussianNoise(1.0)(layers.Dense(8)(x)))
    kt.tflite.export(kt.TESLA(keras.Model(x, IDPDense(2)(y)), [100, 50]), tmp_path / "out")
