"""The command `keras-tesla`: its commands, their help, and what they say when something is wrong.

What the tools write is tested in tests/export, tests/examples and tests/release_test.py, too, where
they run as processes.
"""

import dataclasses
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_tesla as kt
from keras_tesla import data
from keras_tesla.tflite import settings
from keras_tesla.tflite.storages import STORAGES
from keras_tesla_cli import export, train

pytestmark = pytest.mark.tensorflow
COMMANDS = ("convert", "train", "export", "benchmark", "report")


def process(*arguments, **variables):
    """Runs the command in a process of its own, without what the tests set for TensorFlow."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env={**environment, **variables},
    )


def test_help_names_every_command_and_every_flag_of_each(run):
    assert run("--help") == run("-h") == run()
    for command in COMMANDS:
        assert f"\n  {command} " in run("--help")
        said = run(command, "--help")
        assert f"keras-tesla {command} " in said
        assert "--[no]overwrite" in said
    assert run("--version") == f"keras_tesla {kt.__version__}\n"


def test_help_versions_and_wrong_flags_come_before_tensorflow_is_imported():
    code = """
import sys
from keras_tesla_cli.main import main
for arguments in (["--help"], ["--version"], ["train", "--help"], ["convert", "--bogus"],
                  ["export", "m.keras"], ["benchmark", "x", "--percentages=a"], ["report"]):
    try:
        main(arguments)
    except SystemExit as ended:
        assert ended.code
