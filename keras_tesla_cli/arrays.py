"""Arrays from .npz and .npy files."""

import zipfile

from keras_tesla_cli import tool


def read(path: str) -> dict:
    """Returns the arrays of an .npz file.

    Raises:
        UsageError: If it is something else, or not whole.
    """
    held = read_inputs(path)
    if not isinstance(held, dict):
        raise tool.UsageError(f"{path} must be an .npz file. Received: one array, an .npy file")
    return held


def read_inputs(path: str):
    """Returns the arrays of an .npz file, {name: array}, or the one of an .npy file.

    Raises:
        UsageError: If it is neither, or not whole.
    """
    import numpy as np

    try:
        file = np.load(path)
    except (zipfile.BadZipFile, EOFError) as error:
        raise tool.UsageError(f"{path} is no whole .npz file: {error}") from error
    if not isinstance(file, np.lib.npyio.NpzFile):
        return file
    with file:
        return dict(file)
