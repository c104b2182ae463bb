"""The documentation: its code runs, its tables are those of the JSON, its site has every name.

The Python blocks of a page run from top to bottom in one namespace, which `PREPARED` fills with
what the page says that the reader has. A block that cannot run stands below
`<!-- not run: why -->`.
"""

import contextlib
import html
import importlib
import io
import pathlib
import re
import shlex
import subprocess
import sys
import textwrap

import keras
import matplotlib
import numpy as np
import pytest

import keras_tesla as kt
from keras_tesla_cli.main import main

pytestmark = pytest.mark.tensorflow
ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
LANGUAGES = {"bash", "html", "js", "kotlin", "python", "text"}
MODULES = ["analysis", "callbacks", "compression", "kinds", "layers", "literature", "tflite"]
# {page: how many blocks are marked as not run}
NOT_RUN = {"distribution.md": 4}  # tests/training/distribution_test.py does what they say

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def blocks(page):
    """Returns (language, code, line of its first line, why it is not run or None) of a page."""
    found, lines = [], page.read_text().splitlines()
    start = None
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("```"):
            if start is None:
                start = number
                continue
            above = next((text for text in reversed(lines[: start - 1]) if text), "")
            reason = re.fullmatch(r"<!-- not run: (.+) -->", above)
            code = textwrap.dedent("\n".join(lines[start : number - 1]))  # a tab is indented
            language = lines[start - 1].lstrip()[3:]
            found.append((language, code, start + 1, reason and reason[1]))
            start = None
    assert start is None, f"{page} does not close the fence of line {start}"
    return found


def commands(page):
    """Returns ("shell", command, line, None), as `blocks` does, of each command on a page."""
    lines = enumerate(page.read_text().splitlines(), 1)
    return [("shell", t.strip(), n, None) for n, t in lines if t.startswith("    keras-tesla ")]


# What a page says that the reader has.


def digits(flat):
    """Data of few examples, by the names that the pages use."""
    splits = kt.data.load("digits")
    names = {"keras": keras, "kt": kt, "np": np, "loss": LOSS}
    for suffix in ("train", "validation", "test"):
        split = getattr(splits, suffix)
        x = split.x.reshape(len(split), -1) if flat else split.x
        names["x_" + suffix], names["y_" + suffix] = x[:256], split.y[:256]
    names["x"], names["y"] = names["x_train"], names["y_train"]
    names["x_val"], names["y_val"] = names["x_validation"], names["y_validation"]
    return names


def dense():
    return keras.Sequential(
        [
            keras.Input((64,), name="image"),
            keras.layers.Dense(32, activation="relu"),
            kt.layers.IDPDense(32, activation="relu"),
            kt.layers.IDPDense(10, name="logits"),
        ]
    )


def convolutional(layer, normalization):
    """Of plain or of incomplete layers."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
            layer(16, 3),
            normalization,
            keras.layers.ReLU(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10, name="logits"),
        ]
    )


def trained(model, names, epochs=3):
    model.compile("adam", LOSS, metrics=["accuracy"])
    model.fit(names["x"], names["y"], epochs=epochs, verbose=0)
    return model


def readme():
    """784 inputs, and a model of one's own."""
    names = digits(flat=True)
    for name in [name for name in names if name.startswith("x")]:
        names[name] = np.pad(names[name], [(0, 0), (0, 784 - 64)])
    plain = keras.Sequential(
        [keras.Input((784,)), keras.layers.Dense(20, activation="relu"), keras.layers.Dense(10)]
    )
    return {**names, "trained": trained(plain, names)}


def scalable(flat=True, percentages=(100, 50)):
    names = digits(flat)
    model = dense()
    if not flat:
        normalization = kt.layers.IDPBatchNormalization(percentages)
        model = convolutional(kt.layers.IDPConv2D, normalization)
    return {**names, "tesla": trained(kt.TESLA(model, percentages), names)}


def converting():
    names = digits(flat=False)
    plain = convolutional(keras.layers.Conv2D, keras.layers.BatchNormalization())
    return {**names, "trained": trained(plain, names)}


def one_example():
    names = scalable(percentages=(100, 30))
    return {**names, "x": names["x"][:1]}


def of_keras_2():
    pytest.importorskip("tensorflow_model_optimization")
    names = scalable()
    from keras_tesla.compression import packages

    tf_keras, _ = packages.load()
    return {**names, "loss": tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)}


