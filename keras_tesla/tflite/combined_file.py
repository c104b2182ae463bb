"""The file of all percentages.

It consists of the flatbuffer of all percentages; the constants; a small flatbuffer for each
percentage, see `keras_tesla.tflite.storages.part`; the archive.
"""

import dataclasses
import functools

from keras_tesla.tflite.files import writing
from keras_tesla.tflite.files.header import Header
from keras_tesla.tflite.graphs import constants, flatbuffer
from keras_tesla.tflite.graphs.merge import Merged
from keras_tesla.tflite.graphs.percentage_graph import PercentageGraph
from keras_tesla.tflite.storages import part
from keras_tesla.tflite.storages.storage import Storage


def write(
    graphs: list[PercentageGraph],
    merged: Merged,
    storage: Storage,
    header: Header,
    metadata: dict[str, bytes],
    labels: list[str] | None,
) -> writing.Draft:
    """Returns a file that holds several percentages.

    Args:
        graphs: Those of the percentages.
        merged: The model of all of them, from `merge.merge`.
        storage: How they are stored.
        header: The header of the file; its `percentages` get their recipes.
        metadata: {name: bytes} of further metadata entries.
        labels: List of strings or None.
    """
    parts = {graph.percentage: part.make(graph) for graph in graphs}
    layouts = storage.nested_layouts(graphs)

    def complete(offset, starts) -> Header:
        entries = []
        for entry in header.percentages:
            source = functools.partial(merged.source, entry.percentage)
            recipe = storage.recipe(parts[entry.percentage], source, offset, layouts)
            recipe = dataclasses.replace(recipe, offset=starts[entry.percentage])
            entries.append(dataclasses.replace(entry, standalone=recipe))
        values = [layout.values() for layout in layouts]
        return dataclasses.replace(header, percentages=tuple(entries), nested_layouts=values)

    # The header is in the flatbuffer, and all other offsets depend on the flatbuffer's size.
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
        content += made.flatbuffer
    placed = complete(merged.offset, starts)
    return writing.draft(content, placed, buffer, labels)
