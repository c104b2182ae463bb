"""What the page of export/web says where it cannot run a model."""

import hashlib
import json
import shutil

import pytest

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]


def change_manifest(folder, **changes):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}))


def change_model(folder, change):
    content = change((folder / "model.tflite").read_bytes())
    (folder / "model.tflite").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return {"file": "model.tflite", "bytes": len(content), "sha256": digest}


def flip(content):
    return content[:-200] + bytes([content[-200] ^ 1]) + content[-199:]


def recorded(folder, change):
    """Changes the model and writes its digest to the manifest: no damage, another model."""
    change_manifest(folder, files=[change_model(folder, change)])


WRONG = {
    "a flipped bit": (lambda d: change_model(d, flip), "model.tflite is damaged"),
    "a truncated model": (lambda d: change_model(d, lambda c: c[:-1]), "model.tflite is damaged"),
    "an empty model": (lambda d: change_model(d, lambda c: b""), "model.tflite is damaged"),
    "no model": (lambda d: (d / "model.tflite").unlink(), "Received: 404"),
    "no manifest": (lambda d: (d / "manifest.json").unlink(), "Received: 404"),
    "half a manifest": (
        lambda d: (d / "manifest.json").write_text('{"mode": "perc'),
        "manifest.json is damaged",
    ),
    "no manifest of an export": (
        lambda d: (d / "manifest.json").write_text('{"name": "mlp"}'),
        'Expected the manifest.json of an export, with "format" and "percentages". '
        'Received: {"name":"mlp"}',
    ),
    "no object": (
        lambda d: (d / "manifest.json").write_text("null"),
        "Expected the manifest.json of an export",
    ),
    "another format": (
        lambda d: change_manifest(d, format=2),
        "The manifest has format 2; this page reads format 1. Export the model again",
    ),
    "another mode": (
        lambda d: change_manifest(d, mode="signatures"),
        'no percentage input. Expected an export with mode="percentage_input". '
        'Received: mode="signatures"',
    ),
    "no percentage input": (
        lambda d: recorded(d, lambda c: c.replace(b"percentage", b"porcentage")),
        'with an input "percentage" in model.tflite. Received the inputs: image, porcentage',
    ),
    "no model in the file": (
        lambda d: recorded(d, lambda c: b"\0" * len(c)),
        "LiteRT.js could not read the model",
    ),
    "int8 inputs": (
        lambda d: change_manifest(d, inputs={"image": {"shape": [1, 64], "dtype": "int8"}}),
        "takes inputs of float32, int32, uint8. Received: "
        '{"image":{"shape":[1,64],"dtype":"int8"}}',
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_run_is_said_on_the_page(browser, exported, served, tmp_path, what):
    change, expected = WRONG[what]
    folder = shutil.copytree(exported, tmp_path / "tflite")
    with served(folder) as url:
        change(folder)
        browser.open(url, width=1280, height=800)
        assert expected in browser.text("error")
    assert browser.is_visible("error")
    assert not browser.is_visible("main")
    assert not browser.is_visible("status")
    assert browser.errors == []


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("delete globalThis.WebAssembly", "This browser has no WebAssembly"),
        ("delete Crypto.prototype.subtle", "browsers compute SHA-256 on pages of https://"),
    ],
)
def test_what_a_browser_lacks_is_said_on_the_page(browser, exported, served, missing, expected):
    added = browser.send("Page.addScriptToEvaluateOnNewDocument", source=missing)
    with served(exported) as url:
        browser.open(url, width=1280, height=800)
    browser.send("Page.removeScriptToEvaluateOnNewDocument", **added)
    assert expected in browser.text("error")
    assert browser.is_visible("error")


def test_a_missing_runtime_is_said_on_the_page(browser, exported, served, tmp_path):
    (tmp_path / "@litertjs" / "core").mkdir(parents=True)
    with served(exported, modules=tmp_path) as url:
        browser.open(url, width=1280, height=800)
        assert "LiteRT.js could not be loaded" in browser.text("error")
        assert "tools/setup_browser.sh" in browser.text("error")


def test_an_error_while_the_model_runs_is_said_on_the_page(browser, exported, served, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "tflite")
    change_manifest(folder, inputs={"image": {"shape": [1, 81], "dtype": "float32"}})
    with served(folder) as url:
        browser.open(url, width=1280, height=800)
        assert browser.is_visible("main")
        browser.run("document.getElementById('example').click()")
        browser.wait("document.getElementById('error').checkVisibility()")
    assert not browser.is_visible("main")
    assert browser.text("error").startswith("Error: ")
