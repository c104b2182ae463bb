"""The page of export/web in headless Chromium, on the file that `make demo` exports."""

import base64
import io
import json
import math
import re
import shutil
import urllib.parse

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

import keras_tesla as kt
import keras_tesla.tflite
from keras_tesla import data
from tests.helpers import ROOT
from tests.tflite import networks

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]
PERCENTAGES = list(range(10, 101, 10))
NOTHING = "\N{EN DASH}"
# A 7 in hundredths of the drawing area; its end is bent, so that no percentage is sure of it.
SEVEN = [[(25, 20), (45, 18), (72, 20), (62, 40), (52, 60), (50, 85), (66, 84)]]


@pytest.fixture(scope="module")
def address(exported, served):
    with served(exported) as url:
        yield url


@pytest.fixture
def page(browser, address):
    """The loaded page at the width of a desktop."""
    browser.open(address, width=1280, height=800)
    assert browser.text("error") == ""
    yield browser
    assert browser.errors == []


def settle(page):
    """Waits until the page has run the model and shown what came out: one frame, and some more."""
    page.run("for (let i = 0; i < 10; i++) await new Promise(requestAnimationFrame)")


def set_percentage(page, percentage):
    page.run(
        f"""
        const slider = document.getElementById('percentage');
        slider.value = {percentage};
        slider.dispatchEvent(new Event('input', {{bubbles: true}}));"""
    )
    settle(page)


def corners(page, strokes):
    """The points of strokes in the window, whole CSS pixels."""
    box = page.run("return document.getElementById('drawing').getBoundingClientRect().toJSON()")
    return [
        [
            (round(box["x"] + x * box["width"] / 100), round(box["y"] + y * box["height"] / 100))
            for x, y in stroke
        ]
        for stroke in strokes
    ]


def draw_with_mouse(page, strokes):
    for stroke in corners(page, strokes):
        for i, (x, y) in enumerate(stroke):
            kind = "mouseMoved" if i else "mousePressed"
            mouse = {"x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1}
            page.send("Input.dispatchMouseEvent", type=kind, **mouse)
        page.send("Input.dispatchMouseEvent", type="mouseReleased", **{**mouse, "buttons": 0})
    settle(page)


def draw_with_finger(page, strokes):
    for stroke in corners(page, strokes):
        for i, (x, y) in enumerate(stroke):
            kind = "touchMove" if i else "touchStart"
            page.send("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y}])
        page.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    settle(page)


def made_picture(page, strokes, side):
    """The picture of strokes in any unit, `(side, side)`."""
    points = [[{"x": x, "y": y} for x, y in stroke] for stroke in strokes]
    values = page.run(
        f"""
        const {{picture}} = await import('./picture.js');
        return [...picture({json.dumps(points)}, {side}, {side})];"""
    )
    return np.array(values).reshape(side, side)


def seen(page, strokes):
    """The picture that the page makes of strokes on its drawing area, row by row."""
    return made_picture(page, corners(page, strokes), 8).ravel()


def in_python(folder, images, percentage):
    """The logits of LiteRT in Python, `(images, classes)`."""
    interpreter = Interpreter(str(folder / "model.tflite"))
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner("serving_default")
    budget = np.array([percentage], "int32")
    rows = np.asarray(images, "float32").reshape(-1, *runner.get_input_details()["image"]["shape"])
    return np.concatenate([runner(image=x, percentage=budget)["logits"] for x in rows])


def in_browser(page, images, percentages):
    """The logits of `model.js`, `(percentages, images, classes)`, and what served each."""
    results = page.run(
        f"""
        const {{load}} = await import('./model.js');
        const model = await load('model/');
        const results = [];
        for (const percentage of {list(percentages)}) {{
          const logits = [];
          let result;
          for (const image of {json.dumps(np.asarray(images).tolist())}) {{
            result = await model.run({{image: Float32Array.from(image)}}, percentage);
            logits.push([...result.outputs.logits]);
          }}
          results.push({{logits, served: result.served.percentage}});
        }}
        model.delete();
        return results;"""
    )
    return np.array([r["logits"] for r in results]), [r["served"] for r in results]


def images():
    test = data.load("digits").test.x[:12]
    return test.reshape(len(test), 64)


# Logits of a few tens, summed in float32 from about a hundred terms in another order than in
# Python: they agree to about 1e-5. Two percentages differ in the first digits.
TOLERANCE = 1e-4


def test_every_percentage_computes_in_the_browser_what_it_computes_in_python(page, exported):
    x = images()
    logits, served_by = in_browser(page, x, PERCENTAGES)
    expected = np.array([in_python(exported, x, p) for p in PERCENTAGES])
    assert served_by == PERCENTAGES
    assert np.abs(np.diff(expected, axis=0)).max(axis=(1, 2)).min() > 100 * TOLERANCE
    np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE)


def test_a_value_between_two_percentages_runs_at_the_next_higher_one(page, exported):
    x = images()[:3]
    between = {1: 10, 9: 10, 11: 20, 35: 40, 99: 100}
    logits, served_by = in_browser(page, x, list(between))
    assert served_by == list(between.values())
    for i, (asked, runs) in enumerate(between.items()):
        for percentage in (asked, runs):
            expected = in_python(exported, x, percentage)
            np.testing.assert_allclose(logits[i], expected, rtol=0, atol=TOLERANCE)


def test_a_convolutional_network_takes_pictures_with_a_channel(browser, served, tmp_path):
    kt.tflite.export(networks.residual(), tmp_path / "tflite", mode="percentage_input")
    x = images()[:3]
    with served(tmp_path / "tflite") as url:
        browser.open(url, width=1280, height=800)
        logits, _ = in_browser(browser, x, networks.PERCENTAGES)
        browser.run("document.getElementById('example').click()")
        settle(browser)
    expected = [in_python(tmp_path / "tflite", x, p) for p in networks.PERCENTAGES]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE)
    assert browser.text("prediction") in set("01234")


