"""The server of export/web, and what `make demo` exports."""

import contextlib
import re
import subprocess
import sys

import pytest

from tests.helpers import ROOT, run_script

MODULES = ROOT / ".tools" / "web" / "node_modules"


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """The folder that the command of `make demo` exports to, after fewer epochs."""
    out = tmp_path_factory.mktemp("demo")
    (command,) = re.findall(r"python (examples/.*)", (ROOT / "Makefile").read_text())
    run_script(*command.split(), "--epochs=4", f"--output_dir={out}")
    return out / "tflite"


@contextlib.contextmanager
def _served(model, modules=MODULES):
    command = [sys.executable, "export/web/serve.py", "--port=0"]
    command += [f"--model_dir={model}", f"--node_modules={modules}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().split()[0]
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def served():
    """A function `(folder of an export, node_modules)`: runs the server as a user does.

    It is a context manager that gives the address of the page.
    """
    if not (MODULES / "@litertjs" / "core").is_dir():
        pytest.skip("LiteRT.js is not installed; tools/setup_browser.sh does it")
    return _served
