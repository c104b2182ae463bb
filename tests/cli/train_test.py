"""`keras-tesla train`: what it trains, on which data, with which loss."""

import json
import re

import keras
import numpy as np
import pytest

import keras_tesla as kt
from keras_tesla_cli import losses
from tests.helpers import examples

pytestmark = pytest.mark.tensorflow

X, Y = examples(96)


@pytest.fixture
def here(make, tmp_path, monkeypatch):
    """The current folder, with a converted model and its data."""
    monkeypatch.chdir(tmp_path)
    kt.TESLA(kt.to_idp(make(), [100, 50]), [100, 50]).save("tesla.keras")
    np.savez("xy.npz", x=X, y=Y)
    np.savez("test.npz", x_train=X[:64], y_train=Y[:64], x_test=X[64:], y_test=Y[64:])
    return tmp_path


def table(printed):
    """{percentage: its numbers} of what the command prints."""
    rows = re.findall(r"^ +(\d+)((?: +[\d.]+)+)$", printed, re.M)
    return {int(p): [float(number) for number in numbers.split()] for p, numbers in rows}


def trained_by_hand(x, y, epochs):
    """The same in Python."""
    keras.utils.set_random_seed(0)
    tesla = keras.saving.load_model("tesla.keras")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    tesla.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    tesla.fit(x, y, batch_size=16, epochs=epochs, verbose=0)
    return tesla


FLAGS = ("tesla.keras", "--output=out.keras", "--batch_size=16", "--learning_rate=.01")


@pytest.mark.slow
def test_it_trains_as_the_same_lines_of_python_do(run, here):
    printed = run("train", *FLAGS, "--data=test.npz", "--epochs=3")
    expected = trained_by_hand(X[:64], Y[:64], 3)
    saved = keras.saving.load_model("out.keras")
    for ours, theirs in zip(saved.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    logs = expected.evaluate(X[64:], Y[64:], verbose=0, return_dict=True)
    found = table(printed)
    assert list(found) == [100, 50]
    for p, (loss, accuracy) in found.items():
        # Printed with four and two digits; of batches of another size.
        assert loss == pytest.approx(logs[f"p{p}_loss"], abs=2e-4)
        assert accuracy == pytest.approx(100 * logs[f"p{p}_accuracy"], abs=0.01)
    assert "test, 32 examples" in printed
    assert "loss sparse_categorical_crossentropy (auto) of logits" in printed
    assert printed.count("epoch ") == 3
    assert printed.startswith("percentages: 100,50\n")
    assert max(map(len, printed.splitlines())) <= 80


def test_of_x_and_y_a_tenth_is_kept_apart(run, here):
    printed = run("train", *FLAGS, "--data=xy.npz", "--epochs=1")
    assert "a tenth kept apart, 9 examples" in printed
    # That tenth is not looked at before the end.
    assert re.search(r"loss \d\.\d+, training 100 % 0\.\d+, 50 % 0\.\d+\n", printed)


@pytest.mark.parametrize("measured", [True, False])
def test_statistics_are_those_of_the_trained_weights(run, here, measured):
    """With a momentum of .999 few steps would leave them where they were."""
    widths = [20, 20, 3]
    stack = [
        x
        for n in widths
        for x in (keras.layers.Dense(n), keras.layers.BatchNormalization(momentum=0.999))
    ]
    plain = keras.Sequential([keras.Input((6,)), *stack[:-1]])
    kt.TESLA(kt.to_idp(plain, [100, 50]), [100, 50]).save("tesla.keras")
    flags = ("--batch_size=64", "--data=test.npz", "--epochs=2", "--output=out.keras")
    run("train", "tesla.keras", *flags, f"--recalibrate={measured}")
    tesla = keras.saving.load_model("out.keras")
    (normalization,) = (
        x.name for x in tesla.network.layers if isinstance(x, kt.layers.IDPBatchNormalization)
    )
    for percentage in (100, 50):
        small = tesla.at(percentage)
        layer = small.get_layer(normalization)
        read = keras.Model(small.inputs, layer.input).predict(X[:64], verbose=0)
        close = np.allclose(layer.moving_mean, read.mean(0), atol=1e-4)  # float32, sums of 64
        assert close == measured


@pytest.mark.slow
def test_validation_data_is_read_after_every_epoch_and_test_data_once(run, here):
    np.savez("both.npz", x_train=X, y_train=Y, x_val=X, y_val=Y, x_test=X[:5], y_test=Y[:5])
    printed = run("train", *FLAGS, "--data=both.npz", "--epochs=2")
    assert len(re.findall(r"validation 100 % 0\.\d+, 50 % 0\.\d+", printed)) == 2
    assert "test, 5 examples" in printed


@pytest.mark.slow
def test_percentages_and_distillation_can_be_asked_for(run, here):
    flags = ("--data=xy.npz", "--epochs=1", "--percentages=100,75,25", "--distillation")
    assert list(table(run("train", *FLAGS, *flags))) == [100, 75, 25]
    saved = keras.saving.load_model("out.keras")
    assert saved.percentages == (100, 75, 25)
    assert saved.distillation is not None


def test_a_model_with_incomplete_layers_becomes_a_tesla(run, here, make):
    kt.to_idp(make(), [100, 50]).save("incomplete.keras")
    flags = ("--output=out.keras", "--data=xy.npz", "--epochs=1", "--percentages=100,50")
    run("train", "incomplete.keras", *flags)
    assert isinstance(keras.saving.load_model("out.keras"), kt.TESLA)


def test_rows_of_pixels_are_taken_as_images_and_integers_as_floats(run, here):
    layers = [
        keras.Input((4, 4, 1)),
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.Conv2D(8, 1, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3),
    ]
    kt.TESLA(kt.to_idp(keras.Sequential(layers), [100, 50]), [100, 50]).save("images.keras")
    pixels = np.random.default_rng(0).integers(0, 2, (40, 16), dtype="uint8")
    np.savez("rows.npz", x=pixels, y=pixels[:, 0])
    run("train", "images.keras", "--output=o.keras", "--data=rows.npz", "--epochs=1")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": X}, "must hold x_train and y_train, or x and y. Received: ['x_train']"),
        ({"x": X, "y": Y[:5]}, "must hold a label for each example"),
        ({"x": X[:0], "y": Y[:0]}, "must hold a label for each example"),
        ({"x": X[:1], "y": Y[:1]}, "One example"),
        ({"x": X[:, :5], "y": Y}, "takes examples of shape (6,). Received for train: (5,)"),
        ({"x": X, "y": Y + 1}, "labels are 0..2. Received for"),
        ({"x": X, "y": Y - 1}, "labels are 0..2. Received for"),
        ({"x": X, "y": Y.astype("float32")}, "Expected labels of this shape, or integers"),
    ],
)
def test_data_that_do_not_fit_are_refused(run, here, arrays, message):
    np.savez("wrong.npz", **arrays)
    assert message in run("train", *FLAGS, "--data=wrong.npz", wrong=True)
    assert not (here / "out.keras").exists()


