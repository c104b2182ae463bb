"""Files from somewhere: nothing in them is run, and what does not fit is refused."""

import json
import pickle
import shutil

import keras
import numpy as np
import pytest

import keras_tesla as kt
from keras_tesla.layers import IDPDense
from keras_tesla.tflite.files import archive, reading
from tests.tflite import forging

pytestmark = pytest.mark.tensorflow


def tesla(*extra):
    layers = [keras.Input((6,), name="x"), keras.layers.Dense(8, activation="relu"), *extra]
    return kt.TESLA(keras.Sequential([*layers, IDPDense(3, name="logits")]), [100, 50])


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    out = tmp_path_factory.mktemp("untrusted") / "out"
    kt.tflite.export(tesla(), out, mode="percentage_input")
    return out


@pytest.fixture
def out(exported, tmp_path):
    """A copy of an export that a test may change."""
    return shutil.copytree(exported, tmp_path / "out")


def test_a_function_in_a_keras_file_is_not_run_unasked(tmp_path):
    path = tmp_path / "tesla.keras"
    tesla(keras.layers.Lambda(lambda x: x * 2.0)).save(path)
    with pytest.raises(ValueError, match="safe_mode"):
        keras.saving.load_model(path)
    assert keras.saving.load_model(path, safe_mode=False).percentages == (100, 50)


class Unpickled(Exception):
    pass


@pytest.fixture
def no_pickle(monkeypatch):
    """Everything that unpickles raises; NumPy does it for arrays of objects only if told to."""

    def refuse(*arguments, **kwargs):
        raise Unpickled

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)


def test_the_check_of_pickles_can_fail(no_pickle, tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    with pytest.raises(Unpickled):
        np.load(tmp_path / "objects.npy", allow_pickle=True)


def test_nothing_is_unpickled(no_pickle, exported, tmp_path):
    model = tesla()
    model.callback_state = {"Tasks": {"task": np.asarray(1)}}
    model.save(tmp_path / "tesla.keras")
    assert keras.saving.load_model(tmp_path / "tesla.keras").callback_state == {
        "Tasks": {"task": 1}
    }
    bundle = kt.tflite.read(exported)
    run = kt.tflite.load(bundle.path(50))
    assert run(np.zeros((1, 6), "float32"), percentage=50).shape == (1, 3)
    assert kt.tflite.benchmark(exported, runs=1, warmup=0, rounds=1).measurements


@pytest.mark.parametrize(
    "name", ["../other.tflite", "/etc/passwd", "a/b.tflite", "..", ".", "", "a\\b", "C:x", "a\0", 7]
)
def test_a_manifest_does_not_lead_out_of_its_folder(name, out):
    (out.parent / "other.tflite").write_bytes((out / "model.tflite").read_bytes())
    manifest = json.loads((out / "manifest.json").read_text())
    for entry in (*manifest["files"], *manifest["percentages"]):
        entry["file"] = name
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"is not a manifest of an export: a file must be named"):
        kt.tflite.read(out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["percentages"][0].update(file="other.tflite"), "`files` lacks.*other"),
        (lambda m: m["percentages"][0].update(percentage=101), "from 1 to 100"),
        (lambda m: m["percentages"][0].update(percentage=50), "50"),
        (lambda m: m["percentages"].clear(), "at least one"),
        (lambda m: m["files"][0].pop("sha256"), "sha256"),
        (lambda m: m.update(files=None), "is not a manifest"),
        (lambda m: m.pop("mode"), "is not a manifest.*mode"),
        (lambda m: m["percentages"][0].pop("signature"), "is not a manifest.*signature"),
        (lambda m: m["files"][0].update(bytes=1), "not the file that its manifest.*Expected 1 b"),
        (lambda m: m["files"][0].update(sha256="0" * 64), "Expected .* 0000"),
    ],
)
def test_a_manifest_that_does_not_fit_its_files_is_refused(change, message, out):
    manifest = json.loads((out / "manifest.json").read_text())
    change(manifest)
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=message):
        kt.tflite.read(out)


@pytest.mark.parametrize("found", [2, 0, "1", True, None])
def test_a_manifest_of_another_format_is_refused(found, out):
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["format"] == 1
    (out / "manifest.json").write_text(json.dumps({**manifest, "format": found}))
    message = rf"manifest.json' has format {found}; keras_tesla .* reads format 1. Export the model"
    for read in (kt.tflite.read, kt.tflite.benchmark):
        with pytest.raises(kt.tflite.FileError, match=message):
            read(out)


def test_a_file_that_is_not_that_of_the_manifest_is_refused(out):
    content = (out / "model.tflite").read_bytes()
    for other in (content[:-1], content + b"\0", b"", content[:100] + b"?" + content[101:]):
        (out / "model.tflite").write_bytes(other)
        with pytest.raises(kt.tflite.FileError, match=r"tflite' is not the file that its man"):
            kt.tflite.read(out)
    (out / "model.tflite").unlink()
    with pytest.raises(FileNotFoundError, match="model.tflite"):
        kt.tflite.read(out)


@pytest.mark.parametrize(
    "change",
    [
        {"bytes": 1 << 60},  # more memory than there is
        {"bytes": -1},
        {"offset": 1 << 40},
        {"offset": -5},
        {"compressed_bytes": 3},
        {"copies": [[1 << 50, 0, 8]]},
        {"copies": [[0, 0, 1 << 40]]},
        {"copies": [[-8, 0, 8]]},
        {"nested_weights": [[0, 0, 99, 0]]},
        {"copies": "x"},
        {"sha256": 0},
    ],
)
def test_a_recipe_that_was_forged_with_its_digest_is_refused(change, out):
    """A digest that fits proves no origin: what the header asks for is bounded by the file."""
    path = out / "model.tflite"
    content = path.read_bytes()
    header = reading.read_header(content)
    header["percentages"][0]["standalone"].update(change)
    forged = bytearray(forging.with_header(content, header))
    assert forged[archive.DIGITS] == archive.digest(forged)
    path.write_bytes(forged)
    with pytest.raises(kt.tflite.FileError, match="100 % of the file is not what was exported"):
        kt.tflite.load(path)(np.zeros((1, 6), "float32"))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ([], "has format None"),
        ({"format": 99}, "has format 99; keras_tesla .* reads format 1. Export the model again"),
        ({"format": True}, "has format True"),
    ],
)
def test_a_header_that_was_forged_with_its_digest_is_refused(header, message, out):
    path = out / "model.tflite"
    forged = forging.with_header(path.read_bytes(), header)
    path.write_bytes(forged)
    with pytest.raises(kt.tflite.FileError, match=message):
        kt.tflite.load(path)
