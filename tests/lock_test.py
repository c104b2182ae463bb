"""The packages that `make` installs: few for the demo, and the same versions of them for tests."""

import importlib.metadata
import re

import pytest
from packaging.utils import canonicalize_name

from tests.helpers import ROOT
from tools import write_locks

pytestmark = pytest.mark.backend_free


def locked(name):
    """{package: version} of a file and of those that it names."""
    found: dict = {}
    for line in (ROOT / name).read_text().splitlines():
        if line.startswith("--requirement "):
            found.update(locked(line.split()[1]))
        elif not line.startswith("#"):
            package, version = re.fullmatch(r"([\w.-]+)==([\w.]+)", line).groups()
            package = canonicalize_name(package)
            assert package not in found, f"{package} is locked twice"
            found[package] = version
    return found


DEMO, ALL = locked("requirements.lock"), locked("requirements-test.lock")


def test_the_demo_needs_few_packages_and_tests_get_the_same_versions_of_them():
    assert len(DEMO) <= 60
    assert DEMO.items() < ALL.items()
    assert {"torch", "jax", "mkdocs", "pytest", "tensorflow-datasets"} <= set(ALL) - set(DEMO)


def test_the_demos_packages_are_what_the_library_and_its_plot_and_digits_need():
    different = {
        name: version for name, version in DEMO.items() if _installed(name) not in (None, version)
    }
    if different:
        pytest.skip(f"other versions than the locked ones are installed: {sorted(different)}")
    assert set(DEMO) == write_locks.closure(write_locks.demo_requirements())


def _installed(name):
    try:
        return importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def test_the_closure_follows_the_extras_that_are_asked_for(monkeypatch):
    needs = {
        "a": ["B_b[fast]>=1", "windows-only; sys_platform == 'win32'"],
        "b-b": ["c", "d; extra == 'fast'", "e; extra == 'slow'"],
        "c": ["a", "b-b[slow]; python_version < '3'"],
        "d": None,
    }
    monkeypatch.setattr(importlib.metadata, "requires", needs.__getitem__)
    assert write_locks.closure(["A"]) == {"a", "b-b", "c", "d"}


def test_the_tool_writes_the_locks_that_are_here(tmp_path, monkeypatch):
    paths = [tmp_path / "requirements.lock", tmp_path / "requirements-test.lock"]
    for path, line in zip(paths, ("# one", "--requirement requirements.lock"), strict=True):
        path.write_text(f"{line}\nold==1\n")
    monkeypatch.setattr(write_locks, "DEMO", paths[0])
    monkeypatch.setattr(write_locks, "TESTS", paths[1])
    write_locks.main()
    first, second = (path.read_text().splitlines() for path in paths)
    assert first[0] == "# one"
    assert second[0] == "--requirement requirements.lock"
    assert "old==1" not in first + second
    assert any(line.startswith("keras==") for line in first)
    assert any(line.startswith("pytest==") for line in second)
    assert not set(first) & set(second)
