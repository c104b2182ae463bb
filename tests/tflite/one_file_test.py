"""One file for all percentages: what it computes, what it is made of, what it stores."""

import functools
import json

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import strategies as st
from keras import layers

import keras_tesla as kt
from keras_tesla.layers import IDPBatchNormalization, IDPConv2D, IDPDense
from keras_tesla.tflite import runtime, verify
from keras_tesla.tflite.files import reading
from keras_tesla.tflite.graphs import flatbuffer, structure
from tests.tflite import networks

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]
PERCENTAGES = (100, 50, 10)
# Wide enough for nested int8 weights to be worth their description.
WIDE = functools.partial(networks.cnn, width=48)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A function (network, mode, storage, quantization) that returns the model and its bundle."""

    @functools.cache
    def export(network, mode, storage="shared", quantization=None):
        tesla = {**networks.ALL, "wide": WIDE, "unet": networks.unet}[network](PERCENTAGES)
        typical = verify.example_inputs(tesla.network, 64)
        bundle = kt.tflite.export(
            tesla,
            tmp_path_factory.mktemp("export") / "out",
            mode=mode,
            storage=storage,
            quantization=quantization,
            representative_data=typical if quantization == "int8" else None,
        )
        return tesla, bundle

    return export


def content(bundle):
    return bundle.path(bundle.entries[0].percentage).read_bytes()


def keras_outputs(tesla, percentage, inputs):
    x = inputs if len(inputs) > 1 else next(iter(inputs.values()))
    outputs = tesla.at(percentage).predict(x, verbose=0)
    return outputs if isinstance(outputs, dict) else {"logits": outputs}


def ask(made, inputs, percentage):
    inputs = {**inputs, "percentage": np.array([percentage], np.int32)}
    return runtime.run(made, inputs, "serving_default")


@pytest.mark.parametrize("network", networks.ALL)
def test_every_signature_and_every_asked_percentage_computes_what_keras_computes(network, exported):
    tesla, bundle = exported(network, "percentage_input")
    made = runtime.interpreter(content(bundle))
    assert list(made.get_signature_list()) == ["serving_default", "p100", "p50", "p10"]
    inputs = verify.example_inputs(tesla.network, 5, seed=1)  # not those it was verified on
    served = {-(2**31): 10, 0: 10, 10: 10, 11: 50, 50: 50, 51: 100, 100: 100, 2**31 - 1: 100}
    for percentage in PERCENTAGES:
        expected = keras_outputs(tesla, percentage, inputs)
        asked = [value for value, by in served.items() if by == percentage]
        for got in (
            runtime.run(made, inputs, f"p{percentage}"),
            *(ask(made, inputs, value) for value in asked),
        ):
            assert got.keys() == expected.keys()
            for name in expected:
                # float32 sums in another order; the outputs are of the size of 1.
                np.testing.assert_allclose(got[name], expected[name], atol=1e-5)


def test_inputs_and_outputs_are_named_as_in_keras(exported):
    _, bundle = exported("two_inputs_two_outputs", "percentage_input")
    signatures = runtime.interpreter(content(bundle)).get_signature_list()
    for key, signature in signatures.items():
        extra = ["percentage"] if key == "serving_default" else []
        assert sorted(signature["inputs"]) == sorted([*bundle.inputs, *extra])
        assert sorted(signature["outputs"]) == sorted(bundle.outputs)


@pytest.mark.parametrize("quantization", ["dynamic_range", "int8"])
def test_quantized_percentages_stay_near_keras(quantization, exported):
    tesla, bundle = exported("cnn", "signatures", "shared", quantization)
    made = runtime.interpreter(content(bundle))
    inputs = verify.example_inputs(tesla.network, 64)
    for percentage in PERCENTAGES:
        expected = keras_outputs(tesla, percentage, inputs)["logits"]
        got = runtime.run(made, inputs, f"p{percentage}")["logits"]
        # Eight bits a weight: a few hundredths of the outputs' deviation, and never nothing.
        assert 1e-6 < np.sqrt(np.mean((got - expected) ** 2)) < 0.1 * np.std(expected)


# What the files are made of.

CHOICE = ["LESS_EQUAL", "GREATER_EQUAL", "LOGICAL_AND", "UNPACK", "IF", "IF", "IF"]
CONVOLUTIONS = ["CONV_2D", "CONV_2D", "MAX_POOL_2D", "CONV_2D", "MEAN", "FULLY_CONNECTED"]


@pytest.mark.parametrize(
    ("network", "mode", "storage", "quantization", "expected"),
    [
        ("cnn", "signatures", "plain", None, [CONVOLUTIONS] * 3),
        # The last layer is too small to be worth a description of its nesting.
        ("cnn", "signatures", "shared", None, [["DENSIFY"] * 2 + CONVOLUTIONS] * 3),
        (
            "cnn",
            "percentage_input",
            "shared",
            None,
            [CHOICE, [], *[["DENSIFY"] * 2 + CONVOLUTIONS] * 3, *[["IF"]] * 3],
        ),
        (
            "wide",
            "signatures",
            "shared",
            "int8",
            [["DENSIFY"] * 2 + ["QUANTIZE", *CONVOLUTIONS, "DEQUANTIZE"]] * 3,
        ),
    ],
)
def test_the_operators_of_a_construction_are_these(
    network, mode, storage, quantization, expected, exported
):
    _, bundle = exported(network, mode, storage, quantization)
    assert structure.check(content(bundle)) == expected


def test_weights_of_all_percentages_take_the_bytes_of_the_highest(exported):
    _, bundle = exported("cnn", "signatures")
    model = flatbuffer.unpack(content(bundle))
    whole = sum(np.prod(w.shape) * 4 for w in networks.ALL["cnn"](PERCENTAGES).network.weights)
    places = {(b.offset, b.size) for b in model.buffers if b.offset > 1}
    ends = {}
    for offset, size in places:
        ends[offset] = max(size, ends.get(offset, 0))
    # All constants but the last layer's and the biases, of which each percentage has its own.
    assert sum(ends.values()) < 1.1 * whole
    assert sum(size for _, size in places) > 1.2 * whole


def test_a_batch_normalization_of_each_percentage_keeps_the_weights_shared(exported):
    tesla, bundle = exported("cnn_bn", "signatures")
    plain = exported("cnn_bn", "signatures", "plain")[1]
    assert len(content(bundle)) < len(content(plain))
    inputs = verify.example_inputs(tesla.network, 5, seed=1)
    got = runtime.run(runtime.interpreter(content(bundle)), inputs, "p10")
    np.testing.assert_allclose(got["logits"], keras_outputs(tesla, 10, inputs)["logits"], atol=1e-5)
    assert any("MUL" in operators for operators in structure.check(content(bundle)))


@pytest.mark.parametrize("quantization", [None, "dynamic_range", "int8"])
def test_parts_of_concatenations_are_stored_once(quantization, exported):
    tesla, bundle = exported("unet", "signatures", quantization=quantization)
    assert bundle.unshared_weights == []
    layouts = bundle.nested_layouts
    assert any(x["rows"][-1] > 1 and "column_runs" in x for x in layouts)
    if quantization is None:  # int8 weights of one row are too small to be nested here
        assert any(x["rows"][-1] == 1 and "column_runs" in x for x in layouts)
    inputs = verify.example_inputs(tesla.network, 3, seed=1)
    whole, standalone = runtime.interpreter(content(bundle)), kt.tflite.load(bundle.path(100))
    for percentage in PERCENTAGES:
        # In the file the runtime unfolds the weights, for a standalone percentage the library does.
        got = runtime.run(whole, inputs, f"p{percentage}")["logits"]
        x = next(iter(inputs.values()))
        np.testing.assert_array_equal(standalone(x, percentage=percentage), got)
        expected = keras_outputs(tesla, percentage, inputs)["logits"]
        # float32 sums in another order; of int8 a few roundings of 1/255 of their ranges.
        near = {None: 1e-4}.get(quantization, 0.2)
        np.testing.assert_allclose(got, expected, atol=near * np.abs(expected).max())


@pytest.mark.parametrize("quantization", [None, "dynamic_range", "int8"])
def test_transposed_convolutions_are_stored_once(quantization, exported):
    tesla, bundle = exported("transposed", "signatures", quantization=quantization)
    # At 10 % a factor takes too long after so few products.
    assert {weight["percentage"] for weight in bundle.unshared_weights} <= {10}
    nested = {x["inner"]: (x["rows"][-1], x["columns"][-1]) for x in bundle.nested_layouts}
    assert nested[5 * 5] == (24, 24)
    if quantization is None:  # the others are smaller than the description of their nesting
        assert nested[2 * 2] == (24, 24)
    inputs = verify.example_inputs(tesla.network, 64)
    whole, standalone = runtime.interpreter(content(bundle)), kt.tflite.load(bundle.path(100))
    for percentage in PERCENTAGES:
        got = runtime.run(whole, inputs, f"p{percentage}")["logits"]
        np.testing.assert_array_equal(standalone(inputs["image"], percentage=percentage), got)
        expected = keras_outputs(tesla, percentage, inputs)["logits"]
        near = {None: 1e-5}.get(quantization, 0.1)  # of int8 a few roundings of its 256 steps
        np.testing.assert_allclose(got, expected, atol=near * np.abs(expected).max())


def test_four_percentages_of_a_unet_take_little_more_than_one(tmp_path):
    """Measured: 1.02 times the file of 100 %; 34 KB of graphs and header, whatever the weights."""

    def convolutions(x, width):
        for _ in range(2):
            x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
        return x

    inputs = x = keras.Input((16, 16, 3), name="image")
    skips = []
    for width in (32, 64):
        skips.append(convolutions(x, width))
        x = layers.MaxPooling2D()(skips[-1])
    x = convolutions(x, 128)
    for width in (64, 32):
        x = layers.Conv2DTranspose(width, 2, strides=2)(x)
        x = convolutions(layers.Concatenate()([skips.pop(), x]), width)
    model = keras.Model(inputs, layers.Conv2D(3, 1, name="logits")(x))
    tesla = kt.TESLA(kt.to_idp(model, [100, 75, 50, 25]))
    (whole,) = kt.tflite.export(tesla, tmp_path / "whole", percentages=[100]).files
    bundle = kt.tflite.export(tesla, tmp_path / "all", mode="signatures")
    assert bundle.unshared_weights == []
    assert bundle.files[0]["bytes"] <= 1.05 * whole["bytes"]


def test_private_numbers_keep_the_weights_shared(exported):
    """A factor before a layer, one after it, and biases: numbers, not kernels."""
    _, bundle = exported("private", "signatures")
    plain = exported("private", "signatures", "plain")[1]
    assert bundle.unshared_weights == []
    assert len(content(bundle)) < len(content(plain))
    multiplications = [operators.count("MUL") for operators in structure.check(content(bundle))]
    # At 10 % all terms have one factor, which the converter puts into a kernel. At 100 % the factor
    # after the layer is 1.
    assert multiplications == [1, 2, 1]
    # By itself a percentage has its factors in its kernels.
    assert all("MUL" not in operators for operators in structure.check(content(plain)))


def test_a_gain_that_is_not_positive_costs_bytes_and_is_never_wrong(tmp_path):
    tesla = kt.TESLA(gains_of_every_sign(), PERCENTAGES)
    bundle = kt.tflite.export(tesla, tmp_path / "out", mode="signatures")  # and verify
    assert {weight["percentage"] for weight in bundle.unshared_weights} == {50, 10}


def test_what_cannot_be_shared_is_named_with_its_bytes(tmp_path):
    """A small convolution whose factors would cost more time than its bytes are worth."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1), name="image")
    x = IDPBatchNormalization((100, 50))(layers.Conv2D(8, 1)(inputs))
    x = layers.ReLU()(x)
    model = keras.Model(inputs, IDPConv2D(4, 3, name="logits")(x))
    for weight in model.weights:
        if weight.name == "moving_variance_p50":
            weight.assign(np.full(weight.shape, 2.0))
    bundle = kt.tflite.export(kt.TESLA(model, (100, 50)), tmp_path / "out", mode="signatures")
    (weight,) = bundle.unshared_weights
    assert (weight["percentage"], weight["bytes"]) == (50, 4 * 4)
    assert "conv2d" in weight["weight"]
    assert "slow" in weight["reason"]