print("imported:", {"tensorflow", "keras", "keras_tesla", "numpy"} & set(sys.modules))
"""
    done = process("-c", code)
    assert done.stdout.endswith("imported: set()\n"), done.stderr


def test_choices_of_flags_are_those_of_the_library():
    """They are written again in the command, which does not import the library for its help."""
    assert tuple(export.MODES) == settings.MODES
    assert set(export.STORAGES) == set(STORAGES)
    assert set(train.DATASETS) == set(data.NAMES)


def test_an_unknown_command_is_named_and_the_process_fails():
    done = process("-m", "keras_tesla_cli", "trian")
    assert done.returncode == 1
    assert "there is no command 'trian'" in done.stderr
    assert "  convert " in done.stderr
    assert done.stdout == ""


@pytest.mark.slow
def test_a_run_logs_nothing_of_how_tensorflow_is_set_up(make, tmp_path):
    make().save(tmp_path / "m.keras")
    arguments = ("convert", str(tmp_path / "m.keras"), f"--output={tmp_path}/t.keras")
    done = process("-m", "keras_tesla_cli", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("convert", "--output=o.keras"), "--model"),
        (("convert", "a.keras", "b.keras", "--output=o.keras"), "Name one model"),
        (("export", "--model=m.keras"), "--output_dir"),
        (("report", "one.json"), "--output"),
        (("benchmark",), "Name at least one .tflite file"),
        (("report", "--output=o.html"), "Name at least one JSON file"),
        (("convert", "--bogus"), "Unknown command line flag 'bogus'"),
        (("export", "--model=m", "--output_dir=o", "--mode=fast"), "--mode=fast"),
        (("benchmark", "o", "--percentages=1,a"), "--percentages takes integers. Received: 1,a"),
        (("train", "m.keras", "--output=o.keras"), "--data=FILE.npz or --dataset=digits"),
        (("train", "m.keras", "--output=o.keras", "--epochs=0", "--dataset=digits"), "--epochs=0"),
        (("report", "out/manifest.json", "--output=o.html"), "keras-tesla benchmark out --json="),
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


@pytest.mark.parametrize(
    "command",
    [
        ("convert", "m.keras", "--output={}/o.keras"),
        ("train", "m.keras", "--dataset=digits", "--output={}/o.keras"),
        ("export", "m.keras", "--output_dir={}/o"),
        ("benchmark", "o", "--json={}/o.json"),
        ("report", "o.json", "--output={}/o.html"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_work(run, tmp_path, monkeypatch, command):
    (tmp_path / "file").write_text("")
    wanted = [part.format(tmp_path / "file" / "below") for part in command]
    assert f"'{tmp_path}/file' is a file" in run(*wanted, wrong=True)
    monkeypatch.setattr("os.access", lambda *arguments: False)  # root may write everywhere
    wanted = [part.format(tmp_path / "missing") for part in command]
    assert f"'{tmp_path}' is not writable" in run(*wanted, wrong=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "command",
    [
        ("convert", "m.keras", "--output=o.keras"),
        ("train", "m.keras", "--dataset=digits", "--output=o.keras"),
        ("export", "m.keras", "--output_dir=."),
        ("benchmark", "o", "--json=o.json"),
        ("report", "o.json", "--output=o.html"),
    ],
)
def test_what_is_there_stays_unless_overwrite_is_given(run, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    for name in ("o.keras", "manifest.json", "o.json", "o.html"):
        (tmp_path / name).write_text("mine")
    assert "To replace it: --overwrite" in run(*command, wrong=True)
    assert {path.read_text() for path in tmp_path.iterdir()} == {"mine"}


def test_what_could_not_be_shared_is_one_line(make, tmp_path):
    """One weight or a hundred: how many, how many bytes, and why."""
    tesla = kt.TESLA(kt.to_idp(make(), [100, 50]), [100, 50])
    bundle = kt.tflite.export(tesla, tmp_path / "out", mode="signatures")
    own = [
        {"weight": f"w{n}", "percentage": 50, "bytes": 400, "reason": "its values differ"}
        for n in range(100)
    ]
    lines = list(export._summary(dataclasses.replace(bundle, unshared_weights=own)))
    assert "accuracy" not in lines[0]  # no column without `--validation_data`
    assert lines[-1] == "not shared: 100 weights, 40,000 bytes: its values differ"
    own[0]["reason"] = "a long reason " * 10
    lines = list(export._summary(dataclasses.replace(bundle, unshared_weights=own)))
    assert len(lines[-1]) <= 80


def test_export_writes_verified_files_and_refuses_other_models(run, make, tmp_path):
    model, out = tmp_path / "model.keras", f"--output_dir={tmp_path}/out"
    make().save(model)
    said = run("export", f"--model={model}", out, wrong=True)
    assert "holds a Sequential, not a TESLA model" in said
    assert f"keras-tesla convert {model}" in said
    run("convert", f"--model={model}", f"--output={tmp_path}/tesla.keras", "--percentages=100,50")
    source = f"{tmp_path}/tesla.keras"
    np.savez(tmp_path / "pickled.npz", x=np.array([{}], dtype=object))
    said = run("export", source, out, f"--validation_data={tmp_path}/pickled.npz", wrong=True)
    assert "allow_pickle=False" in said
    assert not (tmp_path / "out").exists()
    (tmp_path / "classes.txt").write_text("one\ntwo\ndrei\n", encoding="utf-8")
    labels = f"--labels={tmp_path}/classes.txt"
    printed = run("export", source, out, "--mode=signatures", labels).splitlines()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["mode"] == "signatures"
    assert manifest["labels"] == ["one", "two", "drei"]
    (file,) = manifest["files"]
    assert [line.split()[0] for line in printed[1:3]] == ["100", "50"]
    assert printed[-3:] == [
        f"file: {tmp_path}/out/model.tflite",
        f"bytes: {file['bytes']:,}",
        "percentages: 100,50",
    ]
    assert max(map(len, printed[:-3])) <= 80
    assert "already holds an export" in run("export", source, out, wrong=True)


def test_export_compares_on_the_inputs_of_a_file(run, make, tmp_path):
    tesla, out = f"{tmp_path}/tesla.keras", tmp_path / "out"
    kt.TESLA(kt.to_idp(make(), [100, 50]), [100, 50]).save(tesla)
    x = np.random.default_rng(0).uniform(100, 200, (32, 6))
    np.savez(tmp_path / "typical.npz", x=x, labels=np.zeros(32))
    np.save(tmp_path / "typical.npy", x)
    flags = ("--mode=signatures", "--overwrite", f"--output_dir={out}")
    for name in ("typical.npz", "typical.npy"):
        run("export", tesla, *flags, f"--inputs={tmp_path}/{name}")
        assert_compared_on(out / "model.tflite", x.astype("float32"))
        run(
            "export",
            tesla,
            *flags,
            "--quantization=int8",
            f"--representative_data={tmp_path}/{name}",
        )
        assert kt.tflite.load(out).header["quantization"] == "int8"
    np.savez(tmp_path / "other.npz", y=x)
    said = run("export", tesla, *flags, f"--inputs={tmp_path}/other.npz", wrong=True)
    assert "`inputs` must be a dict with an array for each of ['x']. Received: ['y']" in said
    said = run("export", tesla, *flags, f"--validation_data={tmp_path}/typical.npy", wrong=True)
    assert "must be an .npz file. Received: one array, an .npy file" in said


def test_the_tolerance_of_an_export_is_a_flag(run, make, tmp_path):
    tesla, out = f"{tmp_path}/tesla.keras", f"--output_dir={tmp_path}/out"
    kt.TESLA(kt.to_idp(make(), [100, 50])).save(tesla)
    said = run("export", tesla, out, "--tolerance=1e-30", wrong=True)
    assert "a larger `tolerance`; it was 1e-30" in said
    run("export", tesla, out, "--tolerance=1e-3")


@pytest.mark.filterwarnings("ignore:LiteRT has no lookups")
def test_export_takes_open_dimensions_and_strings(run, tmp_path):
    image = keras.Input((None, None, 3), name="image")
    color = keras.Input((1,), dtype="string", name="color")
    x = keras.layers.Conv2D(4, 3, activation="relu")(image)
    looked_up = keras.layers.StringLookup(vocabulary=["r", "g"], output_mode="one_hot")(color)
    x = keras.layers.Concatenate()([keras.layers.GlobalAveragePooling2D()(x), looked_up])
    x = kt.layers.IDPDense(2)(keras.layers.Dense(8)(x))
    tesla, out = f"{tmp_path}/tesla.keras", tmp_path / "out"
    kt.TESLA(keras.Model([image, color], x), [100, 50]).save(tesla)
    np.savez(
        tmp_path / "typical.npz", image=np.ones((2, 8, 6, 3)), color=np.array([["g"], ["other"]])
    )
    flags = (f"--output_dir={out}", "--overwrite")
    run("export", tesla, *flags, "--input_shapes=image:8x6x3", f"--inputs={tmp_path}/typical.npz")
    inputs = kt.tflite.read(out).inputs
    assert {n: x["shape"] for n, x in inputs.items()} == {"image": [1, 8, 6, 3], "color": [1, 3]}
    said = run("export", tesla, *flags, wrong=True)
    assert "pass `input_shapes`" in said
    for wrong in ("image:8xsix", "image"):
        said = run("export", tesla, *flags, f"--input_shapes={wrong}", wrong=True)
        assert f"such as image:224x224x3,ids:64. Received: {wrong}" in said


def assert_compared_on(file, x):
    """The standard metadata hold the least and the largest number."""
    content = file.read_bytes()
    for number in (x.min(), x.max()):
        assert np.float32(number).tobytes() in content
