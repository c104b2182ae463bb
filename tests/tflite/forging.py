"""Files with a header that no export writes, signed like exported ones."""

import json

from keras_tesla.tflite.files import reading, writing


class RawHeader:
    """A header of any values: what `Header` would not be made with."""

    def __init__(self, values):
        self._values = values

    def text(self):
        return json.dumps(self._values, separators=(",", ":")).encode()

    def room(self):
        return len(self.text())


def file(model, values, metadata=None, labels=None) -> bytes:
    """A model as a file that says `values` of itself."""
    header = RawHeader(values)
    return writing.write_one(model, header, metadata or {}, labels).finish(header)


def with_header(content: bytes, values) -> bytes:
    """A file that says something else of itself, in no more bytes than before."""
    start, size = reading.find_header(content)
    header = RawHeader(values)
    return writing.Draft(content, header, slice(start, start + size)).finish(header)
