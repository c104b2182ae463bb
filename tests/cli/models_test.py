"""The models that the commands load: with a loss and layers of one's own, and damaged."""

import importlib
import io
import sys
import zipfile

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow

DEFINITIONS = """
import keras

import helping


@keras.saving.register_keras_serializable("{package}")
class Doubled(keras.layers.ReLU):
    def call(self, x):
        return helping.FACTOR * super().call(x)


@keras.saving.register_keras_serializable("{package}")
def bent(x):
    return keras.ops.relu(x) - 0.5
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A function `(package)`: a folder, made the current one, with a model of own classes.

    The file is as another process wrote it: the classes are not known here any more.
    """

    def save(package):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "helping.py").write_text("FACTOR = 2\n")
        (tmp_path / f"{package}.py").write_text(DEFINITIONS.format(package=package))
        monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
        module = importlib.import_module(package)
        inputs = keras.Input((6,))
        x = keras.layers.Dense(20, activation=module.bent)(inputs)
        x = keras.layers.Dense(20)(module.Doubled()(x))
        model = keras.Model(inputs, keras.layers.Dense(3)(x))
        model.save("own.keras")
        for name in ("Doubled", "bent"):
            keras.saving.get_custom_objects().pop(f"{package}>{name}")
        for name in (package, "helping"):
            sys.modules.pop(name)
        monkeypatch.setattr("sys.path", sys.path[1:])
        return model

    return save


def test_a_loss_and_a_metric_of_ones_own_need_not_be_known(run, make, tmp_path):
    def own(y, predicted):
        return keras.ops.mean(keras.ops.square(y - predicted), -1)

    model = make()
    model.compile("adam", own, metrics=[own])
    model.fit(np.ones((8, 6)), np.ones((8, 3)), verbose=0)
    model.save(tmp_path / "m.keras")
    run("convert", tmp_path / "m.keras", f"--output={tmp_path}/t.keras", "--percentages=100,50")
    tesla = keras.saving.load_model(tmp_path / "t.keras")
    tesla.compile("adam", own)
    tesla.save(tmp_path / "compiled.keras")
    run("export", tmp_path / "compiled.keras", f"--output_dir={tmp_path}/out")
    assert (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("spelled", ["{}", "{}.py", "./{}.py"])
def test_classes_of_ones_own_are_imported_from_a_module_or_a_file(run, own, spelled):
    """Also a class that imports what lies beside it."""
    package = f"own_{len(spelled)}"
    model = own(package)
    run("convert", "own.keras", "--output=t.keras", f"--custom={spelled.format(package)}")
    x = np.random.default_rng(0).standard_normal((4, 6)).astype("float32")
    loaded = keras.saving.load_model("t.keras", compile=False)
    # The channels are in another order, and so are float32 sums.
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model(x), atol=1e-5)


def test_a_class_that_is_not_known_is_named_with_the_flag(run, own):
    own("unnamed")
    for command in (
        ("convert", "own.keras", "--output=o.keras"),
        ("train", "own.keras", "--dataset=digits", "--output=o.keras"),
        ("export", "own.keras", "--output_dir=o"),
    ):
        said = run(*command, wrong=True)
        assert "'own.keras' needs 'bent'" in said or "'own.keras' needs 'Doubled'" in said
        assert "--custom=my_layers.py" in said


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("missing.py", "there is no such file"),
        ("missing_module", "ModuleNotFoundError: No module named 'missing_module'"),
        ("broken.py", "SyntaxError"),
        ("raising.py", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named(
    run, make, tmp_path, monkeypatch, given, message
):
    monkeypatch.chdir(tmp_path)
    make().save("m.keras")
    (tmp_path / "broken.py").write_text("class")
    (tmp_path / "raising.py").write_text("1 / 0")
    said = run("convert", "m.keras", "--output=o.keras", f"--custom={given}", wrong=True)
    assert f"--custom={given}" in said
    assert message in said


def test_a_class_that_does_not_take_its_config_is_no_damaged_file(run, tmp_path):
    @keras.saving.register_keras_serializable("wants_more")
    class WantsMore(keras.layers.ReLU):
        @classmethod
        def from_config(cls, config):
            return cls(config["more"])

    keras.Sequential([keras.Input((6,)), WantsMore()]).save(tmp_path / "m.keras")
    said = run("convert", tmp_path / "m.keras", "--output=o.keras", wrong=True)
    assert "cannot be loaded: " in said
    assert "'more'" in said


def damaged(path, how):
    """Damages the file of a model."""
    content = path.read_bytes()
    if how == "other":
        content = b"hello"
    elif how == "empty":
        content = b""
    elif how == "cut":
        content = content[: len(content) // 2]
    elif how == "flipped":
        middle = len(content) // 2
        content = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
    else:
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr("model.weights.h5", b"")
        content = made.getvalue()
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("other", "it is no zip archive, or the end is missing"),
        ("empty", "it is no zip archive, or the end is missing"),
        ("cut", "it is no zip archive, or the end is missing"),
        ("flipped", "Bad CRC-32"),
        ("without a config", "it has no config.json"),
    ],
)
def test_a_damaged_file_is_said_to_be_damaged(run, make, tmp_path, how, message):
    path = tmp_path / "m.keras"
    make().save(path)
    damaged(path, how)
    said = run("convert", path, f"--output={tmp_path}/o.keras", wrong=True)
    assert f"'{path}' is not a whole .keras file: {message}" in said
    assert [p.name for p in tmp_path.iterdir()] == ["m.keras"]


def test_a_folder_is_no_model(run, tmp_path):
    said = run("convert", tmp_path, "--output=o.keras", wrong=True)
    assert "Expected a .keras file. Received the folder" in said
