"""What a file takes: lookups are cut off, open dimensions are given, ids are of the vocabulary."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_tesla as kt
from keras_tesla.layers import IDPDense

pytestmark = pytest.mark.tensorflow
CUT_OFF = "LiteRT has no lookups, hashes and strings, so the file begins after"


def head(x):
    return IDPDense(3, name="y")(layers.Dense(16, activation="relu")(x))


def embedded(ids, count=9):
    return layers.Flatten()(layers.Embedding(count, 4)(ids))


def tesla_of(inputs, outputs):
    return kt.TESLA(keras.Model(inputs, outputs), [100, 50])


def assert_agrees(tesla, bundle, given, of_file):
    """The file computes of its inputs what Keras does of the network's, up to float32 sums."""
    model = kt.tflite.load(bundle.directory)
    for percentage in (100, 50):
        with kt.percentage_scope(percentage):
            expected = ops.convert_to_numpy(tesla.network(given, training=False))
        np.testing.assert_allclose(model(of_file, percentage=percentage), expected, atol=1e-5)


LOOKUPS = {
    "strings": (
        "string",
        lambda x: embedded(layers.StringLookup(vocabulary=["a", "b"], name="lookup")(x)),
        [["b"], ["?"], ["a"]],
    ),
    "strings as one-hot vectors": (
        "string",
        layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot", name="lookup"),
        [["b"], ["?"], ["a"]],
    ),
    "integers": (
        "int64",
        lambda x: embedded(layers.IntegerLookup(vocabulary=[40, 50], name="lookup")(x)),
        [[50], [7], [40]],
    ),
    "hashes": (
        "int64",
        lambda x: embedded(layers.Hashing(6, name="lookup")(x)),
        [[50], [7], [40]],
    ),
    "text": (
        "string",
        lambda x: embedded(
            layers.TextVectorization(
                vocabulary=["a", "b"], output_sequence_length=5, name="lookup"
            )(x)
        ),
        [["a b b"], ["c"], ["b"]],
    ),
    "counted categories": (
        "int32",
        layers.CategoryEncoding(5, output_mode="multi_hot", name="lookup"),
        [[4], [0], [2]],
    ),
    "counted bins": (
        "float32",
        layers.Discretization([0.0, 1.0, 2.0], output_mode="multi_hot", name="lookup"),
        [[-1.0], [0.5], [7.0]],
    ),
}


@pytest.mark.parametrize("kind", LOOKUPS)
def test_what_litert_does_not_have_is_cut_off_and_named(kind, tmp_path):
    dtype, front, given = LOOKUPS[kind]
    x = keras.Input((1,), dtype=dtype, name="x")
    found = front(x)
    tesla = tesla_of(x, head(found))
    with pytest.warns(UserWarning, match=rf"{CUT_OFF} \['lookup'\]: .* 'x' of 'lookup'\. Compute"):
        bundle = kt.tflite.export(tesla, tmp_path / "out")
    assert list(bundle.inputs) == ["x"]
    assert bundle.inputs["x"]["after"] == "lookup"
    assert "after layer 'lookup'" in kt.tflite.load(bundle.directory).describe()
    given = ops.convert_to_tensor(given, dtype=dtype)
    before = keras.Model(tesla.network.input, tesla.network.get_layer("lookup").output)
    of_file = ops.convert_to_numpy(before(given)).astype(bundle.inputs["x"]["dtype"])
    assert_agrees(tesla, bundle, given, of_file)


class Lengths(layers.Layer):
    """A layer of the user's that reads strings."""

    def call(self, x):
        return ops.cast(tf.strings.length(x), "float32")

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, "float32")


def test_an_own_layer_that_reads_strings_is_cut_off(tmp_path):
    """Even where the other inputs have to be positive."""
    x, numbers = keras.Input((1,), dtype="string", name="x"), keras.Input((2,), name="numbers")
    y = layers.Concatenate()([Lengths(name="lengths")(x), ops.log(numbers)])
    tesla = tesla_of([x, numbers], head(y))
    with pytest.warns(UserWarning, match=r"\['lengths'\]"):
        bundle = kt.tflite.export(tesla, tmp_path / "out")
    given = [ops.convert_to_tensor([["ab"], ["abcd"]]), ops.ones((2, 2))]
    of_file = {"x": np.array([[2.0], [4.0]], "float32"), "numbers": np.ones((2, 2), "float32")}
    assert_agrees(tesla, bundle, given, of_file)


