"""The file of all percentages.

It consists of the flatbuffer of all percentages; the constants; a small flatbuffer for each
percentage, see `keras_tesla.tflite.storages.part`; the archive.
"""

import dataclasses
import functools

from keras_tesla.tflite.files import writing
from keras_tesla.tflite.files.header import Header
from keras_tesla.tflite.graphs import constants, flatbuffer
from keras_tesla.tflite.graphs.leaf import Leaf
from keras_tesla.tflite.graphs.merge import Merged
from keras_tesla.tflite.storages import part
from keras_tesla.tflite.storages.storage import Storage


def write(
    leaves: list[Leaf],
    merged: Merged,
    storage: Storage,
    header: Header,
    metadata: dict[str, bytes],
    labels: list[str] | None,
) -> writing.Draft:
    """Returns a file that holds several percentages.

    Args:
        leaves: The percentages' graphs.
        merged: The model of all of them, from `merge.merge`.
        storage: How they are stored.
        header: What the file says of itself; its `percentages` get how each is taken out.
        metadata: {name: bytes} of further metadata entries.
        labels: List of strings or None.
    """
    parts = {leaf.percentage: part.make(leaf) for leaf in leaves}
    forms = storage.forms(leaves)

    def complete(place, starts) -> Header:
        entries = []
        for entry in header.percentages:
            source = functools.partial(merged.source, entry.percentage)
            recipe = storage.recipe(parts[entry.percentage], source, place, forms)
            recipe = dataclasses.replace(recipe, offset=starts[entry.percentage])
            entries.append(dataclasses.replace(entry, alone=recipe))
        shells = [form.values() for form in forms]
        return dataclasses.replace(header, percentages=tuple(entries), shells=shells)

    # The header is in the flatbuffer, and where the rest lies depends on the flatbuffer's size.
    unplaced = complete(lambda external: 0, dict.fromkeys(parts, 0))
    buffer = writing.add_header(merged.model, unplaced, metadata)
    content = bytearray(flatbuffer.pack(merged.model))
    end = merged.pool.place(constants.aligned(len(content)))
    flatbuffer.set_offsets(content, merged.offsets())
    content += bytes(end - len(content))
    merged.pool.write(content)
    starts = {}
    for percentage, made in parts.items():
        starts[percentage] = len(content)
        content += made.skeleton
    placed = complete(merged.place, starts)
    return writing.draft(content, placed, buffer, labels)
