"""Writing a text file whole or not at all."""

import os
import pathlib
import tempfile


def check(path, overwrite: bool) -> pathlib.Path:
    """Returns the path of a file that may be written; to be called before long work.

    Args:
        path: The file.
        overwrite: Bool, whether a file that is there may be replaced.

    Raises:
        FileExistsError: If there is a file and `overwrite` is false.
        IsADirectoryError: If it is a folder.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"Expected the name of a file. Received the folder {str(path)!r}")
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"{str(path)!r} already exists. Choose another name, or ask to overwrite it."
        )
    return path


def write(path, text: str, overwrite: bool) -> pathlib.Path:
    """Writes a file under a temporary name and renames it.

    Args:
        path: The file; folders above it are made.
        text: What goes in.
        overwrite: Bool, whether a file that is there may be replaced.

    Returns:
        The path.

    Raises:
        FileExistsError: If there is a file and `overwrite` is false.
        OSError: If it cannot be written.
    """
    path = check(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)  # mkstemp's 0600 is for secrets
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path