def files():
    """A model and data of one's own in the current folder."""
    names = digits(flat=True)
    held = ("x_train", "y_train", "x_test", "y_test")
    np.savez("digits.npz", **{name: names[name] for name in held})
    layers = [
        keras.Input((64,)),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dense(10),
    ]
    trained(keras.Sequential(layers), names).save("mine.keras")
    (page,) = (page for page in PAGES if page.name == "command_line.md")
    code = blocks(page)[1][1]
    pathlib.Path("my_layers.py").write_text(f"import keras\nimport keras_tesla as kt\n\n{code}")
    names = {"keras": keras, "kt": kt}
    exec(code, names)
    keras.Sequential([*layers[:2], names["Doubled"](), *layers[2:]]).save("own.keras")
    return {}


PREPARED = {
    "README.md": readme,
    "command_line.md": files,
    "compression.md": of_keras_2,
    "converting.md": converting,
    "distribution.md": dict,
    "export.md": one_example,
    "faq.md": scalable,
    "getting_started.md": dict,
    "on_the_phone.md": dict,
    "training.md": lambda: scalable(flat=False, percentages=(100, 50, 25)),
}


def test_every_block_has_a_language_that_is_known():
    """A block of another spelling, "py" or "Python", would not run."""
    for page in PAGES:
        assert {language for language, *_ in blocks(page)} <= LANGUAGES, page


def test_pages_with_code_are_those_that_run():
    with_code = {p.name for p in PAGES if any(b[0] == "python" for b in blocks(p))}
    assert with_code == set(PREPARED)


def test_blocks_that_do_not_run_are_these():
    marked = {page.name: sum(bool(reason) for *_, reason in blocks(page)) for page in PAGES}
    assert {name: count for name, count in marked.items() if count} == NOT_RUN


# Pages whose shell commands name only files that the page, or `PREPARED`, has made.
WITH_COMMANDS = ("command_line.md", "getting_started.md")


@pytest.mark.slow
@pytest.mark.parametrize("name", PREPARED)
def test_code_runs_from_top_to_bottom(name, tmp_path, monkeypatch):
    (page,) = (page for page in PAGES if page.name == name)
    monkeypatch.chdir(tmp_path)
    names = PREPARED[name]()
    printed = io.StringIO()
    parts = blocks(page) + (commands(page) if name in WITH_COMMANDS else [])
    for language, code, line, reason in sorted(parts, key=lambda part: part[2]):
        if language == "shell":
            main(shlex.split(code)[1:])
        elif language == "python" and not reason:
            # The lines of the page, so that a traceback names them.
            compiled = compile("\n" * (line - 1) + code, str(page), "exec")
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compiled, names)
        elif language == "text":  # what the block above prints
            assert [text.rstrip() for text in printed.getvalue().splitlines()] == code.splitlines()
    if name == "command_line.md":
        ours, theirs = (kt.tflite.read(path) for path in ("tflite", "tflite_from_python"))
        assert [e.multiply_adds for e in ours.entries] == [e.multiply_adds for e in theirs.entries]
    if name == "getting_started.md":
        accuracy = names["tesla"].evaluate(names["x"], names["y"], return_dict=True)
        assert accuracy["p100_accuracy"] > 0.9
        assert (tmp_path / "digits_tflite" / "manifest.json").exists()


# What is written by a script.


@pytest.fixture
def script(monkeypatch):
    """A function that imports a script of docs/."""
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module


def test_the_tables_are_those_of_the_json(script):
    make_tables = script("make_tables")
    tables = [
        name
        for page in DOCS.glob("*.md")
        for name in re.findall(r"<!-- table (\w+) -->\n", page.read_text())
    ]
    assert sorted(tables) == sorted(make_tables.TABLES)
    for page in DOCS.glob("*.md"):
        assert page.read_text() == make_tables.filled(page.read_text()), page


def test_the_picture_has_the_channels_of_the_narrowed_network(script, tmp_path):
    make_pictures = script("make_pictures")
    model = make_pictures.network()
    drawn = make_pictures.computed_channels(model, 50)
    narrowed = kt.TESLA(model, [100, 50]).at(50)
    kernels = [layer.kernel.shape for layer in narrowed.layers if hasattr(layer, "kernel")]
    assert [computed for _, computed, _ in drawn] == [kernels[0][0], *(k[1] for k in kernels)]
    assert [channels for *_, channels in drawn] == [8, 10, 10, 10, 4]


