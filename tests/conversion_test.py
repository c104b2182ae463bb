"""to_idp: at 100 % the same function, below it incomplete; what it leaves it names."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_tesla as kt
from keras_tesla.layers import (
    IDPBatchNormalization,
    IDPConv1D,
    IDPConv1DTranspose,
    IDPConv2D,
    IDPConv2DTranspose,
    IDPConv3D,
    IDPDense,
    IDPSeparableConv2D,
)

pytestmark = pytest.mark.backend_free

to_numpy = ops.convert_to_numpy


def randomized(model):
    """The model with weights of all kinds: biases, statistics and scales that are not 0 or 1."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.name in ("kernel", "bias", "beta") or "mean" in variable.name:
            variable.assign(rng.normal(size=variable.shape) * 0.4)
        elif variable.name == "gamma" or "variance" in variable.name:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


def inputs_of(model):
    rng = np.random.default_rng(1)
    found = [rng.normal(size=(2, *t.shape[1:])).astype("float32") for t in model.inputs]
    return found if len(found) > 1 else found[0]


def convert(model, **arguments):
    """Converts a model with random weights and checks what must hold of every conversion."""
    randomized(model)
    before = [to_numpy(v).copy() for v in model.variables]
    converted = kt.to_idp(model, **arguments)
    x = inputs_of(model)
    expected, actual = model(x), converted(x)
    for a, b in zip(keras.tree.flatten(actual), keras.tree.flatten(expected), strict=True):
        # Equal but for a profile, which is divided out and multiplied in: two roundings.
        np.testing.assert_allclose(to_numpy(a), to_numpy(b), rtol=1e-4, atol=1e-5)
    for a, b in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(to_numpy(a), b)
    return converted


def kinds(model):
    """{name of a layer: its class}, without the inputs."""
    return {x.name: type(x) for x in model.layers if not isinstance(x, layers.InputLayer)}


def reasons(converted):
    return {row.name: row.reason for row in converted.conversion_report}


def cnn():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Rescaling(1 / 255, name="scale"),
            layers.Conv2D(8, 3, padding="same", use_bias=False, name="first"),
            layers.BatchNormalization(name="first_norm"),
            layers.ReLU(name="relu"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Conv2D(10, 1, use_bias=False, name="second"),
            layers.BatchNormalization(name="second_norm"),
            layers.Activation("relu", name="second_relu"),
            layers.Flatten(name="flatten"),
            layers.Dense(6, activation="relu", name="hidden"),
            layers.Dense(3, activation="softmax", name="head"),
        ],
        name="cnn",
    )


# What becomes what.


def test_layers_behind_others_become_incomplete():
    converted = convert(cnn())
    assert kinds(converted) == {
        "scale": layers.Rescaling,
        "first": layers.Conv2D,
        "first_norm": layers.BatchNormalization,
        "relu": layers.ReLU,
        "depthwise": layers.DepthwiseConv2D,
        "second": IDPConv2D,
        "second_norm": IDPBatchNormalization,
        "second_relu": layers.Activation,
        "flatten": layers.Flatten,
        "hidden": IDPDense,
        "head": IDPDense,
    }
    assert converted.name == "cnn"
    assert not converted.compiled


REPORT = """\
Layer        Class               Became                 At 50 %  At a percentage
------------------------------------------------------------------------------------------------
first        Conv2D              -                      4 of 8   reads the model's inputs, which are kept
first_norm   BatchNormalization  -                      4 of 8   its input is the same at every percentage
depthwise    DepthwiseConv2D     -                      4 of 8   is narrowed as it is, by channel
second       Conv2D              IDPConv2D              5 of 10  reads a part of its 8 input channels
second_norm  BatchNormalization  IDPBatchNormalization  5 of 10  has statistics for each percentage
hidden       Dense               IDPDense               3 of 6   reads a part of its 10 input channels
head         Dense               IDPDense               3 of 3   reads a part of its 6 input channels\
"""  # noqa: E501


def test_the_report_is_a_table():
    header, rule, *rows = str(convert(cnn()).conversion_report).splitlines()
    expected_header, _, *expected_rows = REPORT.splitlines()
    assert (header, rows) == (expected_header, expected_rows)
    assert rule == "-" * max(map(len, rows))


