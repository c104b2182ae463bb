"""The server of export/web: what it answers, and what it does not."""

import http.client
import pathlib
import socket
import subprocess
import sys
import urllib.parse

import pytest

pytestmark = pytest.mark.tensorflow
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """An export's folder and node_modules, both small, and a file beside them."""
    base = tmp_path_factory.mktemp("served")
    for name, content in {
        "model/manifest.json": "{}",
        "model/model.tflite": "weights",
        "model/notes.txt": "private",
        "node_modules/@litertjs/core/dist/index.js": "export {}",
        "node_modules/@litertjs/core/wasm/litert.wasm": "wasm",
        "secret.json": "secret",
    }.items():
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (base / "model" / "link.json").symlink_to(base / "secret.json")
    return base


@pytest.fixture(scope="module")
def get(folders, served):
    """A function `(path, method)`: the status, headers and body of an answer."""
    with served(folders / "model", folders / "node_modules") as url:
        address = urllib.parse.urlsplit(url)

        def ask(path, method="GET"):
            connection = http.client.HTTPConnection("127.0.0.1", address.port)
            connection.putrequest(method, path, skip_host=True)
            connection.putheader("Host", address.netloc)
            connection.endheaders()
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            return answer.status, answer.headers, body

        yield ask


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/?a=b", "text/html"),
        ("/style.css", "text/css"),
        ("/model.js", "text/javascript"),
        ("/model/manifest.json", "application/json"),
        ("/model/model.tflite", "application/octet-stream"),
        ("/node_modules/@litertjs/core/dist/index.js", "text/javascript"),
        ("/node_modules/%40litertjs/core/wasm/litert.wasm", "application/wasm"),
    ],
)
def test_the_page_the_model_and_the_runtime_are_served_for_an_isolated_page(get, path, kind):
    status, headers, body = get(path)
    assert status == 200
    assert headers["Content-Type"] == kind
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert int(headers["Content-Length"]) == len(body) > 0


@pytest.mark.parametrize(
    "path",
    [
        "/serve.py",
        "/model",
        "/model/",
        "/model/missing.json",
        "/model/notes.txt",
        "/model/link.json",
        "/secret.json",
        "/../secret.json",
        "/model/../secret.json",
        "/model/../../secret.json",
        "/model/%2e%2e/secret.json",
        "/model/..%2fsecret.json",
        "/model/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc/passwd",
        "/model//etc/passwd",
        "//etc/passwd",
        "/node_modules/../secret.json",
        "/model/model.tflite%00",
        "/model/%ff",
        "//[",
    ],
)
def test_nothing_else_is_served(get, path):
    status, _, body = get(path)
    assert status == 404
    assert b"secret" not in body
    assert b"private" not in body


def test_a_head_request_has_no_body(get):
    status, headers, body = get("/model/model.tflite", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "7", b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_written(get, method):
    assert get("/model/model.tflite", method)[0] == 501


def test_only_this_machine_is_answered(folders, served):
    with served(folders / "model", folders / "node_modules") as url:
        port = urllib.parse.urlsplit(url).port
        # Linux: every address of 127.0.0.0/8 is this machine; a server of all would answer there.
        with socket.socket() as other, pytest.raises(ConnectionRefusedError):
            other.connect(("127.0.0.2", port))


def test_what_is_wrong_is_said_before_anything_is_served(folders):
    def message(**changed):
        given = {
            "model_dir": folders / "model",
            "node_modules": folders / "node_modules",
            "port": 0,
        }
        done = subprocess.run(
            [
                *(sys.executable, "export/web/serve.py"),
                *(f"--{name}={value}" for name, value in {**given, **changed}.items()),
            ],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        return done.stderr + done.stdout

    assert "folder of an export, with manifest.json" in message(model_dir=folders)
    assert "tools/setup_browser.sh installs it" in message(node_modules=folders)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--port={port} cannot be used" in message(port=port)
