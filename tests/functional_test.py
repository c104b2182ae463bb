"""A model as a Functional one of the layers that it consists of."""

import math

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_tesla as kt
from keras_tesla import graph
from keras_tesla.layers import IDPDense, PerRange
from tests.composites import (
    INCOMPLETE,
    MODELS,
    Chain,
    Mixer,
    Net,
    Perceptron,
    Scale,
    Tied,
    images,
    incomplete_residual,
    tokens,
)
from tests.helpers import normal, randomize, to_numpy


def inputs_of(model, count=4):
    values = [normal(count, *t.shape[1:], seed=i) for i, t in enumerate(model.inputs)]
    return values if len(values) > 1 else values[0]


def paired(copy, model):
    """Pairs of equal weights of a copy and its model, in two lists."""

    def key(v):
        return tuple(v.shape), to_numpy(v).tobytes()

    ours = {key(v): v for v in copy.weights}
    return [ours[key(v)] for v in model.weights], model.weights


def outputs(model, x, **training):
    return [to_numpy(y) for y in keras.tree.flatten(model(x, **training))]


def assert_equal(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        # The same operations; float32 gradients are summed in another order.
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def loss(model, x):
    def value():
        found = keras.tree.flatten(model(x, training=True))
        return sum(ops.mean(ops.square(y)) for y in found)

    return value


@pytest.fixture(params=MODELS)
def model(request):
    return randomize(MODELS[request.param]())


@pytest.mark.slow
def test_it_computes_the_same(model, gradients):
    """In inference and in training, with dropout and statistics, and so do the gradients."""
    copy, x = kt.to_functional(model), inputs_of(model)
    assert_equal(outputs(copy, x), outputs(model, x))
    ours, theirs = paired(copy, model)
    assert [v.trainable for v in ours] == [v.trainable for v in theirs]
    trained = [i for i, v in enumerate(theirs) if v.trainable]
    assert len(trained) == len(model.trainable_weights) == len(copy.trainable_weights)
    found = [
        gradients(loss(m, x), [of_model[i] for i in trained])
        for m, of_model in ((copy, ours), (model, theirs))
    ]
    assert any(np.any(g) for g in found[1])
    assert_equal(*found)
    for m in (copy, model):
        m(x, training=True)  # changes the statistics
    assert_equal(map(to_numpy, ours), map(to_numpy, theirs))


@pytest.mark.slow
def test_it_needs_no_class_of_the_user(model, tmp_path):
    copy = kt.to_functional(model)
    copy.save(tmp_path / "copy.keras")
    loaded = keras.models.load_model(tmp_path / "copy.keras")
    x = inputs_of(model)
    assert_equal(outputs(loaded, x), outputs(copy, x))
    own = {type(layer) for layer in copy.layers} - {graph.Weight}
    assert all(cls.__module__.startswith("keras.") for cls in own)


@pytest.mark.slow
def test_fitting_it_is_fitting_the_model(model):
    copy, x = kt.to_functional(model), inputs_of(model)
    ours, theirs = paired(copy, model)
    y = [np.zeros((4, *t.shape[1:]), "float32") for t in model.outputs]
    for m in (copy, model):
        # One batch of all: the order of examples is no part of it.
        m.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=False)
        m.fit(x, y if len(y) > 1 else y[0], epochs=2, batch_size=4, shuffle=False, verbose=0)
    assert_equal(map(to_numpy, ours), map(to_numpy, theirs))


@pytest.mark.parametrize("make", INCOMPLETE.values(), ids=INCOMPLETE)
@pytest.mark.parametrize("percentage", [100, 50])
@pytest.mark.slow
def test_incomplete_layers_inside_are_narrowed(make, percentage, assert_same_three_ways):
    model = randomize(make())
    small = assert_same_three_ways(model, inputs_of(model), percentage)
    kernels = [
        sum(math.prod(v.shape) for v in m.weights if v.name == "kernel") for m in (small, model)
    ]
    assert kernels[0] < 0.6 * kernels[1] if percentage == 50 else kernels[0] == kernels[1]
    assert all(type(layer).__module__.startswith("keras.") for layer in small.layers)


