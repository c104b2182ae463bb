"""One percentage as a standalone file, made from a file of several.

A file of several percentages also holds, for each, a flatbuffer of that percentage only, without
its weights, and a recipe: which bytes of the file to copy after it, and where to. The result is a
plain .tflite file with one signature and weights that any runtime and delegate takes. It needs the
memory of that percentage only.

In the header each percentage has, under `standalone`,

    offset, compressed_bytes  of its flatbuffer in the file, compressed by zlib
    bytes, sha256             of the result
    copies                    [[target, source, bytes], ..]: runs of bytes that are copied
    nested_weights            [[target, source, layout, level], ..]: weights that are stored nested,
                              see `keras_tesla.tflite.graphs.nested`

`target` is an offset in the result, `source` one in the file; `layout` is an index in the header's
`nested_layouts`. All other bytes of the result are zero.
"""

import dataclasses
import hashlib
import io
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from keras_tesla.tflite.files.header import Recipe
from keras_tesla.tflite.graphs import constants, flatbuffer, merge
from keras_tesla.tflite.graphs.percentage_graph import PercentageGraph

_DEFLATED = 1032  # bytes that zlib makes of one, at most


class Constant(NamedTuple):
    """A constant after the flatbuffer of a part.

    Args:
        tensor: Of the percentage's graph, as `Merged.source` takes it.
        offset: In the part.
        size: Bytes.
    """

    tensor: int | tuple[int, int]
    offset: int
    size: int


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """One percentage as a standalone file, before it goes into a file of several.

    Args:
        graph: The percentage's graph.
        flatbuffer: Its flatbuffer without weights, compressed by zlib.
        size: Bytes of the part.
        sha256: Hex digest of the part.
        known: A constant for each tensor that has one; several may have the same offset.
    """

    graph: PercentageGraph
    flatbuffer: bytes
    size: int
    sha256: str
    known: tuple[Constant, ...]

    def constants(self) -> Iterator[Constant]:
        """Yields the constants that its recipe must copy, each run of bytes once."""
        done = set()
        for constant in sorted(self.known, key=lambda constant: -constant.size):
            if constant.offset not in done:  # else a larger constant begins with this one
                done.add(constant.offset)
                yield constant

    def recipe(self, copies, nested_weights=()) -> Recipe:
        """Returns how it is made; the recipe's `offset` is not known yet."""
        return Recipe(
            offset=0,
            compressed_bytes=len(self.flatbuffer),
            bytes=self.size,
            sha256=self.sha256,
            copies=list(copies),
            nested_weights=list(nested_weights),
        )


def make(graph: PercentageGraph) -> Part:
    """Returns a percentage as a standalone file."""
    merged = merge.standalone(graph)
    packed = bytearray(flatbuffer.pack(merged.model))
    size = merged.pool.place(constants.aligned(len(packed)))
    flatbuffer.set_offsets(packed, merged.offsets())
    complete = bytearray(size)
    complete[: len(packed)] = packed
    merged.pool.write(complete)
    tensors: list = list(range(len(graph.subgraph.tensors)))
    for number, callee in enumerate(graph.callees):
        tensors += [(number, index) for index in range(len(callee.tensors))]
    sources = [(tensor, merged.source(graph.percentage, tensor)) for tensor in tensors]
    return Part(
        graph,
        zlib.compress(packed, 9),
        size,
        hashlib.sha256(complete).hexdigest(),
        tuple(Constant(t, merged.offset(s), s.size) for t, s in sources if s is not None),
    )


def without_constants(content, recipe: Recipe) -> io.BytesIO:
    """Returns a part without its constants, as a file to write them into.

    A recipe may come from anywhere, so the memory it can ask for is bounded by the file.

    Args:
        content: All bytes of the file, or an object with their number that returns slices of them.
        recipe: How the part is made.
    """
    start, count = recipe.offset, recipe.compressed_bytes
    check_range(start, count, len(content))
    check_range(0, recipe.bytes, len(content) + _DEFLATED * count)
    made = io.BytesIO(bytes(recipe.bytes))
    made.write(zlib.decompressobj().decompress(content[start : start + count], recipe.bytes))
    return made


def check_range(start: int, count: int, end: int):
    """Refuses a run of bytes that is not within the first `end` ones."""
    if not 0 <= start <= start + count <= end:
        raise ValueError(f"it needs {count} bytes at {start} of {end}")


def run_of(content, start: int, count: int) -> memoryview:
    """Returns a run of bytes of a file, refused where the file ends before it."""
    check_range(start, count, len(content))
    return memoryview(content[start : start + count])
