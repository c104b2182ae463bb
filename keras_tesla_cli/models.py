"""Loading the model that a command is about, with the classes of its user."""

import importlib
import importlib.util
import os
import pathlib
import re
import sys
import zipfile
import zlib

from absl import flags

from keras_tesla_cli import tool

_UNKNOWN = re.compile(r"Could not locate (?:class|function) '(.+?)'")


def define_flags(values: flags.FlagValues):
    """Adds `--model` and `--custom` to the flags of a command."""
    flags.DEFINE_string("model", None, "The .keras file; or it is the first argument.", values)
    flags.DEFINE_multi_string(
        "custom",
        [],
        "Module, or .py file, with classes and functions of your own that the model consists of, "
        "each under @keras.saving.register_keras_serializable(). May be given several times.",
        values,
    )


def path_of(arguments, values: flags.FlagValues) -> str:
    """Returns the one path that an argument or `--model` names.

    Raises:
        UsageError: If there is none, or more than one.
    """
    paths = [*arguments, *filter(None, [values["model"].value])]
    if len(paths) != 1:
        raise tool.UsageError(f"Name one model: MODEL.keras, or --model=. Received: {paths}")
    return paths[0]


def load(path, custom=()):
    """Returns a saved model, not compiled, so that its loss need not be known.

    Args:
        path: Of the file.
        custom: Modules and .py files to import before.

    Raises:
        UsageError: If the file is none of Keras' or not whole, a module cannot be imported, or a
            class of the model is not known.
        ValueError: If Keras cannot make the model of what the file says.
    """
    _check(pathlib.Path(path))
    import keras

    importlib.import_module("keras_tesla")  # registers its classes
    for name in custom:
        _import(name)
    try:
        return keras.saving.load_model(path, compile=False)
    except (TypeError, KeyError) as error:
        unknown = _UNKNOWN.search(str(error))
        if unknown is None:
            what = f"{type(error).__name__}: {error}"
            raise ValueError(f"{str(path)!r} cannot be loaded: {what}") from error
        raise tool.UsageError(
            f"{str(path)!r} needs {unknown[1].rpartition('>')[2]!r}, which is not known here. Name "
            "the file or module that defines it under "
            "@keras.saving.register_keras_serializable(): --custom=my_layers.py. "
            f"Received: {list(custom)}"
        ) from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise tool.UsageError(_damaged(path, error)) from error


def _check(path):
    """Raises where Keras would speak of a file that is not found, whatever is wrong."""
    if not path.exists():
        raise tool.UsageError(f"There is no file {str(path)!r}.")
    if path.is_dir():
        raise tool.UsageError(f"Expected a .keras file. Received the folder {str(path)!r}")
    if path.suffix == ".keras":
        if not zipfile.is_zipfile(path):
            raise tool.UsageError(_damaged(path, "it is no zip archive, or the end is missing"))
        with zipfile.ZipFile(path) as archive:
            missing = {"config.json", "model.weights.h5"} - set(archive.namelist())
        if missing:
            raise tool.UsageError(_damaged(path, f"it has no {', '.join(sorted(missing))}"))


def _damaged(path, why):
    return f"{str(path)!r} is not a whole .keras file: {why}. Save it again with `model.save`."


def _import(name):
    """Imports a module or a .py file; what lies beside it can be imported from it."""
    path = pathlib.Path(name)
    is_file = path.suffix == ".py"
    if is_file and not path.is_file():
        raise tool.UsageError(f"--custom={name}: there is no such file.")
    folder = str(path.resolve().parent) if is_file else os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        if is_file:
            _import_file(path)
        else:
            importlib.import_module(name)
    except Exception as error:  # whatever the user's code raises
        raise tool.UsageError(
            f"--custom={name} cannot be imported: {type(error).__name__}: {error}"
        ) from error


def _import_file(path):
    # Its name is not that of another module that happens to be called the same.
    spec = importlib.util.spec_from_file_location(f"keras_tesla_custom.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # as `import` does before it runs the code
    spec.loader.exec_module(module)
