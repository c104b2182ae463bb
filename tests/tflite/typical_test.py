"""Random examples are like those that the layers after an input were made for."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_tesla as kt
from keras_tesla import graph
from keras_tesla.tflite import examples
from keras_tesla.tflite.settings import ConversionSettings

MEAN, VARIANCE = [5.0, -3.0], [4.0, 0.25]


def drawn(outputs, count=4000):
    """Random examples of a network with one input, and what they are, in words."""
    model = keras.Model(outputs[0], outputs[1])
    (spec,) = examples.specs_of(graph.read(model))
    return spec.draw(np.random.default_rng(0), count), spec.description


def read_by(layer, shape=(2,), dtype="float32"):
    inputs = keras.Input(shape, dtype=dtype, name="x")
    return inputs, layer(inputs)


def test_without_such_a_layer_floats_are_standard_normal_and_integers_0_and_1():
    x, said = drawn(read_by(layers.Dense(3)))
    # The mean of 8000 draws lies within 5 / sqrt(8000).
    np.testing.assert_allclose([x.mean(), x.std()], [0, 1], atol=0.06)
    assert said == "standard normal floats"
    x, said = drawn(read_by(lambda x: keras.ops.add(x, 1), dtype="int32"))
    assert set(np.unique(x)) == {0, 1}
    assert said == "integers 0 and 1"


@pytest.mark.parametrize("dtype", ["int32", "uint8", "float32"])
@pytest.mark.parametrize(
    "layer",
    [
        layers.Embedding(7, 3, name="reader"),
        layers.CategoryEncoding(7, "multi_hot", name="reader"),
        lambda x: keras.ops.one_hot(keras.ops.cast(x, "int32"), 7),
        lambda x: layers.Embedding(7, 3, name="reader")(layers.Reshape((2, 1))(x)),
        lambda x: keras.ops.add(
            layers.Embedding(300, 3)(x), layers.Embedding(7, 3, name="reader")(x)
        ),
        lambda x: keras.ops.add(
            layers.Reshape((2, 1))(layers.Rescaling(1 / 255)(x)),
            layers.Embedding(7, 3, name="reader")(x),
        ),
    ],
)
def test_integers_are_those_that_every_reader_takes(layer, dtype):
    x, said = drawn(read_by(layer, dtype=dtype))
    assert x.dtype == dtype
    assert set(np.unique(x)) == set(range(7))
    assert said.startswith("integers 0 to 6, as ")


def test_integers_that_the_type_does_not_hold_are_not_drawn():
    x, _ = drawn(read_by(layers.Embedding(1000, 3), dtype="uint8"))
    assert x.max() == 255


def test_a_discretization_gets_numbers_of_all_its_bins():
    x, _ = drawn(read_by(layers.Discretization([10.0, 12.0, 20.0])))
    assert set(np.digitize(x, [10, 12, 20]).ravel()) == {0, 1, 2, 3}


@pytest.mark.tensorflow
def test_lookups_get_words_of_their_vocabulary():
    x, said = drawn(read_by(layers.StringLookup(vocabulary=["r", "g"], name="l"), dtype="string"))
    assert set(np.unique(x)) == {"r", "g"}
    assert said == "of the vocabulary of layer 'l'"
    x, _ = drawn(read_by(layers.IntegerLookup(vocabulary=[40, 50]), dtype="int64"))
    assert set(np.unique(x)) == {40, 50}
    text = layers.TextVectorization(vocabulary=["one", "two"], output_sequence_length=4)
    x, _ = drawn(read_by(text, shape=(1,), dtype="string"), count=50)
    assert x.shape == (50, 1)
    assert {word for line in x.ravel() for word in line.split()} == {"one", "two"}


def test_a_normalization_gets_its_mean_and_variance():
    given = layers.Normalization(mean=MEAN, variance=VARIANCE, name="scaled")
    adapted = layers.Normalization()
    random = np.random.default_rng(1)
    adapted.adapt(random.normal(MEAN, np.sqrt(VARIANCE), (20000, 2)))
    for layer in (given, adapted):
        x, said = drawn(read_by(layer))
        # Twice the standard deviation over sqrt(4000), five times.
        np.testing.assert_allclose(x.mean(0), MEAN, atol=0.2)
        np.testing.assert_allclose(x.var(0), VARIANCE, rtol=0.2)
    x, said = drawn(read_by(given))
    assert said == "normal with the mean and variance of layer 'scaled'"


@pytest.mark.parametrize(
    ("scale", "offset", "high"),
    [
        (1 / 255, 0.0, 255),
        (1 / 127.5, -1.0, 255),
        (1 / 255, -0.5, 255),
        (1 / 16, 0, 16),
        # ImageNet's mean and deviation: red needs the widest range.
        ([1 / 58.4, 1 / 57.1], [-123.7 / 58.4, -116.3 / 57.1], 247.4),
    ],
)
def test_a_rescaling_gets_what_it_scales(scale, offset, high):
    layer = layers.Rescaling(scale, offset, name="r")
    x, said = drawn(read_by(layer, (4, 4, 2)))
    assert 0 <= x.min() < 0.001 * high
    assert 0.999 * high < x.max() <= high * (1 + 1e-6)
    assert said == f"from 0 to {high:.4g}, as layer 'r' takes them"


@pytest.mark.parametrize(
    "layer",
    [
        layers.Rescaling(-1.0, 1.0),
        layers.Rescaling(1.0, 1.0),
        layers.Normalization(mean=MEAN, variance=VARIANCE, invert=True),
    ],
)
def test_a_layer_that_does_not_say_it_leaves_the_default(layer):
    assert drawn(read_by(layer))[1] == "standard normal floats"


def test_integers_are_rounded_within_their_type():
    x, _ = drawn(read_by(layers.Rescaling(1 / 255), dtype="uint8"))
    assert x.dtype == "uint8"
    assert set(np.unique(x)) == set(range(256))
    x, _ = drawn(read_by(layers.Normalization(mean=250.0, variance=1e4, axis=None), dtype="uint8"))
    assert x.max() == 255  # clipped, not wrapped
    assert x.mean() > 150
    x, _ = drawn(read_by(layers.Rescaling(1 / 255), dtype="bool"))
    assert set(np.unique(x)) == {False, True}


def test_only_what_reads_the_input_itself_counts():
    inputs = keras.Input((2,))
    x, _ = drawn((inputs, layers.Rescaling(1 / 255)(layers.Dense(2)(inputs))))
    assert np.abs(x).max() < 10


def test_each_input_gets_its_own_and_the_advice_says_what():
    image, extra = keras.Input((4, 4, 1), name="image"), keras.Input((2,), name="extra")
    inner = keras.Sequential([keras.Input((4, 4, 1)), layers.Rescaling(1 / 255), layers.Flatten()])
    model = keras.Model([image, extra], layers.Concatenate()([inner(image), extra]))
    chosen = examples.choose(examples.specs_of(graph.read(model)), ConversionSettings())
    assert chosen.inputs["image"].max() > 200
    assert np.abs(chosen.inputs["extra"]).max() < 10
    assert "('image' from 0 to 255, as layer " in chosen.advice
    assert "; 'extra' standard normal floats): pass typical `inputs`" in chosen.advice


@pytest.mark.tensorflow
def test_a_network_of_positive_numbers_is_exported_without_data(tmp_path):
    """Of standard normal numbers, half would be below zero, and a logarithm not a number."""
    inputs = keras.Input((8,), name="pixels")
    x = keras.ops.log(1e-3 + layers.Rescaling(1 / 255)(inputs))
    x = kt.layers.IDPDense(8, activation="relu")(layers.Dense(8, activation="relu")(x))
    tesla = kt.TESLA(keras.Model(inputs, kt.layers.IDPDense(3)(x)), [100, 50])
    bundle = kt.tflite.export(tesla, tmp_path / "out")
    assert [entry.percentage for entry in bundle.entries] == [100, 50]


@pytest.mark.tensorflow
@pytest.mark.slow
def test_a_quantization_aware_network_gets_the_range_that_it_was_trained_on(tmp_path):
    """Standard normal numbers are all alike to a network of 0..255."""
    keras.utils.set_random_seed(3)
    x = np.random.default_rng(3).uniform(0, 255, (256, 8)).astype("float32")
    y = (x[:, :1] - x[:, 1:2]) / 255
    inputs = keras.Input((8,), name="x")
    h = kt.layers.IDPDense(32, activation="relu")(layers.Dense(32, activation="relu")(inputs))
    model = keras.Model(inputs, kt.layers.IDPDense(1)(h))
    tesla = kt.TESLA(kt.quantization_aware(model, [100, 50]), [100, 50])
    tesla.compile(keras.optimizers.Adam(1e-3), "mse")
    tesla.fit(x, y, epochs=10, verbose=0)
    (spec,) = examples.specs_of(tesla.graph)
    numbers = spec.draw(np.random.default_rng(0), 1000)
    assert numbers.min() < 5
    assert 240 < numbers.max() <= 256
    kt.tflite.export(tesla, tmp_path / "out", quantization="int8")
