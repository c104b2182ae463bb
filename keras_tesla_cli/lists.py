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


def shapes(texts) -> dict[str, list[int]] | None:
    """Returns {input name: shape} of a flag `--input_shapes=image:224x224x3,ids:64`.

    Raises:
        UsageError: If one is invalid.
    """
    if texts is None:
        return None
    try:
        pairs = [text.rsplit(":", 1) for text in texts]
        return {name: [int(size) for size in shape.split("x")] for name, shape in pairs}
    except ValueError:
        raise tool.UsageError(
            "--input_shapes takes names and sizes without the batch, such as "
            f"image:224x224x3,ids:64. Received: {','.join(texts)}"
        ) from None


def labels(texts) -> list[str] | None:
    """Returns the names of a flag `--labels`, or the lines of the one .txt file that it names."""
    if texts is None or len(texts) != 1 or not texts[0].endswith(".txt"):
        return texts
    return pathlib.Path(texts[0]).read_text(encoding="utf-8").splitlines()
