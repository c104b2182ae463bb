"""Packages that only a part of the library needs, each in an extra of `pip install`."""

import importlib


def load(module: str, extra: str):
    """Returns a module of a package that is not among the dependencies.

    Args:
        module: Its full name.
        extra: The extra of `pyproject.toml` that installs the package.

    Raises:
        ImportError: If it is not installed; says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"`{module}` is not installed. Install it with: "
            f'pip install "keras-tesla[{extra}]". Received: {error}'
        ) from error