@pytest.mark.parametrize("percentage", ["0", "101", "35.5", "'35'", "null", "NaN"])
def test_what_is_no_percentage_is_refused(page, percentage):
    message = page.run(
        f"""
        const {{load}} = await import('./model.js');
        const model = await load('model/');
        try {{
          await model.run({{image: new Float32Array(64)}}, {percentage});
        }} catch (error) {{
          return `${{error.name}}: ${{error.message}}`;
        }} finally {{
          model.delete();
        }}"""
    )
    assert "RangeError: A percentage is an integer from 1 to 100. Received: " in message


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [("{}", "Received none for image"), ("{image: new Float32Array(63)}", "63")],
)
def test_inputs_that_do_not_fit_are_refused(page, inputs, expected):
    message = page.run(
        f"""
        const {{load}} = await import('./model.js');
        const model = await load('model/');
        return model.run({inputs}, 50).then(() => 'ran', (error) => error.message);"""
    )
    assert expected in message


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([255 / 256, 0, 0, 0], "99.6 %"),  # a softmax in int8, whose numbers are multiples of 1/256
        ([0.5, 0.3, 0.2], "50.0 %"),
        ([math.log(3), 0], "75.0 %"),  # logits: 3 / (3 + 1)
    ],
)
def test_probabilities_are_shown_as_they_are_and_of_logits_their_softmax(page, outputs, expected):
    detail = page.run(
        f"""
        const {{read}} = await import('./results.js');
        return read({{y: {outputs}}}, true, undefined).detail;"""
    )
    assert detail.replace("\N{NO-BREAK SPACE}", " ") == expected


def test_drawing_with_the_mouse_shows_what_python_predicts_at_each_percentage(page, exported):
    draw_with_mouse(page, SEVEN)
    picture = seen(page, SEVEN)
    assert 0.25 < np.mean(picture) < 0.35  # as much ink as the pictures of the data set
    shown = {}
    for percentage in (100, 40, 10):
        set_percentage(page, percentage)
        logits = in_python(exported, [picture], percentage)[0].astype("float64")
        chances = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        assert page.text("prediction") == str(chances.argmax())
        bars = page.run("return [...document.querySelectorAll('.value')].map((e) => e.innerText)")
        shown[percentage] = [float(bar.replace("\xa0%", "")) for bar in bars]
        # Shown with one digit after the point.
        np.testing.assert_allclose(shown[percentage], 100 * chances, rtol=0, atol=0.051)
        assert page.text("confidence") == f"{max(shown[percentage]):.1f} %"
    assert shown[100] != shown[40] != shown[10]