@pytest.mark.parametrize("make", INCOMPLETE.values(), ids=INCOMPLETE)
@pytest.mark.slow
def test_tesla_trains_the_variables_of_the_layers_inside(make):
    """At 100 % as Keras trains the model itself."""
    model, other = randomize(make()), randomize(make())
    x = inputs_of(model)
    y = np.zeros((4, *model.outputs[0].shape[1:]), "float32")
    tesla = kt.TESLA(model, [100])
    for m in (tesla, other):
        m.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=False)
        m.fit(x, y, epochs=2, batch_size=4, shuffle=False, verbose=0)
    assert tesla.network is model
    assert_equal(map(to_numpy, model.weights), map(to_numpy, other.weights))
    assert len(tesla.trainable_weights) == len(model.trainable_weights)


def test_all_percentages_train_an_operand(gradients):
    """A weight of a layer's own gets a gradient where a percentage reads it."""
    scale = Scale()
    model = tokens(scale, Perceptron(8, 8, first=IDPDense))
    tesla = kt.TESLA(randomize(model), [50])
    x = normal(4, 5, 6)
    before = to_numpy(scale.gamma)
    tesla.compile("sgd", "mse")
    tesla.fit(x, np.zeros((4, 5, 3)), verbose=0)
    changed = to_numpy(scale.gamma) != before
    assert changed.tolist() == [True] * 4 + [False] * 4
    assert tesla.at(50)(x).shape == (4, 5, 3)


@pytest.mark.slow
def test_a_step_at_two_percentages_sums_their_gradients(gradients):
    def make():
        return randomize(images(Scale(), incomplete_residual()))

    model, other = make(), make()
    x, y = inputs_of(model), np.zeros((4, 3), "float32")
    trained = other.trainable_weights

    def total():
        found = []
        for percentage in (100, 50):
            with kt.percentage_scope(percentage):
                found.append(ops.mean(ops.square(other(x, training=True))))
        return sum(found)

    expected = [
        to_numpy(v) - 0.01 * g for v, g in zip(trained, gradients(total, trained), strict=True)
    ]
    tesla = kt.TESLA(model, [100, 50])
    tesla.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=False)
    tesla.fit(x, y, batch_size=4, verbose=0)
    assert_equal(map(to_numpy, model.trainable_weights), expected)


def test_private_numbers_of_ranges_inside():
    """Nothing in them is defined at other percentages than their own."""
    chain = Chain(PerRange({100: layers.Dense(8), 50: layers.Dense(8)}), IDPDense(8))
    model = tokens(chain)
    tesla = kt.TESLA(model, [100, 50])
    assert not tesla.graph.closed
    assert tesla.at(50)(normal(4, 5, 6)).shape == (4, 5, 3)


def test_attenuated_gradients_reach_an_operand():
    tesla = kt.TESLA(
        tokens(Scale(), Perceptron(8, 8, first=IDPDense)),
        [100, 50],
        gradient_attenuation=0.9,
    )
    tesla.compile("sgd", "mse")
    tesla.fit(normal(4, 5, 6), np.zeros((4, 5, 3)), verbose=0)


@keras.saving.register_keras_serializable("functional_test")
class Registered(Perceptron):
    def __init__(self, units, **kwargs):
        super().__init__(units, 8, first=IDPDense, last=IDPDense, **kwargs)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def test_a_saved_tesla_has_the_classes_of_its_user(tmp_path):
    tesla = kt.TESLA(tokens(Registered(8, name="block")), [100, 50])
    tesla.save(tmp_path / "tesla.keras")
    loaded = keras.models.load_model(tmp_path / "tesla.keras")
    assert type(loaded.get_layer("block")) is Registered
    x = normal(4, 5, 6)
    for percentage in (100, 50):
        assert_equal(outputs(loaded.at(percentage), x), outputs(tesla.at(percentage), x))


def test_the_tables_name_the_layers_inside(capsys):
    model = tokens(Perceptron(8, 8, first=IDPDense, name="block"))
    kt.TESLA(model, [100, 50]).summary(print_fn=print)
    kt.summary(model)
    printed = capsys.readouterr().out
    assert printed.count("block_dense") >= 4


# Conversion.


