"""Per-percentage export: every file is run and compared, and a folder is written whole or not."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from keras import layers

import keras_tesla as kt
from keras_tesla.layers import IDPBatchNormalization, IDPConv2D, IDPDense
from keras_tesla.tflite import convert, runtime, verify

pytestmark = pytest.mark.tensorflow


def mlp(percentages=(100, 50, 10), units=12):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((7,), name="features"),
            layers.Dense(units, activation="relu"),
            IDPDense(units, activation="relu", profile="linear"),
            IDPDense(3, name="logits"),
        ]
    )
    return kt.TESLA(model, percentages)


def cnn():
    """Convolutions with statistics per percentage, a residual add, and Flatten before a Dense."""
    keras.utils.set_random_seed(0)
    percentages = (100, 60, 25)
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    y = IDPConv2D(8, 3, padding="same", profile="half_exponential")(x)
    y = layers.ReLU()(IDPBatchNormalization(percentages)(y))
    y = layers.MaxPooling2D(2)(layers.Add()([x, y]))
    y = layers.Flatten()(IDPConv2D(6, 3, activation="relu")(y))
    model = keras.Model(inputs, IDPDense(4, input_channels=6, name="logits")(y))
    random = np.random.default_rng(0)
    for weight in model.weights:
        if "moving" in weight.name:
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    return kt.TESLA(model, percentages)


def multi():
    keras.utils.set_random_seed(0)
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    x = layers.Dense(8, activation="relu")(layers.Concatenate()([a, b]))
    x = IDPDense(8, activation="relu")(x)
    outputs = {"u": IDPDense(2, name="u_layer")(x), "v": IDPDense(1, name="v_layer")(x)}
    return kt.TESLA(keras.Model({"a": a, "b": b}, outputs), [100, 50])


@pytest.mark.parametrize("build", [mlp, cnn, multi])
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.slow
def test_every_file_computes_what_keras_computes(build, batch_size, tmp_path):
    tesla = build()
    bundle = kt.tflite.export(tesla, tmp_path / "out", batch_size=batch_size)
    assert [e.percentage for e in bundle.entries] == list(tesla.percentages)
    inputs = verify.example_inputs(tesla.network, 6, seed=1)  # not those it was verified on
    for percentage in tesla.percentages:
        content = bundle.path(percentage).read_bytes()
        got = runtime.run(runtime.interpreter(content), inputs)
        x = inputs if len(inputs) > 1 else next(iter(inputs.values()))
        expected = tesla.at(percentage).predict(x, verbose=0)
        if not isinstance(expected, dict):
            expected = {"logits": expected}
        assert got.keys() == expected.keys()
        for name in expected:
            # float32 sums in another order; the outputs are of the size of 1.
            np.testing.assert_allclose(got[name], expected[name], atol=1e-5)


def test_files_shrink_with_the_percentage_and_hold_builtin_operations_only(tmp_path):
    bundle = kt.tflite.export(mlp(units=64), tmp_path / "out")
    sizes = [bundle.path(p).stat().st_size for p in (100, 50, 10)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[1] < 0.6 * sizes[0]
    for percentage in (100, 50, 10):
        made = runtime.interpreter(bundle.path(percentage).read_bytes(), xnnpack=False)
        operations = {op["op_name"] for op in made._get_ops_details()}
        assert operations == {"FULLY_CONNECTED"}


def test_the_manifest_says_what_was_written(tmp_path):
    tesla = mlp()
    bundle = kt.tflite.export(tesla, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "manifest.json",
        "p10.tflite",
        "p100.tflite",
        "p50.tflite",
    ]
    assert kt.tflite.read(tmp_path / "out") == bundle
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["mode"] == "per_percentage"
    assert manifest["inputs"] == {"features": {"shape": [1, 7], "dtype": "float32"}}
    assert manifest["outputs"] == {"logits": {"shape": [1, 3], "dtype": "float32"}}
    assert {"tensorflow", "keras", "ai-edge-litert", "keras-tesla"} == set(manifest["versions"])
    for file, entry in zip(manifest["files"], manifest["percentages"], strict=True):
        content = (tmp_path / "out" / entry["file"]).read_bytes()
        assert file["file"] == entry["file"]
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
        assert len(content) == file["bytes"] == entry["bytes"]
        assert entry["multiply_adds"] == kt.analysis.multiply_adds(tesla.at(entry["percentage"]))
        assert 0 <= entry["max_abs_difference"] < 1e-5
    with pytest.raises(KeyError, match="30 % is not in this export"):
        bundle.path(30)


class Mixed(layers.Layer):
    """A layer of the user's: nobody knows what it multiplies."""

    def call(self, x):
        return keras.ops.matmul(x, keras.ops.ones((12, 12)))

    def compute_mask(self, inputs, previous_mask=None):
        return previous_mask  # a layer that decides on masks is not opened