def test_drawing_with_a_finger_on_a_phone(browser, address):
    browser.open(address, width=360, height=740, touch=True)
    assert browser.run("return document.documentElement.scrollWidth") <= 360
    draw_with_finger(browser, [stroke[::-1] for stroke in SEVEN])  # upwards
    assert browser.run("return scrollY") == 0  # it drew, it did not scroll
    assert browser.text("prediction") in set("0123456789")
    for element in ("drawing", "prediction", "percentage", "latency"):
        box = f"document.getElementById('{element}').getBoundingClientRect()"
        bottom = browser.run(f"return {box}.bottom")
        assert 0 < bottom <= 740, f"{element} is not on the first screen"
    assert browser.errors == []


def test_the_slider_shows_what_runs_and_what_it_costs(page, exported):
    draw_with_mouse(page, SEVEN)
    manifest = json.loads((exported / "manifest.json").read_text())
    costs = {entry["percentage"]: entry["multiply_adds"] for entry in manifest["percentages"]}
    for chosen, runs in {100: 100, 35: 40, 10: 10, 1: 10}.items():
        set_percentage(page, chosen)
        assert page.text("chosen") == f"{chosen} %"
        assert page.text("served") == f"{runs} %"
        share = "" if runs == 100 else f" ({100 * costs[runs] / costs[100]:.0f} %)"
        assert page.text("cost") == f"{costs[runs]:,}{share}"
        assert re.fullmatch(r"\d+ µs|\d+\.\d ms", page.text("latency"))


@pytest.mark.parametrize("accuracy", [0.987, None])
def test_the_accuracy_is_shown_where_the_export_measured_it(
    browser, exported, served, tmp_path, accuracy
):
    folder = shutil.copytree(exported, tmp_path / "tflite")
    manifest = json.loads((folder / "manifest.json").read_text())
    for entry in manifest["percentages"]:
        entry["accuracy"] = accuracy
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with served(folder) as url:
        browser.open(url, width=1280, height=800)
        assert browser.is_visible("accuracy") == (accuracy is not None)
        if accuracy:
            assert browser.text("accuracy") == "98.7 %"


def test_layers_that_are_not_counted_are_named_instead_of_a_share(
    browser, exported, served, tmp_path
):
    folder = shutil.copytree(exported, tmp_path / "tflite")
    manifest = json.loads((folder / "manifest.json").read_text())
    costs = {
        entry["percentage"]: f"{entry['multiply_adds']:,}" for entry in manifest["percentages"]
    }
    for entry in manifest["percentages"]:
        if entry["percentage"] > 10:
            entry["not_counted"] = ["own", "lambda"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with served(folder) as url:
        browser.open(url, width=1280, height=800)
        assert browser.text("cost") == f"{costs[100]} without own, lambda"
        set_percentage(browser, 50)
        assert browser.text("cost") == f"{costs[50]} without own, lambda"
        set_percentage(browser, 10)
        assert browser.text("cost") == costs[10]


def test_the_keyboard_reaches_the_buttons_and_the_slider(page):
    def press(key, code):
        for kind in ("keyDown", "keyUp"):
            extra = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            page.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                **extra,
            )

    reached = []
    for _ in range(5):
        press("Tab", 9)
        reached.append(page.run("return document.activeElement.id"))
    assert reached == ["example", "choose", "clear", "range", "percentage"]
    press("ArrowLeft", 37)
    assert page.text("chosen") == "99 %"
    assert page.run("return document.activeElement.ariaValueText") == "99 %, runs at 100 %"
    page.run("document.getElementById('example').focus()")
    press("Enter", 13)
    settle(page)
    assert page.text("prediction") in set("0123456789")


def test_the_examples_are_recognized_and_clear_removes_them(page):
    predictions = []
    for _ in range(10):
        page.run("document.getElementById('example').click()")
        settle(page)
        predictions.append(page.text("prediction"))
    # Drawn by hand for this page, not by the writers of the data set: two may be misread.
    assert sum(p == str(digit) for digit, p in enumerate(predictions)) >= 8
    page.run("document.getElementById('clear').click()")
    settle(page)
    assert page.text("prediction") == NOTHING
    assert page.text("latency") == NOTHING
    ink = "getContext('2d').getImageData(0, 0, 400, 400).data.some((value) => value)"
    assert not page.run(f"return document.getElementById('drawing').{ink}")