def test_the_file_says_what_the_manifest_says(exported):
    _, bundle = exported("cnn", "percentage_input")
    header = reading.read_header(content(bundle))
    manifest = json.loads((bundle.directory / "manifest.json").read_text())
    (file,) = manifest.pop("files")
    assert file["bytes"] == len(content(bundle))
    for entry in manifest["percentages"]:
        assert entry.pop("file") == "model.tflite"
    assert header["format"] == 1
    assert manifest == header


def test_accuracy_on_validation_data_is_that_of_keras(tmp_path):
    tesla = networks.mlp(PERCENTAGES)
    inputs = verify.example_inputs(tesla.network, 40, seed=2)["features"]
    labels = tesla.predict(inputs, percentage=50, verbose=0).argmax(-1)
    bundle = kt.tflite.export(
        tesla,
        tmp_path / "out",
        mode="signatures",
        validation_data=(inputs, labels),
        labels=list("abcde"),
    )
    assert bundle[50].accuracy == 1
    expected = np.mean(tesla.predict(inputs, percentage=10, verbose=0).argmax(-1) == labels)
    assert bundle[10].accuracy == pytest.approx(expected)
    assert bundle.labels == kt.tflite.read(tmp_path / "out").labels == list("abcde")
    one_hot = np.eye(5)[labels]
    again = kt.tflite.export(tesla, tmp_path / "hot", validation_data=(inputs, one_hot))
    assert again[50].accuracy == 1
    assert again.labels is None
    assert "labels" not in json.loads(again.to_json())


