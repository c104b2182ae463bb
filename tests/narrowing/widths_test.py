"""The table of what each layer computes at each percentage."""

import keras
import pytest
from keras import layers

from keras_tesla import graph
from keras_tesla.layers import IDPDense
from keras_tesla.narrowing.widths import table

pytestmark = pytest.mark.backend_free


def rows_of(model, percentages):
    head, rule, *lines = table(graph.read(model), percentages).splitlines()
    assert head.split() == ["Channels", *(text for p in percentages for text in (f"{p}", "%"))]
    assert set(rule) == {"-"}
    return {line.split()[0]: line.split()[1:] for line in lines}


def test_channels_that_are_computed_and_read():
    x = keras.Input((6,))
    y = layers.Dense(10, name="first")(x)
    model = keras.Model(x, IDPDense(3, name="last")(IDPDense(10, name="middle")(y)))
    assert rows_of(model, [100, 50]) == {
        "first": ["10", "5"],
        "middle": ["10", "5>5"],
        "last": ["3", "5>3"],
    }


def test_a_layer_that_is_not_needed_and_one_without_channels():
    x = keras.Input((4, 6))
    y = layers.Dense(4, name="kept")(x)
    both = layers.Concatenate(name="both")([y, layers.Dense(4, name="left")(y)])
    unknown = layers.Softmax(name="unknown")(IDPDense(8, name="reads")(both))
    rows = rows_of(keras.Model(x, unknown), [100, 25])
    assert rows["kept"] == ["4", "2"]  # a quarter of the 8 that are concatenated
    assert rows["left"] == ["4", "-"]
    assert rows["unknown"] == ["all", "all"]


def test_long_names_are_shortened():
    x = keras.Input((6,))
    y = layers.Dense(4, name="a" * 40)(x)
    (first, _) = rows_of(keras.Model(x, IDPDense(3)(y)), [100])
    assert first == "a" * 28 + ".."
