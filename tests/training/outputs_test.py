"""What is read of a network's outputs, and of the arguments that speak of them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_tesla as kt
from keras_tesla import graph
from keras_tesla.layers import IDPDense
from keras_tesla.training import outputs


class _OwnDense(layers.Dense):
    pass


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (lambda x: layers.Dense(3)(x), "linear"),
        (lambda x: layers.Dense(3, activation="softmax")(x), "softmax"),
        (lambda x: IDPDense(3, activation="sigmoid")(x), "sigmoid"),
        (lambda x: layers.Dense(3, activation="hard_sigmoid")(x), "hard_sigmoid"),
        (lambda x: layers.Dense(3, activation=layers.ReLU())(x), "relu"),
        (lambda x: layers.Conv1D(3, 1, activation="tanh")(x), "tanh"),
        (lambda x: layers.Softmax()(layers.Dense(3)(x)), "softmax"),
        (lambda x: layers.Activation("sigmoid")(layers.Dense(3)(x)), "sigmoid"),
        (lambda x: layers.Activation(layers.Softmax())(layers.Dense(3)(x)), "softmax"),
        (lambda x: ops.softmax(layers.Dense(3)(x)), "softmax"),
        (lambda x: keras.activations.sigmoid(layers.Dense(3)(x)), "sigmoid"),
        (lambda x: layers.Activation("linear", dtype="float32")(ops.softmax(x)), "softmax"),
        (lambda x: layers.TimeDistributed(layers.Dense(3, activation="softmax"))(x), "softmax"),
        (lambda x: layers.Reshape((2, 6))(layers.Dense(3, activation="softmax")(x)), "softmax"),
        (lambda x: layers.GlobalAveragePooling1D()(layers.Dense(3)(x)), "linear"),
        (lambda x: ops.squeeze(layers.Dense(1, activation="sigmoid")(x), -1), "sigmoid"),
        # What cannot be told:
        (lambda x: layers.Dense(3, activation=lambda y: y)(x), None),
        (lambda x: layers.Dense(3, activation=layers.PReLU())(x), None),
        (lambda x: _OwnDense(3, activation="softmax")(x), None),
        (lambda x: layers.LSTM(3, activation="softmax")(x), None),
        (lambda x: layers.Add()([layers.Dense(3)(x), layers.Dense(3)(x)]), None),
        (lambda x: layers.BatchNormalization()(layers.Dense(3)(x)), None),
        (lambda x: layers.Dropout(0.1)(layers.Dense(3, activation="softmax")(x)), None),
        (lambda x: x * 2, None),
        (lambda x: layers.Identity()(x), None),
    ],
)
def test_the_last_activation(last, expected):
    inputs = keras.Input((4, 3))
    (output,) = outputs.read(graph.read(keras.Model(inputs, last(inputs))))
    assert output.activation == expected


def test_the_head_of_a_nested_and_of_an_int8_network():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    inputs = keras.Input((4,))
    model = keras.Model(inputs, inner(IDPDense(4)(inputs)))
    assert outputs.read(graph.read(model))[0].activation == "softmax"
    plain = keras.Sequential(
        [keras.Input((4,)), layers.Dense(8), IDPDense(3, activation="softmax")]
    )
    aware = kt.quantization_aware(plain, [100, 50])
    assert outputs.read(graph.read(aware))[0].activation == "softmax"


def test_names_are_those_of_compile():
    inputs = keras.Input((4,))
    x = layers.Dense(3, name="x", activation="softmax")(inputs)
    y = layers.Dense(2, name="y")(inputs)

    def named(structure, names=("x", "y")):
        model = keras.Model(inputs, structure)
        return [(o.name, o.path, o.units) for o in outputs.read(graph.read(model), names)]

    assert named([x, y]) == [("x", (0,), 3), ("y", (1,), 2)]
    assert named({"q": x, "p": y}) == [("p", ("p",), 2), ("q", ("q",), 3)]
    assert named(y, None) == named([y], None) == [("y", (), 2)]
    sequential = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="only")])
    assert outputs.read(graph.read(sequential))[0].name == "only"


OUTPUTS = [outputs.Output(name, (name,), 1, None) for name in "abc"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("mse", ["mse"] * 3),
        (None, [None] * 3),
        (["mse", None, "mae"], ["mse", None, "mae"]),
        ({"c": "mse", "a": "mae"}, ["mae", None, "mse"]),
        ({"x": {"y": "mse", "z": "mae"}, "y": ["bce"]}, ["mse", "mae", "bce"]),
    ],
)
def test_a_value_for_each_output(value, expected):
    assert outputs.assign(value, OUTPUTS, "loss") == expected


@pytest.mark.parametrize("value", [["mse"], ["mse"] * 4, {"d": "mse"}, dict.fromkeys("def", "mse")])
def test_values_whose_outputs_cannot_be_told(value):
    with pytest.raises(ValueError, match="`loss` must have one value for each output, ..a., .b., "):
        outputs.assign(value, OUTPUTS, "loss")


@pytest.mark.parametrize("structure", ["dict", "list"])
@pytest.mark.parametrize(
    ("losses", "weights", "expected"),
    [
        ({"x": "mse", "y": "mae"}, {"x": 2.0, "y": 3.0}, (2.0, 3.0)),
        ({"x": "mse", "y": "mae"}, [2.0, 3.0], (2.0, 3.0)),
        ({"x": "mse", "y": "mae"}, None, (1.0, 1.0)),
        (["mse", "mae"], [2.0, 3.0], (2.0, 3.0)),
    ],
)
def test_loss_weights_are_read_as_keras_reads_them(structure, losses, weights, expected):
    inputs = keras.Input((4,))
    x, y = layers.Dense(3, name="x")(inputs), layers.Dense(2, name="y")(inputs)
    model = keras.Model(inputs, {"x": x, "y": y} if structure == "dict" else [x, y])
    found = outputs.read(graph.read(model), model.output_names)
    of_outputs = outputs.assign(losses, found, "loss")
    assert outputs.loss_weights(weights, of_outputs, found) == list(expected)
    model.compile("sgd", losses, weights)
    data = np.ones((8, 4)), [np.ones((8, 3)), np.ones((8, 2))]
    if structure == "dict":
        data = data[0], dict(zip("xy", data[1], strict=True))
    loss = model.evaluate(*data, verbose=0, return_dict=True)
    by_weights = expected[0] * loss["x_loss"] + expected[1] * loss["y_loss"]
    assert loss["loss"] == pytest.approx(by_weights, rel=1e-5)
