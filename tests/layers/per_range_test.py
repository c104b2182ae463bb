"""PerRange: at each percentage it is the stock Keras layer of that range."""

import json
import re

import keras
import numpy as np
import pytest
from keras import layers

import keras_tesla as kt
from keras_tesla.layers import IDPConv2D, IDPDense, PerRange
from tests.helpers import normal, randomize, to_numpy


def dense_pair(units=3, **arguments):
    return PerRange({30: layers.Dense(units, **arguments), 100: layers.Dense(units, **arguments)})


def mlp():
    inputs = keras.Input((7,), name="features")
    x = PerRange(
        {30: layers.Dense(20, activation="relu"), 100: layers.Dense(20, activation="relu")},
        name="first",
    )(inputs)
    x = IDPDense(20, activation="relu", profile="linear", name="middle")(x)
    x = PerRange({30: layers.Dense(3), 100: layers.Dense(3)}, name="last")(x)
    return kt.TESLA(randomize(keras.Model(inputs, x)), [100, 30])


# The layer.


@pytest.mark.parametrize(("percentage", "key"), [(1, 30), (30, 30), (31, 70), (70, 70), (71, 100)])
def test_the_smallest_key_that_is_not_below_the_percentage_runs(percentage, key):
    own = {p: layers.Dense(3, bias_initializer="normal") for p in (100, 30, 70)}
    layer = PerRange(own)
    x = normal(4, 5)
    with kt.percentage_scope(percentage):
        actual = layer(x)
    # Keras' own code runs in both, so the last bit is the same.
    np.testing.assert_array_equal(to_numpy(actual), to_numpy(own[key](x)))
    assert layer.layer_at(percentage) is own[key]


def test_outside_of_a_scope_the_widest_runs():
    layer = dense_pair()
    x = normal(4, 5)
    np.testing.assert_array_equal(to_numpy(layer(x)), to_numpy(layer.ranges[100](x)))


def test_all_layers_are_built_with_weights_of_their_own():
    layer = dense_pair()
    layer.build((None, 5))
    assert [tuple(v.shape) for v in layer.trainable_variables] == [(5, 3), (3,)] * 2
    assert len({v.path for v in layer.weights}) == 4


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: layers.Dense(3), (2, 4, 5)),
        (lambda: layers.Conv1D(3, 2), (2, 4, 5)),
        (lambda: layers.Conv2D(3, 2, strides=2, padding="same"), (2, 4, 5, 5)),
        (lambda: layers.Conv3D(3, 2), (2, 4, 4, 4, 5)),
    ],
)
def test_every_kind_of_layer(make, shape):
    layer = PerRange({50: make(), 100: make()})
    assert layer.compute_output_shape(shape) == make().compute_output_shape(shape)
    x = normal(*shape)
    for percentage in (50, 100):
        with kt.percentage_scope(percentage):
            actual = layer(x)
        expected = layer.ranges[percentage](x)
        np.testing.assert_array_equal(to_numpy(actual), to_numpy(expected))


def test_the_layers_may_differ_in_what_does_not_change_the_output_shape():
    layer = PerRange(
        {50: layers.Conv2D(2, 1, activation="relu"), 100: layers.Conv2D(2, 5, padding="same")}
    )
    assert tuple(layer(normal(1, 6, 6, 3)).shape) == (1, 6, 6, 2)


def test_its_dtype_is_that_of_its_layers():
    layer = dense_pair(dtype="mixed_float16")
    assert layer.dtype_policy.name == "mixed_float16"
    assert keras.backend.standardize_dtype(layer(normal(4, 5)).dtype) == "float16"


def test_config_survives_json():
    layer = dense_pair(activation="relu")
    config = json.loads(json.dumps(layer.get_config()))
    again = PerRange.from_config(config)
    assert again.name == layer.name
    assert list(again.ranges) == [30, 100]
    assert all(x.activation is keras.activations.relu for x in again.ranges.values())


