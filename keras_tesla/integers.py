"""What counts as an integer: Python's and NumPy's, no bool, no float."""

import numbers
from typing import Any


def is_integer(value: Any) -> bool:
    """Whether a value is an integer, of Python or of NumPy.

    Example:

    >>> import numpy as np
    >>> [is_integer(value) for value in (3, np.int64(3), 3.0, True, np.array(3))]
    [True, True, False, False, False]
    """
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_integer(name: str, value: Any, least: int = 1) -> int:
    """Returns `value` as a Python int that is at least `least`.

    Args:
        name: What the argument is called, for the message.
        value: Anything.
        least: Int, the smallest value that is allowed.

    Raises:
        ValueError: If it is not an integer, or is smaller.

    Example:

    >>> check_integer("steps", 3)
    3
    """
    if not is_integer(value) or value < least:
        expected = "a positive integer" if least == 1 else f"an integer, {least} or more"
        kind = type(value).__name__
        raise ValueError(f"`{name}` must be {expected}. Received: {value!r} (of type {kind})")
    return int(value)
