"""One percentage as a file of its own, taken out of a file of several.

A file of several percentages also holds, for each, the flatbuffer of that percentage alone without
its weights, and a recipe: which bytes of the file go where after it. What results is a plain
.tflite file with one signature and weights as any runtime and delegate takes them. It costs the
memory of that percentage only.

In the header each percentage has, under `alone`,

    offset, size    of its flatbuffer in the file, in zlib's form
    length, sha256  of what results
    copies          [[to, from, bytes], ..]: runs of bytes that are copied
    corners         [[to, from, shells, level], ..]: weights that are stored nested, see
                    `keras_tesla.tflite.graphs.nested`; `shells` counts in the header's list

and everything else in it is zero.
"""

import dataclasses
import hashlib
import io
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from keras_tesla.tflite.files.header import Recipe
from keras_tesla.tflite.graphs import constants, flatbuffer, merge
from keras_tesla.tflite.graphs.leaf import Leaf

_DEFLATED = 1032  # bytes that zlib makes of one, at most


class Constant(NamedTuple):
    """A constant after the flatbuffer of a part.

    Args:
        tensor: Index of its tensor in the percentage's graph.
        place: Its offset in the part.
        size: Bytes.
    """

    tensor: int
    place: int
    size: int


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A percentage as a file of its own, as it goes into a file of several.

    Args:
        leaf: The percentage's graph.
        skeleton: Its flatbuffer, in zlib's form.
        length: Bytes of the part.
        sha256: Hex digest of the part.
        known: A constant for each tensor that has one; several may have one place.
    """

    leaf: Leaf
    skeleton: bytes
    length: int
    sha256: str
    known: tuple[Constant, ...]

    def constants(self) -> Iterator[Constant]:
        """Yields the constants that its recipe must fetch, each run of bytes once."""
        done = set()
        for constant in sorted(self.known, key=lambda constant: -constant.size):
            if constant.place not in done:  # else a larger constant begins with this one
                done.add(constant.place)
                yield constant

    def recipe(self, copies, corners=()) -> Recipe:
        """Returns how it is fetched; its `offset` is not known yet."""
        return Recipe(0, len(self.skeleton), self.length, self.sha256, list(copies), list(corners))


def make(leaf: Leaf) -> Part:
    """Returns a percentage as a file of its own."""
    merged = merge.alone(leaf)
    packed = bytearray(flatbuffer.pack(merged.model))
    length = merged.pool.place(constants.aligned(len(packed)))
    flatbuffer.set_offsets(packed, merged.offsets())
    complete = bytearray(length)
    complete[: len(packed)] = packed
    merged.pool.write(complete)
    sources = [
        (tensor, merged.source(leaf.percentage, tensor))
        for tensor in range(len(leaf.graph.tensors))
    ]
    return Part(
        leaf,
        zlib.compress(packed, 9),
        length,
        hashlib.sha256(complete).hexdigest(),
        tuple(Constant(t, merged.place(s), s.size) for t, s in sources if s is not None),
    )


def unfolded(content, recipe: Recipe) -> io.BytesIO:
    """Returns a part without its constants, as a file to write them into.

    A recipe may come from anywhere, so it gets no more than the file can give.

    Args:
        content: All bytes of the file, or what has their number and returns slices of them.
        recipe: How the part is fetched.
    """
    start, size, length = recipe.offset, recipe.size, recipe.length
    check_range(start, size, len(content))
    check_range(0, length, len(content) + _DEFLATED * size)
    made = io.BytesIO(bytes(length))
    made.write(zlib.decompressobj().decompress(content[start : start + size], length))
    return made


def check_range(start: int, count: int, end: int):
    """Refuses a run of bytes that is not in the first `end` ones."""
    if not 0 <= start <= start + count <= end:
        raise ValueError(f"it needs {count} bytes at {start} of {end}")


def run_of(content, start: int, count: int) -> memoryview:
    """Returns a run of bytes of a file, refused if the file does not have it."""
    check_range(start, count, len(content))
    return memoryview(content[start : start + count])
