"""The percentage in force."""

import threading

import numpy as np
import pytest

from keras_tesla import current_percentage, percentage_scope


def test_outside_of_any_scope_everything_is_complete():
    assert current_percentage() == 100


def test_scopes_nest_and_end():
    with percentage_scope(50):
        assert current_percentage() == 50
        with percentage_scope(np.int64(10)):
            assert current_percentage() == 10
            assert type(current_percentage()) is int
        assert current_percentage() == 50
    assert current_percentage() == 100


def test_a_scope_ends_with_an_exception():
    with pytest.raises(RuntimeError, match="inside"), percentage_scope(50):
        raise RuntimeError("inside")
    assert current_percentage() == 100


def test_a_scope_does_not_reach_into_other_threads():
    seen = []
    with percentage_scope(50):
        thread = threading.Thread(target=lambda: seen.append(current_percentage()))
        thread.start()
        thread.join()
    assert seen == [100]


@pytest.mark.parametrize("bad", [0, 101, 55.5, True, "50", None])
def test_bad_percentages_are_refused_and_change_nothing(bad):
    with pytest.raises(ValueError, match="A percentage must be"), percentage_scope(bad):
        pytest.fail("the scope was opened")
    assert current_percentage() == 100
