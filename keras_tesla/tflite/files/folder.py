"""Writing a folder of files whole or not at all."""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

MANIFEST = "manifest.json"


@contextlib.contextmanager
def whole(directory, overwrite: bool) -> Iterator[pathlib.Path]:
    """Lends a temporary folder whose files get to `directory` only if nothing went wrong.

    A new folder appears in one rename. In an existing one each file does, the manifest goes first
    and comes last: a folder with a manifest always holds the files it names.

    Args:
        directory: The folder to be written; made if there is none.
        overwrite: Bool, whether an export that is there may be replaced.

    Raises:
        NotADirectoryError: If `directory` is a file.
        FileExistsError: If it holds an export and `overwrite` is false.
        OSError: If it cannot be written.
    """
    directory = pathlib.Path(directory).absolute()
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(f"The output directory is a file: {str(directory)!r}")
    if (directory / MANIFEST).exists() and not overwrite:
        raise FileExistsError(
            f"{str(directory)!r} already holds an export. Choose another directory or pass "
            "`overwrite=True`."
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    if directory.exists() and not os.access(directory, os.W_OK):
        raise PermissionError(f"The output directory is not writable: {str(directory)!r}")
    # Beside the target, so that the rename stays on one file system.
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        yield temporary
        if not directory.exists():
            temporary.chmod(0o755)  # mkdtemp's 0700 is for secrets
            temporary.rename(directory)
            return
        (directory / MANIFEST).unlink(missing_ok=True)
        for path in sorted(temporary.iterdir(), key=lambda path: path.name == MANIFEST):
            path.replace(directory / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