def test_layers_inside_become_incomplete():
    model = randomize(tokens(Perceptron(8, 8, name="a"), Scale(name="b"), Mixer(name="c")))
    converted = kt.to_idp(model, [100, 50])
    became = {row.name: row.became for row in converted.conversion_report}
    assert became["a_dense"] == became["a_out"] == "IDPDense"
    x = inputs_of(model)
    assert_equal(outputs(converted, x), outputs(model, x))
    tesla = kt.TESLA(converted)
    with kt.percentage_scope(50):
        expected = outputs(converted, x)
    assert_equal(outputs(tesla.at(50), x), expected)
    assert tesla.at(50).get_layer("a_dense").kernel.shape == (4, 4)


@pytest.mark.slow
def test_a_converted_model_is_saved_and_loaded(tmp_path, model):
    converted = kt.to_idp(model, [100, 50])
    converted.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = inputs_of(model)
    for percentage in (100, 50):
        small = kt.TESLA(loaded, [100, 50]).at(percentage)
        small.save(tmp_path / "small.keras")
        with kt.percentage_scope(percentage):
            expected = outputs(converted, x)
        assert_equal(outputs(small, x), expected)
        assert_equal(outputs(keras.models.load_model(tmp_path / "small.keras"), x), expected)


@pytest.mark.slow
def test_channels_inside_are_ordered(model):
    ordered, x = kt.order_channels(model), inputs_of(model)
    assert_equal(outputs(ordered, x), outputs(model, x))


def test_an_operand_is_ordered_with_its_channels():
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(1, name="last")(Scale(name="s")(layers.Dense(3)(x))))
    model.layers[-1].set_weights([np.array([[1.0], [-3.0], [2.0]]), np.zeros(1)])
    model.get_layer("s").gamma.assign([10.0, 20.0, 30.0])
    ordered = kt.order_channels(model)
    assert to_numpy(ordered.get_layer("s_gamma").value).tolist() == [20.0, 30.0, 10.0]


def test_a_layer_that_is_skipped_stays_whole():
    model = tokens(Perceptron(8, 8, name="a"), Perceptron(8, 8, name="b"))
    converted = kt.to_idp(model, skip=["a"])
    assert next(r for r in converted.conversion_report if r.name == "a").became == "Perceptron"
    assert type(converted.get_layer("b_out")) is IDPDense
    with pytest.raises(ValueError, match=r"does not have: \['c'\]"):
        kt.to_idp(model, skip=["a", "c"])


def test_recalibration_and_rounding():
    model = INCOMPLETE["residual"]()
    x = inputs_of(model)
    tesla = kt.recalibrate(kt.TESLA(model, [100, 50]), x, [100, 50, 25])
    assert tesla.percentages == (100, 50, 25)
    assert outputs(tesla.at(25), x)[0].shape == (4, 3)


@pytest.mark.tensorflow
@pytest.mark.parametrize("mode", ["per_percentage", "percentage_input"])
@pytest.mark.parametrize(
    "make",
    [
        INCOMPLETE["nested"],
        lambda: kt.to_idp(tokens(Scale(), Mixer(), Perceptron(8, 8)), [100, 50]),
    ],
    ids=["incomplete", "converted"],
)
@pytest.mark.slow
def test_files(make, mode, tmp_path):
    tesla = kt.TESLA(randomize(make()), [100, 50])
    bundle = kt.tflite.export(tesla, tmp_path / "out", mode=mode)
    x = normal(1, *tesla.network.inputs[0].shape[1:])
    for percentage in (100, 50):
        got = kt.tflite.load(bundle.path(percentage))(x, percentage=percentage)
        assert_equal([got], [tesla.predict(x, percentage=percentage, verbose=0)])


# Subclassed models.


def test_a_subclassed_model():
    net = Net(3)
    net(np.zeros((2, 5, 6)))
    copy, x = kt.to_functional(net), normal(4, 5, 6)
    assert copy.input.shape == (None, 5, 6)
    assert copy.input.name == "x"
    assert_equal(outputs(copy, x), outputs(net, x))
    converted = kt.to_idp(net, [100, 50])
    assert_equal(outputs(converted, x), outputs(net, x))
    assert_equal(outputs(kt.order_channels(net), x), outputs(net, x))


