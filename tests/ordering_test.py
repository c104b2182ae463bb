"""Ordering channels: the model computes the same, and its important channels come first."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_tesla import percentage_scope
from keras_tesla.layers import (
    IDPBatchNormalization,
    IDPConv2D,
    IDPConv2DTranspose,
    IDPDense,
    IDPSeparableConv2D,
)
from keras_tesla.ordering import order_channels
from tests.composites import Scale

pytestmark = pytest.mark.backend_free

to_numpy = keras.ops.convert_to_numpy


def randomize(model, seed=0):
    """Gives every weight another value, statistics too."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        positive = variable.name == "gamma" or "variance" in variable.name
        variable.assign(
            rng.uniform(0.5, 1.5, variable.shape) if positive else rng.normal(size=variable.shape)
        )
    return model


def inputs_of(model, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(3, *t.shape[1:])).astype("float32") for t in model.inputs]


def run(model):
    x = inputs_of(model)
    outputs = model(x[0] if len(x) == 1 else x, training=False)
    return keras.tree.map_structure(to_numpy, outputs)


def assert_computes_the_same(copy, model):
    outputs = run(copy), run(model)
    keras.tree.assert_same_structure(*outputs)
    for actual, expected in zip(*map(keras.tree.flatten, outputs), strict=True):
        # The same float32 terms summed in another order: a few units in the last place of the
        # largest output. A channel in a wrong place changes the first digits.
        largest = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=2e-5 * largest)


def ordered(model):
    """A copy of a randomized model with ordered channels, checked to compute the same."""
    copy = order_channels(randomize(model))
    assert_computes_the_same(copy, model)
    return copy


def norms(model, *names, channels=None):
    """The L1 norm of the weights that read each channel, over all readers."""
    total = 0
    for name in names:
        rows = np.moveaxis(np.abs(to_numpy(model.get_layer(name).kernel)), -2, 0)
        rows = rows.reshape(len(rows), -1).sum(1)
        total = total + rows.reshape(-1, channels or len(rows)).sum(0)
    return total


def is_sorted(values):
    return np.all(np.diff(values) <= 0)


def assert_sorted(model, *names, channels=None):
    values = norms(model, *names, channels=channels)
    assert len(values) > 3
    # The copy's float32 kernels are summed in another order here.
    assert np.all(np.diff(values) <= 1e-4), names


def assert_in_place(copy, model, *names):
    for name in names:
        for actual, expected in zip(
            copy.get_layer(name).get_weights(), model.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(actual, expected)


# One group.


def test_by_hand():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3), layers.Dense(2)])
    first, second = model.layers
    first.set_weights([np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), np.array([7.0, 8.0, 9.0])])
    second.set_weights([np.array([[1.0, 1.0], [-3.0, 2.0], [0.0, 3.0]]), np.array([5.0, 6.0])])
    first, second = order_channels(model).layers[1:]
    # L1 norms 2, 5 and 3: the second comes first, then the third.
    for layer, kernel, bias in [
        (first, [[2.0, 3.0, 1.0], [5.0, 6.0, 4.0]], [8.0, 9.0, 7.0]),
        (second, [[-3.0, 2.0], [0.0, 3.0], [1.0, 1.0]], [5.0, 6.0]),
    ]:
        np.testing.assert_array_equal(to_numpy(layer.kernel), kernel)
        np.testing.assert_array_equal(to_numpy(layer.bias), bias)


def test_equally_important_channels_keep_their_order():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(8), layers.Dense(1, name="head")])
    randomize(model)
    model.get_layer("head").kernel.assign(np.array([[1], [2], [1], [2], [1], [2], [1], [2]]))
    before = to_numpy(model.layers[0].bias)
    after = to_numpy(order_channels(model).layers[1].bias)
    np.testing.assert_array_equal(after, before[[1, 3, 5, 7, 0, 2, 4, 6]])


def mlp(**head):
    return keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(16, activation="relu"),
            IDPDense(8, activation="tanh", use_bias=False, name="second"),
            layers.Dropout(0.5),
            IDPDense(3, name="head", **head),
        ]
    )


