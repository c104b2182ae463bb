"""The backward pass, by hand."""

import keras
import pytest
from keras import layers

from keras_tesla import graph
from keras_tesla.channels import Selection
from keras_tesla.layers import IDPBatchNormalization, IDPConv2D, IDPDense
from keras_tesla.narrowing.plan import narrow

pytestmark = pytest.mark.backend_free


def widths(model, percentage):
    """{layer: (channels read, channels computed)}; None: all of them; an int: the first ones."""
    steps = narrow(graph.read(model), percentage).steps
    return {
        s.call.operation.name: (list(map(short, s.widths.inputs)), short(s.widths.outputs[0]))
        for s in steps
    }


def short(selection):
    if selection is None or selection != Selection.first(len(selection)):
        return selection and selection.indices().tolist()
    return len(selection)


def perceptron():
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(10, activation="relu", name="first"),
            IDPDense(8, activation="relu", name="second"),
            layers.ReLU(name="third"),
            IDPDense(4, name="fourth"),
        ]
    )


@pytest.mark.parametrize(
    ("percentage", "second", "fourth"),
    [(100, 10, 8), (99, 9, 7), (50, 5, 4), (12, 1, 1), (1, 1, 1)],
)
def test_each_layer_computes_what_the_next_one_reads(percentage, second, fourth):
    complete = percentage == 100
    assert widths(perceptron(), percentage) == {
        "first": ([None], None if complete else second),
        "second": ([second], None if complete else fourth),
        "third": ([None if complete else fourth], None if complete else fourth),
        "fourth": ([fourth], None),
    }


def test_what_depends_on_the_percentage_starts_at_the_first_incomplete_layer():
    x = keras.Input((6,))
    y = layers.ReLU(name="before")(layers.Dense(8, name="stem")(x))
    a = layers.Dense(4, name="beside")(y)
    b = layers.ReLU(name="behind")(IDPDense(4, name="incomplete")(y))
    c = IDPBatchNormalization([100, 50], name="own_statistics")(a)
    model = keras.Model(x, layers.Add(name="merged")([b, c]))
    depends = {s.call.operation.name: s.depends for s in narrow(graph.read(model), 50).steps}
    assert depends == {
        "stem": False,
        "before": False,
        "beside": False,
        "incomplete": True,
        "behind": True,
        "own_statistics": True,
        "merged": True,
    }


@pytest.mark.parametrize("percentage", [100, 50])
def test_what_depends_on_the_percentage_does_so_at_every_percentage(percentage):
    """At 50 % nothing reads the incomplete part; what all percentages share is the same all the
    same.
    """
    x = keras.Input((6,))
    a = layers.Dense(4, name="a")(x)
    both = layers.Concatenate(name="both")([a, IDPDense(4, name="b")(a)])
    model = keras.Model(x, IDPDense(2, name="y")(both))
    steps = narrow(graph.read(model), percentage).steps
    depends = {s.call.operation.name for s in steps if s.depends}
    assert depends == ({"b", "both", "y"} if percentage == 100 else {"both", "y"})


def test_a_subclass_of_a_layer_that_depends_on_the_percentage_does_so():
    class Own(IDPDense):
        pass

    x = keras.Input((6,))
    model = keras.Model(x, layers.ReLU(name="after")(Own(4, name="own")(x)))
    assert all(s.depends for s in narrow(graph.read(model), 50).steps)


def test_what_no_output_needs_is_not_run():
    x = keras.Input((6,))
    a, b = layers.Dense(4, name="a")(x), layers.Dense(4, name="b")(x)
    y = IDPDense(2, name="y")(layers.Concatenate(name="both")([a, b]))
    model = keras.Model(x, y)
    assert widths(model, 50) == {
        "a": ([None], None),
        "both": ([4, 0], 4),
        "y": ([4], None),
    }


def test_grouped_convolution():
    x = keras.Input((4, 4, 6))
    y = layers.Conv2D(8, 1, name="wide")(x)
    model = keras.Model(x, IDPConv2D(4, 1, groups=2, name="grouped")(y))
    assert widths(model, 50) == {"wide": ([None], None), "grouped": ([2], None)}


def test_a_percentage_without_statistics():
    x = keras.Input((6,))
    y = IDPBatchNormalization([100, 50], name="norm")(layers.Dense(4)(x))
    model = keras.Model(x, IDPDense(2)(y))
    message = r"Layer 'norm' has statistics for \[100, 50\] percent. Received: 30"
    with pytest.raises(ValueError, match=message):
        narrow(graph.read(model), 30)
