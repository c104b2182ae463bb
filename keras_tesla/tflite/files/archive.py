"""The ZIP archive at the end of a file: the labels, and room for the digest of the whole file.

Readers of TFLite metadata open a whole .tflite as a ZIP archive. Python's `zipfile` and minizip
(C++) find the archive after any bytes and before a comment. The reader of Android's metadata
library does neither: it takes offsets from the beginning of the file, and it takes the last 22
bytes for the archive's end record. So offsets count from the beginning of the file, the archive has
no comment, and the digest is the comment of its last entry, right before the end record:

    labels.txt | keras_tesla (empty) | directory, ends with the comment of keras_tesla | end record

    comment: "keras_tesla sha256=" and 64 hex digits

Reference:
    https://github.com/tensorflow/tflite-support, `metadata/java/.../ZipFile.java`
"""

import hashlib
import io
import mmap
import zipfile

LABELS = "labels.txt"
_SEAL = "keras_tesla"
_END_RECORD = 22  # bytes
_STRIDE = 1 << 16  # bytes that are read at a time; more would stay with the process
DIGITS = slice(-_END_RECORD - 64, -_END_RECORD)  # where the digest stands in a file


def pack(labels: list[str] | None, start: int) -> bytes:
    r"""Returns an archive to be put after the other bytes of a file, its digest still zeros.

    Equal labels give equal bytes.

    Args:
        labels: Of the outputs, in their order, one a line in `labels.txt`, see `check_labels`.
            None: no such entry.
        start: Offset in the file, in bytes, at which the archive will begin.

    Example:

    >>> content = b"what comes before"
    >>> content += pack(["cat", "dog"], start=len(content))
    >>> zipfile.ZipFile(io.BytesIO(content)).read("labels.txt")
    b'cat\ndog\n'
    """
    file = io.BytesIO(bytes(start))  # `zipfile` counts offsets from the beginning of the file
    file.seek(start)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        if labels is not None:
            text = "".join(f"{label}\n" for label in labels)
            archive.writestr(_entry(LABELS), text.encode())
        seal = _entry(_SEAL)
        seal.comment = f"{_SEAL} sha256=".encode() + b"0" * 64
        archive.writestr(seal, b"")
    return file.getvalue()[start:]


def digest(content) -> bytes:
    """Returns the SHA-256 of a file, all of it but the digest, in 64 hex digits.

    Args:
        content: All bytes of a file that ends with an archive, also as an `mmap`.

    Example:

    >>> content = bytearray(pack(None, start=0))
    >>> content[DIGITS] = digest(content)
    >>> digest(content) == content[DIGITS]
    True
    """
    made = hashlib.sha256()
    end = len(content) + DIGITS.start
    for start in range(0, end, _STRIDE):
        made.update(content[start : min(start + _STRIDE, end)])
        if isinstance(content, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            content.madvise(mmap.MADV_DONTNEED)  # read pages count as memory of the process
    made.update(content[DIGITS.stop :])
    return made.hexdigest().encode()


def _entry(name):
    entry = zipfile.ZipInfo(name)  # of 1980, so that the bytes do not depend on the day
    entry.create_system = 3  # nor on the system
    entry.external_attr = 0o644 << 16
    return entry


def check_labels(labels):
    """Refuses labels that readers could not take from `labels.txt`.

    Raises:
        ValueError: Labels that are not a list of non-empty strings without line breaks.
    """
    fit = isinstance(labels, (list, tuple)) and all(
        isinstance(label, str) and label.strip() and label.splitlines() == [label]
        for label in labels
    )
    if not fit or not labels:
        raise ValueError(
            "`labels` must be a list of strings, none empty or with a line break: readers take one "
            f"label from each line. Received: {labels!r}"
        )
