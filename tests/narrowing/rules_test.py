"""Every rule: the narrowed model equals the scoped one, and is narrower where the rule says so."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_tesla.analysis.cost import multiply_adds
from keras_tesla.layers import (
    IDPBatchNormalization,
    IDPConv1D,
    IDPConv2D,
    IDPConv2DTranspose,
    IDPDense,
    IDPSeparableConv2D,
    PerRange,
)
from keras_tesla.kinds import activations, registry
from keras_tesla.quantization import kernels
from keras_tesla.quantization.ranges import ActivationRange

FEATURES = {0: (5,), 1: (6, 5), 2: (6, 6, 5), 3: (4, 4, 4, 5)}


def image(rank, data_format="channels_last"):
    """An input of `rank` spatial dimensions and 5 channels."""
    *spatial, channels = FEATURES[rank]
    first = data_format == "channels_first"
    return keras.Input((channels, *spatial) if first else (*spatial, channels))


def wide(rank, name="wide", **arguments):
    """A layer with 8 output channels, of which a later layer may need a part."""
    if rank == 0:
        return layers.Dense(8, name=name, **arguments)
    conv = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}[rank]
    return conv(8, 2, padding="same", name=name, **arguments)


def through(layer, rank=2):
    """input -> 8 channels -> layer -> an incomplete layer that reads half of what it gets."""
    x = image(rank)
    y = layer(wide(rank)(x))
    head = IDPConv2D(3, 1, profile="linear") if len(y.shape) == 4 else IDPDense(3, profile="linear")
    return keras.Model(x, head(y))


def merging(merge, rank=2):
    """Two branches of 8 channels and an incomplete layer that reads half of their merge."""
    x = image(rank)
    merged = merge(wide(rank)(x), wide(rank, "other")(x))
    head = IDPConv2D(3, 1) if len(merged.shape) == 4 else IDPDense(3)
    return keras.Model(x, head(merged))


def randomized(model):
    """The model with weights of all kinds: biases, statistics and scales that are not 0 or 1."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.dtype != "float32":
            continue  # the state of a seed generator
        value = rng.uniform(0.5, 1.5, variable.shape)
        signed = variable.name in ("kernel", "bias", "beta") or "mean" in variable.name
        variable.assign(value * rng.choice([-1, 1], variable.shape) if signed else value)
    return model


def inputs_of(model):
    rng = np.random.default_rng(1)
    values = [rng.normal(size=(3, *t.shape[1:])).astype("float32") for t in model.inputs]
    return values if len(values) > 1 else values[0]


def width(model, name="wide"):
    """The output channels of a layer of the extracted model."""
    layer = model.get_layer(name)
    first = getattr(layer, "data_format", None) == FIRST
    return layer.output.shape[1 if first else -1]


@pytest.fixture
def check(assert_same_three_ways):
    """A function `(model, percentage=50) -> extracted model` that asserts equal outputs."""

    def run(model, percentage=50):
        return assert_same_three_ways(randomized(model), inputs_of(model), percentage)

    return run


def reshaped():
    x = image(2)
    return keras.Model(x, IDPDense(3)(layers.Reshape((-1, 8))(wide(2)(x))))


def flattened():
    x = image(2)
    return keras.Model(x, IDPDense(3, input_channels=8)(layers.Flatten()(wide(2)(x))))


def projection(layer):
    """The layer kind itself is the one that is narrowed."""
    x = image(layer.rank if hasattr(layer, "rank") else 0)
    y = layer(x)
    head = IDPConv2D(3, 1) if len(y.shape) == 4 else IDPDense(3)
    return keras.Model(x, head(y))


