"""Export of quantization-aware models: integers only, one set of weights, no data."""

import json

import keras
import numpy as np
import pytest

import keras_tesla as kt
from keras_tesla.layers import IDPConv1D, IDPDense
from keras_tesla.narrowing.plan import narrow
from keras_tesla.quantization.kernels import FakeQuantizedKernel
from keras_tesla.tflite import runtime
from keras_tesla.tflite.graphs import integers, leading_blocks
from keras_tesla.tflite.graphs.flatbuffer import Type
from keras_tesla.tflite.graphs.percentage_graph import PercentageGraph
from tests.quantization import networks

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]
P = networks.PERCENTAGES


def trained(model, percentages=P):
    """A quantization-aware TESLA model whose ranges, and whose statistics, are of one batch."""
    random = np.random.default_rng(1)
    for weight in model.weights:
        if weight.name == "bias":
            weight.assign(random.uniform(0.1, 0.5, weight.shape))
        elif weight.name == "gamma":  # the int8 weights must not depend on it, whatever the sign
            signs = random.choice([-1, 1], weight.shape)
            weight.assign(signs * random.uniform(0.5, 1.5, weight.shape))
    tesla = kt.TESLA(kt.quantization_aware(model, percentages), percentages)
    for seed in range(8):
        tesla(networks.example(model, 64, seed), training=True)
    return tesla


@pytest.mark.parametrize("network", networks.ALL)
def test_each_file_is_int8_with_the_codes_of_the_widest(network, tmp_path):
    tesla = trained(networks.ALL[network]())
    x = networks.example(tesla.network, 32, seed=9)
    bundle = kt.tflite.export(tesla, tmp_path / "out", quantization="int8", inputs=x)
    graphs = {
        p: PercentageGraph(p, bundle.path(p).read_bytes(), narrow(tesla.graph, p).selections())
        for p in P
    }
    whole = leading_blocks.weights(graphs[100].subgraph)
    for percentage, graph in graphs.items():
        assert integers.float_tensors(graph) == []
        narrowed = leading_blocks.weights(graph.subgraph)
        assert {w.value.dtype for w in narrowed} == {np.dtype("int8")}
        chosen = leading_blocks.choices(graphs[100].selections, graph.selections)
        found = leading_blocks.find(whole, narrowed, chosen)
        assert all(block is not None and block.scale is None for block in found)
        got = runtime.run(
            runtime.interpreter(bundle.path(percentage).read_bytes()),
            x if isinstance(x, dict) else {tesla.network.inputs[0].name: x},
        )
        with kt.percentage_scope(percentage):
            expected = tesla.network(x)
        if not isinstance(expected, dict):
            expected = {tesla.network.output_names[0]: expected}
        assert got.keys() == expected.keys()
        for name in got:
            reference = keras.ops.convert_to_numpy(expected[name])
            # The integers of Keras and LiteRT differ by a step here and there.
            error = np.sqrt(np.mean((got[name] - reference) ** 2))
            assert error < 0.05 * np.std(reference)


@pytest.mark.parametrize("network", ["normalized", "merged", "parts"])
def test_one_file_shares_all_weights(network, tmp_path):
    tesla = trained(networks.ALL[network]())
    kt.tflite.export(tesla, tmp_path / "out", "percentage_input", quantization="int8")
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["unshared_weights"] == []


def test_the_codes_are_those_of_training_without_the_widest_too(tmp_path):
    tesla = trained(networks.cnn())
    bundle = kt.tflite.export(tesla, tmp_path / "out", quantization="int8", percentages=[30])
    weights = leading_blocks.weights(PercentageGraph(30, bundle.path(30).read_bytes()).subgraph)
    layers = [x for x in tesla.network.layers if isinstance(x, FakeQuantizedKernel)]
    for layer, found in zip(layers, weights, strict=True):
        kernel = keras.ops.convert_to_numpy(layer.incomplete_kernel(30))
        scale = keras.ops.convert_to_numpy(layer.kernel_limit()) / 127
        expected = np.moveaxis(np.round(kernel / scale), -1, 0)
        block = tuple(slice(count) for count in found.value.shape)
        np.testing.assert_array_equal(found.value, expected[block])