def test_int8_inputs_and_outputs_have_one_scale_for_all_percentages(tmp_path):
    tesla = networks.mlp(PERCENTAGES)
    typical = verify.example_inputs(tesla.network, 64)
    bundle = kt.tflite.export(
        tesla,
        tmp_path / "out",
        mode="percentage_input",
        quantization="int8",
        int8_io=True,
        representative_data=typical,
    )
    assert bundle.inputs["features"]["dtype"] == bundle.outputs["logits"]["dtype"] == "int8"
    made = runtime.interpreter(content(bundle))
    expected = keras_outputs(tesla, 50, typical)["logits"]
    for got in (runtime.run(made, typical, "p50"), ask(made, typical, 50)):
        assert np.sqrt(np.mean((got["logits"] - expected) ** 2)) < 0.1 * np.std(expected)
    scales = {
        tuple(made.get_signature_runner(key).get_output_details()["logits"]["quantization"])
        for key in made.get_signature_list()
    }
    assert len(scales) == 1


# Networks that runtimes, the converter or shared bytes could trip over.


def one_tensor_as_two_outputs():
    inputs = keras.Input((6,), name="x")
    y = IDPDense(3)(layers.Dense(8, activation="relu")(inputs))
    return keras.Model(inputs, {"a": y, "b": y})


