"""From the losses of the percentages to one loss: hand-computed values and bad input."""

import json
import math

import keras
import pytest

from keras_tesla.training import aggregation

pytestmark = pytest.mark.backend_free

LOSSES = {100: 1.0, 50: 2.0, 10: 4.0}


@keras.saving.register_keras_serializable("keras_tesla_tests")
def largest(losses):
    return max(losses.values())


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        ("sum", 7.0),
        ("exponential", 2.75),  # .5 * (.5 * 1 + .5 * 2) + .5 * 4
        (aggregation.Exponential(0.0), 4.0),  # the narrowest alone
        (aggregation.Exponential(0.9), 0.9 * (0.9 * 1 + 0.1 * 2) + 0.1 * 4),
        ({100: 0.5, 50: 0.25, 10: 0.25}, 2.0),
        ({100: 0, 50: 0, 10: 3}, 12.0),
        ({100: 1, 50: 1, 10: 1, 30: 1000}, 7.0),  # more weights than active percentages
        (largest, 4.0),
    ],
)
def test_values(identifier, expected):
    assert aggregation.get(identifier)(LOSSES) == pytest.approx(expected)


@pytest.mark.parametrize("identifier", ["sum", "exponential", {50: 1.0}])
def test_of_one_loss_is_the_loss(identifier):
    assert aggregation.get(identifier)({50: 3.0}) == 3.0


def test_tensors():
    losses = {p: keras.ops.convert_to_tensor(v) for p, v in LOSSES.items()}
    assert float(aggregation.get("exponential")(losses)) == 2.75


@pytest.mark.parametrize(
    "identifier",
    ["sum", "exponential", aggregation.Exponential(0.1), {100: 0.5, 50: 0.2, 10: 0.3}, largest],
)
def test_round_trip_through_json(identifier):
    original = aggregation.get(identifier)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(original)))
    loaded = keras.saving.deserialize_keras_object(config)
    assert type(loaded) is type(original)
    assert loaded(LOSSES) == original(LOSSES)


def test_a_serialized_aggregation_is_an_identifier():
    config = keras.saving.serialize_keras_object(aggregation.Exponential(0.1))
    assert aggregation.get(config).alpha == 0.1


@pytest.mark.parametrize("bad", [None, 3, "mean", "", [1.0, 2.0], 0.5])
def test_not_an_aggregation(bad):
    with pytest.raises(ValueError, match=r"An aggregation must be 'sum', .* Received: "):
        aggregation.get(bad)


@pytest.mark.parametrize("alpha", [-0.1, 1, 1.0, 1.5, math.nan, math.inf, True, False])
def test_alpha_out_of_range(alpha):
    with pytest.raises(ValueError, match="`alpha` must be at least 0 and below 1. Received: "):
        aggregation.Exponential(alpha)


@pytest.mark.parametrize("alpha", ["0.5", None])
def test_alpha_is_a_number(alpha):
    with pytest.raises(ValueError, match="`alpha` must be"):
        aggregation.Exponential(alpha)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf, -math.inf])
def test_bad_weights(weight):
    with pytest.raises(ValueError, match=r"must be finite and not negative. Received: weights="):
        aggregation.get({100: 1.0, 50: weight})


@pytest.mark.parametrize("weights", [{55.5: 1.0}, {True: 1.0}, {101: 1.0}, {0: 1.0}])
def test_weights_of_what_is_no_percentage(weights):
    with pytest.raises(ValueError, match="A percentage must be"):
        aggregation.Weighted(weights)


def test_a_percentage_without_a_weight():
    with pytest.raises(ValueError, match=r"No weight is given for \[10\] percent. Received: "):
        aggregation.Weighted({100: 1.0, 50: 1.0})(LOSSES)


def test_the_base_class_does_not_aggregate():
    with pytest.raises(NotImplementedError, match="Aggregation must implement `__call__`"):
        aggregation.Aggregation()(LOSSES)