def test_the_pictures_are_those_of_the_scripts(script, tmp_path, monkeypatch):
    """So they show the figures of the JSON and the plan of the library."""
    make_pictures, plots = script("make_pictures"), script("result_plots").PLOTS
    monkeypatch.setattr(make_pictures, "IMAGES", tmp_path)
    make_pictures.main([])
    for name, draw in plots.items():
        draw(tmp_path / f"{name}.svg")
    committed = sorted((DOCS / "images").glob("*.svg"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in committed]
    for path in committed:
        drawn = (tmp_path / path.name).read_text()
        # Another Matplotlib places letters elsewhere.
        if f"Matplotlib v{matplotlib.__version__}," in path.read_text():
            assert drawn == path.read_text(), path


def test_every_picture_is_shown():
    links = [link for page in PAGES for link in re.findall(r"!\[.*?\]\((.*?)\)", page.read_text())]
    assert {pathlib.Path(link).name for link in links} == {
        p.name for p in (DOCS / "images").iterdir()
    }


def test_no_cell_of_a_table_is_empty(script):
    for name, table in script("make_tables").TABLES.items():
        lines = [line for line in table() if line.startswith("|")]
        for line in lines[2:]:  # the first two: the heads, where the one of the names may be empty
            assert all(cell.strip() for cell in line.strip("|").split("|")), (name, line)


# The site.


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; links that lead nowhere and warnings fail it."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_the_site_describes_every_public_name(site, module):
    page = (site / "api" / f"{module}.html").read_text()
    described = set(re.findall(r'class="doc doc-object-name[^>]*>(?:\w+\.)*(\w+)<', page))
    assert set(getattr(kt, module).__all__) <= described


@pytest.mark.slow
def test_the_site_describes_what_the_package_itself_exports(site):
    page = (site / "api" / "keras_tesla.html").read_text()
    described = set(re.findall(r'class="doc doc-object-name[^>]*>(?:\w+\.)*(\w+)<', page))
    pages = {path.stem for path in (site / "api").iterdir()}
    assert set(kt.__all__) - {"__version__"} <= described | pages


@pytest.mark.slow
def test_the_page_of_tesla_describes_what_users_call(site):
    """Not what Keras and the training step call: `compute_loss`, `metrics` and the like."""
    page = (site / "api" / "keras_tesla.html").read_text()
    described = set(re.findall(r'id="keras_tesla\.TESLA\.(\w+)"', page))
    users = "compile fit evaluate predict at summary activate active_percentages"
    assert described == set(users.split())


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(site):
    loaded = re.compile(r"<(?:script|img|iframe|link)[^>]*(?:src|href)=\"?(?:https?:)?//[^>]*>")
    for page in site.rglob("*.html"):
        assert not loaded.search(html.unescape(page.read_text())), page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//", sheet.read_text()), sheet


@pytest.mark.slow
def test_the_search_works_when_the_site_is_opened_from_files(site, browser):
    browser.open((site / "api" / "layers.html").as_uri(), width=1280, height=800)
    browser.run(
        """
        const field = document.querySelector('input.md-search__input');
        field.focus();
        field.value = 'governor';
        field.dispatchEvent(new Event('input', {bubbles: true}));"""
    )
    browser.wait("document.querySelectorAll('.md-search-result__item').length")
    found = browser.run("return document.querySelector('.md-search-result__link').href")
    assert found.startswith(site.as_uri())
    assert browser.errors == []


@pytest.mark.slow
@pytest.mark.parametrize("page", ["index", "results", "export", "training", "getting_started"])
def test_a_page_fits_a_phone(site, browser, page):
    """Tables and code scroll, each in its own box; the page does not."""
    browser.open((site / f"{page}.html").as_uri(), width=390, height=800, touch=True)
    browser.run("document.querySelectorAll('details').forEach((part) => (part.open = true))")
    assert browser.run("return document.documentElement.scrollWidth") <= 390


def test_links_of_the_pages_hold_in_the_repository():
    """The site's own links are checked when it is built; these are those of a code host."""
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
        for link in re.findall(r"\]\(([^)#\s]+)", text):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), (page, link)