def test_the_report_says_what_is_not_read():
    """At 50 % a layer that knows no parts reads only the first input of a concatenation."""
    a, b = keras.Input((5,), name="a"), keras.Input((4,), name="b")
    parts = [layers.Dense(6, name=f"of_{t.name}")(t) for t in (a, b)]
    x = IDPDense(8, name="hidden")(layers.Concatenate(name="both")(parts))
    model = keras.Model([a, b], layers.Dense(3, name="head")(x))
    report = convert(model, percentages=[100, 60, 50]).conversion_report
    assert report.percentage == 50
    assert {row.name: (row.computed, row.reason) for row in report} == {
        "of_a": ("6 of 6", "reads the model's inputs, which are kept"),
        "of_b": ("-", "is not computed at 50 %"),
        "hidden": ("4 of 8", "already depends on the percentage"),
        "head": ("3 of 3", "reads a part of its 8 input channels"),
    }
    assert str(report).splitlines()[-3:] == list(report.not_read)
    assert report.not_read == (
        "Layer 'of_b' is not computed at 50 %.",
        "Input 'b' of the model is not read at 50 %.",
        "'both' reads nothing of 'of_b' at 50 %.",
    )
    assert convert(model, percentages=[100]).conversion_report.not_read == ()


def test_at_100_is_the_model_again():
    model = cnn()
    converted = convert(model)
    again = kt.TESLA(converted, [100, 50]).at(100)
    assert kinds(again) == kinds(model)
    for ours, theirs in zip(again.weights, model.weights, strict=True):
        assert ours.name == theirs.name
        np.testing.assert_array_equal(to_numpy(ours), to_numpy(theirs))


def test_a_percentage_costs_about_its_square():
    model = keras.Sequential(
        [keras.Input((8,)), *[layers.Dense(100, activation="relu") for _ in range(6)]]
    )
    tesla = kt.TESLA(convert(model), [100, 50])
    full, half = (kt.analysis.multiply_adds(tesla.at(p)) for p in (100, 50))
    assert full == 8 * 100 + 5 * 100 * 100
    assert half == 8 * 50 + 4 * 50 * 50 + 50 * 100  # the last layer is complete in its outputs


def projections():
    image, series = keras.Input((6, 6, 4)), keras.Input((9, 4))
    volume = keras.Input((4, 5, 4, 3))
    return {
        IDPConv1D: keras.Model(
            series,
            layers.Conv1D(3, 2, padding="causal", dilation_rate=2, name="x")(
                layers.Conv1D(8, 1)(series)
            ),
        ),
        IDPConv2D: keras.Model(
            image, layers.Conv2D(3, 2, strides=2, name="x")(layers.Conv2D(8, 1)(image))
        ),
        IDPConv1DTranspose: keras.Model(
            series, layers.Conv1DTranspose(3, 2, strides=2, name="x")(layers.Conv1D(8, 1)(series))
        ),
        IDPConv3D: keras.Model(
            volume, layers.Conv3D(3, 2, padding="same", name="x")(layers.Conv3D(8, 1)(volume))
        ),
        IDPConv2DTranspose: keras.Model(
            image, layers.Conv2DTranspose(3, 2, strides=2, name="x")(layers.Conv2D(8, 1)(image))
        ),
        IDPSeparableConv2D: keras.Model(
            image,
            layers.SeparableConv2D(3, 2, depth_multiplier=2, name="x")(layers.Conv2D(8, 1)(image)),
        ),
        IDPDense: keras.Model(
            series, layers.Dense(3, use_bias=False, name="x")(layers.Dense(8)(series))
        ),
    }


@pytest.mark.parametrize("kind", projections())
@pytest.mark.parametrize("profile", ["all_one", "harmonic", [1, 0.9, 0.9, 0.5, 0.4, 0.3, 0.2, 0.1]])
@pytest.mark.parametrize("trainable", [False, True])
def test_every_kind_keeps_its_function_and_arguments(
    kind, profile, trainable, assert_same_three_ways
):
    """A profile is divided out of the kernel, so that the function at 100 % stays."""
    model = projections()[kind]
    converted = convert(model, profile=profile, trainable_profile=trainable)
    layer, plain = converted.get_layer("x"), model.get_layer("x")
    assert type(layer) is kind
    config = plain.get_config()
    assert {k: v for k, v in layer.get_config().items() if k in config} == config
    assert layer.trainable_profile == trainable
    extracted = assert_same_three_ways(converted, inputs_of(model), 50)
    full = kt.analysis.multiply_adds(model)
    assert kt.analysis.multiply_adds(extracted) < 0.8 * full


