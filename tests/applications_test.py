"""The networks of keras.applications: converted, run at every tenth percent, exported, verified."""

import keras
import numpy as np
import pytest

import keras_tesla as kt
from tests.helpers import nightly_after, to_numpy

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

PERCENTAGES = range(100, 0, -10)
# {network: (its arguments, the percentages to export)}: ten files of a large one take minutes.
# The first three are those of a push: depthwise convolutions, residual adds and gates.
NETWORKS = {
    "MobileNet": ({"alpha": 0.25}, PERCENTAGES),
    "MobileNetV2": ({}, (100, 50)),
    "MobileNetV3Small": ({}, (100, 50)),
    "EfficientNetB0": ({}, (100, 50)),
    "ResNet50": ({}, (100, 50)),
    "DenseNet121": ({}, (100, 50)),
    "VGG16": ({}, (100, 50)),
}


def network(name, arguments):
    """A network with random weights of all kinds: statistics and scales that are not 0 or 1."""
    make = getattr(keras.applications, name)
    model = make(weights=None, input_shape=(32, 32, 3), classes=10, **arguments)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.name == "gamma" or "variance" in variable.name:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif variable.name in ("beta", "bias") or "mean" in variable.name:
            variable.assign(rng.normal(size=variable.shape) * 0.1)
    return model


@pytest.mark.parametrize("name", nightly_after(3, NETWORKS))
def test_a_network_of_keras_applications(name, tmp_path):
    arguments, exported = NETWORKS[name]
    model = network(name, arguments)
    converted = kt.to_idp(model, PERCENTAGES)
    x = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype("float32")
    # Probabilities: float32 sums of hundreds of layers, of some of them in another order.
    np.testing.assert_allclose(to_numpy(converted(x)), to_numpy(model(x)), atol=1e-5)
    tesla = kt.TESLA(converted, PERCENTAGES)
    costs = []
    for percentage in PERCENTAGES:
        small = tesla.at(percentage)
        with kt.percentage_scope(percentage):
            expected = converted(x)
        np.testing.assert_allclose(to_numpy(small(x)), to_numpy(expected), atol=1e-5)
        costs.append(kt.analysis.multiply_adds(small))
    assert costs[0] == kt.analysis.multiply_adds(model)
    assert costs == sorted(costs, reverse=True)
    assert costs[5] <= 0.3 * costs[0]  # at 50 %; the ideal is .25
    # Every file is run and compared before it gets its name.
    bundle = kt.tflite.export(tesla, tmp_path / "out", mode="signatures", percentages=exported)
    assert [entry.percentage for entry in bundle.entries] == list(exported)
    assert all(entry.max_abs_difference < 1e-5 for entry in bundle.entries)
