"""Opening an exported file in Python, and what is not opened."""

import json
import shutil
import threading

import numpy as np
import pytest

import keras_tesla as kt
from keras_tesla.tflite import convert, runtime, standalone, verify
from keras_tesla.tflite.files import archive, reading
from keras_tesla.tflite.graphs import structure
from tests.tflite import networks

pytestmark = pytest.mark.tensorflow
PERCENTAGES = (100, 50, 10)


@pytest.fixture(scope="module")
def tesla():
    return networks.cnn(PERCENTAGES)


@pytest.fixture(scope="module")
def path(tesla, tmp_path_factory):
    out = tmp_path_factory.mktemp("load") / "out"
    return kt.tflite.export(tesla, out, mode="percentage_input", labels=list("abcde")).path(100)


@pytest.fixture(scope="module")
def x(tesla):
    return verify.example_inputs(tesla.network, 1, seed=3)["image"]


@pytest.mark.parametrize("cached", [False, True])
def test_a_model_runs_at_each_percentage(cached, path, tesla, x, tmp_path):
    for _ in range(2):  # with a cache, the second start reads what the first one wrote
        model = kt.tflite.load(path, cache_dir=tmp_path / "cache" if cached else None)
        assert model.percentages == PERCENTAGES
        for percentage in PERCENTAGES:
            expected = tesla.predict(x, percentage=percentage, verbose=0)
            # float32 sums in another order; the outputs are of the size of 1.
            np.testing.assert_allclose(model(x, percentage=percentage), expected, atol=1e-5)
        np.testing.assert_array_equal(model(x), model(x, percentage=100))
    assert (tmp_path / "cache").exists() == cached


def test_several_inputs_and_outputs_are_dicts(tmp_path):
    tesla = networks.two_inputs_two_outputs((100, 50))
    x = verify.example_inputs(tesla.network, 1)
    bundle = kt.tflite.export(tesla, tmp_path / "out", mode="signatures")
    got = kt.tflite.load(bundle.path(50))(x, percentage=50)
    expected = tesla.predict(x, percentage=50, verbose=0)
    assert got.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], atol=1e-5)


def test_a_file_of_one_percentage_opens_the_same_way(tesla, x, tmp_path):
    bundle = kt.tflite.export(tesla, tmp_path / "out")
    model = kt.tflite.load(bundle.path(10))
    assert model.percentages == (10,)
    np.testing.assert_allclose(model(x), tesla.predict(x, percentage=10, verbose=0), atol=1e-5)
    whole = kt.tflite.load(tmp_path / "out", cache_dir=tmp_path / "cache")
    assert whole.percentages == PERCENTAGES
    for percentage in PERCENTAGES:
        expected = kt.tflite.load(bundle.path(percentage))(x)
        # CompiledModel, which a cache takes, may add in another order.
        np.testing.assert_allclose(whole(x, percentage=percentage), expected, atol=1e-5)


def test_a_model_says_what_it_holds(path):
    model = kt.tflite.load(path)
    assert repr(model) == "<keras_tesla.tflite.Model 'cnn', float32, [100, 50, 10] %>"
    lines = model.describe().splitlines()
    assert lines[0] == "cnn: mode percentage_input, storage shared, float32"
    assert lines[1:3] == ["input  image: float32 [1, 8, 8, 3]", "output logits: float32 [1, 5]"]
    assert [line.split()[0] for line in lines[4:]] == ["100", "50", "10"]


def test_threads_do_not_mix_their_results(path, x):
    model = kt.tflite.load(path)
    inputs = [x * (1 + number) for number in range(4)]
    expected = {(n, p): model(inputs[n], percentage=p) for n in range(4) for p in PERCENTAGES}
    wrong = []

    def work(number):
        random = np.random.default_rng(number)
        for _ in range(200):
            percentage = int(random.choice(PERCENTAGES))
            got = model(inputs[number], percentage=percentage)
            if not np.array_equal(got, expected[number, percentage]):
                wrong.append((number, percentage))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_standalone_percentage_is_a_plain_file(path, tesla):
    content = path.read_bytes()
    header = reading.read_header(content)
    for percentage in PERCENTAGES:
        (operators,) = structure.check(standalone.extract(content, header, percentage))
        assert "DENSIFY" not in operators
        whole = convert.convert(tesla.at(percentage))
        assert len(standalone.extract(content, header, percentage)) <= 1.05 * len(whole)