# For each kind with a rule: functions that return a model in which it narrows `wide` to 4 of 8.
NARROWED = {
    **{
        kind: [lambda kind=kind: through(kind())]
        for kind in (layers.ELU, layers.Identity, layers.LeakyReLU, layers.ReLU)
    },
    **{
        kind: [lambda kind=kind: through(kind(0.3))]
        for kind in (layers.GaussianDropout, layers.GaussianNoise)
    },
    layers.Dropout: [
        lambda noise_shape=noise_shape: through(layers.Dropout(0.3, noise_shape=noise_shape))
        for noise_shape in (None, (None, 1, 1, 1), (None, 1, 1, None))
    ],
    layers.AlphaDropout: [lambda: through(layers.AlphaDropout(0.3), rank=0)],
    layers.SpatialDropout1D: [lambda: through(layers.SpatialDropout1D(0.3), rank=1)],
    layers.SpatialDropout2D: [lambda: through(layers.SpatialDropout2D(0.3))],
    layers.SpatialDropout3D: [lambda: through(layers.SpatialDropout3D(0.3), rank=3)],
    layers.Activation: [
        *(lambda a=a: through(layers.Activation(a)) for a in ("tanh", "gelu")),
        lambda: through(layers.Activation(layers.LeakyReLU(0.3))),
    ],
    layers.Rescaling: [lambda: through(layers.Rescaling(2.0, offset=-1))],
    **{
        getattr(layers, f"{kind}{rank}D"): [
            lambda kind=kind, rank=rank: through(getattr(layers, f"{kind}{rank}D")(), rank)
        ]
        for rank in (1, 2, 3)
        for kind in ("MaxPooling", "ZeroPadding", "UpSampling")
    },
    **{
        getattr(layers, f"{kind}{rank}D"): [
            lambda kind=kind, rank=rank, size=size: through(
                getattr(layers, f"{kind}{rank}D")(size), rank
            )
        ]
        for rank in (1, 2, 3)
        for kind, size in {"AveragePooling": 2, "Cropping": 1}.items()
    },
    **{
        getattr(layers, f"Global{kind}Pooling{rank}D"): [
            lambda kind=kind, rank=rank, keepdims=keepdims: through(
                getattr(layers, f"Global{kind}Pooling{rank}D")(keepdims=keepdims), rank
            )
            for keepdims in (False, True)
        ]
        for rank in (1, 2, 3)
        for kind in ("Max", "Average")
    },
    **{
        getattr(layers, f"Conv{rank}D"): [
            lambda rank=rank: projection(wide(rank)),
            lambda rank=rank: projection(wide(rank, use_bias=False, activation="relu")),
        ]
        for rank in (1, 2, 3)
    },
    layers.Dense: [
        lambda: projection(wide(0)),
        lambda: projection(wide(0, use_bias=False, activation="relu")),
        lambda: keras.Model(x := image(2), IDPConv2D(3, 1)(layers.Dense(8, name="wide")(x))),
    ],
    IDPDense: [
        lambda: projection(IDPDense(8, name="wide", profile="linear")),
        lambda: projection(IDPDense(8, name="wide", profile="linear", trainable_profile=True)),
    ],
    IDPConv1D: [lambda: projection(IDPConv1D(8, 2, name="wide", profile="linear"))],
    IDPConv2D: [lambda: projection(IDPConv2D(8, 2, name="wide", profile="linear"))],
    IDPConv2DTranspose: [
        lambda: projection(IDPConv2DTranspose(8, 2, name="wide", profile="linear")),
    ],
    IDPSeparableConv2D: [
        lambda m=m: projection(
            IDPSeparableConv2D(8, 2, depth_multiplier=m, name="wide", profile="linear")
        )
        for m in (1, 3)
    ],
    **{
        layer: [
            lambda layer=layer: projection(layer(8, 2, name="wide")),
            lambda layer=layer: projection(
                layer(8, 2, name="wide", use_bias=False, activation="relu")
            ),
        ]
        for layer in (
            *(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose),
            *(layers.SeparableConv1D, layers.SeparableConv2D),
        )
    },
    **{
        kind: [
            lambda kind=kind, rank=rank: through(kind(2), rank),
            lambda kind=kind, rank=rank: through(
                kind(2, depth_multiplier=3, use_bias=False, activation="relu"), rank
            ),
        ]
        for rank, kind in [(1, layers.DepthwiseConv1D), (2, layers.DepthwiseConv2D)]
    },
    layers.GroupNormalization: [
        lambda: through(layers.GroupNormalization(4)),
        lambda: through(layers.GroupNormalization(-1, scale=False)),
    ],
    PerRange: [
        lambda: projection(PerRange({50: layers.Dense(8), 100: layers.Dense(8)}, name="wide"))
    ],
    layers.Flatten: [flattened],
    layers.Reshape: [
        reshaped,
        lambda: through(layers.Reshape((9, 4, 8))),
        lambda: through(layers.Reshape((6, 6, -1))),
    ],
    layers.BatchNormalization: [
        lambda: through(layers.BatchNormalization()),
        lambda: through(layers.BatchNormalization(center=False, scale=False)),
        lambda: through(layers.BatchNormalization(axis=2), rank=1),
    ],
    IDPBatchNormalization: [lambda: through(IDPBatchNormalization([100, 50]))],
    layers.Concatenate: [
        lambda axis=axis: merging(lambda a, b: layers.Concatenate(axis=axis)([a, b]))
        for axis in (1, -2)
    ],
    **{
        kind: [lambda kind=kind: merging(lambda a, b: kind()([a, b]))]
        for kind in (
            *(layers.Add, layers.Average, layers.Maximum),
            *(layers.Minimum, layers.Multiply, layers.Subtract),
        )
    },
    "Add": [lambda: merging(lambda a, b: a + b), lambda: through(lambda a: 1.0 + a)],
    "Maximum": [lambda: merging(ops.maximum)],
    "Minimum": [lambda: merging(ops.minimum)],
    "Multiply": [lambda: merging(lambda a, b: a * b), lambda: through(lambda a: a * 2)],
    "Subtract": [lambda: merging(lambda a, b: a - b), lambda: through(lambda a: 1 - a)],
}


