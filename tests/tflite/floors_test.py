"""The floors of the package: no module imports one that imports it, at the top or in a function."""

import ast
import graphlib
import pathlib

import keras_tesla

ROOT = pathlib.Path(keras_tesla.__file__).parent
NAME = "keras_tesla.tflite"
FOLDERS = ("graphs", "files", "storages", "measure")


def modules():
    """{module: its file}, without the facade, which imports the top of everything."""
    return {
        ".".join(("keras_tesla", *path.relative_to(ROOT).with_suffix("").parts)): path
        for path in sorted((ROOT / "tflite").rglob("*.py"))
        if path != ROOT / "tflite" / "__init__.py"
    }


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def place(module):
    """A folder as a whole; a module beside the folders by itself."""
    name = module.removesuffix(".__init__").removeprefix(f"{NAME}.")
    return name.split(".")[0]


def test_no_part_of_the_package_imports_one_that_imports_it():
    known = modules()
    uses: dict[str, set] = {}
    for module, path in known.items():
        found = {n for n in imported(path) if n in known or f"{n}.__init__" in known}
        uses.setdefault(place(module), set()).update(map(place, found))
    for name, others in uses.items():
        others.discard(name)
    order = list(graphlib.TopologicalSorter(uses).static_order())  # raises CycleError
    floors = [name for name in order if name in FOLDERS]
    assert floors == ["graphs", "files", "storages", "measure"]
    assert order.index("bundle") > order.index("measure")
