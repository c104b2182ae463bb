"""How far a long command is: a line that is written again on a terminal, none in a log."""

import sys


def say(line: str):
    """Shows a line in place of the one before.

    A log gets none of them: what the command prints at the end says what was done.
    """
    if sys.stdout.isatty():
        print(f"\r\x1b[K{line}", end="", flush=True)


def clear():
    """Takes the last line away, so that the result stands there."""
    say("")