@pytest.mark.parametrize("mode", ["per_percentage", "percentage_input"])
def test_header_and_manifest_name_the_layers_that_are_not_counted(mode, tmp_path):
    x = keras.Input((7,), name="features")
    y = Mixed(name="own")(layers.Dense(12, activation="relu")(x))
    tesla = kt.TESLA(keras.Model(x, IDPDense(3, name="logits")(y)), [100, 50])
    bundle = kt.tflite.export(tesla, tmp_path / "out", mode=mode)
    assert [entry.not_counted for entry in bundle.entries] == [["own"], ["own"]]
    assert [entry.multiply_adds for entry in bundle.entries] == [7 * 12 + 12 * 3, 7 * 12 + 6 * 3]
    assert kt.tflite.read(tmp_path / "out") == bundle
    model = kt.tflite.load(tmp_path / "out")
    assert [entry["not_counted"] for entry in model.header["percentages"]] == [["own"], ["own"]]
    assert "without the multiply-adds of 'own'" in model.describe()


def test_where_all_layers_are_counted_the_manifest_has_no_such_key(tmp_path):
    bundle = kt.tflite.export(mlp(), tmp_path / "out")
    assert "not_counted" not in (tmp_path / "out" / "manifest.json").read_text()
    assert "without the multiply-adds" not in kt.tflite.load(bundle.path(100)).describe()


def test_a_part_of_the_percentages_and_own_inputs(tmp_path):
    x = np.random.default_rng(0).standard_normal((5, 7))
    bundle = kt.tflite.export(mlp(), tmp_path / "out", percentages=[50], batch_size=2, inputs=x)
    assert [e.file for e in bundle.entries] == ["p50.tflite"]


def test_a_network_in_mixed_precision_becomes_a_float32_file(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        tesla = mlp()
    finally:
        keras.config.set_dtype_policy("float32")
    bundle = kt.tflite.export(tesla, tmp_path / "out")
    details = runtime.interpreter(bundle.path(50).read_bytes()).get_tensor_details()
    assert {d["dtype"] for d in details if d["shape"].size} == {np.float32}


def test_a_latency_is_a_time():
    tesla = mlp()
    content = convert.convert(tesla.at(50))
    inputs = verify.example_inputs(tesla.network, 1)
    assert 0 < runtime.latency(runtime.interpreter(content), inputs, runs=5) < 1


# What is refused, and what is left behind then.


def test_an_export_is_not_overwritten_unasked(tmp_path):
    out = tmp_path / "out"
    kt.tflite.export(mlp(), out)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    with pytest.raises(FileExistsError, match="overwrite=True"):
        kt.tflite.export(mlp(), out)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    bundle = kt.tflite.export(mlp(percentages=(100, 50)), out, overwrite=True)
    assert kt.tflite.read(out) == bundle
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    kt.tflite.export(mlp(), tmp_path / "other")
    assert (tmp_path / "other" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"mode": "one_file"}, "`mode` must be one of"),
        ({"percentages": []}, "at least one"),
        ({"percentages": [50.0]}, "integer"),
        ({"percentages": [30]}, r"does not have \[30\] %"),
        ({"batch_size": 0}, "`batch_size` must be a positive integer"),
        ({"batch_size": True}, "`batch_size` must be a positive integer"),
        (
            {"inputs": {"other": np.zeros((4, 7))}},
            r"\['features'\]. Received: \['other'\]",
        ),
        ({"inputs": np.zeros((4, 8))}, r"examples of shape \(7,\)"),
        ({"inputs": np.zeros((0, 7))}, "at least 1 examples"),
    ],
)
def test_arguments_that_do_not_fit_write_nothing(kwargs, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        kt.tflite.export(mlp(), tmp_path / "out", **kwargs)
    assert list(tmp_path.iterdir()) == []


def test_another_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="takes a keras_tesla.TESLA model"):
        kt.tflite.export(mlp().network, tmp_path / "out")


