"""What a percentage is, and how many terms of a dot product it keeps."""

from collections.abc import Iterable

from keras_tesla.integers import is_integer


def check_percentage(percentage) -> int:
    """Returns `percentage` as a Python int in 1..100.

    Only integers are percentages: `math.ceil(0.55 * 100)` is 56, so a float would
    silently name another sub-network.

    Args:
        percentage: An int or a NumPy integer, 1..100.

    Returns:
        The percentage as a Python `int`.

    Raises:
        ValueError: If it is not an integer (a bool and a string are not), or outside 1..100.

    Example:

    >>> check_percentage(30)
    30
    """
    if not is_integer(percentage):
        raise ValueError(
            "A percentage must be an integer from 1 to 100. "
            f"Received: {percentage!r} (of type {type(percentage).__name__})"
        )
    if not 1 <= int(percentage) <= 100:
        raise ValueError(f"A percentage must be from 1 to 100. Received: {percentage!r}")
    return int(percentage)


def check_percentages(percentages) -> tuple[int, ...]:
    """Returns `percentages` validated, from the highest to the lowest.

    Args:
        percentages: Iterable of distinct integers, 1..100. At least one.

    Returns:
        A tuple of Python ints in descending order.

    Raises:
        ValueError: If it is empty, not an iterable, holds a value that is not a percentage, or
            holds one twice.

    Example:

    >>> check_percentages([10, 100, 50])
    (100, 50, 10)
    """
    if isinstance(percentages, str) or not isinstance(percentages, Iterable):
        raise ValueError(
            "`percentages` must be an iterable of integers, for example "
            f"`range(100, 0, -10)`. Received: {percentages!r}"
        )
    checked = [check_percentage(p) for p in percentages]
    if not checked:
        raise ValueError("`percentages` must hold at least one percentage. Received none.")
    if len(set(checked)) != len(checked):
        raise ValueError(f"`percentages` must be distinct. Received: {checked}")
    return tuple(sorted(checked, reverse=True))


def active_terms(terms: int, percentage: int) -> int:
    """Number of leading terms a dot product keeps: `max(1, floor(percentage / 100 * terms))`.

    Args:
        terms: Number of terms of the complete dot product (input channels), at least 1.
        percentage: Int, 1..100.

    Returns:
        Int, 1..`terms`.

    Example:

    >>> active_terms(100, 55), active_terms(3, 10), active_terms(64, 100)
    (55, 1, 64)
    """
    return max(1, terms * percentage // 100)