def two_outputs_of_one_layer():
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    layer, last = layers.Dense(8, activation="relu"), IDPDense(3, name="logits")
    return keras.Model([a, b], [last(layer(a)), last(layer(b))])


def an_input_as_output():
    inputs = keras.Input((6,), name="x")
    y = IDPDense(3)(layers.Dense(8, activation="relu")(inputs))
    return keras.Model(inputs, {"y": y, "x_again": inputs})


def one_weight_with_and_without_a_pool():
    """A layer called twice: after one call a factor is cheap, after the other it is not."""
    inputs = keras.Input((8, 8, 4), name="x")
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(inputs)
    convolution, normalization = IDPConv2D(24, 1), IDPBatchNormalization(PERCENTAGES)
    a = layers.ReLU()(normalization(convolution(x)))
    b = layers.ReLU()(normalization(convolution(layers.ReLU(max_value=1.0)(x))))
    for number, weight in enumerate(w for w in normalization.weights if "variance" in w.name):
        weight.assign(np.linspace(0.5, 1.5 + number, 24))
    a = layers.GlobalAveragePooling2D()(a)
    b = layers.GlobalAveragePooling2D()(IDPConv2D(24, 3)(b))
    return keras.Model(inputs, IDPDense(3)(layers.Concatenate()([a, b])))


