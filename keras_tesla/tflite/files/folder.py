"""Writing a folder of files whole or not at all."""

import contextlib
import ctypes
import json
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterator

if sys.platform != "win32":
    import fcntl

MANIFEST = "manifest.json"


@contextlib.contextmanager
def whole(directory, overwrite: bool) -> Iterator[pathlib.Path]:
    """Yields a temporary folder whose files move to `directory` only if nothing went wrong.

    A new folder appears in one rename. A folder that holds an export and nothing else is exchanged
    for the new one in one step. Where the system cannot do that, or the folder holds other files,
    each file appears in one rename. The manifest is removed first and written last, so a folder
    with a manifest always holds the files it names. Processes that write one folder at the same
    time wait for each other; without `overwrite` only the first one writes.

    A killed process leaves a folder `.NAME-..` next to `directory`.

    Args:
        directory: The folder to be written; made if it does not exist.
        overwrite: Bool, whether an export that is there may be replaced.

    Raises:
        NotADirectoryError: If `directory` is a file.
        FileExistsError: If it holds an export and `overwrite` is false.
        OSError: If it cannot be written.
    """
    # A link stays a link: its target is written.
    directory = pathlib.Path(directory).resolve()
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(f"The output directory is a file: {str(directory)!r}")
    _check_unused(directory, overwrite)
    directory.parent.mkdir(parents=True, exist_ok=True)
    if directory.exists() and not os.access(directory, os.W_OK):
        raise PermissionError(f"The output directory is not writable: {str(directory)!r}")
    # Next to the target, so that the rename stays on one file system.
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        yield temporary
        with _locked(directory.parent):
            _check_unused(directory, overwrite)  # another process may have been faster
            _put(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_unused(directory, overwrite):
    if (directory / MANIFEST).exists() and not overwrite:
        raise FileExistsError(
            f"{str(directory)!r} already holds an export. Choose another directory or pass "
            "`overwrite=True`."
        )


def _put(temporary, directory):
    if not directory.exists():
        temporary.chmod(0o755)  # mkdtemp's 0700 is for secrets
        temporary.rename(directory)
        return
    if _holds_an_export_only(directory):
        temporary.chmod(directory.stat().st_mode & 0o777)
        if _exchange(temporary, directory):
            return
    (directory / MANIFEST).unlink(missing_ok=True)
    for path in sorted(temporary.iterdir(), key=lambda path: path.name == MANIFEST):
        path.replace(directory / path.name)


def _holds_an_export_only(directory) -> bool:
    try:
        files = json.loads((directory / MANIFEST).read_text())["files"]
        named = {MANIFEST, *(file["file"] for file in files)}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return named == {path.name for path in directory.iterdir()}


def _exchange(one, other) -> bool:
    """Exchanges the names of two folders in one step; returns False where the system cannot."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # not Linux, or an old C library
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    # It fails where the file system does not support it, the folder is a mount, or its parent may
    # not be changed.
    return rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


@contextlib.contextmanager
def _locked(parent):
    """Makes other exports into the same parent wait; a killed process releases the lock."""
    if sys.platform == "win32":
        yield
        return
    handle = None
    try:
        # The folder may be writable but not readable; network file systems may refuse locks.
        with contextlib.suppress(OSError):
            handle = os.open(parent, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        if handle is not None:
            os.close(handle)
