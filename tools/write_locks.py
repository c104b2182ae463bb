"""Writes requirements.lock and requirements-test.lock from the environment that runs it.

    pip install -e ".[docs,test]" mypy ruff && python tools/write_locks.py

Both files keep their comment. requirements.lock gets what the library and the extra `demo` need,
the other one all that is left.
"""

import importlib.metadata
import pathlib
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[1]
FILES = DEMO, TESTS = ROOT / "requirements.lock", ROOT / "requirements-test.lock"


def demo_requirements() -> list[str]:
    """Returns what pyproject.toml asks for: the dependencies, and the extra `demo`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["demo"]]


def closure(requirements) -> set[str]:
    """Returns the names of packages that are installed for some requirements, themselves too."""
    extras: dict[str, set] = {}
    queue = [Requirement(text) for text in requirements]
    while queue:
        wanted = queue.pop()
        name = canonicalize_name(wanted.name)
        if name in extras and wanted.extras <= extras[name]:
            continue
        extras.setdefault(name, {""}).update(wanted.extras)
        for needed in map(Requirement, importlib.metadata.requires(name) or ()):
            marker = needed.marker
            if marker is None or any(marker.evaluate({"extra": e}) for e in extras[name]):
                queue.append(needed)
    return set(extras)


def installed() -> dict[str, str]:
    """Returns {name: line of a lock} of the environment, without local labels such as "+cpu"."""
    found = {}
    for package in importlib.metadata.distributions():
        name = package.metadata["Name"]
        found[canonicalize_name(name)] = f"{name}=={package.version.partition('+')[0]}"
    for name in ("pip", "keras-tesla"):
        found.pop(name, None)
    return found


def main():
    """Writes the files."""
    demo, lines = closure(demo_requirements()), installed()
    for path, names in ((DEMO, set(lines) & demo), (TESTS, set(lines) - demo)):
        # The comment, and in the second file the line that names the first one.
        head = [line for line in path.read_text().splitlines() if line.startswith(("#", "-"))]
        chosen = sorted((lines[name] for name in names), key=str.lower)
        path.write_text("\n".join([*head, *chosen]) + "\n")


if __name__ == "__main__":
    main()