@pytest.mark.parametrize(
    "front",
    [
        layers.CategoryEncoding(5, output_mode="one_hot"),
        lambda x: ops.cast(layers.Discretization([1.0, 2.0, 3.0])(x), "float32"),
        layers.Discretization([1.0, 2.0, 3.0], output_mode="one_hot"),
        lambda x: ops.reshape(ops.one_hot(ops.cast(x, "int32"), 5), (-1, 5)),
    ],
)
def test_what_litert_has_stays_in_the_file(front, tmp_path):
    x = keras.Input((1,), name="x")
    tesla = tesla_of(x, head(front(x)))
    bundle = kt.tflite.export(tesla, tmp_path / "out")
    assert "after" not in bundle.inputs["x"]
    given = np.array([[4], [0], [2]], "float32")
    assert_agrees(tesla, bundle, given, given)


def tabular():
    """Inputs of three kinds; one lookup is read twice, one input is not cut off."""
    color = keras.Input((1,), dtype="string", name="color")
    size = keras.Input((1,), dtype="int64", name="size")
    numbers = keras.Input((2,), name="numbers")
    looked_up = layers.StringLookup(vocabulary=["r", "g", "b"], name="colors")(color)
    sizes = layers.IntegerLookup(vocabulary=[36, 38], output_mode="one_hot", name="sizes")(size)
    x = layers.Concatenate()(
        [
            embedded(looked_up),
            layers.Flatten()(layers.Embedding(4, 2)(looked_up)),
            sizes,
            layers.Normalization(mean=[1.0, 2.0], variance=[4.0, 9.0])(numbers),
        ]
    )
    return tesla_of({"color": color, "size": size, "numbers": numbers}, head(x))


GIVEN = {
    "color": np.array([["g"], ["?"], ["b"]]),
    "size": np.array([[38], [36], [1]]),
    "numbers": np.array([[1.0, 2.0], [3.0, -1.0], [0.0, 0.0]], "float32"),
}
# By hand: index 0 is what is not in the vocabulary.
OF_FILE = {
    "color": np.array([[2], [0], [3]]),
    "size": np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], "float32"),
    "numbers": GIVEN["numbers"],
}


@pytest.mark.parametrize("mode", ["per_percentage", "percentage_input"])
def test_some_inputs_of_a_network_are_cut_off_and_others_are_not(mode, tmp_path):
    tesla = tabular()
    labels = np.array([0, 1, 2])
    with pytest.warns(UserWarning, match=r"\['colors', 'sizes'\]"):
        bundle = kt.tflite.export(
            tesla, tmp_path / "out", mode=mode, inputs=GIVEN, validation_data=(GIVEN, labels)
        )
    assert {name: x.get("after") for name, x in bundle.inputs.items()} == {
        "color": "colors",
        "size": "sizes",
        "numbers": None,
    }
    assert bundle.inputs["size"]["shape"] == [1, 3]
    given = {name: ops.convert_to_tensor(x.tolist()) for name, x in GIVEN.items()}
    assert_agrees(tesla, bundle, given, OF_FILE)
    with kt.percentage_scope(50):
        scores = ops.convert_to_numpy(tesla.network(given))
    assert bundle[50].accuracy == pytest.approx(np.mean(scores.argmax(-1) == labels), abs=1e-6)


def test_int8_ranges_are_measured_on_inputs_of_the_network(tmp_path):
    random = np.random.default_rng(0)
    data = {
        "color": random.choice(["r", "g", "b", "?"], (64, 1)),
        "size": random.choice([36, 38, 40], (64, 1)),
        "numbers": random.normal([1, 2], [2, 3], (64, 2)),
    }
    with pytest.warns(UserWarning, match=CUT_OFF):
        bundle = kt.tflite.export(
            tabular(), tmp_path / "out", quantization="int8", representative_data=data
        )
    assert bundle.quantization == "int8"


def test_a_lookup_that_two_names_could_be_given_to_has_its_own(tmp_path):
    """One input, looked up in two ways: the file has two inputs."""
    x = keras.Input((1,), dtype="string", name="x")
    first = layers.StringLookup(vocabulary=["a"], name="first")(x)
    second = layers.StringLookup(vocabulary=["b", "c"], output_mode="one_hot", name="second")(x)
    tesla = tesla_of(x, head(layers.Concatenate()([embedded(first), second])))
    with pytest.warns(UserWarning, match="'first' of 'first', 'second' of 'second'"):
        bundle = kt.tflite.export(tesla, tmp_path / "out")
    assert {name: x["after"] for name, x in bundle.inputs.items()} == {
        "first": "first",
        "second": "second",
    }