def test_a_plain_model_is_to_be_converted_first(run, here, make):
    make().save("plain.keras")
    said = run("train", "plain.keras", "--output=o.keras", "--data=xy.npz", wrong=True)
    assert "keras-tesla convert plain.keras" in said
    said = run("train", *FLAGS, "--data=xy.npz", "--percentages=0", wrong=True)
    assert "from 1 to 100" in said
    assert "keras-tesla convert" not in said


@pytest.mark.slow
def test_truth_values_and_small_integers_are_labels(run, here, make):
    kt.TESLA(kt.to_idp(make("sigmoid", 1), [100, 50]), [100, 50]).save("binary.keras")
    flags = ("binary.keras", "--output=o.keras", "--epochs=4", "--learning_rate=.01", "--overwrite")
    np.savez("true.npz", x=X, y=X[:, 0] > 0)
    np.savez("ones.npz", x=X.astype("float64"), y=(X[:, 0] > 0).astype("uint8"))
    printed = [run("train", *flags, f"--data={name}.npz") for name in ("true", "ones")]
    assert printed[0] == printed[1]
    assert "loss binary_crossentropy (auto) of probabilities" in printed[0]


def test_several_inputs_or_outputs_are_left_to_python(run, here, make):
    network = make()
    two = keras.Model(network.inputs, [network.outputs[0], network.layers[-2].output])
    kt.TESLA(kt.to_idp(two, [100, 50]), [100, 50]).save("two.keras")
    said = run("train", "two.keras", "--output=o.keras", "--data=xy.npz", wrong=True)
    assert "`tesla.fit` in Python. Received: 1 inputs, 2 outputs" in said


@pytest.mark.slow
def test_a_loss_of_ones_own_is_named_as_it_is_registered(run, here):
    (here / "my_losses.py").write_text(
        "import keras\n"
        "@keras.saving.register_keras_serializable('my')\n"
        "def squares(y, p):\n"
        "    return keras.ops.mean(keras.ops.square(y - p), -1)\n"
    )
    np.savez("numbers.npz", x=X, y=X[:, :3])
    flags = (*FLAGS, "--epochs=1", "--data=numbers.npz")
    named = run("train", *flags, "--custom=my_losses.py", "--loss=my>squares")
    known = run("train", *flags, "--loss=mean_squared_error", "--overwrite")
    assert table(named) == table(known)


def test_numbers_for_an_input_of_integers_are_not_rounded(run, here):
    layers = [
        keras.Input((4,), dtype="int32"),
        keras.layers.Embedding(5, 8),
        keras.layers.Flatten(),
        keras.layers.Dense(8, activation="relu", name="first"),
        keras.layers.Dense(3),
    ]
    model = keras.Sequential(layers)
    kt.TESLA(kt.to_idp(model, [100, 50], skip=["first"]), [100, 50]).save("words.keras")
    np.savez("words.npz", x=np.full((9, 4), 1.5), y=np.zeros(9, "int64"))
    said = run("train", "words.keras", "--output=o.keras", "--data=words.npz", wrong=True)
    assert "The model takes int32. Received for train: float64" in said


