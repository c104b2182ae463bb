"""From graphs to the bytes of a file."""

import dataclasses
import json

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_tesla.tflite.files import alone, archive, constants, reading
from keras_tesla.tflite.files.constants import Constants
from keras_tesla.tflite.graphs import flatbuffer
from keras_tesla.tflite.graphs.leaf import Leaf
from keras_tesla.tflite.graphs.merge import Merged

# Stands for an offset or a number that is not known yet: it takes as many bytes as any.
UNKNOWN = 1 << 40


def write_one(content: bytes, header: dict, metadata: dict[str, bytes], labels) -> bytes:
    """Returns a converter's file with a header and further metadata.

    Args:
        content: Bytes of a .tflite file.
        header: What the file says of itself.
        metadata: {name: bytes} of further metadata entries.
        labels: List of strings or None, see `keras_tesla.tflite.files.archive`.
    """
    model = flatbuffer.unpack(content)
    for name, data in {reading.ENTRY: _text(header), **metadata}.items():
        _add_entry(model, name, data)
    return _sealed(flatbuffer.pack(model), labels)


def write_many(
    merged: Merged,
    leaves: list[Leaf],
    pool: Constants,
    header: dict,
    metadata: dict[str, bytes],
    labels,
) -> bytes:
    """Returns a file that holds several percentages.

    It consists of the flatbuffer of all percentages; the constants; a small flatbuffer for each
    percentage, see `keras_tesla.tflite.files.alone`; the archive.

    Args:
        merged: From `merge.merge`.
        leaves: What was merged.
        pool: The constants.
        header: What the file says of itself; its `percentages` get what opening one alone needs.
        metadata: {name: bytes} of further metadata entries.
        labels: List of strings or None.
    """
    parts = {leaf.percentage: alone.Part(leaf) for leaf in leaves}
    shells = alone.shells(leaves)

    def text(place, starts):
        percentages = [
            {
                **entry,
                "alone": {
                    "offset": starts.get(entry["percentage"], UNKNOWN),
                    **parts[entry["percentage"]].recipe(merged, place, shells),
                },
            }
            for entry in header["percentages"]
        ]
        described = [dataclasses.asdict(s) for s in shells]
        return _text({**header, "percentages": percentages, "shells": described})

    room = len(text(lambda external: UNKNOWN, {}))
    own = _add_entry(merged.model, reading.ENTRY, b" " * room)
    for name, data in metadata.items():
        _add_entry(merged.model, name, data)
    for index, external in merged.external.items():
        buffer = merged.model.buffers[index]
        buffer.offset, buffer.size = UNKNOWN, external.size
    end = pool.place(constants.aligned(len(flatbuffer.pack(merged.model))))
    starts = {}
    for percentage, part in parts.items():
        starts[percentage] = end
        end += len(part.skeleton)
    for index, external in merged.external.items():
        merged.model.buffers[index].offset = pool.offset(external.number)
    said = text(lambda external: pool.offset(external.number), starts)
    merged.model.buffers[own].data = np.frombuffer(said.ljust(room), np.uint8)
    packed = flatbuffer.pack(merged.model)
    content = bytearray(end)
    content[: len(packed)] = packed
    pool.write(content)
    for percentage, part in parts.items():
        start = starts[percentage]
        content[start : start + len(part.skeleton)] = part.skeleton
    return _sealed(content, labels)


def with_header(content: bytes, header: dict) -> bytes:
    """Returns a file with another header in the place of its own.

    Raises:
        ValueError: If it takes more bytes than that.
    """
    start, size = reading.find_header(content)
    text = _text(header)
    if len(text) > size:
        raise ValueError(f"The header takes {len(text)} bytes; the file has room for {size}.")
    changed = bytearray(content)
    changed[start : start + size] = text.ljust(size)
    return _signed(changed)


def _text(header):
    return json.dumps(header, separators=(",", ":")).encode()


def _sealed(content, labels):
    return _signed(bytearray(content) + archive.pack(labels, start=len(content)))


def _signed(content: bytearray) -> bytes:
    content[archive.DIGITS] = archive.digest(content)
    return bytes(content)


def _add_entry(model, name, data) -> int:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(data, np.uint8)
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name, entry.buffer = name, len(model.buffers) - 1
    model.metadata = [*(model.metadata or ()), entry]
    return entry.buffer
