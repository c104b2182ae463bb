"""Packages of extras: what is missing is said with the line that installs it."""

import sys
import tomllib

import pytest

from keras_tesla import data, extras
from keras_tesla.analysis import plots
from tests.helpers import ROOT

pytestmark = pytest.mark.backend_free


@pytest.mark.parametrize(
    ("package", "use", "extra"),
    [
        ("sklearn", lambda path: data.load("digits"), "demo"),
        ("tensorflow_datasets", lambda path: data.load("mnist"), "examples"),
        ("matplotlib", lambda path: plots.accuracy_over_cost({}, path), "demo"),
    ],
)
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    package, use, extra, monkeypatch, tmp_path
):
    for name in [n for n in sys.modules if n.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(ImportError, match=rf'pip install "keras-tesla\[{extra}\]"'):
        use(tmp_path / "plot.png")


def test_the_extras_that_are_named_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"demo", "examples"} <= set(project["optional-dependencies"])


def test_what_is_installed_is_returned():
    assert extras.load("json.decoder", "demo").JSONDecoder
