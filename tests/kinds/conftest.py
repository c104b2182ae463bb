"""What the tests of all kinds share."""

import pytest

from tests.kinds.networks import inputs_of, randomized


@pytest.fixture
def check(assert_same_three_ways):
    """A function `(model, percentage=50) -> extracted model` that asserts equal outputs."""

    def run(model, percentage=50):
        return assert_same_three_ways(randomized(model), inputs_of(model), percentage)

    return run