def test_a_subclassed_model_of_several_arguments():
    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = layers.Dense(4), layers.Dense(4, name="b")

        def call(self, left, right=None):
            return self.a(left["x"]) + self.b(right)

    model = Two()
    left, right = {"x": normal(2, 3)}, normal(2, 5, seed=1)
    expected = to_numpy(model(left, right=right))
    # Keras keeps the shape of the first argument only.
    with pytest.raises(ValueError, match="it calls 'b' on no tensor"):
        kt.to_functional(model)
    inputs = {
        "left": {"x": keras.Input((3,), name="x")},
        "right": keras.Input((5,), name="right"),
    }
    copy = kt.to_functional(model, inputs)
    assert_equal(outputs(copy, {"left": left, "right": right}), [expected])

    class Built(Two):
        def build(self, left_shape, right_shape):
            self.a.build(left_shape["x"])
            self.b.build(right_shape)

    model = Built()
    expected = to_numpy(model(left, right=right))
    copy = kt.to_functional(model)
    assert_equal(outputs(copy, {"left": left, "right": right}), [expected])


def test_inputs_of_integers():
    class Words(keras.Model):
        def __init__(self):
            super().__init__()
            self.table, self.dense = layers.Embedding(9, 8), layers.Dense(3)

        def call(self, x):
            return self.dense(ops.mean(self.table(ops.bitwise_and(x, ops.full_like(x, 7))), 1))

    model, x = Words(), np.arange(8).reshape(2, 4)
    expected = to_numpy(model(x))
    with pytest.raises(ValueError, match=r"cannot be read: it fails on random inputs"):
        kt.to_functional(model)
    copy = kt.to_functional(model, keras.Input((4,), dtype="int32", name="words"))
    assert copy.input.name == "words"
    assert_equal(outputs(copy, x), [expected])


# Bad input.


class Values(Net):
    def call(self, x, training=None):
        if ops.max(x) > 0:
            return self.last(x)
        return super().call(x)


def test_what_cannot_be_read_is_named():
    model = Values(3)
    model.block.build((None, 5, 6))
    model.last.build((None, 5, 6))
    model.built = True
    with pytest.raises(ValueError, match="The shapes of the inputs of 'values' .* are not known"):
        kt.to_functional(model)
    with pytest.raises(ValueError, match=r"functional_test.py:\d+: `if ops.max\(x\) > 0:`"):
        kt.to_functional(model, keras.Input((5, 6)))


class Words(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.table = layers.Embedding(1000, 8, dtype=self.dtype_policy)
        self.last = layers.Dense(3, dtype=self.dtype_policy)

    def call(self, ids):
        return self.last(self.table(ids))


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_ids_are_not_rounded(policy):
    """In bfloat16 there is no 999."""
    model, ids = Words(dtype=policy), np.array([[3, 999]])
    expected = to_numpy(model(ids)).astype("float32")
    if policy == "mixed_bfloat16":
        with pytest.raises(ValueError, match="Embedding.*rounds large ids.*dtype='int32'"):
            kt.to_functional(model)
        copy = kt.to_functional(model, keras.Input((2,), dtype="int32"))
    else:
        copy = kt.to_functional(model)
    actual = to_numpy(copy(ids)).astype("float32")
    np.testing.assert_allclose(actual, expected, rtol=1e-2, atol=1e-3)  # of bfloat16


def test_a_model_that_is_not_built():
    with pytest.raises(ValueError, match="Model 'net.*' is not built.*Call it once"):
        kt.to_functional(Net(3))


@pytest.mark.parametrize("value", [None, "model", layers.Dense(3)])
def test_no_model(value):
    with pytest.raises(ValueError, match="must be a Functional or Sequential one, or a subclass"):
        kt.to_functional(value)


def test_one_weight_in_two_layers():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(6)

        def call(self, x):
            return ops.matmul(self.dense(x), ops.transpose(self.dense.kernel))

    model = Net()
    model(np.ones((1, 4)))
    with pytest.raises(ValueError, match="have the same weight"):
        kt.to_functional(model)
    kt.to_functional(tokens(Tied(), Perceptron(8, 8)))  # the layer that has both stays whole


def test_an_incomplete_layer_in_what_cannot_be_opened():
    class Doubled(Perceptron):
        def call(self, x, training=None):
            return 2 * super().call(x) if training else super().call(x)

    model = tokens(Doubled(8, 8, first=IDPDense, name="block"))
    with pytest.raises(ValueError, match="contains the IDP layer 'dense'.*depends on `training`"):
        kt.TESLA(model, [100, 50])