def test_saving(tmp_path):
    tesla = mlp()
    tesla.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = normal(4, 7)
    for percentage in (100, 60, 30, 10):
        np.testing.assert_array_equal(
            tesla.predict(x, percentage=percentage, verbose=0),
            loaded.predict(x, percentage=percentage, verbose=0),
        )


def test_the_mask_is_handed_on():
    x = keras.Input((4,), dtype="int32")
    y = layers.Embedding(5, 6, mask_zero=True)(x)
    model = keras.Model(x, layers.LSTM(2)(dense_pair()(y)))
    padded = np.array([[1, 2, 0, 0]])
    # The LSTM stops where the padding begins, so the padding's length does not matter.
    np.testing.assert_allclose(
        to_numpy(model(padded)), to_numpy(model(np.array([[0, 0, 1, 2]]))), rtol=1e-6
    )


# In a network.


def numpy_mlp(tesla, x, percentage):
    """The network of `mlp`, written out."""
    key = 30 if percentage <= 30 else 100
    first = tesla.network.get_layer("first").ranges[key]
    middle = tesla.network.get_layer("middle")
    last = tesla.network.get_layer("last").ranges[key]
    k = max(1, 20 * percentage // 100)
    gamma = np.where(np.arange(20) < k, 1 - np.arange(20) / 20, 0)
    h = np.maximum(x @ to_numpy(first.kernel) + to_numpy(first.bias), 0)
    h = np.maximum((gamma * h) @ to_numpy(middle.kernel) + to_numpy(middle.bias), 0)
    return h @ to_numpy(last.kernel) + to_numpy(last.bias)


@pytest.mark.parametrize("percentage", [100, 60, 31, 30, 10])
def test_predictions_and_the_extracted_model(percentage):
    tesla = mlp()
    x = normal(4, 7)
    expected = numpy_mlp(tesla, x, percentage)
    extracted = tesla.at(percentage)
    # float32 sums of 20 terms in another order; the outputs are of the size of 1.
    np.testing.assert_allclose(
        tesla.predict(x, percentage=percentage, verbose=0), expected, atol=1e-5
    )
    np.testing.assert_allclose(to_numpy(extracted(x)), expected, atol=1e-5)
    assert [type(v) for v in extracted.layers[1:]] == [layers.Dense] * 3
    assert [v.name for v in extracted.layers[1:]] == ["first", "middle", "last"]
    assert extracted.get_layer("first").units == max(1, 20 * percentage // 100)


def test_evaluation():
    tesla = mlp()
    tesla.compile("sgd", "mse")
    x, y = normal(8, 7), normal(8, 3, seed=1)
    results = tesla.evaluate(x, y, verbose=0, return_dict=True)
    for percentage in (100, 30):
        expected = np.mean((numpy_mlp(tesla, x, percentage) - y) ** 2)
        assert results[f"p{percentage}_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("percentage", [100, 50, 25])
def test_convolutions_narrow(percentage, data_format, assert_same_three_ways):
    if keras.backend.backend() == "tensorflow" and data_format == "channels_first":
        pytest.skip("TensorFlow has no channels_first convolution on the CPU")
    first = data_format == "channels_first"
    x = keras.Input((3, 6, 6) if first else (6, 6, 3))
    # 8 x 8 x 8: the shape alone does not say which axis has the channels.
    own = {
        p: layers.Conv2D(8, 3, padding=pad, data_format=data_format)
        for p, pad in [(25, "same"), (100, "same")]
    }
    y = PerRange(own, name="wide")(x)
    y = IDPConv2D(4, 3, data_format=data_format)(layers.ReLU()(y))
    model = randomize(
        keras.Model(
            x,
            PerRange(
                {
                    25: layers.Conv2D(2, 1, data_format=data_format),
                    100: layers.Conv2D(2, 1, data_format=data_format),
                }
            )(y),
        )
    )
    extracted = assert_same_three_ways(model, normal(2, *x.shape[1:]), percentage)
    assert extracted.get_layer("wide").filters == 8 * percentage // 100


def test_a_softmax_of_one_range_is_computed_in_full(assert_same_three_ways):
    """It mixes the channels, so that range cannot be narrowed; the other can."""
    x = keras.Input((7,))
    own = {50: layers.Dense(8, activation="softmax"), 100: layers.Dense(8)}
    model = randomize(keras.Model(x, IDPDense(3)(PerRange(own, name="wide")(x))))
    for percentage, units in [(50, 8), (75, 6)]:
        extracted = assert_same_three_ways(model, normal(2, 7), percentage)
        assert extracted.get_layer("wide").units == units


def test_joint_training_reaches_the_layers_of_every_range():
    tesla = mlp()
    tesla.compile("sgd", "mse")
    before = [to_numpy(v).copy() for v in tesla.trainable_variables]
    tesla.fit(normal(8, 7), normal(8, 3, seed=1), verbose=0)
    for old, new in zip(before, tesla.trainable_variables, strict=True):
        assert (old != to_numpy(new)).any(), new.path


@pytest.mark.tensorflow
@pytest.mark.parametrize("mode", ["per_percentage", "signatures", "percentage_input"])
def test_export(mode, tmp_path):
    tesla = mlp()
    kt.tflite.export(tesla, tmp_path / "out", mode=mode)
    x = normal(1, 7, seed=5)  # not what the export was verified on
    for percentage in (100, 30):
        name = f"p{percentage}.tflite" if mode == "per_percentage" else "model.tflite"
        run = kt.tflite.load(tmp_path / "out" / name)
        got = run(x) if mode == "per_percentage" else run(x, percentage=percentage)
        # float32 sums in another order; the outputs are of the size of 1.
        np.testing.assert_allclose(got, numpy_mlp(tesla, x, percentage), atol=1e-5)


# Bad input.


class OwnDense(layers.Dense):
    """A subclass may compute something else."""


SHARED = layers.Dense(3)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ([layers.Dense(3)], "must be a dict {highest percentage of the range: layer}"),
        ({}, "at least one percentage"),
        ({"100": layers.Dense(3)}, "must be an integer from 1 to 100"),
        ({0: layers.Dense(3), 100: layers.Dense(3)}, "from 1 to 100. Received: 0"),
        ({30: layers.Dense(3)}, "give a layer for the key 100. Received keys: [30]"),
        ({100: 3}, "must be of ['Dense', 'Conv1D', 'Conv2D', 'Conv3D']"),
        ({100: layers.Dense}, "must be of ['Dense', 'Conv1D', 'Conv2D', 'Conv3D']"),
        ({100: layers.ReLU()}, "must be of ['Dense', 'Conv1D', 'Conv2D', 'Conv3D']"),
        ({100: OwnDense(3)}, "not of a subclass"),
        ({30: IDPDense(3), 100: IDPDense(3)}, "an IDP layer is shared by all ranges"),
        ({30: SHARED, 100: SHARED}, "make one for each key"),
        ({30: layers.Dense(3), 100: layers.Conv2D(3, 1)}, "of one class, dtype and data format"),
        ({30: layers.Dense(3), 100: layers.Dense(3, dtype="float16")}, "dtype and data format"),
        (
            {
                30: layers.Conv2D(8, 1, data_format="channels_first"),
                100: layers.Conv2D(8, 1, data_format="channels_last"),
            },
            "dtype and data format",
        ),
        ({100: layers.Dense(3, dtype="int8_from_float32")}, "quantize at export instead"),
    ],
    ids=str,
)
def test_bad_layers(own, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        PerRange(own)


def test_different_output_shapes():
    layer = PerRange({30: layers.Dense(3), 100: layers.Dense(4)}, name="head")
    with pytest.raises(ValueError, match="layers of 'head' must have the same output shape"):
        layer.build((None, 5))
    assert not layer.weights
