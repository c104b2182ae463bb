"""Unique names, as all that builds models gives them."""

from keras_tesla.names import unique_name


def test_a_name_is_counted_on_from_what_is_taken():
    taken = {"dense", "dense_1"}
    assert unique_name("conv", taken) == "conv"
    assert [unique_name("dense", taken) for _ in range(2)] == ["dense_2", "dense_3"]
    assert taken == {"conv", "dense", "dense_1", "dense_2", "dense_3"}


def test_a_counted_name_is_counted_too():
    assert [unique_name("a_1", {"a", "a_1"}), unique_name("a_1", set())] == ["a_1_1", "a_1"]
