"""Running narrowed on the weights of the full model: gradients, statistics, losses, inputs."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_tesla import graph, percentage_scope
from keras_tesla.layers import IDPBatchNormalization, IDPConv2D, IDPDense
from keras_tesla.narrowing import executor
from keras_tesla.narrowing.plan import narrow
from keras_tesla.training.view import PercentageView

to_numpy = keras.ops.convert_to_numpy


PRIVATE = {"percentages": [100, 50, 25], "private_bias": True, "private_profile": True}


def network(norm=layers.BatchNormalization, private=None):
    x = keras.Input((4, 4, 3))
    y = norm(momentum=0.5, name="norm")(layers.Conv2D(8, 3, padding="same", use_bias=False)(x))
    y = layers.ReLU()(y)
    own = private or {}
    z = IDPConv2D(8, 3, padding="same", profile="linear", trainable_profile=True, **own)(y)
    y = layers.Flatten()(layers.Add()([y, z]))
    model = keras.Model(x, IDPDense(3, input_channels=8, activation="softmax", **own)(y))
    own = (v for v in model.weights if v.name.startswith(("bias_p", "profile_p")))
    for seed, variable in enumerate(own):
        variable.assign(np.random.default_rng(seed).normal(size=variable.shape))
    return model


def own_statistics(**arguments):
    return IDPBatchNormalization([100, 50], **arguments)


def own_affine(**arguments):
    return own_statistics(private_affine=True, **arguments)


def images(seed=0):
    return np.random.default_rng(seed).normal(size=(5, 4, 4, 3)).astype("float32")


def live(model, percentage):
    """The narrowed model as TESLA trains it."""
    return PercentageView(model, narrow(graph.read(model), percentage))


@pytest.mark.parametrize(
    ("norm", "private"),
    [
        (layers.BatchNormalization, None),
        (own_statistics, None),
        (own_affine, None),
        (own_statistics, PRIVATE),
        (own_statistics, {**PRIVATE, "complete": True}),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_gradients_equal_those_of_the_scoped_model(norm, private, training, gradients):
    model = network(norm, private)
    view = live(model, 50)

    def scoped_loss():
        with percentage_scope(50):
            return keras.ops.sum(model(images(), training=training)[:, 0])

    def live_loss():
        return keras.ops.sum(view(images(), training=training)[:, 0])

    expected = gradients(scoped_loss, model.trainable_variables)
    actual = gradients(live_loss, model.trainable_variables)
    for variable, a, b in zip(model.trainable_variables, actual, expected, strict=True):
        # Sums of up to 80 float32 terms of size 1, in two orders.
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=variable.path)


def test_what_is_not_read_gets_no_gradient(gradients):
    model = network()
    view = live(model, 50)
    found = gradients(lambda: keras.ops.sum(view(images())[:, 0]), model.trainable_variables)
    by_variable = zip(model.trainable_variables, found, strict=True)
    first, second, dense = [g for v, g in by_variable if v.name == "kernel"]
    assert np.any(first[..., :4] != 0)
    assert np.all(first[..., 4:] == 0)
    assert np.any(second[..., :4, :4] != 0)
    assert np.all(second[..., 4:, :] == 0)
    assert np.all(second[..., 4:] == 0)
    positions = dense.reshape(16, 8, 3)
    assert np.any(positions[:, :4] != 0)
    assert np.all(positions[:, 4:] == 0)


def test_moving_statistics_of_what_is_computed_are_updated():
    model, other = network(), network()
    other.set_weights(model.get_weights())
    norm, expected = model.get_layer("norm"), other.get_layer("norm")
    live(model, 50)(images(), training=True)
    with percentage_scope(50):
        other(images(), training=True)
    for name, start in [("moving_mean", 0.0), ("moving_variance", 1.0)]:
        actual = to_numpy(getattr(norm, name))
        # The channels' statistics do not depend on each other.
        np.testing.assert_allclose(
            actual[:4], to_numpy(getattr(expected, name))[:4], rtol=1e-5, atol=1e-6
        )
        assert np.all(actual[:4] != start)
        assert np.all(actual[4:] == start)


def test_statistics_of_a_percentage_are_its_own():
    model = network(own_statistics)
    norm = model.get_layer("norm")
    live(model, 50)(images(), training=True)
    assert np.all(to_numpy(norm.statistics(50)[0])[:4] != 0)
    assert np.all(to_numpy(norm.statistics(50)[0])[4:] == 0)
    assert np.all(to_numpy(norm.statistics(100)[0]) == 0)


@pytest.mark.parametrize("norm", [layers.BatchNormalization, own_statistics])
def test_inference_and_frozen_layers_update_nothing(norm):
    model = network(norm)
    before = model.get_weights()
    live(model, 50)(images(), training=False)
    model.get_layer("norm").trainable = False
    live(model, 50)(images(), training=True)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_weights_are_those_of_now():
    model = network()
    view = live(model, 50)
    before = to_numpy(view(images()))
    for variable in model.trainable_variables:
        variable.assign(variable * 0.5)
    with percentage_scope(50):
        expected = to_numpy(model(images()))
    after = to_numpy(view(images()))
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)  # sums in another order


def test_narrowed_layers_have_no_weights_of_their_own(monkeypatch):
    given = []
    monkeypatch.setattr(keras.Variable, "_deferred_initialize", lambda x: given.append(x.path))
    live(network(), 50)(images())
    assert not given


def test_activity_losses_of_narrowed_layers_are_handed_on():
    x = keras.Input((6,))
    y = layers.Dense(8, name="first")(x)
    y = IDPDense(4, activity_regularizer="l1", name="second")(y)
    model = keras.Model(x, IDPDense(2, activity_regularizer="l2", name="third")(y))
    values = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    with percentage_scope(50):
        model(values)
    expected = [to_numpy(model.get_layer(name).losses[0]).item() for name in ("second", "third")]
    live_plan, found = live(model, 50).live, []
    bound = executor.bind_inputs(live_plan.plan.graph, values)
    live_plan.run(bound, live_plan.plan.steps, found.append)
    assert [to_numpy(v).item() for v in found] == pytest.approx(expected, rel=1e-5)  # float32


@pytest.mark.parametrize("layer", [layers.Dropout, layers.GaussianNoise])
def test_layers_are_told_of_training_as_in_a_functional_model(layer):
    x = keras.Input((6,))
    model = keras.Model(x, IDPDense(2)(layer(0.5)(layers.Dense(8)(x))))
    view, values = live(model, 50), np.ones((3, 6), "float32")
    inference = to_numpy(view(values, training=False))
    assert np.any(to_numpy(view(values, training=True)) != inference)
    np.testing.assert_array_equal(to_numpy(view(values)), inference)


# Inputs.


def two_inputs(structure):
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    y = IDPDense(2)(layers.Concatenate()([a, b]))
    return graph.read(keras.Model({"dict": {"a": a, "b": b}, "list": [a, b]}[structure], y))


A, B = np.full((1, 2), 1.0, "float32"), np.full((1, 3), 2.0, "float32")


@pytest.mark.parametrize(
    ("structure", "inputs"),
    [("list", [A, B]), ("list", {"b": B, "a": A}), ("dict", {"b": B, "a": A})],
)
def test_inputs_are_bound_in_order_or_by_name(structure, inputs):
    read = two_inputs(structure)
    first, second = graph.tensors(read.inputs)
    bound = executor.bind_inputs(read, inputs)
    for tensor, expected in [(first, A), (second, B)]:
        value, width = bound[tensor.index]
        assert width is None  # all of it
        np.testing.assert_array_equal(to_numpy(value), expected)


@pytest.mark.parametrize("structure", ["list", "dict"])
def test_too_few_inputs(structure):
    message = (
        r"The model takes (2 inputs. Received: 1|the inputs \['a', 'b'\]; \['b'\] are missing)"
    )
    with pytest.raises(ValueError, match=message):
        executor.bind_inputs(two_inputs(structure), {"a": A})


def test_too_many_inputs():
    with pytest.raises(ValueError, match="The model takes 2 inputs. Received: 3"):
        executor.bind_inputs(two_inputs("list"), [A, B, B])