def test_every_rule_has_a_case():
    # Those with rounded kernels and their ranges: tests/quantization.
    rounded = {*kernels.FAKE_QUANTIZED.values(), ActivationRange}
    assert set(NARROWED) == set(registry.registered()) - rounded


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=f"{kind if isinstance(kind, str) else kind.__name__}-{i}")
        for kind, makes in NARROWED.items()
        for i, make in enumerate(makes)
    ],
)
def test_narrows(make, check):
    model = make()
    extracted = check(model)
    assert width(extracted) == 4
    full = check(model, 100)
    assert width(full) == 8
    assert multiply_adds(extracted) < multiply_adds(full)


@pytest.mark.parametrize("name", sorted(activations.ELEMENTWISE - {"threshold"}))
def test_elementwise_activations_narrow(name, check):
    # `threshold` has arguments without default, so no layer takes it by name.
    assert width(check(through(layers.Activation(name), rank=0))) == 4
    assert width(check(projection(wide(0, activation=name)))) == 4


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "sparsemax"])
def test_activations_over_the_channels_do_not_narrow(name, check):
    assert width(check(through(layers.Activation(name), rank=0))) == 8
    assert width(check(projection(wide(0, activation=name)))) == 8


@pytest.mark.parametrize("merge", [layers.Multiply, layers.Add, layers.Maximum])
def test_merging_with_a_constant_does_not_narrow(merge, check):
    """The constant has a number for each channel, which a slice of the other input would miss."""
    inputs = keras.Input((6,))
    y = layers.Dense(8, name="wide")(inputs)
    merged = merge()([y, np.arange(1, 9, dtype="float32")[None]])
    assert width(check(keras.Model(inputs, IDPDense(3)(merged)))) == 8


# Layers that are not understood: right, and as wide as before.


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
        return x, 2 * x

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype), keras.KerasTensor(x.shape, x.dtype)


