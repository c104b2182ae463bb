"""Lists of numbers among flags."""

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
