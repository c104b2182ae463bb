"""The manifest of an export: reading it, and checking the files that it names."""

import hashlib
import json
import pathlib

from keras_tesla.percentages import check_percentages
from keras_tesla.tflite.files.folder import MANIFEST
from keras_tesla.tflite.files.reading import FileError, check_format

# What reading a value of an unexpected type or form may raise.
ERRORS = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


def read(directory) -> dict:
    """Returns the values of the manifest of an export, its files checked.

    Args:
        directory: The export's folder.

    Raises:
        FileNotFoundError: If there is none in the folder, or a file that it names is missing.
        FileError: If a file does not have the size or the SHA-256 of the manifest, or the manifest
            has another format.
        ValueError: If it is not a manifest, or names files outside the folder.
    """
    directory = pathlib.Path(directory)
    text = (directory / MANIFEST).read_text()
    try:
        values = json.loads(text)
        found = values["format"]
    except ERRORS as error:
        raise refused(directory, error) from error
    check_format(found, repr(str(directory / MANIFEST)))
    try:
        described = {file["file"]: (file["bytes"], file["sha256"]) for file in values["files"]}
        _check_names(values["percentages"], described)
    except ERRORS as error:
        raise refused(directory, error) from error
    for name, expected in described.items():
        content = (directory / name).read_bytes()
        found = len(content), hashlib.sha256(content).hexdigest()
        if found != expected:
            raise FileError(
                f"{str(directory / name)!r} is not the file that its manifest names. Expected "
                f"{expected[0]} bytes with the SHA-256 {expected[1]}. Received: {found[0]} bytes, "
                f"{found[1]}"
            )
    return values


def refused(directory, error: Exception) -> ValueError:
    """Returns the error for a file that is not a manifest."""
    path = str(pathlib.Path(directory) / MANIFEST)
    return ValueError(f"{path!r} is not a manifest of an export: {error}")


def files_of(values: dict) -> list[str]:
    """Returns the names of the files of a manifest, in the order of its percentages."""
    return list(dict.fromkeys(entry["file"] for entry in values["percentages"]))


def _check_names(entries, described):
    """Refuses what leads out of the folder: a manifest may come from anywhere."""
    for name in described:
        if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\:\0"):
            raise ValueError(f"a file must be named without a folder. Received: {name!r}")
    check_percentages([entry["percentage"] for entry in entries])
    unknown = sorted({str(entry["file"]) for entry in entries} - set(described))
    if unknown:
        raise ValueError(f"`files` lacks what `percentages` name: {unknown}")
