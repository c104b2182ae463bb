"""Opening one percentage of a file without the others.

A file of several percentages also holds, for each, the flatbuffer of that percentage alone without
its weights, and a recipe: which bytes of the file go where behind it. What results is a plain
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

import hashlib
import io
import zlib

from keras_tesla.tflite.files import constants
from keras_tesla.tflite.files.constants import Constants
from keras_tesla.tflite.files.reading import FileError
from keras_tesla.tflite.graphs import flatbuffer, merge
from keras_tesla.tflite.graphs.nested import Shells

_DEFLATED = 1032  # bytes that zlib makes of one, at most


class Part:
    """A percentage that can be opened alone, in the making.

    Args:
        leaf: The percentage's graph.

    Attributes:
        skeleton: Its flatbuffer, in zlib's form.
    """

    def __init__(self, leaf):
        self._leaf = leaf
        pool = Constants()
        merged = merge.alone(leaf, pool)
        for index, external in merged.external.items():
            merged.model.buffers[index].offset = 1 << 40
            merged.model.buffers[index].size = external.size
        size = len(flatbuffer.pack(merged.model))
        self._length = pool.place(constants.aligned(size))
        for index, external in merged.external.items():
            merged.model.buffers[index].offset = pool.offset(external.number)
        complete = bytearray(self._length)
        complete[:size] = flatbuffer.pack(merged.model)
        self.skeleton = zlib.compress(complete[:size], 9)
        pool.write(complete)
        self._digest = hashlib.sha256(complete).hexdigest()
        self._merged, self._pool = merged, pool

    def recipe(self, merged, place, shells: list) -> dict:
        """Returns the entries of the header but `offset`.

        Args:
            merged: The model of all percentages.
            place: Function of an `External` of `merged` that returns its offset in the file.
            shells: From `shells`.
        """
        percentage, nested = self._leaf.percentage, list(self._leaf.nested)
        count = len(self._leaf.graph.tensors)
        copies: dict[int, list] = {}
        corners: dict[int, list] = {}
        targets = [(self._merged.source(percentage, tensor), tensor) for tensor in range(count)]
        known = [(target.size, target, tensor) for target, tensor in targets if target is not None]
        for _, target, tensor in sorted(known, key=lambda item: -item[0]):
            to = self._pool.offset(target.number)
            if to in copies or to in corners:
                continue  # a larger constant begins with this one
            if tensor in self._leaf.nested:
                weight = self._leaf.nested[tensor]
                source = merged.source(percentage, count + nested.index(tensor))
                corners[to] = [to, place(source), shells.index(weight.shells), weight.level]
            else:
                copies[to] = [to, place(merged.source(percentage, tensor)), target.size]
        return {
            "size": len(self.skeleton),
            "length": self._length,
            "sha256": self._digest,
            "copies": list(copies.values()),
            "corners": list(corners.values()),
        }


def shells(leaves) -> list[Shells]:
    """Returns the different shells of nested weights."""
    return list(dict.fromkeys(w.shells for leaf in leaves for w in leaf.nested.values()))


def extract(content, header: dict, percentage: int) -> bytes:
    """Returns one percentage of a file as a plain .tflite file.

    Args:
        content: All bytes of the file, or what has their number and returns slices of them.
        header: What the file says of itself.
        percentage: Int, one of those that it holds.

    Raises:
        keras_tesla.tflite.FileError: If what results is not what was exported.
    """
    try:
        (entry,) = (e for e in header["percentages"] if e["percentage"] == percentage)
        recipe = entry["alone"]
        result, digest = _made(content, recipe, header["shells"]), recipe["sha256"]
    except (ArithmeticError, KeyError, IndexError, TypeError, ValueError, zlib.error) as error:
        raise FileError(f"{percentage} % of the file is not what was exported: {error}") from error
    if hashlib.sha256(result).hexdigest() != digest:
        raise FileError(f"{percentage} % of the file is not what was exported.")
    return result


def _made(content, recipe, forms) -> bytes:
    """What a recipe makes; it may come from anywhere, so it gets no more than the file can give."""
    start, size, length = recipe["offset"], recipe["size"], recipe["length"]
    _check(start, size, len(content))
    _check(0, length, len(content) + _DEFLATED * size)
    # Written in place: beside the result there is memory for one weight only.
    made = io.BytesIO(bytes(length))
    made.write(zlib.decompressobj().decompress(content[start : start + size], length))
    for to, source, count in recipe["copies"]:
        _check(source, count, len(content))
        _check(to, count, length)
        made.seek(to)
        made.write(content[source : source + count])
    for to, source, number, level in recipe["corners"]:
        form = Shells(**forms[number])
        count = form.size(level)
        _check(source, count, len(content))
        _check(to, count, length)
        made.seek(to)
        made.write(form.load(content[source : source + count], level).data)
    return made.getvalue()


def _check(start, count, end):
    if not 0 <= start <= start + count <= end:
        raise ValueError(f"it needs {count} bytes at {start} of {end}")