TRAPS = {
    "Softmax": lambda: through(layers.Softmax()),
    "PReLU": lambda: through(layers.PReLU(shared_axes=[1, 2])),
    "LayerNormalization": lambda: through(layers.LayerNormalization()),
    "GroupNormalization of one group": lambda: through(layers.GroupNormalization(1)),
    "GroupNormalization of rows": lambda: through(layers.GroupNormalization(2, axis=1)),
    "Depthwise softmax": lambda: through(layers.DepthwiseConv2D(2, activation="softmax")),
    "UnitNormalization": lambda: through(layers.UnitNormalization()),
    "MultiHeadAttention": lambda: through(lambda x: layers.MultiHeadAttention(2, 4)(x, x), rank=1),
    "LSTM": lambda: through(layers.LSTM(8), rank=1),
    "ActivityRegularization": lambda: through(layers.ActivityRegularization(l2=0.1)),
    "TimeDistributed": lambda: through(layers.TimeDistributed(layers.Dense(8)), rank=1),
    "RepeatVector": lambda: through(layers.RepeatVector(2), rank=0),
    "Permute": lambda: through(layers.Permute((1, 3, 2))),
    "own layer": lambda: through(Reversed()),
    "subclass of ReLU": lambda: through(ReversedReLU()),
    "subclass of Dense": lambda: through(Summed(8)),
    "own activation": lambda: through(layers.Activation(relu)),
    "two outputs": lambda: through(lambda x: Twice()(x)[1]),
    "PReLU as activation": lambda: through(layers.Activation(layers.PReLU(shared_axes=[1, 2]))),
    "Dropout with noise shape": lambda: through(layers.Dropout(0.5, noise_shape=(3, 1, 1, 8))),
    "Rescaling with an array": lambda: through(layers.Rescaling(np.linspace(1, 2, 8).tolist())),
    "statistics of rows": lambda: through(layers.BatchNormalization(axis=1)),
    "pooling over channels": lambda: through(
        layers.GlobalAveragePooling2D(data_format="channels_first", keepdims=True)
    ),
    "reshape of channels": lambda: through(layers.Reshape((36 * 2, 4)), rank=2),
    "slice of channels": lambda: through(lambda x: x[..., :6]),
    "reversed channels": lambda: through(lambda x: ops.flip(x, axis=-1)),
    "transpose": lambda: through(lambda x: ops.transpose(x, (0, 1, 3, 2))),
    "array operand": lambda: through(lambda x: x * np.linspace(1, 2, 8).astype("float32")),
    "sum over channels": lambda: through(lambda x: x - ops.mean(x, axis=-1, keepdims=True)),
    "broadcast of the one channel": lambda: merging(lambda a, b: a * b[..., :1]),
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


# Flatten.


def test_flatten_without_input_channels_cuts_positions(check):
    # Right, though rarely meant: TESLA refuses it. The first half of the features has all channels.
    assert width(check(through(layers.Flatten()))) == 8


@pytest.mark.parametrize("between", [layers.ReLU, lambda: layers.Dropout(0.5), layers.Flatten])
def test_layers_behind_flatten_narrow(between, check):
    x = image(2)
    y = between()(layers.Flatten()(wide(2)(x)))
    assert width(check(keras.Model(x, IDPDense(3, input_channels=8)(y)))) == 4


def test_batch_normalization_behind_flatten_is_right(check):
    x = image(2)
    y = layers.BatchNormalization()(layers.Flatten()(wide(2)(x)))
    check(keras.Model(x, IDPDense(3, input_channels=8)(y)))


def test_flatten_of_an_unknown_size_is_right(assert_same_three_ways):
    x = keras.Input((None, 5))
    y = layers.Conv1D(8, 2, padding="same")(x)
    y = layers.Flatten()(y[:, :4])
    model = randomized(keras.Model(x, layers.Dense(2)(layers.GlobalMaxPooling1D()(IDPDense(3)(x)))))
    assert_same_three_ways(model, np.ones((2, 7, 5), "float32"), 50)


# Concatenation.


def concatenated(*widths):
    x = image(2)
    branches = [layers.Conv2D(w, 1, name=f"branch_{i}")(x) for i, w in enumerate(widths)]
    return keras.Model(x, IDPConv2D(3, 1, name="head")(layers.Concatenate()(branches)))


def branch_widths(model):
    return [v.kernel.shape[-1] for v in model.layers if v.name.startswith("branch_")]


@pytest.mark.parametrize(
    ("percentage", "widths"),
    [(100, [4, 4, 2]), (90, [4, 4, 1]), (70, [4, 3]), (40, [4]), (30, [3]), (10, [1])],
)
def test_concatenation_fills_its_inputs_in_order_and_drops_the_rest(percentage, widths, check):
    assert branch_widths(check(concatenated(4, 4, 2), percentage)) == widths


def test_concatenation_of_one_tensor_with_itself(check):
    x = image(2)
    y = layers.Conv2D(4, 1, name="branch_0")(x)
    model = keras.Model(x, IDPConv2D(3, 1)(layers.Concatenate()([y, layers.ReLU()(y), y])))
    assert branch_widths(check(model, 10)) == [1]
    assert branch_widths(check(model, 50)) == [4]


def test_a_dropped_input_still_serves_another_reader(check):
    x = image(2)
    a, b = layers.Conv2D(4, 1, name="branch_0")(x), layers.Conv2D(4, 1, name="branch_1")(x)
    y = IDPConv2D(3, 1)(layers.Concatenate()([a, b]))
    model = keras.Model(x, [y, IDPConv2D(2, 1)(b)])
    assert branch_widths(check(model, 25)) == [2, 1]


def test_concatenation_on_a_spatial_axis_of_different_widths_is_right(check):
    x = image(2)
    a, b = wide(2)(x), layers.Conv2D(8, 2, padding="same", name="other")(x)
    model = keras.Model(x, IDPConv2D(3, 1)(layers.Concatenate(axis=2)([a, layers.ReLU()(b)])))
    assert width(check(model)) == width(check(model), "other") == 4


def test_concatenation_with_the_input_of_the_model_is_right(check):
    x = image(2)
    model = keras.Model(x, IDPConv2D(3, 1)(layers.Concatenate()([wide(2)(x), x])))
    assert width(check(model)) == 8
    check(model, 10)


def test_concatenation_by_keyword(check):
    x = image(2)
    a, b = wide(2)(x), wide(2, "other")(x)
    check(keras.Model(x, IDPConv2D(3, 1)(layers.Concatenate()(inputs=[a, b]))), 30)


# Several readers.


@pytest.mark.parametrize(("percentage", "expected"), [(100, 8), (50, 5), (10, 1)])
def test_the_widest_reader_decides(percentage, expected, check):
    x = image(0)
    y = wide(0)(x)
    z = layers.Concatenate()([y, layers.Dense(2)(x)])
    # Of y the first reads 8 * p / 100 channels, the second 10 * p / 100.
    model = keras.Model(x, [IDPDense(3)(y), IDPDense(2)(z)])
    assert width(check(model, percentage)) == expected


def test_a_complete_reader_needs_everything(check):
    x = image(0)
    y = wide(0)(x)
    assert width(check(keras.Model(x, [IDPDense(3)(y), layers.Dense(2)(y)]))) == 8


def test_an_output_of_the_model_is_complete(check):
    x = image(0)
    y = wide(0)(x)
    assert width(check(keras.Model(x, [IDPDense(3)(y), y]))) == 8


def test_residual_from_a_complete_layer(check):
    x = image(2)
    y = layers.Conv2D(8, 1, name="shortcut")(x)
    z = wide(2)(layers.ReLU()(y))
    extracted = check(keras.Model(x, IDPConv2D(3, 1)(layers.Add()([y, z]))))
    assert width(extracted) == 4
    assert width(extracted, "shortcut") == 8  # `wide` is complete: it reads all of the shortcut


def test_residual_chain_of_incomplete_layers(check):
    x = image(2)
    y = wide(2)(x)
    for i in range(3):
        z = IDPConv2D(8, 3, padding="same", activation="relu", name=f"branch_{i}")(y)
        y = layers.Add()([y, IDPBatchNormalization([100, 50])(z)])
    extracted = check(keras.Model(x, IDPConv2D(3, 1)(y)))
    assert width(extracted) == 4
    assert branch_widths(extracted) == [4, 4, 4]


def test_squeeze_and_excite(check):
    x = image(2)
    y = wide(2)(x)
    s = layers.GlobalAveragePooling2D(keepdims=True)(y)
    s = layers.Conv2D(2, 1, activation="relu")(s)
    s = layers.Conv2D(8, 1, activation="sigmoid", name="excite")(s)
    extracted = check(keras.Model(x, IDPConv2D(3, 1)(layers.Multiply()([y, s]))))
    assert width(extracted, "excite") == 4
    assert width(extracted) == 8  # the squeeze is complete


def test_incomplete_squeeze_and_excite(check):
    x = image(2)
    y = wide(2)(x)
    s = IDPDense(2, activation="relu")(layers.GlobalAveragePooling2D()(y))
    s = layers.Reshape((1, 1, 8))(layers.Dense(8, activation="sigmoid", name="excite")(s))
    extracted = check(keras.Model(x, IDPConv2D(3, 1)(y * s)))
    assert (width(extracted), width(extracted, "excite")) == (4, 4)


# Shared layers.


def test_a_shared_layer_with_one_width_stays_one_layer(check):
    x, y = image(0), image(0)
    dense = wide(0)
    model = keras.Model([x, y], IDPDense(3)(layers.Add()([dense(x), dense(y)])))
    extracted = check(model)
    assert width(extracted) == 4
    assert sum(type(layer) is layers.Dense for layer in extracted.layers) == 2


def test_a_shared_layer_with_two_widths_becomes_two_layers(check):
    x, y = image(0), image(0)
    dense = wide(0)
    extracted = check(keras.Model([x, y], [IDPDense(3)(dense(x)), dense(y)]))
    assert (width(extracted), width(extracted, "wide_1")) == (4, 8)


def test_a_layer_with_state_behind_itself(check):
    x = image(0)
    dense, norm = layers.Dense(5, name="wide"), layers.BatchNormalization()
    assert width(check(keras.Model(x, IDPDense(3)(norm(dense(norm(dense(x)))))))) == 5


def test_a_shared_nested_model_with_two_widths(check):
    a = keras.Input((8,))
    inner = keras.Model(a, a + a)
    x = image(0)
    y, z = inner(wide(0)(x)), inner(wide(0, "other")(x))
    extracted = check(keras.Model(x, [IDPDense(3)(y), layers.Dense(2)(z)]))
    assert (width(extracted), width(extracted, "other")) == (4, 8)


# Groups and data formats.


def test_a_grouped_convolution_reads_a_part_of_each_group(check):
    x = image(2)
    y = wide(2)(x)
    head = IDPConv2D(4, 1, groups=2, name="head", profile="linear")
    extracted = check(keras.Model(x, IDPConv2D(3, 1)(head(y))))
    # Channels 0, 1, 4, 5 are no prefix: all are computed. The groups stay whole.
    assert width(extracted) == 8
    assert extracted.get_layer("head").kernel.shape == (1, 1, 2, 4)


def test_a_convolution_with_groups_stays_complete(check):
    x = image(2)
    y = layers.Conv2D(8, 1, groups=2, name="grouped")(wide(2)(x))
    extracted = check(keras.Model(x, IDPConv2D(3, 1)(y)))
    assert (width(extracted), width(extracted, "grouped")) == (8, 8)


FIRST = "channels_first"

CHANNELS_FIRST = {
    "batch normalization": lambda: layers.BatchNormalization(axis=1),
    "own statistics": lambda: IDPBatchNormalization([100, 50], axis=1),
    "padding": lambda: layers.ZeroPadding2D(data_format=FIRST),
    "cropping": lambda: layers.Cropping2D(1, data_format=FIRST),
    "up-sampling": lambda: layers.UpSampling2D(data_format=FIRST),
    "max pooling": lambda: layers.MaxPooling2D(data_format=FIRST),
    "average pooling": lambda: layers.AveragePooling2D(2, data_format=FIRST),
    "global pooling": lambda: layers.GlobalMaxPooling2D(FIRST, keepdims=True),
    "spatial dropout": lambda: layers.SpatialDropout2D(0.5, data_format=FIRST),
    "activation": lambda: layers.ReLU(),
    "two": lambda: lambda x: layers.Concatenate(axis=2)([x, layers.ReLU()(x)]),
}


def skip_if_keras_cannot(model):
    try:
        model(inputs_of(model))
    except Exception as error:
        pytest.skip(f"Keras does not run channels_first here: {error}")


@pytest.mark.parametrize("between", CHANNELS_FIRST)
def test_channels_first(between, check):
    x = image(2, FIRST)
    y = CHANNELS_FIRST[between]()(wide(2, data_format=FIRST)(x))
    model = keras.Model(x, IDPConv2D(3, 1, data_format=FIRST)(y))
    skip_if_keras_cannot(model)
    assert width(check(model)) == 4


def test_channels_first_through_global_pooling(check):
    x = image(2, FIRST)
    y = layers.GlobalAveragePooling2D(FIRST)(wide(2, data_format=FIRST)(x))
    model = keras.Model(x, IDPDense(3)(y))
    skip_if_keras_cannot(model)
    assert width(check(model)) == 4


def test_channels_first_through_flatten(check):
    x = image(2, FIRST)
    y = layers.Flatten(data_format=FIRST)(wide(2, data_format=FIRST)(x))
    model = keras.Model(x, IDPDense(3, input_channels=8)(y))
    skip_if_keras_cannot(model)
    assert width(check(model)) == 4


def test_channels_first_flattened_as_channels_last_is_right(check):
    # Keras then leaves the axes as they are: a channel's positions lie together.
    x = image(2, FIRST)
    y = layers.Flatten(data_format="channels_last")(wide(2, data_format=FIRST)(x))
    model = keras.Model(x, IDPDense(3, input_channels=8)(y))
    skip_if_keras_cannot(model)
    assert width(check(model)) == 8


def test_channels_first_concatenated(check):
    x = image(2, FIRST)
    y = layers.Concatenate(axis=1)(
        [layers.Conv2D(4, 1, data_format=FIRST, name=f"branch_{i}")(x) for i in range(3)]
    )
    model = keras.Model(x, IDPConv2D(3, 1, data_format=FIRST)(y))
    skip_if_keras_cannot(model)
    assert branch_widths(check(model)) == [4, 2]


# Precision, masks and inputs.


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(dtype, run_three_ways):
    x = keras.Input((5,))
    y = layers.Dense(8, activation="relu", dtype=dtype, name="wide")(x)
    model = keras.Model(x, layers.Dense(2)(IDPDense(3, profile="linear", dtype=dtype)(y)))
    result = run_three_ways(model, inputs_of(model), 50)
    assert width(result.model) == 4
    assert result.model.get_layer("wide").dtype_policy.name == dtype
    # The profile is folded in before rounding to 8 bits or after it: a few times 2**-8.
    np.testing.assert_allclose(result.live, result.scoped, atol=0.05)
    np.testing.assert_allclose(result.extracted, result.scoped, atol=0.05)


@pytest.mark.parametrize(
    "between", [lambda: layers.Identity(), lambda: layers.BatchNormalization()]
)
def test_masks_from_an_embedding(between, assert_same_three_ways):
    x = keras.Input((5,), dtype="int32")
    y = layers.Embedding(10, 8, mask_zero=True)(x)
    y = between()(layers.Dense(8, name="wide")(y))
    y = layers.GlobalAveragePooling1D()(IDPDense(6)(y))
    model = randomized(keras.Model(x, layers.Dense(2)(y)))
    tokens = np.array([[1, 2, 3, 0, 0], [4, 5, 0, 0, 0]])
    assert width(assert_same_three_ways(model, tokens, 50)) == 4


@pytest.mark.parametrize("layer", [layers.BatchNormalization, layers.GlobalAveragePooling1D])
def test_masks_as_arguments(layer, assert_same_three_ways):
    x, mask = keras.Input((5, 4)), keras.Input((5,), dtype="bool")
    y = layer()(layers.Dense(8, name="wide")(x), mask=mask)
    model = randomized(keras.Model([x, mask], IDPDense(2)(y)))
    values = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    known = np.array([[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]], bool)
    assert_same_three_ways(model, [values, known], 50)


def test_inputs_of_another_dtype(assert_same_three_ways):
    x = keras.Input((4,))
    model = keras.Model(x, IDPDense(3)(x * 2))
    assert_same_three_ways(model, np.full((2, 4), 200, "uint8"), 50)


def test_inputs_without_their_last_axis(assert_same_three_ways):
    x = keras.Input((1,))
    model = keras.Model(x, IDPDense(3)(layers.Dense(4)(x)))
    assert_same_three_ways(model, np.ones(3, "float32"), 50)


@pytest.mark.filterwarnings("ignore")
def test_a_quantized_stock_layer_in_between(check):
    x = image(0)
    model = randomized(keras.Model(x, IDPDense(3)(wide(0)(x))))
    model.get_layer("wide").quantize("int8")
    check(model)


def test_lora_is_folded_in(assert_same_three_ways):
    x = image(0)
    model = randomized(keras.Model(x, IDPDense(3)(wide(0)(x))))
    dense = model.get_layer("wide")
    dense.enable_lora(2)
    dense.lora_kernel_b.assign(np.ones(dense.lora_kernel_b.shape))
    assert width(assert_same_three_ways(model, inputs_of(model), 50)) == 4
