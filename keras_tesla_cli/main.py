"""The command `keras-tesla`."""

import importlib.util
import pathlib
import runpy
import sys

from keras_tesla_cli import benchmark, convert, export, report, tool, train

_COMMANDS = {
    "convert": convert,
    "train": train,
    "export": export,
    "benchmark": benchmark,
    "report": report,
}

_USAGE = """\
keras-tesla COMMAND [flags]

Commands:
{commands}

`keras-tesla COMMAND --help` lists the flags of a command."""


def main(arguments=None):
    """Runs a command and ends the process: with 0, or with 1 and what was wrong.

    Args:
        arguments: List of strings. Default: those of the process.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    command, *rest = arguments or ["--help"]
    if command in ("--help", "-h"):
        print(_usage())
    elif command == "--version":
        print(f"keras_tesla {_version()}")
    elif command in _COMMANDS:
        tool.run(_COMMANDS[command], [f"keras-tesla {command}", *rest])
    else:
        sys.exit(f"keras-tesla: there is no command {command!r}.\n\n{_usage()}")


def _usage() -> str:
    first_lines = {name: str(module.__doc__).splitlines()[0] for name, module in _COMMANDS.items()}
    commands = "\n".join(f"  {name:<11}{line}" for name, line in first_lines.items())
    return _USAGE.format(commands=commands)


def _version() -> str:
    """Returns the library's version from its file; importing it would import Keras."""
    spec = importlib.util.find_spec("keras_tesla")
    assert spec is not None
    assert spec.origin is not None
    return runpy.run_path(str(pathlib.Path(spec.origin).with_name("version.py")))["__version__"]
