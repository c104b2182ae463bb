"""Files of format 1, as `tests/golden/make.py` wrote them once, still give the same outputs."""

import json
import pathlib

import keras
import numpy as np
import pytest

import keras_tesla as kt

FORMAT_1 = pathlib.Path(__file__).parent / "golden" / "format_1"
ARRAYS = np.load(FORMAT_1 / "arrays.npz")
# Of the largest output. float32: sums in another order. int8: two of the 127 steps up to it, since
# another version of LiteRT may round differently.
TOLERANCE = {None: 1e-5, "int8": 2 / 127}
EXPORTS = ("percentage_input_shared", "signatures_plain", "signatures_shared_int8")


def expected(name):
    """{percentage: outputs} that were stored for a file."""
    keys = (key.split("/") for key in ARRAYS)
    return {int(key[1]): ARRAYS["/".join(key)] for key in keys if key[0] == name}


def assert_equal(actual, stored, quantization=None):
    limit = TOLERANCE[quantization] * np.abs(stored).max()
    np.testing.assert_allclose(actual, stored, rtol=0, atol=limit)


def test_a_tesla_model_is_loaded():
    tesla = keras.saving.load_model(FORMAT_1 / "tesla.keras")
    assert isinstance(tesla, kt.TESLA)
    stored = expected("tesla")
    assert tesla.percentages == tuple(stored) == (100, 50)
    for percentage, outputs in stored.items():
        actual = tesla.predict(ARRAYS["images"], percentage=percentage, verbose=0)
        assert_equal(actual, outputs)


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_is_read_and_each_percentage_loaded(name):
    bundle = kt.tflite.read(FORMAT_1 / name)
    stored = expected(name)
    assert [entry.percentage for entry in bundle.entries] == list(stored)
    model = kt.tflite.load(bundle.path(100))
    assert model.percentages == tuple(stored)
    for percentage, outputs in stored.items():
        actual = [model(image[None], percentage) for image in ARRAYS["images"]]
        assert_equal(np.concatenate(actual), outputs, bundle.quantization)


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", EXPORTS)
def test_the_signatures_of_a_file_run(name):
    """As a phone opens it, without the header: the names of signatures, inputs and outputs stay."""
    from keras_tesla.tflite import runtime

    bundle = kt.tflite.read(FORMAT_1 / name)
    made = runtime.interpreter(bundle.path(100).read_bytes())
    for percentage, outputs in expected(name).items():
        inputs = {"image": ARRAYS["images"]}
        actual = runtime.run(made, inputs, f"p{percentage}")["logits"]
        assert_equal(actual, outputs, bundle.quantization)
        if bundle.mode == "percentage_input":
            inputs["percentage"] = np.array([percentage], "int32")
            assert_equal(runtime.run(made, inputs, "serving_default")["logits"], outputs)


@pytest.mark.tensorflow
def test_the_golden_files_use_what_the_format_has():
    """Else they would not hold the readers to it."""
    texts = {name: (FORMAT_1 / name / "manifest.json").read_text() for name in EXPORTS}
    manifests = {name: json.loads(text) for name, text in texts.items()}
    assert {manifest["format"] for manifest in manifests.values()} == {1}
    for name, manifest in manifests.items():
        recipes = [entry["standalone"] for entry in manifest["percentages"]]
        assert any(recipe["copies"] for recipe in recipes)
        assert all(bool(recipe["nested_weights"]) == ("shared" in name) for recipe in recipes)
        assert bool(manifest["nested_layouts"]) == ("shared" in name)
