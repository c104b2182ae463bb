"""Lists among flags."""

import pathlib

from keras_tesla_cli import tool


def percentages(texts) -> list[int] | None:
    """Returns the integers of a flag `--percentages`; None where it was not given.

    Raises:
        UsageError: If one is invalid.
    """
    if texts is None:
        return None
    try:
        return [int(text) for text in texts]
    except ValueError:
        raise tool.UsageError(
            f"--percentages takes integers. Received: {','.join(texts)}"
        ) from None


def labels(texts) -> list[str] | None:
    """Returns the names of a flag `--labels`, or the lines of the one .txt file that it names."""
    if texts is None or len(texts) != 1 or not texts[0].endswith(".txt"):
        return texts
    return pathlib.Path(texts[0]).read_text(encoding="utf-8").splitlines()