def constant_kernels():
    """Every weight is the beginning of every larger one."""
    options = {"kernel_initializer": keras.initializers.Constant(1 / 32)}
    inputs = keras.Input((16,), name="x")
    x = layers.Dense(64, **options)(inputs)
    x = IDPDense(48, **options)(IDPDense(64, **options)(x))
    return keras.Model(inputs, IDPDense(40, **options)(x))


def embedded_integers():
    inputs = keras.Input((5,), dtype="int32", name="tokens")
    x = layers.Flatten()(layers.Embedding(4, 6)(inputs))
    return keras.Model(inputs, IDPDense(3)(layers.Dense(16, activation="relu")(x)))


def channels_without_weights():
    """A batch normalization with gamma 0: in int8 such a channel's scale says nothing."""
    inputs = keras.Input((6, 6, 2), name="x")
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(inputs)
    x = IDPConv2D(48, 3, padding="same")(x)
    normalization = IDPBatchNormalization(PERCENTAGES)
    x = layers.ReLU()(normalization(x))
    normalization.gamma.assign(np.arange(48) % 3)
    normalization.beta.assign(np.linspace(0.5, 2, 48))
    return keras.Model(inputs, IDPDense(3)(layers.GlobalAveragePooling2D()(x)))


def private_convolutions():
    """Private profiles that are 0 and below in places, on maps, groups and after a Flatten."""
    private = {"percentages": PERCENTAGES, "private_bias": True, "private_profile": True}
    inputs = keras.Input((6, 6, 2), name="x")
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(inputs)
    x = IDPConv2D(20, 3, padding="same", activation="relu", **private)(x)
    x = IDPConv2D(12, 3, groups=2, **private)(x)
    x = IDPConv2D(12, 1, activation="relu", **private)(x)
    x = IDPDense(3, input_channels=12, **private)(layers.Flatten()(x))
    model = keras.Model(inputs, x)
    private_weights = [v for v in model.weights if v.name.startswith(("bias_p", "profile_p"))]
    for seed, variable in enumerate(private_weights):
        random = np.random.default_rng(seed)
        variable.assign(random.choice([-1.0, -1.5, 0.0, 0.5], variable.shape))
    return model


def added_to_a_concatenation():
    """A convolution that computes channels of two parts: its rows are no prefix of each other."""
    inputs = keras.Input((6, 6, 2), name="x")
    a, b, c = (layers.Conv2D(n, 3, activation="relu")(inputs) for n in (30, 18, 48))
    x = layers.Add()([layers.Concatenate()([a, b]), c])
    x = IDPConv2D(24, 3, input_parts=(30, 18))(x)
    x = layers.Concatenate()([layers.Flatten()(x), layers.GlobalAveragePooling2D()(c)])
    return keras.Model(inputs, IDPDense(3, input_parts=(24, 24, 24, 24, 48))(x))