def test_mlp():
    copy = ordered(mlp())
    assert_sorted(copy, "second")
    assert_sorted(copy, "head")


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_vgg(data_format):
    if data_format == "channels_first" and keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow does not pool channels_first on a CPU")
    last = data_format == "channels_last"
    axis = -1 if last else 1
    model = keras.Sequential([keras.Input((8, 8, 3) if last else (3, 8, 8))])
    for i, filters in enumerate([8, 12, 6]):
        conv = IDPConv2D if i else layers.Conv2D
        model.add(conv(filters, 3, padding="same", data_format=data_format, name=f"conv_{i}"))
        norm = (
            layers.BatchNormalization if i else lambda **kw: IDPBatchNormalization([100, 50], **kw)
        )
        model.add(norm(axis=axis))
        model.add(layers.ReLU())
    model.add(layers.MaxPooling2D(data_format=data_format))
    model.add(layers.Flatten(data_format=data_format))
    model.add(IDPDense(10, input_channels=6, activation="relu", name="dense"))
    model.add(layers.Dense(4, activation="softmax", name="head"))
    copy = ordered(model)
    for name, channels in [("conv_1", 8), ("conv_2", 12), ("dense", 6)]:
        assert_sorted(copy, name, channels=channels)
    # Dense layers do not cut: in a model with incomplete layers they have no say.
    np.testing.assert_array_equal(copy.get_layer("dense").bias, model.get_layer("dense").bias)


def test_a_model_without_incomplete_layers_is_ordered_for_all_its_layers():
    x = keras.Input((6, 4))
    y = layers.Conv1D(8, 3, activation="relu", name="a")(x)
    y = layers.Conv1D(6, 2, name="b")(layers.AveragePooling1D(2)(y))
    y = layers.Dense(5, activation="softmax", name="c")(layers.GlobalMaxPooling1D()(y))
    copy = ordered(keras.Model(x, y))
    for name in "bc":
        assert_sorted(copy, name)


def test_operations_pass_the_order_on():
    x = keras.Input((4, 4, 3))
    y = layers.Conv2D(8, 1, name="before")(x)
    y = layers.PReLU(alpha_initializer="random_normal")(y)
    y = keras.ops.clip(-y / 2, -1, 0.5)
    y = y * keras.ops.mean(y, axis=(1, 2), keepdims=True)
    y = y * layers.Conv2D(1, 1, activation="sigmoid")(x)  # one factor for all channels
    y = keras.ops.pad(
        keras.ops.transpose(y, (0, 2, 1, 3))[:, ::2], [(0, 0), (1, 0), (0, 0), (0, 0)]
    )
    y = IDPConv2D(6, 1, name="head")(y)
    assert_sorted(ordered(keras.Model(x, layers.Flatten()(y))), "head")