def test_an_unknown_dimension_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((None, 4)), IDPDense(3)])
    with pytest.raises(ValueError, match="every dimension but"):
        kt.tflite.export(kt.TESLA(model), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(NotADirectoryError, match="is a file"):
        kt.tflite.export(mlp(), tmp_path / "out")
    with pytest.raises(OSError, match="out"):
        kt.tflite.export(mlp(), tmp_path / "out" / "below")
    assert (tmp_path / "out").read_text() == "a file"


def test_an_output_folder_that_is_not_writable_is_refused(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    # Tests may run as root, whom file modes do not stop.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="not writable"):
        kt.tflite.export(mlp(), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    import pathlib

    written, write = [], pathlib.Path.write_bytes

    def write_bytes(self, content):
        if not self.name.startswith("p"):  # what CompiledModel is given, elsewhere
            return write(self, content)
        if len(written) == 1:
            raise OSError(28, "No space left on device")
        written.append(self)
        return len(content)

    monkeypatch.setattr(pathlib.Path, "write_bytes", write_bytes)
    with pytest.raises(OSError, match="No space left"):
        kt.tflite.export(mlp(), tmp_path / "out")
    assert len(written) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_computes_something_else_is_not_written(tmp_path, monkeypatch):
    class Wrong(convert.Traced):
        def __init__(self, model, *arguments):
            model.set_weights([w + 0.01 for w in model.get_weights()])
            super().__init__(model, *arguments)

    monkeypatch.setattr(convert, "Traced", Wrong)
    with pytest.raises(kt.tflite.VerificationError, match=r"100 %: output 'logits'.*differs"):
        kt.tflite.export(mlp(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_names_and_structures_that_a_file_does_not_take(tmp_path):
    x = keras.Input((4,), name="my input")
    tesla = kt.TESLA(keras.Model(x, IDPDense(2)(layers.Dense(4)(x))), [100, 50])
    with pytest.raises(ValueError, match="Rename input 'my input'"):
        kt.tflite.export(tesla, tmp_path / "out")
    x = keras.Input((4,))
    y = IDPDense(2)(layers.Dense(4)(x))
    tesla = kt.TESLA(keras.Model(x, {"a": {"b": y, "c": y * 2.0}}), [100, 50])
    with pytest.raises(ValueError, match=r"one level of outputs.*\['a'\]"):
        kt.tflite.export(tesla, tmp_path / "out")


def test_rounding_of_large_numbers_that_cancel_out_needs_a_tolerance(tmp_path):
    """Numbers around 1e4 have steps of 0.001, and each sum of them is right to some of these."""
    tesla = kt.TESLA(keras.Sequential([keras.Input((64,)), IDPDense(8, name="y")]), [100])
    random = np.random.default_rng(0)
    kernel = random.standard_normal((64, 8))
    tesla.network.layers[-1].kernel.assign(kernel - kernel.mean(axis=0))  # they cancel out
    inputs = 1e4 + random.standard_normal((16, 64))
    message = r"differs from Keras by 0\.\d+ where the largest .* `tolerance`; it was 1e-05"
    with pytest.raises(kt.tflite.VerificationError, match=message):
        kt.tflite.export(tesla, tmp_path / "out", inputs=inputs)
    assert list(tmp_path.iterdir()) == []
    bundle = kt.tflite.export(tesla, tmp_path / "out", inputs=inputs, tolerance=1e-2)
    assert bundle[100].max_abs_difference > 1e-3


def test_outputs_that_are_nan_are_not_verified(tmp_path):
    tesla = mlp()
    tesla.network.layers[-1].bias.assign([np.nan, 0, 0])
    with pytest.raises(ValueError, match="Keras itself gives NaN or infinite numbers in"):
        kt.tflite.export(tesla, tmp_path / "out")


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.slow
def test_a_kill_in_the_middle_leaves_no_half_export(existing, tmp_path):
    """A process that kills itself before its second file: the folder is as it was."""
    out = tmp_path / "out"
    if existing:
        kt.tflite.export(mlp(), out)
    before = {p.name: p.read_bytes() for p in out.iterdir()} if existing else {}
    code = textwrap.dedent(
        f"""
        import os, pathlib, signal, sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        import export_test, keras_tesla as kt
        write, count = pathlib.Path.write_bytes, [0]
        def killing(self, content):
            if not self.name.startswith("p"):  # what CompiledModel is given, elsewhere
                return write(self, content)
            write(self, content[: len(content) // 2])
            count[0] += 1
            if count[0] == 2:
                os.kill(os.getpid(), signal.SIGKILL)
        pathlib.Path.write_bytes = killing
        kt.tflite.export(export_test.mlp(), {str(out)!r}, overwrite=True)
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    after = {p.name: p.read_bytes() for p in out.iterdir()} if out.exists() else {}
    assert after == before
    kt.tflite.export(mlp(), out, overwrite=True)  # and the next try succeeds


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"percentages": [{}]}', "\x00"])
def test_a_manifest_that_is_none_is_refused(text, tmp_path):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match="is not a manifest"):
        kt.tflite.read(tmp_path)
    with pytest.raises(FileNotFoundError):
        kt.tflite.read(tmp_path / "nothing")