def test_statistics_start_at_those_of_the_model_for_each_percentage():
    model = cnn()
    converted = convert(model, percentages=[100, 40])
    ours, theirs = converted.get_layer("second_norm"), model.get_layer("second_norm")
    assert ours.percentages == (100, 40)
    for percentage in (100, 40):
        for a, b in zip(
            ours.statistics(percentage), [theirs.moving_mean, theirs.moving_variance], strict=True
        ):
            np.testing.assert_array_equal(to_numpy(a), to_numpy(b))
    with pytest.raises(ValueError, match=r"'second_norm' has statistics for \[100, 40\] percent"):
        kt.TESLA(converted, [100, 50])


# Graphs.


def squeeze_and_excite():
    x = keras.Input((6, 6, 3))
    y = layers.Conv2D(8, 3, activation="relu")(x)
    squeezed = layers.Reshape((1, 1, 8))(layers.GlobalAveragePooling2D()(y))
    gate = layers.Conv2D(4, 1, activation="relu", name="reduce")(squeezed)
    gate = layers.Conv2D(8, 1, activation="hard_sigmoid", name="expand")(gate)
    return keras.Model(x, layers.Conv2D(3, 1, name="last")(layers.Multiply()([y, gate])))


def residual():
    x = keras.Input((6, 6, 3))
    y = layers.Conv2D(8, 3, padding="same")(x)
    z = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same", name="inner")(y))
    y = layers.GroupNormalization(4, name="groups")(layers.ReLU()(y + z))
    return keras.Model(x, layers.Dense(3, name="last")(layers.GlobalAveragePooling2D()(y)))


def concatenated():
    x = keras.Input((6, 6, 3))
    y = layers.Conv2D(8, 3, padding="same")(x)
    z = layers.Conv2D(4, 3, padding="same", name="inner")(y)
    y = layers.Flatten()(layers.Concatenate()([y, z]))
    return keras.Model(x, layers.Dense(3, name="last")(y))


def nested():
    part = keras.Sequential(
        [keras.Input((8,)), layers.Dense(8, activation="relu", name="inner")], name="part"
    )
    x = keras.Input((5,))
    y = part(part(layers.Dense(8)(x)))
    return keras.Model(x, layers.Dense(3, name="last")(y))


def two_inputs_and_outputs():
    a, b = keras.Input((5,)), keras.Input((4,))
    shared = layers.Dense(6, name="inner")
    y, z = shared(layers.Dense(8)(a)), shared(layers.Dense(8)(b))
    return keras.Model([a, b], {"sum": layers.Dense(2, name="last")(y * z), "z": z})


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (squeeze_and_excite, {"reduce", "expand", "last"}),
        (residual, {"inner", "last"}),
        (concatenated, {"inner", "last"}),
        (nested, {"last"}),
        (two_inputs_and_outputs, {"inner", "last"}),
    ],
)
def test_graphs(make, names, assert_same_three_ways):
    model = make()
    converted = convert(model)
    became = {row.name for row in converted.conversion_report if row.became != row.kind}
    assert names <= became
    for percentage in (100, 50, 10):
        x = inputs_of(model)
        extracted = assert_same_three_ways(converted, x, percentage)
        full = kt.analysis.multiply_adds(model)
        assert kt.analysis.multiply_adds(extracted) < full or percentage == 100


def test_a_nested_model_stays_one_whose_layers_are_incomplete():
    converted = convert(nested())
    (part,) = (x for x in converted.layers if x.name == "part")
    assert type(part.get_layer("inner")) is IDPDense


def test_channels_of_a_flattened_map_are_left_out_not_positions():
    assert convert(concatenated()).get_layer("last").input_channels == 12
    assert convert(concatenated()).get_layer("last").input_parts == (8, 4)
    assert convert(residual()).get_layer("last").input_channels is None


# Concatenations.


