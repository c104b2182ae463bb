"""The command `keras-tesla`: its commands, their help, and what they say when something is wrong.

What the tools do is tested in tests/export, tests/examples and tests/release_test.py, where they
run as processes. Most of these run in this process, because every start imports TensorFlow.
"""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_tesla as kt
from keras_tesla.cli.main import main

pytestmark = pytest.mark.tensorflow
COMMANDS = ("convert", "export", "benchmark", "report")


@pytest.fixture
def run(capsys):
    """A function `(*arguments, wrong=False)` that runs the command and returns what it says."""

    def call(*arguments, wrong=False):
        if not wrong:
            main([str(a) for a in arguments])
            return capsys.readouterr().out
        with pytest.raises(SystemExit) as ended:
            main([str(a) for a in arguments])
        assert isinstance(ended.value.code, str)  # Python prints it and ends with 1
        return ended.value.code

    return call


def trained(activation="relu"):
    keras.utils.set_random_seed(1)
    layers = [
        keras.Input((6,), name="x"),
        keras.layers.Dense(20, activation=activation, name="first"),
        keras.layers.Dense(20, activation="relu", name="second"),
        keras.layers.Dense(3, name="logits"),
    ]
    return keras.Sequential(layers, name="mine")


@pytest.fixture
def model(tmp_path):
    trained().save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def test_help_names_every_command_and_every_flag_of_each(run):
    assert run("--help") == run("-h") == run()
    for command in COMMANDS:
        assert f"\n  {command} " in run("--help")
        said = run(command, "--help")
        assert f"keras-tesla {command} " in said
        assert "--[no]overwrite" in said
    assert run("--version") == f"keras_tesla {kt.__version__}\n"


def test_an_unknown_command_is_named_and_the_process_fails():
    done = subprocess.run(
        [sys.executable, "-m", "keras_tesla.cli", "train"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "there is no command 'train'" in done.stderr
    assert "  convert " in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("convert", "--output=o.keras"), "--model"),
        (("export", "--model=m.keras"), "--output_dir"),
        (("report", "one.json"), "--output"),
        (("benchmark",), "Name at least one .tflite file"),
        (("report", "--output=o.html"), "Name at least one JSON file"),
        (("convert", "--bogus"), "Unknown command line flag 'bogus'"),
        (("export", "--model=m", "--output_dir=o", "--mode=fast"), "--mode=fast"),
        (("benchmark", "o", "--percentages=1,a"), "--percentages takes integers. Received: 1,a"),
    ],
)
def test_flags_that_are_missing_or_wrong_are_named_with_the_way_to_help(run, arguments, message):
    said = run(*arguments, wrong=True)
    assert said.startswith(f"keras-tesla {arguments[0]}: ")
    assert message in said
    assert said.endswith(f"Flags: keras-tesla {arguments[0]} --help")


def test_flags_of_one_run_are_not_those_of_the_next(run):
    assert "--runs=0" in run("benchmark", "nothing", "--runs=0", wrong=True)
    assert "No such file" in run("benchmark", "nothing", wrong=True)


def test_convert_writes_a_model_that_computes_the_same_at_100_percent(run, model, tmp_path):
    output = tmp_path / "below" / "tesla.keras"
    printed = run("convert", f"--model={model}", f"--output={output}", "--percentages=100,40")
    assert "IDPDense" in printed  # the report
    assert "Multiply-adds    100 %     40 %" in printed  # the summary
    assert printed.endswith(f"wrote {output}\n")
    tesla = keras.saving.load_model(output)
    assert tesla.percentages == (100, 40)
    x = np.random.default_rng(0).standard_normal((4, 6)).astype("float32")
    # The order of the channels is another one, and so is that of float32 sums.
    np.testing.assert_allclose(tesla.predict(x, verbose=0), trained()(x), atol=1e-5)
    assert [p.name for p in output.parent.iterdir()] == ["tesla.keras"]


def test_convert_leaves_layers_and_their_order_alone_if_told_to(run, model, tmp_path):
    output = tmp_path / "tesla.keras"
    run("convert", f"--model={model}", f"--output={output}", "--noorder_channels", "--skip=second")
    network = keras.saving.load_model(output).network
    assert [
        type(layer).__name__ for layer in network.layers if "Dense" in type(layer).__name__
    ] == [
        "Dense",
        "Dense",
        "IDPDense",
    ]
    for ours, theirs in zip(network.get_weights(), trained().get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--output=o.h5",), "--output must end in .keras. Received: o.h5"),
        (("--output=there.keras",), "there.keras' already exists"),
        (("--output=o.keras", "--percentages=50"), "100"),
        (("--output=o.keras", "--percentages=100,0"), "from 1 to 100"),
        (("--output=o.keras", "--skip=third"), "third"),
        (("--output=o.keras", "--profile=steep"), "steep"),
        (("--output=o.keras", "--model=missing.keras"), "missing.keras"),
        (("--output=o.keras", "--model=there.keras"), "there.keras"),
        (("--output=o.keras", "--model=tesla.keras"), "is already a TESLA model"),
        (("--output=o.keras", "--model=lambda.keras"), "safe_mode"),
    ],
)
def test_convert_says_what_is_wrong_and_writes_nothing(
    run, model, tmp_path, monkeypatch, flags, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.keras").write_text("mine")
    kt.TESLA(kt.to_idp(trained()), [100, 50]).save("tesla.keras")
    hidden = [keras.Input((6,)), keras.layers.Lambda(lambda x: x * 2.0), keras.layers.Dense(3)]
    keras.Sequential(hidden).save("lambda.keras")
    before = sorted(p.name for p in tmp_path.iterdir())
    said = run("convert", f"--model={model}", *flags, wrong=True)
    assert said.startswith("keras-tesla convert: ")
    assert message in said
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert (tmp_path / "there.keras").read_text() == "mine"


def test_export_is_the_script_of_that_name_and_refuses_other_models(run, model, tmp_path):
    out = f"--output_dir={tmp_path}/out"
    said = run("export", f"--model={model}", out, wrong=True)
    assert "holds a Sequential, not a TESLA model" in said
    run("convert", f"--model={model}", f"--output={tmp_path}/tesla.keras", "--percentages=100,50")
    source = f"--model={tmp_path}/tesla.keras"
    np.savez(tmp_path / "pickled.npz", x=np.array([{}], dtype=object))
    said = run("export", source, out, f"--validation_data={tmp_path}/pickled.npz", wrong=True)
    assert "allow_pickle=False" in said
    assert not (tmp_path / "out").exists()
    printed = run("export", source, out, "--mode=signatures")
    assert [line.split()[0] for line in printed.splitlines()[1:3]] == ["100", "50"]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["mode"] == "signatures"
    assert "already holds an export" in run("export", source, out, wrong=True)
