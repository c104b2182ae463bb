"""From a flatbuffer to the bytes of a file with a header."""

import dataclasses

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_tesla.tflite.files import archive, reading
from keras_tesla.tflite.files.header import Header
from keras_tesla.tflite.graphs import flatbuffer


@dataclasses.dataclass(frozen=True)
class Draft:
    """A file that is complete but for the numbers in its header and its digest.

    LiteRT reads neither, so a draft computes what the file will compute: it is run and measured
    first, then `finish` writes both, once.

    Args:
        content: All bytes.
        header: The header of the file so far.
        place: Where the header is in `content`.
    """

    content: bytes
    header: Header
    place: slice

    def finish(self, header: Header) -> bytes:
        """Returns the file.

        Args:
            header: The header with all numbers filled in.

        Raises:
            ValueError: If it takes more bytes than there is room for.
        """
        text, room = header.text(), self.place.stop - self.place.start
        if len(text) > room:
            raise ValueError(f"The header takes {len(text)} bytes; the file has room for {room}.")
        content = bytearray(self.content)
        content[self.place] = text.ljust(room)
        content[archive.DIGITS] = archive.digest(content)
        return bytes(content)


def write_one(model: schema.ModelT, header: Header, metadata: dict[str, bytes], labels) -> Draft:
    """Returns a converter's model as a file with a header and further metadata.

    Args:
        model: The model, which gets both.
        header: The header of the file.
        metadata: {name: bytes} of further metadata entries.
        labels: List of strings or None, see `keras_tesla.tflite.files.archive`.
    """
    buffer = add_header(model, header, metadata)
    return draft(bytearray(flatbuffer.pack(model)), header, buffer, labels)


def add_header(model: schema.ModelT, header: Header, metadata: dict[str, bytes]) -> int:
    """Adds room for a header, and further metadata, and returns the buffer of the header."""
    buffer = _add_entry(model, reading.ENTRY, header.text().ljust(header.room()))
    for name, data in metadata.items():
        _add_entry(model, name, data)
    return buffer


def draft(content: bytearray, header: Header, buffer: int, labels) -> Draft:
    """Returns a file without its digest.

    Args:
        content: A flatbuffer and the constants after it; the archive is appended.
        header: The header of the file.
        buffer: Index of the header's buffer, from `add_header`.
        labels: List of strings or None.
    """
    place = flatbuffer.place_of(content, buffer)
    content += archive.pack(labels, start=len(content))
    return Draft(bytes(content), header, place)


def _add_entry(model, name, data) -> int:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(data, np.uint8)
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name, entry.buffer = name, len(model.buffers) - 1
    model.metadata = [*(model.metadata or ()), entry]
    return entry.buffer
