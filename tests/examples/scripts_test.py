"""The scripts a user copies from: each is run as a user runs it."""

import importlib
import json
import os
import re
import subprocess
import sys

import pytest

import keras_tesla
from tests.helpers import ROOT, run_script

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]


def docs_script(name):
    """A script of docs/."""
    for package in ("nbformat", "nbclient"):
        pytest.importorskip(package)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs")
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("example")
    printed = run_script(
        "examples/mnist_mlp.py",
        "--percentages=100,50,20",
        "--steps_per_epoch=50",
        "--epochs=12",
        "--last_patience=3",
        f"--output_dir={out}",
    )
    return out, printed


def test_the_mnist_example_trains_exports_and_reports(trained):
    out, printed = trained
    results = json.loads((out / "results.json").read_text())
    assert list(results["accuracy"]) == [str(p) for p in range(10, 101, 5)]
    # Ten classes: 10 % is chance. Twelve short epochs on the digits reach about 95 %.
    assert results["accuracy"]["100"] > 0.8
    assert results["accuracy"]["20"] > 0.5
    for percentage, accuracy in results["tflite_accuracy"].items():
        assert accuracy == pytest.approx(results["accuracy"][percentage], abs=1e-3)
    assert set(results["tflite_accuracy"]) == {"100", "50", "20"}
    assert (out / "accuracy_over_cost.png").read_bytes().startswith(b"\x89PNG")
    assert "multiply-adds" in printed
    assert "task 100 % ends" in printed