def u_network():
    """Down to half the size and up again, with a skip connection; two branches below."""
    x = keras.Input((8, 8, 3))
    skip = layers.Conv2D(6, 3, padding="same", activation="relu", name="skip")(x)
    y = layers.MaxPooling2D()(skip)
    branches = [layers.ReLU()(layers.Conv2D(n, 1, name=f"branch_{n}")(y)) for n in (4, 8)]
    y = layers.BatchNormalization()(layers.Concatenate()(branches))
    y = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(y)
    y = layers.Conv2DTranspose(10, 2, strides=2, name="up")(y)
    y = layers.Concatenate()([skip, layers.Concatenate()([y, layers.UpSampling2D()(branches[0])])])
    y = layers.SeparableConv2D(8, 3, padding="same", name="merged")(layers.Dropout(0.5)(y))
    return keras.Model(x, layers.Dense(3, name="last")(y))


def test_after_a_concatenation_a_part_of_each_input_is_read(assert_same_three_ways):
    model = u_network()
    converted = convert(model)
    parts = {x.name: x.input_parts for x in converted.layers if hasattr(x, "input_parts")}
    alone = dict.fromkeys(("branch_4", "branch_8", "last"))
    assert parts == {**alone, "up": (8, 16), "merged": (6, 10, 4)}
    reasons = {row.name: row.reason for row in converted.conversion_report}
    assert reasons["merged"] == "reads a part of each of the 3 parts of its 20 input channels"
    for percentage in (100, 50, 10):
        small = assert_same_three_ways(converted, inputs_of(model), percentage)
        for name, channels in {"skip": 6, "branch_4": 4, "branch_8": 8, "up": 10}.items():
            kept = small.get_layer(name).output.shape[-1]
            assert kept == max(1, channels * percentage // 100)


def test_a_layer_that_reads_two_concatenations_has_the_parts_of_both(assert_same_three_ways):
    x = keras.Input((5,))
    a, b, c = (layers.Dense(n)(x) for n in (4, 6, 2))
    shared = layers.Dense(3, name="shared")
    y = [shared(layers.Concatenate()(z)) for z in ([a, b], [b, a])]
    model = keras.Model(
        x,
        [
            *y,
            shared(
                layers.Add()(
                    [layers.Concatenate()([c, layers.Dense(8)(x)]), layers.Concatenate()([a, b])]
                )
            ),
        ],
    )
    converted = convert(model)
    assert converted.get_layer("shared").input_parts == (2, 2, 2, 4)
    assert_same_three_ways(converted, inputs_of(model), 50)


def test_positions_of_flattened_maps_are_parts(assert_same_three_ways):
    x = keras.Input((3, 3, 2))
    a, b = layers.Conv2D(4, 2)(x), layers.Conv2D(6, 3)(x)
    y = layers.Concatenate()([layers.Flatten()(a), layers.Flatten()(b)])
    converted = convert(keras.Model(x, layers.Dense(3, name="last")(y)))
    assert converted.get_layer("last").input_parts == (4, 4, 4, 4, 6)
    assert converted.get_layer("last").input_channels is None
    assert_same_three_ways(converted, inputs_of(converted), 50)


def test_each_part_has_a_profile_of_its_own(assert_same_three_ways):
    model = u_network()
    converted = convert(model, profile="linear", trainable_profile=True)
    coefficients = to_numpy(converted.get_layer("up").coefficients)
    expected = [kt.profiles.Linear()(n) for n in (8, 16)]
    np.testing.assert_array_equal(coefficients, np.concatenate(expected))
    x = inputs_of(model)
    # The kernels are divided by the coefficients and multiplied by them again.
    np.testing.assert_allclose(to_numpy(converted(x)), to_numpy(model(x)), rtol=1e-4, atol=1e-5)
    assert_same_three_ways(converted, x, 50)


# What the user chooses.


@pytest.mark.parametrize(
    "skip", [["second", "hidden"], ("second", "hidden"), lambda x: x.name in ("second", "hidden")]
)
def test_skip(skip):
    converted = convert(cnn(), skip=skip)
    assert type(converted.get_layer("second")) is layers.Conv2D
    assert type(converted.get_layer("hidden")) is layers.Dense
    # Nothing before it depends on the percentage now.
    assert type(converted.get_layer("second_norm")) is layers.BatchNormalization
    assert type(converted.get_layer("head")) is IDPDense
    assert reasons(converted)["second"] == "skipped"


def test_skip_one_name():
    assert type(convert(cnn(), skip="hidden").get_layer("hidden")) is layers.Dense


def test_incomplete_inputs():
    """The channels of an image after a Flatten are channels too."""
    x = keras.Input((4, 4, 3))
    y = layers.Flatten()(layers.Rescaling(2.0)(x))
    model = keras.Model(x, layers.Dense(2, name="only")(y))
    with pytest.raises(ValueError, match="only.*reads the model's inputs, which are kept"):
        kt.to_idp(model)
    layer = convert(model, input_complete=False).get_layer("only")
    assert (type(layer), layer.input_channels, layer.terms) == (IDPDense, 3, 3)
    assert type(convert(cnn(), input_complete=False).get_layer("first")) is IDPConv2D


def test_it_trains_and_saves(tmp_path):
    converted = convert(cnn(), percentages=[100, 50])
    tesla = kt.TESLA(converted, [100, 50], distillation="in_place")
    tesla.compile("adam", keras.losses.SparseCategoricalCrossentropy(), jit_compile=False)
    x = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")
    history = tesla.fit(x, np.arange(32) % 3, epochs=3, verbose=0).history
    assert history["p50_loss"][-1] < history["p50_loss"][0]
    tesla.network.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(to_numpy(loaded(x)), to_numpy(tesla.network(x)))


def test_frozen_layers_stay_frozen():
    model = cnn()
    model.get_layer("second").trainable = False
    converted = kt.to_idp(model)
    assert not converted.get_layer("second").trainable_variables
    assert converted.get_layer("hidden").trainable_variables


# Layers that are not understood: named, left, right.


@keras.saving.register_keras_serializable("keras_tesla_tests")
class Scaled(layers.Dense):
    """A Dense in name; what it computes is its own affair."""

    def call(self, inputs, training=None):
        return ops.flip(super().call(inputs), axis=-1)


def after(layer, rank=1):
    x = keras.Input((6,) if rank == 0 else (5, 6))
    y = layer(layers.Dense(8)(x))
    return keras.Model(x, layers.Dense(2, name="last")(y))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: after(layers.LSTM(8, name="left")), "is not understood"),
        (
            lambda: after(lambda y: layers.Attention(name="left")([y, y])),
            "is not understood",
        ),
        (lambda: after(layers.LayerNormalization([1, 2], name="left")), "over several axes"),
        (
            lambda: after(layers.Lambda(lambda y: ops.flip(y, axis=-1), name="left")),
            "is not understood",
        ),
        (lambda: after(Scaled(8, name="left")), "is not understood"),
        (
            lambda: after(layers.TimeDistributed(layers.Dense(8), name="left")),
            "is not understood",
        ),
        (lambda: after(layers.Conv1D(8, 1, groups=2, name="left")), "in whole groups"),
        (lambda: after(layers.SeparableConv1D(8, 1, name="left")), "reads all of its channels"),
        (lambda: after(layers.UnitNormalization(name="left")), "is not understood"),
    ],
)
def test_what_is_left_is_named(make, reason, assert_same_three_ways):
    model = make()
    converted = convert(model, skip=lambda x: x.name == "none", input_complete=False)
    assert type(converted.get_layer("left")) is type(model.get_layer("left"))
    assert reason in reasons(converted)["left"]
    assert_same_three_ways(converted, inputs_of(model), 50)


