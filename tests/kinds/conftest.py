"""What the tests of all kinds share."""

import keras
import numpy as np
import pytest

import keras_tesla as kt
from keras_tesla import graph
from keras_tesla.narrowing import executor, plan
from keras_tesla.narrowing.live import LivePlan
from tests.kinds.networks import inputs_of, randomized


@pytest.fixture
def check(assert_same_three_ways):
    """A function `(model, percentage=50) -> extracted model` that asserts equal outputs."""

    def run(model, percentage=50):
        return assert_same_three_ways(randomized(model), inputs_of(model), percentage)

    return run


@pytest.fixture
def check_gradients(gradients):
    """A function `(model, percentage=50)`: the gradients of the narrowed model, live and scoped.

    Asserts that they are equal and returns {path of a trainable variable: gradient}.
    """

    def run(model, percentage=50):
        randomized(model)
        x, variables = inputs_of(model), model.trainable_variables
        live = LivePlan(plan.narrow(graph.read(model), percentage))

        def loss(outputs):
            return sum(keras.ops.sum(y**2) for y in keras.tree.flatten(outputs))

        def of_live():
            inputs = executor.bind_inputs(live.plan.graph, x)
            values = live.run(inputs, live.plan.steps, add_loss=lambda loss: None)
            return loss(executor.outputs_of(live.plan, values))

        def of_scoped():
            with kt.percentage_scope(percentage):
                return loss(model(x))

        expected, actual = gradients(of_scoped, variables), gradients(of_live, variables)
        for variable, a, e in zip(variables, actual, expected, strict=True):
            # Float32 sums over positions and channels in another order.
            size = max(1.0, float(np.abs(e).max()))
            np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-5 * size, err_msg=variable.path)
        return {v.path: g for v, g in zip(variables, actual, strict=True)}

    return run