def gains_of_every_sign():
    """A factor of a percentage that is not positive may not change places with a ReLU."""
    inputs = keras.Input((6, 6, 2), name="x")
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(inputs)
    normalization = IDPBatchNormalization(PERCENTAGES, private_affine=True)
    x = layers.ReLU()(normalization(IDPConv2D(48, 3, padding="same")(x)))
    for percentage in PERCENTAGES:
        random = np.random.default_rng(percentage)
        private = normalization.private_variables(percentage)
        private["gain"].assign(random.choice([-1.0, -1.5, 0.0, 0.5], 48))
        private["shift"].assign(random.normal(size=48))
    return keras.Model(inputs, IDPDense(3)(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("quantization", [None, "int8"])
@pytest.mark.parametrize(
    "build",
    [
        one_tensor_as_two_outputs,
        two_outputs_of_one_layer,
        one_weight_with_and_without_a_pool,
        an_input_as_output,
        constant_kernels,
        embedded_integers,
        channels_without_weights,
        private_convolutions,
        added_to_a_concatenation,
        gains_of_every_sign,
    ],
)
def test_awkward_networks(build, quantization, tmp_path):
    keras.utils.set_random_seed(0)
    tesla = kt.TESLA(build(), PERCENTAGES)
    typical = verify.example_inputs(tesla.network, 50)
    bundle = kt.tflite.export(
        tesla,
        tmp_path / "out",
        mode="percentage_input",
        quantization=quantization,
        representative_data=typical if quantization else None,
    )
    assert len(bundle.outputs) == len(tesla.network.outputs)


# Random networks.


RANDOM_NETWORKS = st.fixed_dictionaries(
    {
        "percentages": st.sets(st.integers(1, 100), min_size=1, max_size=4),
        "width": st.integers(3, 20),
        "activation": st.sampled_from(["relu", "relu6", "linear", "tanh"]),
        "kernel": st.sampled_from([None, 1, 3]),  # None: dense layers
        # Of each layer: bias, batch normalization, residual add.
        "layers": st.lists(st.tuples(*[st.booleans()] * 3), min_size=1, max_size=3),
        "flatten": st.booleans(),
        "seed": st.integers(0, 9),
    }
)


def random_network(percentages, width, activation, kernel, layers_, flatten, seed):
    keras.utils.set_random_seed(seed)
    percentages = sorted(percentages, reverse=True)
    if kernel is None:
        x = inputs = keras.Input((9,), name="x")
        x = layers.Dense(width)(x)
        layer = IDPDense
    else:
        x = inputs = keras.Input((6, 6, 2), name="x")
        x = layers.Conv2D(width, 3, padding="same")(x)
        layer = functools.partial(IDPConv2D, kernel_size=kernel, padding="same")
    for use_bias, batch_normalization, residual in layers_:
        y = layer(width, use_bias=use_bias)(x)
        if batch_normalization:
            y = IDPBatchNormalization(percentages)(y)
        y = layers.Activation(activation)(y)
        x = layers.Add()([x, y]) if residual else y
    if kernel is None:
        x = IDPDense(4, name="logits")(x)
    else:
        x = layers.MaxPooling2D(2)(x)
        if flatten:
            x = IDPDense(4, input_channels=width, name="logits")(layers.Flatten()(x))
        else:
            x = IDPDense(4, name="logits")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, x)
    random = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.name.startswith(("gamma", "moving_variance")):
            weight.assign(random.uniform(0.5, 2, weight.shape))
        else:
            weight.assign(random.normal(0, 0.4, weight.shape))
    return kt.TESLA(model, percentages)


# Each example converts a network some times, so a quarter of the examples must do.
@hypothesis.settings(max_examples=hypothesis.settings.default.max_examples // 4)
@hypothesis.given(
    RANDOM_NETWORKS,
    st.sampled_from(["signatures", "percentage_input"]),
    st.sampled_from([None, None, "dynamic_range", "int8"]),
)
def test_random_networks_at_random_percentages(tmp_path_factory, network, mode, quantization):
    """`export` compares every percentage in three runtimes with Keras and refuses a difference."""
    tesla = random_network(layers_=network.pop("layers"), **network)
    bundle = kt.tflite.export(
        tesla,
        tmp_path_factory.mktemp("random") / "out",
        mode=mode,
        quantization=quantization,
        representative_data=verify.example_inputs(tesla.network, 50)
        if quantization == "int8"
        else None,
    )
    structure.check(content(bundle))
    assert [e.percentage for e in bundle.entries] == list(tesla.percentages)


# What is refused.


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"mode": "one_file"}, "`mode` must be one of"),
        ({"storage": "blocks"}, "`storage` must be one of"),
        ({"quantization": "float16"}, "`quantization` must be one of"),
        ({"quantization": "int8"}, "no representative_data"),
        ({"representative_data": np.zeros((4, 16))}, "goes with quantization='int8'"),
        ({"int8_io": True}, "`int8_io` goes with quantization='int8'"),
        ({"validation_data": np.zeros((4, 16))}, "must be a tuple"),
        ({"validation_data": (np.zeros((4, 16)), np.zeros(3))}, "a label for each of the 4"),
        ({"validation_data": (np.zeros((4, 15)), np.zeros(4))}, r"examples of shape \(16,\)"),
        ({"labels": ["a\nb"]}, "`labels` must be"),
        ({"labels": list("abcd")}, r"4 labels for outputs of the shapes \[\(None, 5\)\]"),
        ({"normalization": {"features": (0, -1)}}, "`std` must be above zero"),
        ({"normalization": {"image": (0, 1)}}, r"must name inputs of the model, \['features'\]"),
    ],
)
def test_arguments_that_do_not_fit_write_nothing(kwargs, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        kt.tflite.export(networks.mlp((100,)), tmp_path / "out", **{"mode": "signatures", **kwargs})
    assert list(tmp_path.iterdir()) == []


def test_accuracy_needs_one_output_with_classes(tmp_path):
    tesla = networks.two_inputs_two_outputs((100,))
    x = verify.example_inputs(tesla.network, 4)
    with pytest.raises(ValueError, match="one output with a score for each class"):
        kt.tflite.export(tesla, tmp_path / "out", validation_data=(x, np.zeros(4)))


def test_an_input_of_the_name_percentage_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((4,), name="percentage"), IDPDense(3)])
    with pytest.raises(ValueError, match="has one of that name"):
        kt.tflite.export(kt.TESLA(model, (100, 50)), tmp_path / "out", mode="percentage_input")


