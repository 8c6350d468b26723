"""Tars of samples, to the byte as `tarfile` writes them, but without its work for each member.

No clock, user or host enters them: members are owned by number 0, read-only, and of time 0.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

BLOCK, RECORD = tarfile.BLOCKSIZE, tarfile.RECORDSIZE
_BUFFER = 1 << 18  # bytes that are hashed and written together; they stay in a core's cache
_LARGE = 1 << 15  # bytes of a member that are not worth a copy, to be written with others


class SampleTar:
    """Writes samples one after another. Get it from `sample_tar`, which also ends the tar."""

    def __init__(self, stream: io.RawIOBase) -> None:
        self._stream = stream
        self._parts: list[bytes] = []  # not yet written
        self._waiting = self._written = 0  # bytes

    def write(self, key: str, members: Mapping[str, bytes]) -> None:
        """Write the members of a sample, by their endings, in alphabetical order."""
        for ending in sorted(members):
            data = members[ending]
            self._add(member_header(f"{key}.{ending}", len(data)))
            if len(data) < _LARGE:
                self._add(data)
            else:
                self._flush()
                self._put(data)
            self._add(bytes(-len(data) % BLOCK))
        if self._waiting >= _BUFFER:
            self._flush()

    def end(self) -> None:
        """Write the end of the tar: two empty blocks, then as many as fill a record."""
        self._add(bytes(2 * BLOCK))
        self._add(bytes(-(self._written + self._waiting) % RECORD))
        self._flush()

    def _add(self, part: bytes) -> None:
        self._parts.append(part)
        self._waiting += len(part)

    def _flush(self) -> None:
        self._put(b"".join(self._parts))
        self._parts.clear()
        self._waiting = 0

    def _put(self, data: bytes) -> None:
        self._stream.write(data)
        self._written += len(data)


@contextmanager
def sample_tar(stream: io.RawIOBase) -> Iterator[SampleTar]:
    """A tar of samples on a stream; it is whole when the block ends without an error."""
    tar = SampleTar(stream)
    yield tar
    tar.end()


def member_header(name: str, size: int) -> bytes:
    """The header of a member of so many bytes: a block, and more before it where the name needs them."""
    if not name.isascii() or len(name) > _NAME or size > _LARGEST:
        return _tarfile_header(name, size)
    text, digits = name.encode(), b"%011o" % size
    checksum = b"%06o" % (_CHECKSUM + sum(text) + sum(digits))
    return text.ljust(_NAME, b"\0") + _BEFORE_SIZE + digits + _BEFORE_CHECKSUM + checksum + _AFTER_CHECKSUM


def _tarfile_header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o444
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


_NAME, _LARGEST = 100, 8**11 - 1  # bytes of a name and of a member that one block can tell
# What all headers share: between name, size and checksum, and behind it.
_EMPTY = _tarfile_header("", 0)
_BEFORE_SIZE, _BEFORE_CHECKSUM, _AFTER_CHECKSUM = _EMPTY[_NAME:124], _EMPTY[135:148], _EMPTY[154:]
# The checksum is the sum of the other bytes; this is their share.
_CHECKSUM = int(_EMPTY[148:154], 8) - sum(_EMPTY[124:135])