def test_a_layer_whose_channels_cannot_be_followed_is_left():
    x = inputs = keras.Input((6, 4))
    stack = (layers.Conv1D(8, 1), layers.LSTM(8, name="lost"), layers.ReLU(), layers.Dense(3))
    for layer in stack:
        x = layer(x)
    with pytest.raises(ValueError, match=r"could not be followed through 'lost' \(LSTM\)\n?"):
        kt.to_idp(keras.Model(inputs, x))


def test_lora_and_quantized_weights_are_left():
    model = keras.Sequential(
        [keras.Input((6,)), *[layers.Dense(8, name=name) for name in ("a", "lora", "int8", "b")]]
    )
    model.get_layer("lora").enable_lora(2)
    model.get_layer("int8").quantize("int8")
    converted = kt.to_idp(model)
    assert "LoRA" in reasons(converted)["lora"]
    assert "quantized" in reasons(converted)["int8"]
    assert type(converted.get_layer("b")) is IDPDense
    x = inputs_of(model)
    np.testing.assert_allclose(to_numpy(converted(x)), to_numpy(model(x)), rtol=1e-5, atol=1e-5)


def adapted(kind):
    """A layer that has adapted to data, and such data."""
    x = np.random.default_rng(0).normal(3, 2, (50, 6)).astype("float32")
    if kind == "normalization":
        layer = layers.Normalization()
        layer.adapt(x)
    elif kind == "normalization in a wrapper":
        inner = layers.Normalization()
        inner.adapt(x)
        layer, x = layers.TimeDistributed(inner), x[:, None]
    elif kind == "discretization":
        layer = layers.Discretization(num_bins=4, output_mode="multi_hot")
        layer.adapt(x)
    else:
        x = np.round(x).astype("int64")
        layer = layers.IntegerLookup(output_mode="multi_hot")
        layer.adapt(x)
    return layer, x


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "kind", ["normalization", "normalization in a wrapper", "discretization", "lookup"]
)
def test_a_layer_that_has_adapted_to_data_stays_so(kind):
    layer, x = adapted(kind)
    model = keras.Sequential(
        [keras.Input(x.shape[1:], dtype=x.dtype), layer, layers.Dense(8), layers.Dense(2)]
    )
    expected = to_numpy(model(x))
    converted = kt.to_idp(model)
    np.testing.assert_array_equal(to_numpy(converted(x)), expected)
    extracted = kt.TESLA(converted, [100]).at(100)
    np.testing.assert_allclose(to_numpy(extracted(x)), expected, rtol=1e-5, atol=1e-5)
    ordered = to_numpy(kt.order_channels(model)(x))
    np.testing.assert_allclose(ordered, expected, rtol=1e-5, atol=1e-5)


