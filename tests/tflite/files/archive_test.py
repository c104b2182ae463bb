"""The archive at the end of a file, as the three kinds of readers find it."""

import hashlib
import io
import struct
import zipfile

import pytest

from keras_tesla.tflite.files import archive

BEFORE = b"PK\x05\x06 is no end record here" * 40


def sealed(labels, before=BEFORE):
    content = bytearray(before + archive.pack(labels, start=len(before)))
    content[archive.DIGITS] = archive.digest(content)
    return bytes(content)


def read_as_android(content) -> dict[str, bytes]:
    """{name: bytes}, found as the reader of Android's metadata library does.

    It knows no comment of the archive, takes all offsets from the beginning of the file, and the
    bytes as they are, compressed or not.
    """
    end = content[-22:]
    assert end[:8] == b"PK\x05\x06\0\0\0\0", "no ZIP archive"
    (at,) = struct.unpack_from("<I", end, 16)
    files = {}
    while content[at : at + 4] == b"PK\x01\x02":
        (size,) = struct.unpack_from("<I", content, at + 20)
        name, extra, comment = struct.unpack_from("<HHH", content, at + 28)
        (header,) = struct.unpack_from("<I", content, at + 42)
        data = header + 30 + sum(struct.unpack_from("<HH", content, header + 26))
        files[content[at + 46 : at + 46 + name].decode()] = content[data : data + size]
        at += 46 + name + extra + comment
    return files


def test_labels_are_read_by_zipfile_and_on_android():
    content = sealed(["cat", "dog", "Bär"])
    assert read_as_android(content)["labels.txt"] == "cat\ndog\nBär\n".encode()
    with zipfile.ZipFile(io.BytesIO(content)) as found:
        assert found.testzip() is None
        assert found.namelist() == ["labels.txt", "keras_tesla"]
        assert found.read("labels.txt") == "cat\ndog\nBär\n".encode()
        assert {info.compress_type for info in found.infolist()} == {zipfile.ZIP_STORED}


def test_without_labels_there_is_no_file_of_them():
    assert list(read_as_android(sealed(None))) == ["keras_tesla"]


def test_what_is_before_the_archive_stays_and_moves_nothing_else():
    content = sealed(["cat"])
    assert content.startswith(BEFORE)
    assert len(content) - len(BEFORE) == len(archive.pack(["cat"], start=0))


def test_the_digest_is_a_comment_that_covers_every_other_byte():
    content = sealed(["cat"])
    digits = content[-86:-22]
    assert digits.decode() == hashlib.sha256(content[:-86] + content[-22:]).hexdigest()
    with zipfile.ZipFile(io.BytesIO(content)) as found:
        assert found.comment == b""
        assert found.getinfo("keras_tesla").comment == b"keras_tesla sha256=" + digits


def test_a_byte_changed_added_or_lost_anywhere_is_seen():
    content = sealed(["cat"], before=b"model")
    assert archive.digest(content) == content[archive.DIGITS]
    for i in range(len(content)):
        changed = bytearray(content)
        changed[i] ^= 1
        assert archive.digest(changed) != changed[archive.DIGITS], i
        assert archive.digest(content[:i]) != content[:i][archive.DIGITS], i
    longer = content + b"\0"
    assert archive.digest(longer) != longer[archive.DIGITS]


def test_equal_labels_give_equal_bytes():
    assert archive.pack(["cat"], start=7) == archive.pack(["cat"], start=7)
    assert archive.pack(["cat"], start=7) != archive.pack(["cow"], start=7)


@pytest.mark.parametrize("labels", [[], "cat", ["cat", ""], [" "], ["a\nb"], ["a\n"], ["a\r"], [1]])
def test_labels_that_are_no_lines_are_refused(labels):
    with pytest.raises(ValueError, match="`labels` must be a list of strings.*Received:"):
        archive.check_labels(labels)