def test_inputs_and_outputs_can_be_int8(tmp_path):
    tesla = trained(networks.mlp())
    bundle = kt.tflite.export(tesla, tmp_path / "out", quantization="int8", int8_io=True)
    graph = PercentageGraph(30, bundle.path(30).read_bytes())
    assert all(t.type != Type.FLOAT32 for t in graph.subgraph.tensors)
    assert bundle.inputs["features"]["dtype"] == "int8"


def test_the_accuracy_of_training_is_that_of_the_file(tmp_path):
    digits = kt.data.load("digits")
    inputs = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Flatten()(inputs)
    x = keras.layers.Dense(64, activation="relu")(x)
    model = keras.Model(inputs, IDPDense(10, name="logits")(IDPDense(64, activation="relu")(x)))

    def fit(network, epochs):
        tesla = kt.TESLA(network, P)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        tesla.compile(keras.optimizers.Adam(2e-3), loss, metrics=["accuracy"], jit_compile=False)
        tesla.fit(digits.train.x, digits.train.y, batch_size=64, epochs=epochs, verbose=0)
        return tesla

    fit(model, 8)
    tesla = fit(kt.quantization_aware(model, P), 2)
    validation = digits.validation.x, digits.validation.y
    bundle = kt.tflite.export(
        tesla, tmp_path / "out", quantization="int8", validation_data=validation
    )
    expected = tesla.evaluate(*validation, verbose=0, return_dict=True)
    for entry in bundle.entries:
        # 144 images: one may lie between two classes.
        assert entry.accuracy == pytest.approx(expected[f"p{entry.percentage}_accuracy"], abs=0.011)
        assert entry.accuracy > 0.85


def test_a_layer_without_a_bias_is_int8_too(tmp_path):
    inputs = keras.Input((8,))
    x = keras.layers.Dense(16, activation="relu", use_bias=False)(inputs)
    tesla = trained(keras.Model(inputs, IDPDense(5, use_bias=False)(x)))
    kt.tflite.export(tesla, tmp_path / "out", quantization="int8")


# What is refused.


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"quantization": "dynamic_range"},
        {"quantization": "int8", "representative_data": np.zeros((4, 16), "float32")},
    ],
)
def test_another_quantization_or_data_for_ranges_is_refused(kwargs, tmp_path):
    tesla = trained(networks.mlp())
    with pytest.raises(
        ValueError,
        match="quantization-aware model were trained.*Received: q",
    ):
        kt.tflite.export(tesla, tmp_path / "out", **kwargs)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_aware_still_needs_data(tmp_path):
    tesla = kt.TESLA(networks.mlp(), P)
    with pytest.raises(ValueError, match="`quantization_aware` needs none"):
        kt.tflite.export(tesla, tmp_path / "out", quantization="int8")


def test_export_before_training_is_refused(tmp_path):
    tesla = kt.TESLA(kt.quantization_aware(networks.mlp(), P), P)
    with pytest.raises(ValueError, match="no range at 100 % yet.*Train"):
        kt.tflite.export(tesla, tmp_path / "out", quantization="int8")
    tesla.activate([100])
    tesla(networks.example(tesla.network, 8), training=True)
    with pytest.raises(ValueError, match="no range at 30 % yet"):
        kt.tflite.export(tesla, tmp_path / "out", quantization="int8", percentages=[30])
    assert list(tmp_path.iterdir()) == []


def test_what_the_converter_leaves_in_float32_is_refused_by_name(tmp_path):
    """A Conv1D with one channel: the converter finds no int8 form and does not say so."""
    inputs = keras.Input((16, 4))
    x = keras.layers.Conv1D(4, 3, activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling1D()(IDPConv1D(4, 3, activation="relu")(x))
    tesla = trained(keras.Model(inputs, IDPDense(5)(x)))
    with pytest.raises(ValueError, match="30 %: the converter left float32.*conv1d"):
        kt.tflite.export(tesla, tmp_path / "out", quantization="int8")
    assert list(tmp_path.iterdir()) == []
