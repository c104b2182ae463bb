"""Profiles: hand-computed coefficients, what is refused, and the way through a file."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_tesla import profiles

E = math.e


@keras.saving.register_keras_serializable("keras_tesla_tests")
def halved(terms):
    return np.full(terms, 0.5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("all_one", [1, 1, 1, 1, 1]),
        ("harmonic", [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]),
        ("linear", [1, 4 / 5, 3 / 5, 2 / 5, 1 / 5]),
        ("exponential", [1, 1 / E, E**-2, E**-3, E**-4]),
        ("half_exponential", [1, 1, 1, 1 / E, E**-2]),
        ("half_exponential", [1, 1, 1, 1 / E]),
        ("step", [1, 1, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25]),
        ("impulse", [1, 1, 1, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]),
        ("all_one", [1]),
        ("harmonic", [1]),
        ("linear", [1]),
        ("exponential", [1]),
        ("half_exponential", [1]),
    ],
)
def test_named_profiles(name, expected):
    values = profiles.get(name)(len(expected))
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected, rtol=1e-6)  # float32 has seven digits


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (profiles.Step((1.0, 0.5)), [1, 1, 0.5, 0.5]),
        (profiles.Step((1.0, 0.5)), [1, 1, 0.5, 0.5, 0.5]),  # 2.5 terms are rounded to even
        (profiles.Step((3, 2, 1)), [3, 3, 3, 2, 2, 2, 1, 1, 1]),
        (profiles.Step((1, 0), (0.75, 0.25)), [1, 1, 1, 0]),
        (profiles.Step((1.0, 0.2), (0.3, 0.7)), [1, 1, 1, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]),
        (profiles.Step((0.5,)), [0.5, 0.5]),
        (profiles.Step(), [0.5]),  # fewer terms than runs: runs are left out
    ],
)
def test_step(step, expected):
    np.testing.assert_array_equal(step(len(expected)), np.asarray(expected, "float32"))


@pytest.mark.parametrize("values", [[1.0, 0.5, 0.5], (1, 0.5, 0.5), np.array([1, 0.5, 0.5])])
def test_array(values):
    profile = profiles.get(values)
    assert isinstance(profile, profiles.Array)
    np.testing.assert_array_equal(profile(3), [1.0, 0.5, 0.5])


def test_coefficients_may_be_negative():
    np.testing.assert_array_equal(profiles.get([1.0, 0.0, -1.0])(3), [1, 0, -1])


def test_function():
    profile = profiles.get(halved)
    assert isinstance(profile, profiles.Function)
    np.testing.assert_array_equal(profile(3), [0.5, 0.5, 0.5])
    assert repr(profile) == "Function('halved')"


def test_a_subclass_of_profile_is_checked_like_the_others():
    class Upwards(profiles.Profile):
        def coefficients(self, terms):
            return np.arange(terms)

    with pytest.raises(ValueError, match=r"must not increase.*Upwards\(\)"):
        Upwards()(3)


def test_the_base_class_has_no_coefficients():
    with pytest.raises(NotImplementedError, match="Profile must implement `coefficients`"):
        profiles.Profile()(3)


def test_a_profile_is_itself():
    linear = profiles.Linear()
    assert profiles.get(linear) is linear


@pytest.mark.parametrize(
    "identifier",
    [
        *("all_one harmonic linear half_exponential step impulse".split()),
        pytest.param("exponential"),
        profiles.Step((1.0, 0.5), (0.9, 0.1)),
        [1.0, 0.9, 0.5, 0.2, 0.1, 0.0],
        halved,
    ],
)
def test_round_trip(identifier):
    profile = profiles.get(identifier)
    config = profiles.serialize(profile)
    for loaded in (profiles.get(config), keras.saving.deserialize_keras_object(config)):
        assert type(loaded) is type(profile)
        assert repr(loaded) == repr(profile)
        np.testing.assert_array_equal(loaded(6), profile(6))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5, 1.0], r"must not increase.* with 0.5 before 1.0 at index 0"),
        ([1.0, 0.2, 0.3], r"must not increase.* with 0.2.* before 0.3.* at index 1"),
        ([1.0, math.nan], r"must be finite. Received: Array\(values=\[1.0, nan\]\)"),
        ([math.inf, 1.0], "must be finite"),
        ([1.0, -math.inf], "must be finite"),
    ],
)
def test_bad_coefficients(values, message):
    with pytest.raises(ValueError, match=message):
        profiles.get(values)


@pytest.mark.parametrize("values", [[0.5, 1.0], [1.0, math.nan], [math.inf, 1.0]])
def test_a_function_is_checked_when_the_number_of_terms_is_known(values):
    profile = profiles.get(lambda terms: values)
    with pytest.raises(ValueError, match="Profile coefficients must .* Function"):
        profile(2)


@pytest.mark.parametrize("profile", [[1.0, 1.0], lambda terms: 1.0, lambda terms: np.ones((3, 1))])
def test_wrong_length(profile):
    message = r"A profile for 3 terms must have shape \(3,\). Received: .* with shape \("
    with pytest.raises(ValueError, match=message):
        profiles.get(profile)(3)


def test_coefficients_have_one_axis():
    with pytest.raises(ValueError, match="shape"):
        profiles.get([[1.0, 0.5], [0.4, 0.3]])


def test_unknown_name():
    with pytest.raises(ValueError, match=r"Unknown profile.*'all_one'.*Received: 'al_one'"):
        profiles.get("al_one")


@pytest.mark.parametrize("bad", [None, 1, 0.5])
def test_not_a_profile(bad):
    with pytest.raises(ValueError, match="A profile must be a name, a `Profile`, an array"):
        profiles.get(bad)


@pytest.mark.parametrize(
    ("values", "fractions"),
    [
        ((1.0, 0.5), (0.5,)),
        ((1.0, 0.5), (0.5, 0.6)),
        ((1.0, 0.5), (1.0, 0.0)),
        ((1.0, 0.5), (1.5, -0.5)),
        pytest.param((), None),
        pytest.param((1.0, 0.5), (math.nan, 0.5)),
    ],
)
def test_step_with_bad_fractions(values, fractions):
    with pytest.raises(ValueError, match="`fractions` must hold one positive share"):
        profiles.Step(values, fractions)


@given(
    hnp.arrays("float32", st.integers(1, 30), elements=st.floats(-5, 5, width=32)),
)
def test_non_increasing_is_the_running_minimum(w):
    projected = keras.ops.convert_to_numpy(profiles.NonIncreasing()(w))
    np.testing.assert_array_equal(projected, np.minimum.accumulate(w))


def test_non_increasing_round_trip():
    config = keras.constraints.serialize(profiles.NonIncreasing())
    assert isinstance(keras.constraints.deserialize(config), profiles.NonIncreasing)