def test_inputs_of_unknown_length():
    inputs = [keras.Input((None,), dtype="int32") for _ in range(2)]
    y = layers.Embedding(9, 6)(layers.Concatenate()(inputs))
    y = layers.Dense(8)(layers.GlobalAveragePooling1D()(y))
    model = keras.Model(inputs, layers.Dense(2, name="last")(y))
    assert type(kt.to_idp(model).get_layer("last")) is IDPDense


def test_the_report_knows_which_normalization_keeps_channels_out():
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(8),
            layers.GroupNormalization(4, name="four"),
            layers.Dense(8),
            layers.GroupNormalization(1, name="one"),
            layers.Dense(2),
        ]
    )
    report = reasons(kt.to_idp(model))
    assert report["four"] == "is narrowed as it is, in whole groups"
    assert report["one"] == "reads all of its channels"


def test_converting_twice_leaves_what_is_incomplete():
    converted = kt.to_idp(convert(cnn(), skip=["hidden"]))
    assert type(converted.get_layer("hidden")) is IDPDense
    assert reasons(converted)["second"] == "already depends on the percentage"


# Bad input.


class Subclassed(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (Subclassed(), {}, "not built"),
        (keras.Sequential([layers.Dense(3)]), {}, "not built"),
        (keras.Sequential([keras.Input((3,)), layers.ReLU()]), {}, "No layer of the model could"),
        (cnn(), {"skip": ["hiden"]}, r"does not have: \['hiden'\]"),
        (cnn(), {"skip": lambda x: True}, "No layer of the model could be made incomplete"),
        (cnn(), {"percentages": [50, 20]}, "must include 100"),
        (cnn(), {"percentages": [100, 0]}, "percentage"),
        (cnn(), {"percentages": [0.5]}, "percentage"),
        (cnn(), {"profile": "unknown"}, "Unknown profile"),
        (cnn(), {"profile": [1.0, 0.5]}, "must have shape"),
    ],
)
def test_bad_input(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        kt.to_idp(model, **arguments)


def test_a_profile_that_no_kernel_can_be_divided_by():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(200), layers.Dense(2, name="last")])
    with pytest.raises(ValueError, match="too small for the 200 terms of layer 'last'"):
        kt.to_idp(model, profile="exponential")