def test_lists_and_other_numbers_are_cast(path, x):
    model = kt.tflite.load(path)
    for given in (x.tolist(), x.astype("float64"), {"image": x.tolist()}):
        np.testing.assert_array_equal(model(given), model(x))
    whole = np.arange(192).reshape(1, 8, 8, 3)
    np.testing.assert_array_equal(model(whole), model(whole.astype("float32")))


@pytest.mark.parametrize("cached", [False, True])
def test_any_number_of_examples_runs(cached, path, tesla, tmp_path):
    model = kt.tflite.load(path, cache_dir=tmp_path if cached else None)
    x = verify.example_inputs(tesla.network, 5, seed=3)["image"]
    expected = np.concatenate([model(x[i : i + 1], percentage=50) for i in range(5)])
    np.testing.assert_array_equal(model(x, percentage=50), expected)


def test_a_percentage_in_between_is_served_by_the_next_higher_one(path, x):
    model = kt.tflite.load(path)
    for asked, served in [(1, 10), (10, 10), (11, 50), (50, 50), (51, 100)]:
        np.testing.assert_array_equal(model(x, percentage=asked), model(x, percentage=served))


def test_a_percentage_beyond_them_is_served_by_the_highest(tesla, x, tmp_path):
    bundle = kt.tflite.export(tesla, tmp_path / "out", mode="signatures", percentages=[50, 10])
    model = kt.tflite.load(bundle.path(50))
    np.testing.assert_array_equal(model(x, percentage=80), model(x, percentage=50))


@pytest.fixture(scope="module", params=["per_percentage", "signatures", "percentage_input"])
def int8(request, tesla, tmp_path_factory):
    """An export whose inputs and outputs are int8."""
    return kt.tflite.export(
        tesla,
        tmp_path_factory.mktemp("int8") / "out",
        mode=request.param,
        quantization="int8",
        representative_data=verify.example_inputs(tesla.network, 64)["image"],
        int8_io=True,
        percentages=[100, 50],
    )


@pytest.mark.parametrize("cached", [False, True])
def test_an_int8_file_takes_and_gives_floats(cached, int8, tesla, x, tmp_path):
    model = kt.tflite.load(int8.directory, cache_dir=tmp_path if cached else None)
    for percentage in (100, 50):
        got = model(x, percentage=percentage)
        assert got.dtype == "float32"
        expected = tesla.predict(x, percentage=percentage, verbose=0)
        # int8 of a calibrated network differs by some hundredths of a standard deviation.
        assert np.sqrt(np.mean((got - expected) ** 2)) < 0.15 * expected.std()


def test_the_scales_of_an_int8_file_are_in_header_and_manifest(int8, x):
    """Enough to run the file without keras_tesla, and what LiteRT itself says of it."""
    model = kt.tflite.load(int8.directory)
    for percentage in (100, 50):
        (entry,) = (e for e in model.header["percentages"] if e["percentage"] == percentage)
        assert entry["quantized_inputs"] == int8[percentage].quantized_inputs
        assert entry["quantized_outputs"] == int8[percentage].quantized_outputs
        made = runtime.interpreter(int8.path(percentage).read_bytes())
        runner = made.get_signature_runner(int8[percentage].signature)
        taken, given = entry["quantized_inputs"]["image"], entry["quantized_outputs"]["logits"]
        said = runner.get_input_details()["image"], runner.get_output_details()["logits"]
        assert [d["quantization"] for d in said] == [
            (scale["scale"], scale["zero_point"]) for scale in (taken, given)
        ]
        stored = np.clip(np.round(x / taken["scale"] + taken["zero_point"]), -128, 127)
        q = runner(image=stored.astype("int8"))["logits"]
        numbers = given["scale"] * (q.astype("float32") - given["zero_point"])
        np.testing.assert_allclose(model(x, percentage=percentage), numbers, rtol=1e-6)
    if int8.mode == "percentage_input":  # one signature has one scale
        assert int8[100].quantized_outputs == int8[50].quantized_outputs


@pytest.mark.parametrize("cached", [False, True])
def test_int8_numbers_are_passed_as_they_are(cached, int8, x, tmp_path):
    model = kt.tflite.load(int8.directory, cache_dir=tmp_path if cached else None)
    scale = int8[50].quantized_inputs["image"]
    stored = np.clip(np.round(x / scale["scale"] + scale["zero_point"]), -128, 127).astype("int8")
    np.testing.assert_array_equal(model(stored, percentage=50), model(x, percentage=50))
    # Other integers are numbers of the network, such as pixels.
    ones = np.ones(x.shape)
    np.testing.assert_array_equal(model(ones.astype("int64"), 50), model(ones, 50))


