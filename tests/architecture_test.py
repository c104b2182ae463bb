"""How the package is built: no part imports another one that imports it."""

import ast
import pathlib
import re

import pytest

import keras_tesla as kt

ROOT = pathlib.Path(kt.__file__).parent


def part(file):
    """The package or module directly below keras_tesla that a file belongs to."""
    return file.relative_to(ROOT).with_suffix("").parts[0]


def imported_parts(file):
    """The parts of keras_tesla that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("keras_tesla."):
                yield name.split(".")[1]


def graph_of_imports():
    """{part: the other parts that it imports}."""
    graph: dict = {}
    for file in ROOT.rglob("*.py"):
        if file != ROOT / "__init__.py":
            graph.setdefault(part(file), set()).update(imported_parts(file))
    return {name: others - {name} for name, others in graph.items()}


IMPORTS = graph_of_imports()


def reached(start):
    found: set = set()
    queue = [start]
    while queue:
        for other in IMPORTS.get(queue.pop(), ()):
            if other not in found:
                found.add(other)
                queue.append(other)
    return found


@pytest.mark.parametrize("name", sorted(IMPORTS))
def test_no_import_goes_in_a_circle(name):
    assert name not in reached(name)


def test_the_imports_are_seen():
    """The test above is worth something only if it reads the imports."""
    assert {"kinds", "graph", "channels"} <= IMPORTS["narrowing"]
    assert "layers" in reached("tflite")


def test_kinds_stand_on_these_alone():
    assert IMPORTS["kinds"] == {"channels", "cloning", "graph", "layers"}


def test_a_package_imports_only_those_below_it_on_the_page():
    """The table of docs/how_it_is_built.md."""
    page = ROOT.parent / "docs" / "how_it_is_built.md"
    table = page.read_text().split("## What is where")[1].split("\n\n`literature/`")[0]
    rows = [re.findall(r"`(\w+)(?:/|\.py)`", line.split("|")[1]) for line in table.splitlines()[6:]]
    row_of = {name: number for number, names in enumerate(rows) for name in names}
    assert {"tflite", "training", "conversion", "kinds", "channels"} <= set(row_of)
    for name, number in row_of.items():
        above = {other for other in IMPORTS.get(name, ()) if row_of.get(other, number) < number}
        assert not above, (name, above)


def test_no_module_is_long():
    """One idea a file; what grows beyond this holds two."""
    lines = {path: len(path.read_text().splitlines()) for path in ROOT.rglob("*.py")}
    assert max(lines.values()) <= 400, max(lines, key=lambda path: lines[path])
