"""What the tools have in common: their own flags, help, and one-line errors.

A tool is a module with `FLAGS`, an `absl.flags.FlagValues` of its own, so that importing it adds
nothing to the flags of a program; `main`, which takes the arguments that are not flags; and a
docstring that is its help.
"""

import sys

from absl import flags, logging

from keras_tesla_cli import logs


class UsageError(Exception):
    """Invalid arguments, with a message of one line."""


def run(tool, arguments):
    """Runs a tool and ends the process with 1 and a line if something is wrong.

    Args:
        tool: The module.
        arguments: List of strings: what the user called, then the flags and other arguments.
    """
    program, *rest = arguments
    if {"--help", "-h", "--helpfull"} & set(rest):
        print(f"{tool.__doc__.strip()}\n\nFlags:\n{tool.FLAGS.get_help()}")
        return
    logging.set_verbosity(logging.WARNING)
    for flag in tool.FLAGS:
        tool.FLAGS[flag].unparse()  # a process may run a tool again
    try:
        with logs.without_noise():
            tool.main(tool.FLAGS(arguments)[1:])
    except (flags.Error, UsageError) as error:
        sys.exit(f"{program}: {error}\nFlags: {program} --help")
    # A package of an extra that is missing, a file that cannot be read or computes something else,
    # an argument that the library refuses.
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        sys.exit(f"{program}: {error}")
