"""The header of a file: a metadata entry in JSON, protected by a digest of the whole file.

Every exported file ends with an archive that holds its SHA-256, see
`keras_tesla.tflite.files.archive`. It reveals a damaged file before any runtime sees it.
"""

import json
import struct

from ai_edge_litert import schema_py_generated as schema

from keras_tesla.tflite.files import archive
from keras_tesla.tflite.files.header import FORMAT
from keras_tesla.version import __version__

ENTRY = "keras_tesla"  # name of the metadata entry


class FileError(ValueError):
    """A file that keras_tesla did not export, or that is damaged."""


def read_header(content, name: str = "The file") -> dict:
    """Returns the header of a file; docs/export.md lists the keys.

    Args:
        content: All bytes of the file, also as an `mmap`.
        name: Its name in errors.

    Raises:
        FileError: If it is damaged, was not exported by keras_tesla, or has another format.
    """
    start, size = find_header(content, name)
    try:
        header = json.loads(content[start : start + size])
    except (RecursionError, ValueError) as error:
        raise FileError(
            f"{name} has a metadata entry {ENTRY!r} that is not JSON: {error}"
        ) from error
    check_format(header.get("format") if isinstance(header, dict) else None, name)
    return header


def check_format(found, name: str):
    """Refuses a header or manifest whose `format` is not the one that this version reads.

    Args:
        found: Its `format`.
        name: Its name in the error.

    Raises:
        FileError: If it is anything but that number.
    """
    if found != FORMAT or isinstance(found, bool):
        raise FileError(
            f"{name} has format {found}; keras_tesla {__version__} reads format {FORMAT}. Export "
            "the model again with this version."
        )


def find_header(content, name: str = "The file") -> tuple[int, int]:
    """Returns the offset and the size of the header of a file.

    Raises:
        FileError: If the file is damaged, or was not exported by keras_tesla.
    """
    if content[4:8] != b"TFL3":
        raise FileError(
            f"{name} is not a .tflite file: expected a flatbuffer with the identifier 'TFL3'. "
            f"Received: {len(content)} bytes that begin with {bytes(content[:8])!r}"
        )
    if bytes(content[archive.DIGITS]) != archive.digest(content):
        raise FileError(
            f"{name} is damaged, or was not exported by keras_tesla: its bytes do not have the "
            "SHA-256 that an exported file ends with. Copy it again, or export it with "
            "`keras_tesla.tflite.export`."
        )
    try:
        model = schema.Model.GetRootAs(content, 0)
        for i in range(model.MetadataLength()):
            if model.Metadata(i).Name() == ENTRY.encode():
                buffer = model.Buffers(model.Metadata(i).Buffer())
                data = buffer.DataAsNumpy()
                return content.find(data.tobytes()), len(data)
    # Whoever forges a file can forge its digest.
    except (AttributeError, LookupError, TypeError, ValueError, struct.error) as error:
        raise FileError(f"{name} is not a complete flatbuffer: {error}") from error
    raise FileError(f"{name} has no metadata entry {ENTRY!r}.")
