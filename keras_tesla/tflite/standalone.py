"""Making one percentage of a file a standalone .tflite file."""

import dataclasses
import hashlib
import zlib

from keras_tesla.tflite.files.header import Recipe
from keras_tesla.tflite.files.reading import FileError
from keras_tesla.tflite.storages import STORAGES

_KEYS = [field.name for field in dataclasses.fields(Recipe)]


def extract(content, header: dict, percentage: int) -> bytes:
    """Returns one percentage of a file as a standalone .tflite file.

    Args:
        content: All bytes of the file, or an object with their number that returns slices of them.
        header: The header of the file.
        percentage: Int, one of those that it holds.

    Raises:
        keras_tesla.tflite.FileError: If the result is not what was exported.
    """
    try:
        (entry,) = (e for e in header["percentages"] if e["percentage"] == percentage)
        recipe = Recipe(**{key: entry["standalone"][key] for key in _KEYS})
        storage = STORAGES[header["storage"]]
        result = storage.standalone(content, recipe, header["nested_layouts"])
    except (ArithmeticError, KeyError, IndexError, TypeError, ValueError, zlib.error) as error:
        raise FileError(f"{percentage} % of the file is not what was exported: {error}") from error
    if hashlib.sha256(result).hexdigest() != recipe.sha256:
        raise FileError(f"{percentage} % of the file is not what was exported.")
    return result