def test_a_merge_that_computes_something_else_is_not_written(tmp_path, monkeypatch):
    """A nested weight whose last run went missing."""
    from keras_tesla.tflite.graphs.nested import NestedLayout

    store = NestedLayout.store
    monkeypatch.setattr(
        NestedLayout, "store", lambda self, weight: store(self, weight)[:-4] + b"\0\0\x80?"
    )
    with pytest.raises(kt.tflite.VerificationError, match="differs from Keras"):
        kt.tflite.export(networks.cnn(PERCENTAGES), tmp_path / "out", mode="signatures")
    assert list(tmp_path.iterdir()) == []


def test_quantization_that_destroys_the_network_is_refused(tmp_path):
    """Ranges measured on inputs a thousand times too small."""
    tesla = networks.mlp((100, 50))
    x = verify.example_inputs(tesla.network, 32)["features"]
    with pytest.raises(kt.tflite.VerificationError, match="typical `representative_data`"):
        kt.tflite.export(
            tesla,
            tmp_path / "out",
            mode="signatures",
            quantization="int8",
            representative_data=x / 1000,
            inputs=x,
        )
    assert list(tmp_path.iterdir()) == []


def test_groups_arrays_and_slices_of_channels(tmp_path):
    """A block as in ConvNeXt, a ResNeXt-like convolution, and a gate of two halves."""
    tesla = networks.grouped(PERCENTAGES)
    assert any(type(x).__name__ == "LayerScale" for x in tesla.at(50).layers)
    bundle = kt.tflite.export(tesla, tmp_path / "out", mode="percentage_input")
    made = runtime.interpreter(content(bundle))
    inputs = verify.example_inputs(tesla.network, 5, seed=1)  # not those it was verified on
    for percentage in PERCENTAGES:
        (expected,) = keras_outputs(tesla, percentage, inputs).values()
        (found,) = ask(made, inputs, percentage).values()
        # Float32 sums in another order.
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    costs = [entry.multiply_adds for entry in bundle.entries]
    assert costs[1] < 0.5 * costs[0]