def test_on_a_terminal_all_of_it_fits_a_screen(tmp_path):
    """24 lines of 80 columns, of which the installation and `make` take five."""
    terminal, end = os.openpty()
    subprocess.run(
        [sys.executable, "examples/mnist_mlp.py", "--epochs=3", f"--output_dir={tmp_path}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=end,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    os.close(end)
    printed = os.read(terminal, 1 << 16).decode()
    lines = [line.rpartition("\x1b[K")[2].rstrip("\r") for line in printed.strip().split("\n")]
    assert lines[0].startswith("epoch 3/3: loss")
    assert len(lines) <= 24 - 5
    assert all(len(line) <= 80 for line in lines if str(tmp_path) not in line)


def test_the_export_tool_writes_what_the_example_wrote(trained, tmp_path):
    out, _ = trained
    printed = run_script(
        "export/export_tflite.py", f"--model={out}/tesla.keras", f"--output_dir={tmp_path}/tflite"
    )
    ours, theirs = (
        {e["percentage"]: e["multiply_adds"] for e in json.loads(path.read_text())["percentages"]}
        for path in (out / "tflite" / "manifest.json", tmp_path / "tflite" / "manifest.json")
    )
    assert ours == theirs
    assert "p50.tflite" in printed


def test_the_export_tool_says_what_is_wrong(trained, tmp_path):
    out, _ = trained
    printed = run_script(
        "export/export_tflite.py",
        f"--model={out}/tesla.keras",
        f"--output_dir={tmp_path}/tflite",
        "--percentages=30",
        code=1,
    )
    assert "does not have [30] %" in printed
    assert not (tmp_path / "tflite").exists()


@pytest.mark.nightly
def test_the_table_trains_every_row_once(tmp_path):
    """Two epochs a row on the digits; what is there is not run again."""
    rows = "idp,multi_profile,tesla_trainable,r_tesla,joint_distilled,sandwich_distilled"
    command = [
        "examples/mnist_table.py",
        "--dataset=digits",
        "--budget=.02",
        "--seeds=0",
        f"--rows={rows}",
        f"--output_dir={tmp_path}",
    ]
    run_script(*command)
    found = {path.parent.parent.name: path for path in tmp_path.glob("*/0/results.json")}
    assert sorted(found) == sorted(rows.split(","))
    for row, path in found.items():
        results = json.loads(path.read_text())
        assert results["row"] == row
        assert list(results["accuracy"]) == [str(p) for p in range(10, 101, 5)]
        assert (path.parent / "log.csv").read_text().startswith("epoch,split,percentage")
        assert any((path.parent / "tensorboard").iterdir())
    first = json.loads(found["joint_distilled"].read_text())
    found["joint_distilled"].unlink()  # as after a kill
    times = {row: path.stat().st_mtime_ns for row, path in found.items() if row != first["row"]}
    printed = run_script(*command)
    assert "joint_distilled 0:" in printed
    (line,) = re.findall(r"^joint_distilled +1 +(.*)$", printed, re.M)
    mean = 100 * sum(first["accuracy"].values()) / len(first["accuracy"])
    # Rounded to two digits.
    assert float(line.split()[0]) == pytest.approx(mean, abs=0.006)
    assert float(line.split()[1]) == pytest.approx(100 * first["accuracy"]["10"], abs=0.006)
    assert times == {row: found[row].stat().st_mtime_ns for row in times}
    again = json.loads(found["joint_distilled"].read_text())
    assert again["accuracy"] == first["accuracy"]  # one seed, equal numbers


def test_rows_that_do_not_exist_are_named():
    printed = run_script("examples/mnist_table.py", "--rows=joint,jiont", code=1)
    assert "--rows must be among idp, " in printed
    assert "Received: ['jiont']" in printed


@pytest.mark.nightly
def test_individual_networks_are_as_large_as_the_scalable_one(tmp_path):
    run_script(
        "examples/mnist_table.py",
        "--dataset=digits",
        "--budget=.02",
        "--seeds=0",
        "--rows=individual",
        f"--output_dir={tmp_path}",
    )
    results = json.loads((tmp_path / "individual" / "0" / "results.json").read_text())
    assert sorted(results["accuracy"], key=int) == [str(p) for p in range(10, 101, 5)]


def test_a_model_of_ones_own_is_converted_trained_on_and_exported(tmp_path):
    """On the digits; killed runs find the models that they saved."""
    import keras

    mine = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.Conv2D(16, 3),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    mine.compile("adam", loss)
    digits = keras_tesla.data.load("digits")
    mine.fit(digits.train.x, digits.train.y, epochs=20, verbose=0)
    mine.save(tmp_path / "mine.keras")
    arguments = (
        "examples/convert_pretrained.py",
        "--dataset=digits",
        f"--model={tmp_path}/mine.keras",
        "--percentages=100,50",
        "--tune_epochs=10",
        "--tune_batch_size=64",
        f"--output_dir={tmp_path}/out",
    )
    printed = run_script(*arguments)
    assert "IDPConv2D" in printed  # the report
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    before, after = (
        results["accuracy"][k]["test"] for k in ("converted and ordered", "fine-tuned")
    )
    assert before["100"] > 0.8  # the function of the model that was given
    assert after["50"] > before["50"]
    for percentage, accuracy in results["tflite_accuracy"].items():
        assert accuracy == pytest.approx(after[percentage], abs=1e-3)
    again = run_script(*arguments)
    assert "Epoch" not in again
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == results


def test_the_cnn_is_exported_with_the_names_of_its_classes(tmp_path):
    printed = run_script(
        "examples/digits_cnn.py", "--epochs=4", "--width=8", f"--output_dir={tmp_path}"
    )
    assert "digits_cnn: mode percentage_input" in printed
    manifest = json.loads((tmp_path / "tflite" / "manifest.json").read_text())
    assert manifest["labels"][7] == "seven"
    assert manifest["percentages"][0]["accuracy"] > 0.3  # of ten classes


def check_outputs(notebook):
    """What the cells of the notebook print and draw."""
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    printed = "".join(o.text for o in outputs if o.get("name") == "stdout")
    assert "the same as TESLA at 25 %: True" in printed
    # Of ten classes. The figures of the network, and those of the file.
    accuracies = [float(x) for x in re.findall(r"accuracy (\d\.\d+)", printed)]
    assert len(accuracies) == 8
    assert min(accuracies) > 0.5
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 2
    assert not re.search(r"/tmp/|/home/|INFO|WARNING", printed)


def test_the_notebook_holds_its_outputs_and_is_small():
    make_notebook = docs_script("make_notebook")
    check_outputs(make_notebook.read())
    assert make_notebook.NOTEBOOK.stat().st_size < 150_000


@pytest.mark.nightly
def test_the_notebook_runs():
    make_notebook = docs_script("make_notebook")
    notebook = make_notebook.read()
    for cell in notebook.cells:
        cell.outputs = []
    make_notebook.run(notebook)
    check_outputs(notebook)


@pytest.mark.nightly
def test_a_trained_model_is_trained_on_in_int8(trained, tmp_path):
    out, _ = trained
    printed = run_script(
        "examples/quantization_aware.py",
        f"--model={out}/tesla.keras",
        "--batch_size=28",
        "--compare",
        f"--output_dir={tmp_path}",
    )
    assert "aware, int8 file" in printed
    rows = json.loads((tmp_path / "results.json").read_text())["accuracy"]
    for row in ("aware, in Keras", "aware, int8 file", "post-training, int8 file"):
        assert set(rows[row]) == {"100", "50", "20"}
    for percentage, accuracy in rows["float32"].items():
        # Of 359 images: what is trained in int8 is about as good, and the file computes the same
        # but for a rare sum that is rounded to the other side.
        assert rows["aware, in Keras"][percentage] > accuracy - 0.04
        assert rows["float32, trained longer"][percentage] > accuracy - 0.04
        assert rows["aware, int8 file"][percentage] == pytest.approx(
            rows["aware, in Keras"][percentage], abs=0.01
        )


def test_only_a_tesla_model_is_trained_in_int8(tmp_path):
    import keras

    plain = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    plain.save(tmp_path / "plain.keras")
    printed = run_script(
        "examples/quantization_aware.py",
        f"--model={tmp_path}/plain.keras",
        f"--output_dir={tmp_path}/out",
        code=1,
    )
    assert "must be a TESLA model" in printed
    assert "Sequential" in printed
    assert not (tmp_path / "out").exists()


def test_a_strategy_of_another_backend_is_refused():
    printed = run_script("examples/cifar_vgg16.py", "--strategy=data_parallel", code=1)
    assert "needs KERAS_BACKEND=jax. Received: 'tensorflow'" in printed
