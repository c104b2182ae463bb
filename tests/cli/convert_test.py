"""`keras-tesla convert`."""

import keras
import numpy as np
import pytest

import keras_tesla as kt

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def model(make, tmp_path):
    make().save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def test_convert_writes_a_model_that_computes_the_same_at_100_percent(run, make, model, tmp_path):
    output = tmp_path / "below" / "tesla.keras"
    printed = run("convert", f"--model={model}", f"--output={output}", "--percentages=100,40")
    assert printed.splitlines()[-1].startswith(f"wrote {output}; next: keras-tesla train ")
    tesla = keras.saving.load_model(output)
    assert tesla.percentages == (100, 40)
    x = np.random.default_rng(0).standard_normal((4, 6)).astype("float32")
    # The order of the channels is another one, and so is that of float32 sums.
    np.testing.assert_allclose(tesla.predict(x, verbose=0), make()(x), atol=1e-5)
    assert [p.name for p in output.parent.iterdir()] == ["tesla.keras"]


def test_the_summary_has_ten_lines_and_80_columns_whatever_the_percentages(run, model, tmp_path):
    percentages = ",".join(map(str, range(100, 0, -5)))
    flags = (model, f"--output={tmp_path}/t.keras", f"--percentages={percentages}")
    lines = run("convert", *flags).splitlines()
    assert len(lines) == 10
    assert max(map(len, lines[:-1])) <= 80  # the last one has a path
    assert lines[0] == "mine: 2 of 3 layers became incomplete"
    assert lines[1].split() == ["became", "IDPDense", "2"]
    assert lines[2].split() == ["stays", "Dense", "1"]
    # By hand: 6 inputs and 3 outputs are whole, of 20 channels 20, 14, 7 and 1 are computed.
    costs = {p: 6 * n + n * n + n * 3 for p, n in ((100, 20), (70, 14), (35, 7), (5, 1))}
    shown = {int(line.split()[0]): int(line.split()[1].replace(",", "")) for line in lines[4:8]}
    assert shown == costs


def test_the_full_report_names_each_layer_at_each_percentage(run, model, tmp_path):
    flags = (model, f"--output={tmp_path}/t.keras", "--percentages=100,40", "--report")
    printed = run("convert", *flags)
    (row,) = [line.split() for line in printed.splitlines() if line.startswith("second  Dense")]
    assert row == "second Dense IDPDense 8 of 20 reads a part of its 20 input channels".split()
    assert "Multiply-adds    100 %     40 %" in printed


def test_convert_leaves_layers_and_their_order_alone_if_told_to(run, make, model, tmp_path):
    output = tmp_path / "tesla.keras"
    run("convert", f"--model={model}", f"--output={output}", "--noorder_channels", "--skip=second")
    network = keras.saving.load_model(output).network
    kinds = [type(layer).__name__ for layer in network.layers]
    assert [kind for kind in kinds if "Dense" in kind] == ["Dense", "Dense", "IDPDense"]
    for ours, theirs in zip(network.get_weights(), make().get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--output=o.h5",), "--output must end in .keras. Received: o.h5"),
        (("--output=there.keras",), "there.keras' exists already"),
        (("--output=o.keras", "--percentages=50"), "100"),
        (("--output=o.keras", "--percentages=100,0"), "from 1 to 100"),
        (("--output=o.keras", "--skip=third"), "third"),
        (("--output=o.keras", "--profile=steep"), "steep"),
        (("--output=o.keras", "--model=missing.keras"), "There is no file 'missing.keras'"),
        (("--output=o.keras", "--model=tesla.keras"), "is a TESLA model already"),
        (("--output=o.keras", "--model=lambda.keras"), "safe_mode"),
    ],
)
def test_convert_says_what_is_wrong_and_writes_nothing(
    run, make, model, tmp_path, monkeypatch, flags, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.keras").write_text("mine")
    kt.TESLA(kt.to_idp(make()), [100, 50]).save("tesla.keras")
    hidden = [keras.Input((6,)), keras.layers.Lambda(lambda x: x * 2.0), keras.layers.Dense(3)]
    keras.Sequential(hidden).save("lambda.keras")
    before = sorted(p.name for p in tmp_path.iterdir())
    said = run("convert", f"--model={model}", *flags, wrong=True)
    assert said.startswith("keras-tesla convert: ")
    assert message in said
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert (tmp_path / "there.keras").read_text() == "mine"


@pytest.mark.parametrize("report", [(), ("--report",)])
def test_a_network_for_images_of_any_size_is_converted(run, tmp_path, report):
    """Its multiply-adds are not known."""
    x = keras.Input((None, None, 3))
    y = keras.layers.Conv2D(4, 3)(keras.layers.Conv2D(4, 3, activation="relu")(x))
    keras.Model(x, y).save(tmp_path / "any.keras")
    output = tmp_path / "tesla.keras"
    printed = run("convert", f"{tmp_path}/any.keras", f"--output={output}", *report)
    assert output.exists()
    if not report:
        assert [line.split()[1] for line in printed.splitlines() if line.split()[0] == "50"] == [
            "-"
        ]


def test_layers_whose_multiply_adds_nobody_knows_are_named(run, tmp_path):
    x = keras.Input((6,))
    y = keras.layers.SpectralNormalization(keras.layers.Dense(6), name="spectral")(x)
    y = keras.layers.Dense(2)(keras.layers.Dense(8, activation="relu")(y))
    keras.Model(x, y).save(tmp_path / "model.keras")
    output = tmp_path / "tesla.keras"
    printed = run("convert", tmp_path / "model.keras", f"--output={output}", "--percentages=100,50")
    assert "without the multiply-adds of spectral: not known" in printed
    printed = run("export", f"--model={output}", f"--output_dir={tmp_path}/out")
    assert "multiply-adds without these layers, of which nobody knows: spectral" in printed