def test_a_float_file_has_no_scales(path):
    model = kt.tflite.load(path)
    assert all("quantized_inputs" not in entry for entry in model.header["percentages"])
    assert kt.tflite.read(path.parent)[50].quantized_outputs == {}


def test_keys_of_a_later_version_are_left_out(path, tmp_path):
    """The same format may get further keys."""
    shutil.copytree(path.parent, tmp_path / "out")
    manifest = tmp_path / "out" / "manifest.json"
    values = json.loads(manifest.read_text())
    values["further"] = values["percentages"][0]["further"] = 1
    manifest.write_text(json.dumps(values))
    assert kt.tflite.read(tmp_path / "out").entries == kt.tflite.read(path.parent).entries


# What is refused.


@pytest.mark.parametrize(
    ("inputs", "percentage", "message"),
    [
        (np.zeros((1, 8, 8, 3), "float32"), 50.0, "must be an integer"),
        (np.zeros((1, 8, 8, 3), "float32"), 0, "from 1 to 100"),
        (np.full((1, 8, 8, 3), 1e300), 50, "values that float32 does not hold"),
        (np.zeros((1, 8, 8, 3), "complex64"), 50, "values that float32 does not hold"),
        (np.zeros((2, 8, 3), "float32"), 50, r"'examples', 8, 8, 3\]. Received one of shape"),
        (np.zeros((0, 8, 8, 3), "float32"), 50, r"Received one of shape \[0, 8, 8, 3\]"),
        ({"picture": np.zeros((1, 8, 8, 3), "float32")}, 50, r"keys \['image'\]"),
        ("image", 50, "must be a float32 array"),
    ],
)
def test_inputs_and_percentages_that_do_not_fit(inputs, percentage, message, path):
    with pytest.raises(ValueError, match=message):
        kt.tflite.load(path)(inputs, percentage=percentage)


def damaged(content):
    yield b""
    yield b"not a model"
    yield content[: len(content) // 2]
    yield content[:-1]
    yield content + b"\0"
    yield b"\0" + content
    yield b"\0" * len(content)


def test_damaged_and_foreign_files_are_not_opened(path, tesla, tmp_path):
    foreign = convert.convert(tesla.at(100))
    other = tmp_path / "other.tflite"
    for content in (*damaged(path.read_bytes()), foreign):
        other.write_bytes(content)
        with pytest.raises(kt.tflite.FileError, match=r"other.tflite"):
            kt.tflite.load(other)
    with pytest.raises(FileNotFoundError):
        kt.tflite.load(tmp_path / "missing.tflite")
    with pytest.raises(FileNotFoundError):  # a folder without a manifest
        kt.tflite.load(tmp_path)


def test_a_file_of_another_format_is_not_opened(path, tmp_path):
    content = bytearray(path.read_bytes())
    start, size = reading.find_header(content)
    header = content[start : start + size]
    content[start : start + size] = header.replace(b'"format":1', b'"format":9')
    content[archive.DIGITS] = archive.digest(content)
    (tmp_path / "new.tflite").write_bytes(content)
    with pytest.raises(kt.tflite.FileError, match="format 9; .* reads format 1. Export"):
        kt.tflite.load(tmp_path / "new.tflite")


def test_ten_thousand_flipped_bytes_are_all_recognised(path):
    """No flipped byte gets past the SHA-256 into a runtime; those in the SHA-256 itself do not."""
    content = bytearray(path.read_bytes())
    random = np.random.default_rng(0)
    for place in random.integers(0, len(content), 10_000):
        kept = content[place]
        content[place] ^= random.integers(1, 256)
        with pytest.raises(kt.tflite.FileError):
            reading.read_header(content)
        content[place] = kept
    assert reading.read_header(content)["name"] == "cnn"


def test_a_part_that_is_not_what_was_exported_is_not_opened(path, x, tmp_path):
    """A weight that was changed, with the SHA-256 of the file made to fit."""
    content = bytearray(path.read_bytes())
    header = reading.read_header(content)
    _, source, *_ = header["percentages"][0]["standalone"]["nested_weights"][0]
    content[source] ^= 1
    content[archive.DIGITS] = archive.digest(content)
    changed = tmp_path / "changed.tflite"
    changed.write_bytes(content)
    with pytest.raises(kt.tflite.FileError, match="is not what was exported"):
        kt.tflite.load(changed)(x)
