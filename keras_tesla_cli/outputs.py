"""What the commands write: asked before the work, written whole or not at all."""

import os
import pathlib
import tempfile

from keras_tesla_cli import tool


def check_file(path, overwrite: bool, suffix: str | None = None) -> pathlib.Path:
    """Returns the path of a file that can be written.

    Raises:
        UsageError: If it is a folder, there is a file and `overwrite` is false, its name does not
            end in `suffix`, or nothing can be written there.
    """
    path = pathlib.Path(path)
    if suffix is not None and path.suffix != suffix:
        raise tool.UsageError(f"--output must end in {suffix}. Received: {path}")
    if path.is_dir():
        raise tool.UsageError(f"Expected the name of a file. Received the folder {str(path)!r}")
    if path.exists() and not overwrite:
        raise tool.UsageError(f"{str(path)!r} exists already. To replace it: --overwrite")
    _check_folders(path, path.absolute().parents)
    return path


def check_export(directory, overwrite: bool) -> pathlib.Path:
    """Returns the path of a folder that an export can be written to.

    Raises:
        UsageError: If it is a file, holds an export and `overwrite` is false, or nothing can be
            written there.
    """
    directory = pathlib.Path(directory)
    if (directory / "manifest.json").exists() and not overwrite:
        raise tool.UsageError(
            f"{str(directory)!r} already holds an export. To replace it: --overwrite"
        )
    _check_folders(directory, [directory, *directory.absolute().parents])
    return directory


def _check_folders(path, folders):
    """Raises if the first of these folders that is there is none, or takes no files."""
    lowest = next(folder for folder in folders if folder.exists())
    if not lowest.is_dir():
        raise tool.UsageError(f"{str(path)!r} cannot be written: {str(lowest)!r} is a file.")
    if not os.access(lowest, os.W_OK | os.X_OK):
        raise tool.UsageError(f"{str(path)!r} cannot be written: {str(lowest)!r} is not writable.")


def save(model, path: pathlib.Path):
    """Saves a Keras model under a temporary name and renames the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        unfinished = pathlib.Path(folder) / path.name
        model.save(unfinished)
        os.replace(unfinished, path)