# Pictures, and inputs that are none.


def drop(page, pixels):
    """Drops a picture, `(height, width)` or `(height, width, 3)` of bytes, on the page."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, "uint8")).save(file, "png")
    page.run(
        f"""
        const text = atob({json.dumps(base64.b64encode(file.getvalue()).decode())});
        const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([bytes], 'dropped.png', {{type: 'image/png'}}));
        document.body.dispatchEvent(new DragEvent('drop', {{bubbles: true, dataTransfer}}));"""
    )
    settle(page)


def rows(page):
    """{label: value} of what is shown, percent signs left out."""
    found = page.run(
        """
        return [...document.querySelectorAll('#classes li')].map((row) => [
          row.querySelector('.label').textContent, row.querySelector('.value').textContent]);"""
    )
    return {label: float(value.replace("\xa0%", "")) for label, value in found}


def softmax(logits):
    powers = np.exp(np.float64(logits) - np.max(logits))
    return powers / powers.sum()


@pytest.mark.parametrize(("chosen", "low", "high"), [("0 to 1", 0, 1), ("-1 to 1", -1, 1)])
def test_a_dropped_picture_in_colours_is_what_python_computes(
    browser, served, tmp_path, chosen, low, high
):
    """Of the size that the model takes, so that no pixel is averaged."""
    labels = ["an animal", "bicycle", "cat", "dog", "elephant"]
    kt.tflite.export(networks.cnn(), tmp_path / "tflite", mode="percentage_input", labels=labels)
    pixels = np.random.default_rng(3).integers(0, 256, (8, 8, 3))
    with served(tmp_path / "tflite") as url:
        browser.open(url, width=1280, height=800)
        browser.run(f"document.getElementById('range').value = {json.dumps(chosen)}")
        drop(browser, pixels)
        for percentage in (100, 40):
            set_percentage(browser, percentage)
            x = low + pixels / 255 * (high - low)
            chances = softmax(in_python(tmp_path / "tflite", x, percentage)[0])
            # Shown with one digit after the point.
            np.testing.assert_allclose(list(rows(browser).values()), 100 * chances, atol=0.06)
            assert list(rows(browser)) == labels
            assert browser.text("prediction") == labels[chances.argmax()]
    assert browser.errors == []


def test_of_a_large_picture_the_middle_is_taken(browser, served, tmp_path):
    kt.tflite.export(networks.cnn(), tmp_path / "tflite", mode="percentage_input")
    wide = np.zeros((80, 240, 3), "uint8")
    wide[:, :80] = (255, 0, 0)
    wide[:, 160:] = (0, 0, 255)
    wide[:, 80:160] = (20, 120, 220)
    with served(tmp_path / "tflite") as url:
        browser.open(url, width=1280, height=800)
        drop(browser, wide)
        seen_pixels = browser.run(
            "return [...document.getElementById('seen').getContext('2d')"
            ".getImageData(0, 0, 8, 8).data]"
        )
    np.testing.assert_allclose(np.reshape(seen_pixels, (64, 4)), [[20, 120, 220, 255]] * 64, atol=2)


@pytest.mark.parametrize("ink_on_paper", [False, True])
def test_a_dropped_grey_picture_has_bright_ink(page, exported, ink_on_paper):
    picture = np.zeros((8, 8), "uint8")
    picture[2:6, 3:5] = 255
    drop(page, 255 - picture if ink_on_paper else picture)
    chances = softmax(in_python(exported, [picture / 255], 100)[0])
    np.testing.assert_allclose(list(rows(page).values()), 100 * chances, atol=0.06)
    page.run("document.getElementById('example').click()")
    settle(page)
    assert list(rows(page).values()) != pytest.approx(list(100 * chances), abs=0.06)


def test_a_file_that_is_no_picture_changes_nothing(page):
    page.run(
        """
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File(['text'], 'notes.txt'));
        document.body.dispatchEvent(new DragEvent('drop', {bubbles: true, dataTransfer}));"""
    )
    settle(page)
    assert page.text("confidence") == "notes.txt is no picture that this browser reads."
    assert page.text("prediction") == NOTHING


def several_inputs():
    """Of two types; no class is named, so the outputs are numbers."""
    numbers = keras.Input((6,), name="numbers")
    words = keras.Input((3,), dtype="int32", name="words")
    embedded = keras.layers.Flatten()(keras.layers.Embedding(2, 4)(words))
    x = keras.layers.Concatenate()([numbers, embedded])
    x = keras.layers.Dense(8, activation="relu")(x)
    model = keras.Model([numbers, words], kt.layers.IDPDense(2, name="scores")(x), name="several")
    return kt.TESLA(model, [100, 50])


def test_any_other_model_gets_random_inputs(browser, served, tmp_path):
    kt.tflite.export(several_inputs(), tmp_path / "tflite", mode="percentage_input")
    with served(tmp_path / "tflite") as url:
        browser.open(url, width=1280, height=800)
        assert not browser.is_visible("drawing")
        assert "numbers: float32 [1, 6]" in browser.text("shapes")
        assert "words: int32 [1, 3]" in browser.text("shapes")
        shown = []
        for _ in range(2):
            browser.run("document.getElementById('example').click()")
            settle(browser)
            shown.append(rows(browser))
        assert [list(each) for each in shown] == [["scores[0]", "scores[1]"]] * 2
        assert shown[0] != shown[1]
        set_percentage(browser, 50)
        assert rows(browser) != shown[1]
        assert browser.text("rows-title") == "Outputs"
        assert browser.text("latency") != NOTHING
    assert browser.errors == []


# Drawings as the data sets have them.


def test_a_small_picture_is_filled_as_those_of_scikit_learn(page):
    made = made_picture(page, SEVEN, 8)
    pictures = data.load("digits").train.x
    assert made.max() <= 1
    assert made[0].max() > 0.5
    assert made[-1].max() > 0.5
    assert abs(made.mean() - pictures.mean()) < 0.02


def test_a_large_picture_has_the_margin_and_the_centre_of_mass_of_mnist(page):
    made = made_picture(page, SEVEN, 28)
    rows = np.flatnonzero(made.max(axis=1) > 0.1)
    assert 19 <= len(rows) <= 21
    places = np.arange(28) + 0.5
    centre = [(made.sum(axis=axis) * places).sum() / made.sum() for axis in (0, 1)]
    # Drawn at a quarter of a pixel.
    np.testing.assert_allclose(centre, 14, atol=0.1)


@pytest.mark.parametrize("side", [8, 28])
def test_size_and_place_of_a_drawing_do_not_matter(page, side):
    small = [[(x / 9 + 500, y / 9 - 70) for x, y in stroke] for stroke in SEVEN]
    np.testing.assert_allclose(
        made_picture(page, small, side),
        made_picture(page, SEVEN, side),
        atol=0.02,  # edges are drawn in 255 steps
    )


def test_a_dot_is_a_drawing_too(page):
    assert made_picture(page, [[(50, 50)]], 8).mean() > 0.1
    draw_with_mouse(page, [[(50, 50)]])
    assert page.text("prediction") in set("0123456789")


def test_the_page_is_isolated_and_asks_nobody_else(page, address):
    draw_with_mouse(page, SEVEN)
    assert page.run("return crossOriginIsolated")
    asked = {urllib.parse.urlsplit(url).netloc for url in page.requests if url[:5] != "data:"}
    assert asked == {urllib.parse.urlsplit(address).netloc}


def test_the_golden_file_of_format_1_runs(browser, served):
    folder = ROOT / "tests" / "golden" / "format_1"
    stored = np.load(folder / "arrays.npz")
    percentages = [100, 50, 20]
    with served(folder / "percentage_input_shared") as url:
        browser.open(url, width=1280, height=800)
        images = stored["images"].reshape(-1, 5 * 5)
        logits, served_by = in_browser(browser, images, percentages)
    assert served_by == percentages
    for percentage, actual in zip(percentages, logits, strict=True):
        outputs = stored[f"percentage_input_shared/{percentage}"]
        # float32 sums in another order.
        limit = 1e-5 * np.abs(outputs).max()
        np.testing.assert_allclose(actual, outputs, rtol=0, atol=limit)