def test_a_lookup_beside_its_own_input_has_its_own_name(tmp_path):
    x = keras.Input((1,), dtype="int32", name="x")
    found = layers.IntegerLookup(vocabulary=[5, 7], name="lookup")(x)
    y = head(layers.Concatenate()([embedded(found), ops.cast(x, "float32")]))
    with pytest.warns(UserWarning, match="'lookup' of 'lookup'"):
        bundle = kt.tflite.export(tesla_of(x, y), tmp_path / "out")
    assert set(bundle.inputs) == {"x", "lookup"}


def test_a_lookup_after_a_trainable_layer_is_refused(tmp_path):
    x = keras.Input((4,))
    best = ops.cast(ops.argmax(layers.Dense(5, name="scores")(x), -1, keepdims=True), "int64")
    y = head(embedded(layers.IntegerLookup(vocabulary=[1, 2], name="late")(best)))
    with pytest.raises(ValueError, match="'late', and it comes after the trainable layer 'scores'"):
        kt.tflite.export(tesla_of(x, y), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_text_of_any_length_needs_a_fixed_one(tmp_path):
    x = keras.Input((1,), dtype="string")
    ids = layers.TextVectorization(vocabulary=["a"], name="words")(x)
    y = head(layers.GlobalAveragePooling1D()(layers.Embedding(9, 4)(ids)))
    with pytest.raises(
        ValueError, match=r"'words' gives the shape \(None, None\).*sequence_length"
    ):
        kt.tflite.export(tesla_of(x, y), tmp_path / "out")


@pytest.mark.parametrize("given", [np.ones((2, 1)), [["a"], [3.0]], np.array([[b"\xff"]])])
def test_other_data_than_strings_are_refused(given, tmp_path):
    x = keras.Input((1,), dtype="string", name="x")
    y = head(embedded(layers.StringLookup(vocabulary=["a"])(x)))
    with (
        pytest.warns(UserWarning, match=CUT_OFF),
        pytest.raises(ValueError, match=r"Input 'x' must be an array of strings|can't decode"),
    ):
        kt.tflite.export(tesla_of(x, y), tmp_path / "out", inputs=np.asarray(given, object))


# Dimensions that are not known.


def image_network():
    x = keras.Input((None, None, 3), name="image")
    y = layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    return tesla_of(x, head(layers.GlobalAveragePooling2D()(y)))


@pytest.mark.parametrize("given", [{"image": (9, 7, 3)}, (9, 7, 3), {"image": [9, np.int64(7), 3]}])
def test_open_dimensions_are_given(given, tmp_path):
    tesla = image_network()
    bundle = kt.tflite.export(tesla, tmp_path / "out", mode="signatures", input_shapes=given)
    assert bundle.inputs["image"]["shape"] == [1, 9, 7, 3]
    # By hand: 4 x 3 positions.
    assert bundle[100].multiply_adds == 4 * 3 * 27 * 8 + 8 * 16 + 16 * 3
    x = np.random.default_rng(0).standard_normal((2, 9, 7, 3)).astype("float32")
    assert_agrees(tesla, bundle, x, x)
    assert tesla.network.input.shape == (None, None, None, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, r"dimension but the batch.*`input_shapes`, here such as \{'image': \(64, 64, 3\)\}"),
        ({"picture": (9, 7, 3)}, r"of inputs among \['image'\]\. Received: \{'picture'"),
        ((9, 7), r"fit \(None, None, 3\), where None is open\. Received: \(9, 7\)"),
        ((9, 7, 4), r"Received: \(9, 7, 4\)"),
        ((9, 0, 3), r"Received: \(9, 0, 3\)"),
        ((9, 7.0, 3), r"Received: \(9, 7.0, 3\)"),
        ((9, None, 3), r"Received: \(9, None, 3\)"),
        (9, "Received: 9"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(given, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        kt.tflite.export(image_network(), tmp_path / "out", input_shapes=given)
    assert list(tmp_path.iterdir()) == []


def test_several_inputs_need_names_of_shapes(tmp_path):
    a, b = keras.Input((None, 4), name="a"), keras.Input((3,), name="b")
    x = layers.Concatenate()([layers.GlobalMaxPooling1D()(layers.Conv1D(6, 1)(a)), b])
    tesla = tesla_of([a, b], head(x))
    with pytest.raises(ValueError, match=r"must be a dict .* among \['a', 'b'\]"):
        kt.tflite.export(tesla, tmp_path / "out", input_shapes=(5, 4))
    bundle = kt.tflite.export(tesla, tmp_path / "out", input_shapes={"a": (5, 4)})
    assert [x["shape"] for x in bundle.inputs.values()] == [[1, 5, 4], [1, 3]]
