"""A tar read byte by byte: every member, and everything in it that skelfit would not have written.

Tar readers take a damaged header in the middle for the end, and never look at what is between the members. Here a
fault is told, and reading goes on at the next whole header.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

BLOCK, RECORD = tarfile.BLOCKSIZE, tarfile.RECORDSIZE
_EMPTY = bytes(BLOCK)
_MAX_BYTES = 1 << 30  # of a member: an absurd size is a damaged header, not a reason to read on for hours


@dataclass(frozen=True)
class Member:
    """A file in a tar; `header` says what is odd about it beside the content, '' for nothing."""

    name: str
    data: bytes
    header: str = ""


@dataclass(frozen=True)
class Fault:
    """Something between the members; `name` is of the member that it concerns, '' where that is not known."""

    name: str
    message: str


class HashedReader:
    """A stream that is read once from the start to the end, hashed and counted on the way."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._digest, self.count = stream, hashlib.sha256(), 0

    def read(self, size: int) -> bytes:
        """So many bytes; fewer at the end only."""
        data = self._stream.read(size)
        self._digest.update(data)
        self.count += len(data)
        return data

    def finish(self) -> str:
        """sha256 (hex) of the whole stream, with what is left of it."""
        while self.read(1 << 20):
            pass
        return self._digest.hexdigest()


def walk(reader: HashedReader) -> Iterator[Member | Fault]:
    """The members of a tar that skelfit wrote, and its faults, in the order of their bytes."""
    ended, odd = False, False
    while block := reader.read(BLOCK):
        at = reader.count - len(block)
        if block == _EMPTY:
            ended = True
            continue
        header = _parse(block, reader)
        if header is None:
            if not odd:  # once for all that is skipped
                yield Fault(_name_in(block), f"no whole header at byte {at}")
            odd = True
            continue
        if ended:
            yield Fault("", f"empty blocks before byte {at}, and samples behind them")
        name, size, raw = header
        ended, odd = False, False
        data, padding = reader.read(size), reader.read(-size % BLOCK)
        if len(data) + len(padding) < size + -size % BLOCK:
            yield Fault(name, f"cut off at byte {reader.count}, inside {name}")
            return
        strange = "its header is not as it was written" if raw != _written(name, size) else ""
        if padding.strip(b"\0"):
            strange = "the bytes behind it, which fill its block, are not 0"
        yield Member(name, data, strange)
    if not ended or reader.count % RECORD:
        yield Fault("", f"cut off at byte {reader.count}, where the tar has no end")


def _parse(block: bytes, reader: HashedReader) -> tuple[str, int, bytes] | None:
    """Name and size that a header gives, and all of its bytes; None for what is no whole header."""
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if info.size > _MAX_BYTES or info.size < 0:
            return None
        if info.type != tarfile.XHDTYPE:
            return (info.name, info.size, block) if info.isreg() else None
        # A name of more than 100 bytes stands in a member of its own, before the member's header.
        record = reader.read(info.size + -info.size % BLOCK)
        name = record[: info.size].decode().partition(" path=")[2].rstrip("\n")
        own = reader.read(BLOCK)
        return name, tarfile.TarInfo.frombuf(own, "utf-8", "surrogateescape").size, block + record + own
    except (tarfile.HeaderError, ValueError):
        return None


def _written(name: str, size: int) -> bytes:
    """The header of a member as `write_shard` writes it."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o444
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _name_in(block: bytes) -> str:
    """The name in a damaged header, if it looks like one."""
    name = block[:100].rstrip(b"\0").decode("ascii", "replace")
    return name if name.isprintable() and block[257:262] == b"ustar" else ""
