"""The prefix sum over several percentages: what each percentage computes by itself."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_tesla import TESLA, percentage_scope
from keras_tesla.layers import IDPDense
from keras_tesla.narrowing import prefix_sum

to_numpy = keras.ops.convert_to_numpy
PERCENTAGES = (100, 60, 50, 20)
OWN = {"percentages": PERCENTAGES}
KINDS = [
    {},
    {"profile": "linear", "trainable_profile": True},
    {"private_bias": True, **OWN},
    {"private_profile": True, **OWN},
    {"private_profile": True, "use_bias": False, **OWN},
    {"private_profile": True, "private_bias": True, "profile": "linear", **OWN},
    {"private_profile": True, "private_bias": True, "complete": True, **OWN},
    {"input_parts": (7, 3), "profile": "linear", "trainable_profile": True},
    {"input_parts": (7, 3), "private_profile": True, "private_bias": True, **OWN},
]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=str)


def network(kind, rank=1):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,) * rank)
    x = layers.Dense(10, activation="relu")(inputs)
    x = IDPDense(8, activation="relu", name="summed", **kind)(x)
    model = keras.Model(inputs, IDPDense(2)(x))
    for seed, variable in enumerate(v for v in model.weights if "_p" in v.name):
        variable.assign(np.random.default_rng(seed).normal(size=variable.shape))
    return TESLA(model, PERCENTAGES)


def inputs(rank=1):
    return np.random.default_rng(0).normal(size=(4, *(3,) * rank)).astype("float32")


@each_kind
@pytest.mark.parametrize("active", [PERCENTAGES, (60, 20), (50,)])
@pytest.mark.parametrize("rank", [1, 2])
def test_it_computes_what_each_percentage_computes_alone(kind, active, rank, monkeypatch):
    tesla = network(kind, rank)
    summed = []
    call = prefix_sum._PrefixSum.call
    monkeypatch.setattr(
        prefix_sum._PrefixSum, "call", lambda self, x: summed.append(self) or call(self, x)
    )
    tesla.activate(active)
    together = tesla(inputs(rank))
    assert len(summed) == (len(active) > 1)
    for percentage in active:
        expected = to_numpy(tesla.at(percentage)(inputs(rank)))
        # float32 sums in another order.
        actual = to_numpy(together[f"p{percentage}"])
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_percentages_that_read_as_many_terms():
    inputs_ = keras.Input((3,))
    model = keras.Model(inputs_, IDPDense(2)(layers.Dense(1)(inputs_)))
    tesla = TESLA(model, PERCENTAGES)
    expected = to_numpy(model(inputs()))
    for actual in tesla(inputs()).values():
        np.testing.assert_allclose(to_numpy(actual), expected, rtol=1e-5)  # float32


@each_kind
def test_its_gradients_are_the_sum_of_those_of_each_percentage_alone(kind, gradients):
    tesla = network(kind)
    variables = tesla.trainable_variables

    def alone():
        total = 0.0
        for percentage in PERCENTAGES:
            with percentage_scope(percentage):
                total = total + keras.ops.sum(tesla.network(inputs())[:, 0])
        return total

    expected = gradients(alone, variables)
    actual = gradients(
        lambda: sum(keras.ops.sum(y[:, 0]) for y in tesla(inputs()).values()), variables
    )
    for variable, a, b in zip(variables, actual, expected, strict=True):
        # Sums of some dozen float32 terms of size 1, in two orders.
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4, err_msg=variable.path)


@keras.saving.register_keras_serializable("running_test")
class Doubled(IDPDense):
    """Computes something else than its class."""

    def call(self, inputs, training=None):
        return 2 * super().call(inputs, training=training)


def test_a_subclass_runs_as_it_is():
    x = keras.Input((3,))
    y = Doubled(8, activation="relu")(layers.Dense(10, activation="relu")(x))
    model = keras.Model(x, IDPDense(2)(y))
    outputs = TESLA(model, PERCENTAGES)(inputs())
    for percentage in PERCENTAGES:
        with percentage_scope(percentage):
            expected = to_numpy(model(inputs()))
        # Float32, summed in another order.
        np.testing.assert_allclose(to_numpy(outputs[f"p{percentage}"]), expected, rtol=1e-4)
