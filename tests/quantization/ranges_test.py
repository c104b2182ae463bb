"""ActivationRange: int8 rounding within a range that training tracks for each percentage."""

import keras
import numpy as np
import pytest

from keras_tesla import percentage_scope
from keras_tesla.quantization.ranges import ActivationRange

to_numpy = keras.ops.convert_to_numpy


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def rounded(x, low, high):
    """The definition, in float64: 256 values, one of them 0."""
    scale = (high - low) / 255
    zero = np.round(-low / scale)
    return scale * (np.clip(np.round(x / scale), -zero, 255 - zero))


def test_before_training_it_changes_nothing():
    layer = ActivationRange([100, 50])
    x = normal(4, 3)
    np.testing.assert_array_equal(to_numpy(layer(x)), x)


def test_the_first_batch_sets_the_range_and_zero_is_in_it():
    layer = ActivationRange([100])
    x = 2 + np.abs(normal(4, 3))
    layer(x, training=True)
    assert layer.at(100) == (0.0, float(x.max()))


@pytest.mark.parametrize(("low", "high"), [(-1.0, 2.0), (0.0, 6.0), (-3.0, 0.0), (-0.01, 7.3)])
def test_it_rounds_to_256_values_of_which_one_is_zero(low, high):
    layer = ActivationRange(momentum=0.0)
    layer(np.array([low, high], "float32"), training=True)
    x = np.linspace(low - 1, high + 1, 4001, dtype="float32")
    actual = to_numpy(layer(x))
    assert len(np.unique(actual)) == 256
    assert to_numpy(layer(np.zeros(1))).item() == 0
    scale = (high - low) / 255
    expected = rounded(x.astype("float64"), low, high)
    # float32 decides ties otherwise now and then, by one step.
    assert np.mean(np.abs(actual - expected) > 1e-5 * scale + 1e-6) < 0.01
    assert np.abs(actual - expected).max() < 1.01 * scale


def test_the_range_follows_the_batches_at_each_percentage():
    layer = ActivationRange([100, 50, 10], momentum=0.75)
    for batch in ([-1.0, 4.0], [-5.0, 8.0]):
        with percentage_scope(50):
            layer(np.array(batch, "float32"), training=True)
    layer(np.array([1.0, 3.0], "float32"), training=True)
    with percentage_scope(50):
        layer(np.array([-100.0, 100.0], "float32"), training=False)  # inference tracks nothing
    assert layer.at(50) == (-2.0, 5.0)  # by hand: three quarters of the old, one of the new
    assert layer.at(100) == (0.0, 3.0)


def test_one_range_serves_all_percentages_where_none_are_given():
    layer = ActivationRange()
    layer(np.array([0.0, 3.0], "float32"), training=True)
    assert layer.at(7) == layer.at(100) == (0.0, 3.0)


def test_a_frozen_range_stays():
    layer = ActivationRange()
    layer(np.array([0.0, 3.0], "float32"), training=True)
    layer.trainable = False
    layer(np.array([0.0, 9.0], "float32"), training=True)
    assert layer.at(100) == (0.0, 3.0)


def test_gradients_pass_within_the_range(gradients):
    layer = ActivationRange(momentum=0.0)
    layer(np.array([-1.0, 2.0], "float32"), training=True)
    x = keras.Variable(np.array([-1.5, -0.5, 0.3, 1.9, 2.5], "float32"))
    (found,) = gradients(lambda: keras.ops.sum(layer(x.value)), [x])
    np.testing.assert_array_equal(found, [0, 1, 1, 1, 0])


def test_gradients_pass_before_training_too(gradients):
    layer = ActivationRange()
    layer.build((3,))
    x = keras.Variable(np.array([-1.5, 0.0, 2.5], "float32"))
    (found,) = gradients(lambda: keras.ops.sum(layer(x.value)), [x])
    np.testing.assert_array_equal(found, [1, 1, 1])


def test_it_is_saved_and_loaded(tmp_path):
    model = keras.Sequential([keras.Input((3,)), ActivationRange([100, 50], momentum=0.5)])
    model(normal(4, 3), training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()
    assert loaded.layers[-1].at(100) == model.layers[-1].at(100)


def test_a_percentage_without_a_range_is_refused():
    layer = ActivationRange([100, 50])
    with percentage_scope(30), pytest.raises(ValueError, match=r"ranges for \[100, 50\] percent"):
        layer(normal(2, 2))
    with percentage_scope(50):
        layer(normal(2, 2), training=True)
    with pytest.raises(ValueError, match="no range at 100 % yet"):
        layer.at(100)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"percentages": []}, "at least one"),
        ({"percentages": [50.0]}, "integer"),
        ({"momentum": 1.0}, "below 1"),
        ({"momentum": -0.1}, "at least 0"),
        ({"momentum": "slow"}, "`momentum`"),
        ({"momentum": float("nan")}, "`momentum`"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ActivationRange(**kwargs)