def test_a_loss_that_is_not_finite_writes_nothing(run, here):
    np.savez("nan.npz", x=np.full((20, 6), np.nan), y=np.zeros(20, "int64"))
    said = run("train", *FLAGS, "--data=nan.npz", "--epochs=2", wrong=True)
    assert "The loss is not finite; nothing was written" in said
    assert not (here / "out.keras").exists()


HOT = np.eye(3, dtype="float32")[Y]


@pytest.mark.parametrize(
    ("y", "units", "last", "loss", "logits"),
    [
        (Y, 3, "linear", "SparseCategoricalCrossentropy", True),
        (Y, 3, "softmax", "SparseCategoricalCrossentropy", False),
        (Y[:, None], 3, "softmax", "SparseCategoricalCrossentropy", False),
        (HOT, 3, "softmax", "CategoricalCrossentropy", False),
        (HOT, 3, "linear", "CategoricalCrossentropy", True),
        (HOT, 3, "sigmoid", "BinaryCrossentropy", False),
        (Y // 2, 1, "sigmoid", "BinaryCrossentropy", False),
        ((Y // 2)[:, None], 1, "linear", "BinaryCrossentropy", True),
        ((Y // 2).astype("float32"), 1, "sigmoid", "BinaryCrossentropy", False),
        (X[:, 0], 1, "linear", "mean_squared_error", None),
        (X[:, :3], 3, "linear", "mean_squared_error", None),
        (X[:, :3], 3, "relu", "mean_squared_error", None),
    ],
)
def test_the_loss_fits_the_labels_and_the_last_layer(make, y, units, last, loss, logits):
    tesla = kt.TESLA(kt.to_idp(make(last, units), [100, 50]), [100, 50])
    chosen = losses.choose("auto", {"train": y}, tesla)
    name = getattr(chosen.loss, "__name__", type(chosen.loss).__name__)
    assert name == loss
    if logits is not None:
        assert chosen.loss.get_config()["from_logits"] is logits
    # It trains, and what is called accuracy is one.
    tesla.compile("adam", chosen.loss, metrics=chosen.metrics, jit_compile=False)
    logs = tesla.evaluate(X, y, verbose=0, return_dict=True)
    if chosen.metrics:
        scores = tesla.predict(X, verbose=0)
        classes = scores.argmax(-1) if units > 1 else scores[:, 0] > 0.5
        right = classes == (HOT.argmax(-1) if y is HOT else y.ravel())
        if last == "sigmoid" and units > 1:
            right = (scores > 0.5) == y
        assert logs["p100_accuracy"] == pytest.approx(right.mean(), abs=1e-6)


def test_a_loss_that_cannot_be_told_is_asked_for(make):
    tesla = kt.TESLA(kt.to_idp(make("relu"), [100, 50]), [100, 50])
    with pytest.raises(Exception, match="'relu'. If it does: --loss=sparse_categorical_cross"):
        losses.choose("auto", {"train": Y}, tesla)


def test_a_loss_is_chosen_by_its_name(make):
    tesla = kt.TESLA(kt.to_idp(make(), [100, 50]), [100, 50])
    chosen = losses.choose("sparse_categorical_crossentropy", {"train": Y}, tesla)
    assert chosen.loss.get_config()["from_logits"] is True
    other = losses.choose("mean_absolute_error", {"train": X[:, :3]}, tesla)
    assert other.loss is keras.losses.get("mean_absolute_error")
    with pytest.raises(ValueError, match="steep"):
        losses.choose("steep", {"train": Y}, tesla)


@pytest.mark.slow
def test_convert_train_export_from_a_plain_model_to_a_file(run, make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layers = [
        keras.Input((64,)),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dense(10),
    ]
    keras.Sequential(layers).save("mine.keras")
    run("convert", "mine.keras", "--output=tesla.keras", "--percentages=100,50")
    flags = ("--dataset=digits", "--epochs=10", "--output=trained.keras")
    found = table(run("train", "tesla.keras", *flags))
    # Ten classes: 10 % is chance.
    assert all(accuracy > 80 for _, accuracy in found.values())
    digits = kt.data.load("digits").test
    name = keras.saving.load_model("trained.keras").network.inputs[0].name
    np.savez("test.npz", **{name: digits.x.reshape(-1, 64), "labels": digits.y})
    run("export", "trained.keras", "--output_dir=tflite", "--validation_data=test.npz")
    entries = json.loads((tmp_path / "tflite" / "manifest.json").read_text())["percentages"]
    for entry in entries:  # the file is as accurate as what was trained
        assert 100 * entry["accuracy"] == pytest.approx(found[entry["percentage"]][1], abs=0.01)