def test_statistics_of_every_percentage_move():
    x = keras.Input((4,))
    y = IDPBatchNormalization([100, 50], name="norm")(layers.Dense(8)(x))
    model = keras.Model(x, IDPDense(2, name="head")(y))
    copy = ordered(model)
    places = np.argsort(-norms(model, "head"), stable=True)
    for actual, expected in zip(
        copy.get_layer("norm").get_weights(), model.get_layer("norm").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(actual, expected[places])


# Several tensors in one group.


def test_residual_network():
    x = keras.Input((6, 6, 3))
    stem = y = layers.Conv2D(8, 3, padding="same", name="stem")(x)
    for i in range(2):
        z = layers.ReLU()(layers.BatchNormalization()(y))
        z = IDPConv2D(6, 3, padding="same", name=f"down_{i}")(z)
        y = layers.Add()([y, IDPConv2D(8, 1, name=f"up_{i}")(layers.ReLU()(z))])
    y = y * stem - 1
    y = IDPDense(3, name="head")(layers.GlobalAveragePooling2D()(y))
    copy = ordered(keras.Model(x, y))
    assert_sorted(copy, "down_0", "down_1", "head")  # one group: its importance is the sum
    assert_sorted(copy, "up_0")
    assert_sorted(copy, "up_1")


@pytest.mark.parametrize("merge", ["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"])
def test_merges_order_their_inputs_alike(merge):
    x = keras.Input((4,))
    y = getattr(layers, merge)()([layers.Dense(8)(x), layers.Dense(8)(x)])
    assert_sorted(ordered(keras.Model(x, IDPDense(2, name="head")(y))), "head")


def test_a_concatenation_orders_each_part():
    x = keras.Input((4,))
    a, b = layers.Dense(5, name="a")(x), layers.Dense(4, name="b")(x)
    y = layers.ReLU()(layers.Concatenate()([a, b, a]))
    model = keras.Model(x, IDPDense(2, name="head")(y))
    copy = ordered(model)
    values = norms(copy, "head")
    assert is_sorted(values[:5] + values[9:])
    assert is_sorted(values[5:9])
    assert not is_sorted(values[:9])


def test_a_flattened_concatenation():
    x = keras.Input((3, 3, 2))
    parts = [layers.Conv2D(n, 2, name=f"conv_{n}")(x) for n in (4, 5)]
    y = layers.Flatten()(layers.Concatenate()(parts))
    copy = ordered(keras.Model(x, IDPDense(2, input_channels=9, name="head")(y)))
    values = norms(copy, "head", channels=9)
    assert is_sorted(values[:4])
    assert is_sorted(values[4:])


def test_flattened_maps_that_are_concatenated():
    x = keras.Input((3, 3, 2))
    a, b = layers.Conv2D(5, 2, name="a")(x), layers.Conv2D(4, 3, name="b")(x)
    y = layers.Concatenate()([layers.Flatten()(a), layers.Flatten()(b)])
    parts = (5, 5, 5, 5, 4)
    copy = ordered(keras.Model(x, IDPDense(2, input_parts=parts, name="head")(y)))
    values = np.array(norms(copy, "head"))
    assert is_sorted(values[:20].reshape(4, 5).sum(0).tolist())
    assert is_sorted(values[20:].tolist())


def test_a_concatenation_with_an_input_leaves_that_in_place():
    x = keras.Input((4,))
    y = layers.Concatenate()([layers.Dense(5, name="a")(x), layers.Dense(4, name="b")(x)])
    z = layers.Concatenate()([x, y])
    model = keras.Model(x, IDPDense(2, name="head")(z))
    assert_in_place(ordered(model), model, "a", "b", "head")


def test_parts_that_do_not_fit_each_other_keep_their_order():
    x = keras.Input((4,))
    a, b, c = (layers.Dense(n, name=name)(x) for n, name in [(3, "a"), (5, "b"), (8, "c")])
    y = layers.Add()([layers.Concatenate()([a, b]), c])
    model = keras.Model(x, IDPDense(2, name="head")(y))
    assert_in_place(ordered(model), model, "a", "b", "c", "head")


def test_a_shared_layer():
    x = keras.Input((8,))
    first, shared = layers.Dense(8, name="first"), IDPDense(8, name="shared")
    norm = layers.BatchNormalization()
    y = norm(shared(layers.ReLU()(norm(shared(first(x))))))  # its outputs are its inputs
    copy = ordered(keras.Model(x, IDPDense(2, name="head")(y)))
    assert_sorted(copy, "shared", "head")


def test_a_shared_layer_with_a_weight_of_its_own():
    """The weight meets the channels of two layers, which are then ordered alike."""
    scale = Scale()
    x = keras.Input((5,))
    y = scale(layers.Dense(8)(x))
    ordered(keras.Model(x, IDPDense(3)(scale(IDPDense(8)(y)))))  # computes the same


def test_a_shared_layer_that_reads_an_input_keeps_its_rows():
    x = keras.Input((8,))
    shared = IDPDense(8, name="shared")
    y = shared(layers.Dense(8, name="first")(shared(x)))
    model = keras.Model(x, IDPDense(2, name="head")(y))
    copy = ordered(model)
    # What `first` writes is read by the same rows as the input of the model.
    np.testing.assert_array_equal(copy.get_layer("first").bias, model.get_layer("first").bias)
    # `first` does not cut, so `head` alone decides on the outputs.
    assert_sorted(copy, "head")


@pytest.mark.parametrize("layer", [layers.DepthwiseConv1D, layers.BatchNormalization])
@pytest.mark.parametrize("places", [slice(None), slice(None, None, -1)])
def test_a_shared_layer_of_an_input_and_of_channels(layer, places):
    """The channels of the input stay, so the layer's weights stay, so the others stay."""
    x = keras.Input((5, 8))
    shared = layer(1) if layer is layers.DepthwiseConv1D else layer()
    y = layers.Conv1D(8, 1, name="conv")(x)
    a, b = (shared(t) for t in [x, y][places])
    heads = [IDPDense(2, name=name)(t) for name, t in [("a", a), ("b", b)]]
    model = keras.Model(x, heads)
    assert_in_place(ordered(model), model, "conv", shared.name, "a", "b")


@pytest.mark.parametrize("kind", ["DepthwiseConv1D", "DepthwiseConv2D"])
def test_depthwise_convolutions(kind):
    rank = int(kind[-2])
    x = keras.Input((*[5] * rank, 3))
    y = getattr(layers, f"Conv{rank}D")(8, 1, name="expand")(x)
    y = getattr(layers, kind)(3, activation="relu", name="depthwise")(y)
    y = getattr(layers, kind)(1, use_bias=False)(layers.BatchNormalization()(y))
    y = getattr(layers, f"GlobalMaxPooling{rank}D")()(y)
    copy = ordered(keras.Model(x, IDPDense(2, name="head")(y)))
    assert_sorted(copy, "head")


@pytest.mark.parametrize("depth_multiplier", [1, 3])
@pytest.mark.parametrize("incomplete", [False, True])
def test_transposed_and_separable_convolutions(incomplete, depth_multiplier):
    transposed = IDPConv2DTranspose if incomplete else layers.Conv2DTranspose
    separable = IDPSeparableConv2D if incomplete else layers.SeparableConv2D
    x = keras.Input((5, 5, 3))
    y = layers.Conv2D(8, 1, name="first")(x)
    y = layers.ReLU()(transposed(6, 2, name="transposed")(y))
    y = separable(5, 3, depth_multiplier=depth_multiplier, name="separable")(y)
    copy = ordered(keras.Model(x, layers.Conv2D(2, 1, name="head")(y)))
    kernel = np.abs(to_numpy(copy.get_layer("transposed").kernel))
    assert is_sorted(kernel.sum((0, 1, 2)))
    # The two kernels of a separable convolution are one: their product over the multiplier.
    layer = copy.get_layer("separable")
    depthwise = to_numpy(layer.depthwise_kernel)  # height, width, channels, multiplier
    pointwise = to_numpy(layer.pointwise_kernel).reshape(6, depth_multiplier, 5)
    composed = np.einsum("hwcm,cmo->hwco", depthwise, pointwise)
    assert is_sorted(np.abs(composed).sum((0, 1, 3)))


@pytest.mark.parametrize("head", [IDPConv2DTranspose, IDPSeparableConv2D])
def test_where_any_layer_is_incomplete_complete_ones_do_not_rank(head):
    x = keras.Input((5, 5, 3))
    y = layers.Conv2D(8, 1, name="complete")(layers.Conv2D(8, 1, name="first")(x))
    model = keras.Model(x, head(2, 1, name="head")(y))
    copy = ordered(model)
    np.testing.assert_array_equal(copy.get_layer("first").bias, model.get_layer("first").bias)


# What keeps its order.


def test_inputs_and_outputs_of_the_model():
    x = keras.Input((4,))
    a = IDPDense(8, name="a")(x)
    b = IDPDense(8, name="b")(a)
    model = keras.Model(x, {"a": a, "c": IDPDense(5, name="c")(b)})
    copy = ordered(model)
    assert_sorted(copy, "c")
    np.testing.assert_array_equal(copy.get_layer("a").kernel, model.get_layer("a").kernel)


class Mine(layers.Dense):
    """May compute anything."""


@keras.saving.register_keras_serializable("ordering_test")
class Reversed(layers.Layer):
    def call(self, x):
        return keras.ops.flip(x, axis=-1)


NOT_UNDERSTOOD = {
    "grouped": lambda: layers.Conv2D(8, 1, groups=2),
    "incomplete grouped": lambda: IDPConv2D(8, 1, groups=2),
    "depth multiplier": lambda: layers.DepthwiseConv2D(1, depth_multiplier=2),
    "depthwise softmax": lambda: layers.DepthwiseConv2D(1, activation="softmax"),
    "PReLU of one slope": lambda: layers.PReLU(shared_axes=[1, 2, 3]),
    "norm of two axes": lambda: layers.LayerNormalization(axis=[1, 2]),
    "group norm": lambda: layers.GroupNormalization(2),
    "norm of an axis": lambda: layers.BatchNormalization(axis=1),
    "softmax": lambda: layers.Softmax(),
    "permute": lambda: layers.Permute((3, 1, 2)),
    "reshape": lambda: layers.Reshape((4, 8, 4)),
    "subclass": lambda: Mine(8),
    "own": lambda: Reversed(),
    "lambda": lambda: layers.Lambda(lambda x: my_activation(x)),
    "dense with positions": lambda: IDPDense(4, input_channels=2),
}
RAMP = np.arange(8, dtype="float32")


@keras.saving.register_keras_serializable("ordering_test")
def my_activation(x):
    return x * keras.ops.convert_to_tensor(RAMP)


@pytest.mark.parametrize("kind", NOT_UNDERSTOOD)
def test_around_what_is_not_understood(kind):
    x = keras.Input((4, 4, 3))
    y = NOT_UNDERSTOOD[kind]()(layers.Conv2D(8, 1, name="before")(x))
    y = IDPConv2D(8, 1, padding="same", name="after")(y)
    model = keras.Model(x, IDPDense(2, name="head")(y))
    copy = ordered(model)
    assert_in_place(copy, model, "before")
    assert_sorted(copy, "head")


@pytest.mark.parametrize("activation", ["softmax", "log_softmax", my_activation])
def test_an_activation_that_mixes_channels_fixes_the_outputs_alone(activation):
    x = keras.Input((4,))
    y = layers.Dense(8, name="before")(x)
    y = layers.Dense(8, activation=activation, name="mixing")(y)
    model = keras.Model(x, layers.Dense(2, name="head")(y))
    copy = ordered(model)
    assert_sorted(copy, "mixing")
    assert_in_place(copy, model, "head")


@pytest.mark.parametrize(
    "scale", [lambda y: y * RAMP, lambda y: layers.Multiply()([y, RAMP[None]])]
)
def test_constants_have_an_order_of_their_own(scale):
    x = keras.Input((4,))
    y = scale(layers.Dense(8, name="a")(x))
    model = keras.Model(x, IDPDense(2, name="head")(y))
    assert_in_place(ordered(model), model, "a", "head")


def test_lora_keeps_its_order():
    x = keras.Input((4,))
    y = layers.Dense(8, name="a")(x)
    model = keras.Model(x, IDPDense(2)(layers.Dense(8, name="lora")(y)))
    model.get_layer("lora").enable_lora(2)
    assert_in_place(ordered(model), model, "a", "lora")


@pytest.mark.parametrize("kind", [IDPDense, layers.DepthwiseConv2D])
def test_a_reader_of_another_axis(kind):
    """It reads the last one; a convolution with channels_first writes its channels on the first."""
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow does not convolve channels_first on a CPU")
    x = keras.Input((2, 4, 8))
    y = layers.Conv2D(8, 1, data_format="channels_first", name="conv")(x)
    y = kind(8 if kind is IDPDense else 1, name="reader")(y)
    y = IDPConv2D(8, 1, data_format="channels_first", name="after")(y)
    model = keras.Model(x, IDPDense(4)(y))
    assert_in_place(ordered(model), model, "conv", "reader")


@pytest.mark.parametrize("places", [slice(None), slice(None, None, -1)])
def test_what_is_added_to_channels_in_their_places(places):
    x = keras.Input((4,))
    a = layers.Dense(8, activation="softmax", name="a")(x)
    b = layers.Dense(8, name="b")(x)
    model = keras.Model(x, IDPDense(2, name="head")(layers.Add()([a, b][places])))
    assert_in_place(ordered(model), model, "a", "b", "head")


def test_what_is_a_mask_too():
    x = keras.Input((5, 4))
    mask = layers.Dense(5, name="mask")(layers.GlobalMaxPooling1D()(x))
    y = layers.BatchNormalization()(layers.Conv1D(8, 1)(x), mask=mask)
    model = keras.Model(x, [IDPDense(2, name="head")(y), IDPDense(2, name="second")(mask)])
    copy = ordered(model)
    assert_sorted(copy, "head")
    assert_in_place(copy, model, "mask", "second")


# What comes back.


def test_nested_models():
    inner = keras.Sequential([keras.Input((8,)), layers.ReLU(), IDPDense(6, name="inside")])
    x = keras.Input((4,))
    y = IDPDense(2, name="head")(inner(layers.Dense(8, name="before")(x)))
    copy = ordered(keras.Model(x, y))
    assert is_sorted(norms(copy.layers[2], "inside"))
    assert_sorted(copy, "head")


def test_the_original_is_not_changed_and_the_copy_is_its_own():
    model = randomize(mlp())
    before = model.get_weights()
    copy = order_channels(model)
    copy.compile("sgd", "mse")
    copy.fit(np.ones((4, 5)), np.zeros((4, 3)), verbose=0)
    for actual, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(actual, expected)
    assert [layer.name for layer in copy.layers[1:]] == [layer.name for layer in model.layers]
    assert copy.name == model.name
    assert not model.compiled


def test_a_compiled_model_with_a_loss_that_cannot_be_saved():
    model = mlp()
    model.compile("sgd", lambda y_true, y_pred: y_pred)
    copy = ordered(model)
    assert not copy.compiled


def test_ordering_twice_is_ordering_once():
    once = ordered(mlp())
    twice = order_channels(once)
    for actual, expected in zip(twice.get_weights(), once.get_weights(), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_half_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert_sorted(ordered(mlp()), "second")
    finally:
        keras.config.set_dtype_policy("float32")


def test_low_percentages_are_better_where_the_last_channels_matter():
    model = randomize(mlp())
    for name in ("second", "head"):
        kernel = model.get_layer(name).kernel
        kernel.assign(to_numpy(kernel) * np.geomspace(1e-3, 1, kernel.shape[0])[:, None])
    copy = order_channels(model)
    complete = run(model)

    def error(of):
        with percentage_scope(50):
            return np.abs(run(of) - complete).max()

    assert error(copy) < 0.2 * error(model)


# Random graphs.


class RandomModel:
    """A model of `size` nodes: projections, channelwise layers, merges and strangers."""

    def __init__(self, seed, size=9):
        self.rng = np.random.default_rng(seed)
        self.images = seed % 2 == 0
        # With and without incomplete layers.
        kinds = [(layers.Dense, layers.Conv2D), (IDPDense, IDPConv2D)][seed // 2 % 2]
        self.dense, self.conv = kinds
        self.x = keras.Input((3, 3, 4) if self.images else (4,))
        self.made = []  # (layer, shape of its input)
        self.tensors = [self.projection(self.x, 8)]
        for _ in range(size):
            self.tensors.append(self.node(self.choose([self.tensors[-1]] * 2 + self.tensors)))
        y = self.tensors[-1]
        if self.images:
            y = self.choose([layers.Flatten, layers.GlobalAveragePooling2D])()(y)
        # Now and then a tensor on the way is an output, too.
        extra = self.choose([None, None, None, *self.tensors])
        y = layers.Dense(3)(y)
        self.model = keras.Model(self.x, y if extra is None else [y, extra])

    def choose(self, options):
        return options[self.rng.integers(len(options))]

    def projection(self, x, units):
        activation = self.choose([None, "relu", "tanh"] * 2 + ["softmax"])
        if self.images:
            size = self.choose([1, 2])
            layer = self.conv(units, size, padding="same", activation=activation)
        else:
            layer = self.dense(units, activation=activation)
        return self.call(layer, x)

    def call(self, layer, x):
        self.made.append((layer, x.shape))
        return layer(x)

    def node(self, a):
        kind = self.choose(["project", "channelwise", "depthwise", "join", "again", "merge"])
        if kind == "channelwise":
            strangers = [layers.UnitNormalization, layers.PReLU, layers.Softmax]
            known = [layers.BatchNormalization, layers.LayerNormalization, layers.ReLU]
            return self.call(self.choose(known * 5 + strangers)(), a)
        if kind == "depthwise" and self.images:
            multiplier = self.choose([1, 1, 2])
            layer = layers.DepthwiseConv2D(2, padding="same", depth_multiplier=multiplier)
            return self.call(layer, a)
        if kind == "join":
            return layers.Concatenate()([a, self.choose(self.tensors)])
        if kind == "merge":
            b = self.choose([t for t in self.tensors if t.shape == a.shape])
            return self.choose([layers.Add(), layers.Maximum()])([a, b])
        fitting = [layer for layer, shape in self.made if shape == a.shape]
        if kind == "again" and fitting:
            return self.choose(fitting)(a)
        return self.projection(a, self.choose([8, 4]))


# JAX compiles again for every shape.
SEEDS = range(12 if keras.backend.backend() == "jax" else 40)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_graphs_compute_the_same(seed):
    ordered(RandomModel(seed).model)


def test_random_graphs_are_permuted():
    """The test above is worth something only if channels move."""
    moved = 0
    for seed in range(12):
        model = randomize(RandomModel(seed).model)
        pairs = zip(order_channels(model).get_weights(), model.get_weights(), strict=True)
        moved += any(np.any(a != b) for a, b in pairs)
    assert moved >= 4


# Bad input.


def test_a_subclassed_model():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="is not built"):
        order_channels(Subclassed())


def test_a_model_that_is_not_built():
    with pytest.raises(ValueError, match="is not built, so its shapes are unknown"):
        order_channels(keras.Sequential([layers.Dense(3)]))


@pytest.mark.parametrize("value", [None, "model", 5])
def test_no_model(value):
    with pytest.raises(ValueError, match="must be a Functional or Sequential one"):
        order_channels(value)


@pytest.mark.parametrize("trainable", [False, True])
def test_a_profile(trainable):
    model = mlp(profile="linear", trainable_profile=trainable)
    message = "Layer 'head' has profile coefficients that are not all one.*Order the channels first"
    with pytest.raises(ValueError, match=message):
        order_channels(model)


def test_a_private_profile():
    model = mlp(percentages=[100, 50], private_profile=True)
    model.layers[-1].private_variables(50)["profile"].assign([0.5])
    message = "Layer 'head' has private profile coefficients that are not 0.*Order the channels"
    with pytest.raises(ValueError, match=message):
        order_channels(model)


def test_private_biases_and_an_untrained_private_profile_go_with_their_channels():
    own = {"percentages": [100, 50], "private_bias": True}
    inputs = keras.Input((3,))
    x = IDPDense(8, private_profile=True, name="first", **own)(inputs)
    x = IDPBatchNormalization([100, 50], private_affine=True, name="norm")(x)
    x = IDPDense(5, name="head", **own)(layers.ReLU()(x))
    model = keras.Model(inputs, IDPDense(2, complete=True, name="last", **own)(x))
    randomize(model)
    for percentage in (100, 50):
        profile = model.get_layer("first").private_variables(percentage)["profile"]
        profile.assign(0 * profile)
    copy = order_channels(model)
    assert_sorted(copy, "head")
    # A complete layer cuts nothing, so it asks for no order.
    before, after = (x.get_layer("head").get_weights() for x in (model, copy))
    np.testing.assert_array_equal(before[1], after[1])
    for percentage in (100, 50):
        with percentage_scope(percentage):
            if percentage == 100:
                assert_computes_the_same(copy, model)
        own = [x.get_layer("first").private_variables(percentage)["bias"] for x in (model, copy)]
        places = np.argsort(-norms(model, "head"), stable=True)
        np.testing.assert_array_equal(to_numpy(own[0])[places], to_numpy(own[1]))


@pytest.mark.parametrize("layer", [IDPConv2DTranspose, IDPSeparableConv2D])
def test_a_profile_of_a_convolution(layer):
    x = keras.Input((4, 4, 3))
    model = keras.Model(x, layer(2, 1, profile="linear", name="head")(layers.Conv2D(8, 1)(x)))
    with pytest.raises(ValueError, match="Layer 'head' has profile coefficients"):
        order_channels(model)


def test_a_trainable_profile_that_is_all_one():
    model = mlp(trainable_profile=True)
    for variable in model.weights:
        if variable.name != "profile":
            variable.assign(np.random.default_rng(0).normal(size=variable.shape))
    copy = order_channels(model)
    assert_computes_the_same(copy, model)
    assert_sorted(copy, "head")
