"""The extracted model: stock layers, weights of its own, no need of keras_tesla."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from keras_tesla import graph, percentage_scope
from keras_tesla.extraction import extract
from keras_tesla.layers import IDPBatchNormalization, IDPConv2D, IDPDense
from keras_tesla.narrowing.plan import narrow
from tests.helpers import to_numpy


def at(model, percentage, name="small"):
    return extract(narrow(graph.read(model), percentage), name)


def residual_network():
    """Something of everything: convolutions, statistics, merges, operators, two outputs."""
    x = keras.Input((8, 8, 3), name="image")
    y = layers.Conv2D(8, 3, padding="same", name="stem")(layers.Rescaling(1 / 255)(x))
    y = layers.ReLU()(IDPBatchNormalization([100, 50])(y))
    z = IDPConv2D(8, 3, padding="same", profile="linear", name="conv")(y)
    y = layers.BatchNormalization()(layers.Add()([y, z]))
    y = layers.MaxPooling2D()(layers.Concatenate()([y, y * 2.0]))
    y = layers.Flatten()(layers.Dropout(0.5)(y))
    y = IDPDense(6, input_channels=16, activation="relu", name="head")(y)
    return keras.Model(
        x, {"class": layers.Dense(3, activation="softmax")(y), "age": IDPDense(1)(y)}, name="full"
    )


def images():
    return np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype("float32")


def assert_equal(actual, expected):
    assert set(actual) == set(expected)
    for key in expected:
        # float32 sums in another order.
        np.testing.assert_allclose(
            to_numpy(actual[key]), to_numpy(expected[key]), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("percentage", [100, 50])
def test_consists_of_stock_layers_with_the_same_names(percentage):
    model = residual_network()
    extracted = at(model, percentage)
    assert type(extracted) is type(model)
    assert extracted.name == "small"
    assert not extracted.compiled
    for operation in extracted.operations:
        assert type(operation).__module__.startswith("keras.")
    names = [layer.name for layer in extracted.layers]
    assert {"image", "stem", "conv", "head"} <= set(names)
    assert type(extracted.get_layer("conv")) is layers.Conv2D
    assert type(extracted.get_layer("head")) is layers.Dense
    assert [v.name for v in extracted.get_layer("head").weights] == ["kernel", "bias"]


def test_weights_are_narrowed_slices_with_the_profile_folded_in():
    model = residual_network()
    extracted = at(model, 50)
    stem, conv = model.get_layer("stem"), model.get_layer("conv")
    np.testing.assert_array_equal(
        to_numpy(extracted.get_layer("stem").kernel), to_numpy(stem.kernel)
    )  # the concatenation needs the first 8 of 16 channels: all of the residual
    linear = (1 - np.arange(4) / 8)[:, None]
    np.testing.assert_allclose(
        to_numpy(extracted.get_layer("conv").kernel),
        to_numpy(conv.kernel)[:, :, :4] * linear,
        rtol=1e-6,  # one float32 rounding
    )
    assert extracted.get_layer("head").kernel.shape == (16 * 8, 6)
    assert extracted.count_params() < model.count_params()


def test_the_structure_of_inputs_and_outputs_is_kept():
    model = residual_network()
    extracted = at(model, 50)
    assert [t.name for t in extracted.inputs] == ["image"]
    assert set(extracted.output) == {"class", "age"}
    assert {k: v.shape for k, v in extracted.output.items()} == {
        "class": (None, 3),
        "age": (None, 1),
    }
    with percentage_scope(50):
        expected = model(images())
    assert_equal(extracted(images()), expected)


@pytest.mark.parametrize("structure", ["list", "dict", "nested"])
def test_several_inputs(structure, assert_same_three_ways):
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    inputs = {"list": [a, b], "dict": {"b": b, "a": a}, "nested": {"x": [a], "y": (b,)}}[structure]
    y = layers.Concatenate()([layers.Dense(6)(a), b])
    model = keras.Model(inputs, [IDPDense(2)(y), (y, {"last": a})])
    values = keras.tree.map_structure(lambda t: np.ones((2, t.shape[1]), "float32"), inputs)
    assert_same_three_ways(model, values, 40)
    if structure == "dict":  # in this order, with every backend
        assert list(at(model, 40).input) == list(model.input) == ["b", "a"]


@pytest.mark.parametrize(
    "outputs",
    [
        "tensor",
        pytest.param("list of one"),
    ],
)
def test_a_single_output(outputs, assert_same_three_ways):
    x = keras.Input((4,))
    y = IDPDense(2)(x)
    model = keras.Model(x, y if outputs == "tensor" else [y])
    assert_same_three_ways(model, np.ones((2, 4), "float32"), 50)


def test_the_two_models_share_nothing():
    model = residual_network()
    extracted = at(model, 50)
    before = model.get_weights()
    for variable in extracted.variables:
        if variable.dtype == "float32":
            variable.assign(variable + 1)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_original_is_not_changed():
    model = residual_network()
    layer = model.get_layer("stem")
    output, names = layer.output, [v.path for v in model.variables]
    at(model, 50)
    at(model, 100)
    assert layer.output is output
    assert [v.path for v in model.variables] == names


def test_it_can_be_trained():
    x = keras.Input((6,))
    y = IDPBatchNormalization([100, 50])(layers.Dense(4, kernel_regularizer="l2")(x))
    model = at(keras.Model(x, IDPDense(2, profile="linear")(y)), 50)
    assert len(model.losses) == 1
    model.compile("sgd", "mse")
    before = model.get_weights()
    model.fit(np.ones((4, 6)), np.ones((4, 2)), verbose=0)
    assert any(np.any(a != b) for a, b in zip(model.get_weights(), before, strict=True))


def test_names_of_layers_stay_unique():
    a = keras.Input((4,))
    inner = keras.Model(a, layers.Dense(4, name="same")(a))
    x = keras.Input((4,))
    y = layers.Dense(4, name="same")(inner(x))
    extracted = at(keras.Model(x, IDPDense(2)(y)), 50)
    assert {"same", "same_1"} < {layer.name for layer in extracted.layers}


def test_an_inner_layer_may_be_named_like_an_input():
    a = keras.Input((4,))
    inner = keras.Model(a, layers.Dense(4, name="x")(a))
    x = keras.Input((4,), name="x")
    at(keras.Model(x, IDPDense(2)(inner(x))), 50)


def test_a_model_from_a_file_made_by_another_process(tmp_path):
    keras.utils.clear_session()
    x = keras.Input((8,))
    y = layers.Dense(8)(x)
    model = keras.Model(x, [IDPDense(2)(y[:, :6]), IDPDense(2)(y), layers.Dense(2)(y)])
    model.save(tmp_path / "model.keras")
    keras.utils.clear_session()  # names are counted from the start, as in a new process
    loaded = keras.models.load_model(tmp_path / "model.keras")
    names = [operation.name for operation in at(loaded, 50).operations]
    assert len(set(names)) == len(names)


def test_a_file_with_every_layer(tmp_path):
    model = residual_network()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for percentage in (100, 50):
        assert_equal(at(loaded, percentage)(images()), at(model, percentage)(images()))


WITHOUT_US = """
import sys
import keras
import numpy as np

model = keras.models.load_model(sys.argv[1])
made = model.predict(np.load(sys.argv[2]), verbose=0)
np.savez(sys.argv[3], **made)
assert not any(name.startswith("keras_tesla") for name in sys.modules)
"""


@pytest.mark.slow
def test_a_saved_model_runs_without_keras_tesla(tmp_path):
    model = residual_network()
    extracted = at(model, 50)
    extracted.save(tmp_path / "small.keras")
    np.save(tmp_path / "images.npy", images())
    files = [tmp_path / name for name in ("small.keras", "images.npy", "made.npz")]
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    environment.pop("PYTHONPATH", None)
    made = subprocess.run(
        [sys.executable, "-c", WITHOUT_US, *map(str, files)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    assert_equal(dict(np.load(files[2])), extracted(images()))


def test_an_adapted_normalization(assert_same_three_ways):
    """It computes with values that are made of its weights when it has adapted."""
    x = np.random.default_rng(0).normal(3, 2, (50, 4)).astype("float32")
    normalization = layers.Normalization()
    normalization.adapt(x)
    model = keras.Sequential([keras.Input((4,)), normalization, layers.Dense(6), IDPDense(2)])
    assert_same_three_ways(model, x, 50)
