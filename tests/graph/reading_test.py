"""Reading the calls of a Functional or Sequential model."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_tesla import graph
from keras_tesla.graph import Tensor
from keras_tesla.layers import IDPDense

pytestmark = pytest.mark.backend_free


def operations(model):
    return [call.operation for call in graph.read(model).calls]


def links(model):
    """Each call as (class name, its inputs, its outputs), tensors numbered as they appear."""
    numbers = {}

    def numbered(tensors):
        return [numbers.setdefault(t.index, len(numbers)) for t in tensors]

    read = graph.read(model)
    numbered(graph.tensors(read.inputs))
    return [
        (type(c.operation).__name__, numbered(c.input_tensors), numbered(c.output_tensors))
        for c in read.calls
    ]


def test_sequential():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), IDPDense(2)])
    read = graph.read(model)
    assert [call.operation for call in read.calls] == model.layers
    assert read.layers == model.layers
    assert read.inputs == Tensor(0, (None, 4), "float32")
    assert read.outputs == Tensor(2, (None, 2), "float32")
    first = keras.Model(model.inputs, model.outputs).layers[0]
    assert read.input_names == [first.name]
    assert links(model) == [("Dense", [0], [1]), ("IDPDense", [1], [2])]


def test_functional_with_branches():
    x = keras.Input((4,), name="x")
    a, b = layers.Dense(3)(x), layers.Dense(3)(x)
    model = keras.Model(x, layers.Add()([a, b]))
    assert links(model) == [("Dense", [0], [1]), ("Dense", [0], [2]), ("Add", [1, 2], [3])]
    assert graph.read(model).input_names == ["x"]


def test_operators():
    x = keras.Input((4, 5))
    model = keras.Model(x, (x + 1.0) * x[..., :3][..., -1:])
    names = [type(operation).__name__ for operation in operations(model)]
    assert sorted(names) == ["Add", "GetItem", "GetItem", "Multiply"]
    (add,) = [call for call in graph.read(model).calls if type(call.operation).__name__ == "Add"]
    assert 1.0 in keras.tree.flatten((add.args, add.kwargs))


def test_a_shared_layer_is_two_calls_of_one_layer():
    a, b = keras.Input((4,)), keras.Input((4,))
    dense = layers.Dense(3)
    model = keras.Model([a, b], [dense(a), dense(b)])
    assert operations(model) == [dense, dense]
    assert graph.read(model).layers == [dense]


def test_nested_models_are_inlined():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.ReLU()])
    a = keras.Input((4,))
    middle = keras.Model(a, inner(inner(a)) + a)
    x = keras.Input((4,))
    model = keras.Model(x, IDPDense(2)(middle(x)))
    assert links(model) == [
        ("Dense", [0], [1]),
        ("ReLU", [1], [2]),
        ("Dense", [2], [3]),
        ("ReLU", [3], [4]),
        ("Add", [4, 0], [5]),
        ("IDPDense", [5], [6]),
    ]


def test_nested_model_with_structures():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    inner = keras.Model({"a": a, "b": b}, {"sum": a + b, "difference": a - b})
    x, y = keras.Input((4,)), keras.Input((4,))
    made = inner({"b": y, "a": x})
    model = keras.Model([x, y], [made["difference"], made["sum"]])
    read = graph.read(model)
    by_name = {type(c.operation).__name__: c for c in read.calls}
    assert [t.index for t in by_name["Subtract"].input_tensors] == [0, 1]
    assert read.outputs == [by_name["Subtract"].outputs, by_name["Add"].outputs]


def test_structures_of_inputs_and_outputs():
    image, age = keras.Input((4,), name="image"), keras.Input((1,), name="age", dtype="int32")
    model = keras.Model(
        {"image": image, "age": age},
        {"scores": [IDPDense(2)(image), layers.Dense(3)(image)], "same": image},
    )
    read = graph.read(model)
    assert set(read.inputs) == {"image", "age"}
    assert read.inputs["age"].dtype == "int32"
    assert [t.shape for t in read.outputs["scores"]] == [(None, 2), (None, 3)]
    assert read.outputs["same"] == read.inputs["image"]
    # Names and tensors in the same, flat order.
    flat = keras.tree.flatten(read.inputs)
    assert dict(zip(read.input_names, flat, strict=True)) == read.inputs


def test_the_model_stays_as_it_was():
    dense = layers.Dense(3)
    x = keras.Input((4,))
    model = keras.Model(x, dense(x) + 1.0)
    dense_input, dense_output, output = dense.input, dense.output, model.output
    expected = keras.ops.convert_to_numpy(model(np.ones((2, 4))))
    for _ in range(2):
        graph.read(model)
    assert dense.input is dense_input
    assert dense.output is dense_output
    assert model.output is output
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(model(np.ones((2, 4)))), expected)
    keras.Model(model.input, dense.output)  # features can still be taken out


# Bad input.


class Subclassed(keras.Model):
    def call(self, x):
        return x


class FunctionalWithItsOwnCall(keras.Model):
    def __init__(self):
        x = keras.Input((4,))
        super().__init__(x, IDPDense(2)(x))

    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


class SequentialWithItsOwnCall(keras.Sequential):
    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


@pytest.mark.parametrize(
    "make",
    [
        Subclassed,
        lambda: layers.Dense(3),
        lambda: None,
        lambda: "model.keras",
        pytest.param(FunctionalWithItsOwnCall),
        pytest.param(lambda: SequentialWithItsOwnCall([keras.Input((4,)), IDPDense(2)])),
    ],
)
def test_what_cannot_be_read(make):
    message = r"must be a Functional or Sequential one.*to_functional\(model\).*Received: "
    with pytest.raises(ValueError, match=message):
        graph.read(make())


@pytest.mark.parametrize("stack", [[], [layers.Dense(3)]])
def test_not_built(stack):
    with pytest.raises(ValueError, match="Model 'late' is not built.* `keras.Input`"):
        graph.read(keras.Sequential(stack, name="late"))


def test_a_nested_subclassed_model_is_one_layer():
    x = keras.Input((4,))
    inner = Subclassed()
    assert operations(keras.Model(x, inner(x))) == [inner]


# Running the calls.


def two_readers():
    x = keras.Input((3,))
    y = layers.Dense(4, name="first")(x)
    return keras.Model(x, layers.Add()([y, layers.ReLU()(y)]))


def test_evaluating_the_calls_is_calling_the_model():
    model = two_readers()
    read = graph.read(model)
    x = np.random.default_rng(0).normal(size=(2, 3)).astype("float32")
    (index,) = [t.index for t in graph.tensors(read.inputs)]
    given = {index: keras.ops.convert_to_tensor(x)}
    values = graph.evaluate(read.calls, given)
    actual = keras.tree.flatten(graph.filled(read.outputs, values))[0]
    # The same layers on the same numbers.
    np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (actual, model(x))))
    assert list(given) == [index]


def test_what_is_read_and_computed_may_be_anything():
    """A call reads one tensor twice, each time by its position."""
    x = keras.Input((3,))
    read = graph.read(keras.Model(x, layers.Add()([x, x])))
    (index,) = [t.index for t in graph.tensors(read.inputs)]
    values = graph.evaluate(
        read.calls,
        {index: "x"},
        compute=lambda call, args, kwargs: [args],
        read=lambda call, position, values: f"{values[index]}{position}",
    )
    assert graph.filled(read.outputs, values) == (["x0", "x1"],)
