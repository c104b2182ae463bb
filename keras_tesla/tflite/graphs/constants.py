"""The constants that lie after the flatbuffers of a file."""

ALIGNMENT = 64  # XNNPACK and the kernels read weights in vectors of at most so many bytes
LEAST = 64  # smaller constants stay inside the flatbuffer: alignment would cost more


def aligned(position: int) -> int:
    """Returns the next place where a constant may begin."""
    return -(-position // ALIGNMENT) * ALIGNMENT


class Constants:
    """Runs of bytes, each stored once: one that begins another is stored within it.

    A `Buffer` of the flatbuffer names its bytes by offset and size and the runtimes check only
    that they lie in the file, so buffers may overlap.
    """

    def __init__(self):
        self._data: list[bytes] = []
        self._unshared: set[int] = set()
        self._known: dict[bytes, int] = {}
        self._offsets: dict[int, int] = {}

    def add(self, data: bytes, unshared: bool = False) -> int:
        """Adds a constant and returns its number.

        Args:
            data: The bytes.
            unshared: Bool, whether they need an address that no other constant has.
        """
        if not unshared and data in self._known:
            return self._known[data]
        self._data.append(data)
        number = len(self._data) - 1
        if unshared:
            self._unshared.add(number)
        else:
            self._known[data] = number
        return number

    def place(self, start: int) -> int:
        """Gives every constant its offset, from `start` on, and returns the end."""
        position = start
        for number in self._unshared:
            self._offsets[number] = position = aligned(position)
            position += len(self._data[number])
        shared = sorted(self._known.items(), reverse=True)
        previous, offset = b"", 0
        for data, number in shared:  # what begins another sorts right after it
            if not (previous.startswith(data) and previous):
                offset = position = aligned(position)
                position += len(data)
                previous = data
            self._offsets[number] = offset
        return position

    def offset(self, number: int) -> int:
        """Returns where a constant lies, once `place` was called."""
        return self._offsets[number]

    def write(self, content: bytearray):
        """Copies the constants to their places."""
        for number, offset in self._offsets.items():
            data = self._data[number]
            content[offset : offset + len(data)] = data
