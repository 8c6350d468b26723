"""A tar read byte by byte: every member, and every byte that skelfit would not have written.

Usual tar readers end at a damaged header and skip the bytes between members. This one reports the fault and goes on at
the next whole header.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from skelfit.shards.sample_tar import BLOCK, RECORD, member_header

_EMPTY = bytes(BLOCK)
_MAX_BYTES = 1 << 30  # of a member: a larger size is a damaged header


@dataclass(frozen=True)
class TarEntry:
    """A file in a tar."""

    name: str
    data: bytes
    fault: str = ""  # of its header or padding; '' for none


@dataclass(frozen=True)
class TarFault:
    """A fault between the members."""

    name: str  # of the member that it concerns; '' where not known
    message: str


class HashedReader:
    """A stream that is hashed and counted while it is read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._digest, self.count = stream, hashlib.sha256(), 0

    def read(self, size: int) -> bytes:
        """The next `size` bytes; fewer at the end only."""
        data = self._stream.read(size)
        self._digest.update(data)
        self.count += len(data)
        return data

    def finish(self) -> str:
        """Read the rest; sha256 (hex) of the whole stream."""
        while self.read(1 << 20):
            pass
        return self._digest.hexdigest()


def walk(reader: HashedReader) -> Iterator[TarEntry | TarFault]:
    """The members of a tar of skelfit and its faults, in the order of their bytes."""
    ended, skipping = False, False
    while block := reader.read(BLOCK):
        at = reader.count - len(block)
        if block == _EMPTY:
            ended = True
            continue
        header = _parse(block, reader)
        if header is None:
            if not skipping:  # one message for all blocks that are skipped
                yield TarFault(_name_in(block), f"no whole header at byte {at}")
            skipping = True
            continue
        if ended:
            yield TarFault("", f"empty blocks before byte {at}, and samples behind them")
        name, size, raw = header
        ended, skipping = False, False
        data, padding = reader.read(size), reader.read(-size % BLOCK)
        if len(data) + len(padding) < size + -size % BLOCK:
            yield TarFault(name, f"cut off at byte {reader.count}, inside {name}")
            return
        fault = "its header is not as it was written" if raw != member_header(name, size) else ""
        if padding.strip(b"\0"):
            fault = "the bytes behind it, which fill its block, are not 0"
        yield TarEntry(name, data, fault)
    if not ended or reader.count % RECORD:
        yield TarFault("", f"cut off at byte {reader.count}, where the tar has no end")


def _parse(block: bytes, reader: HashedReader) -> tuple[str, int, bytes] | None:
    """Name and size in a header, and its bytes; None where there is no whole header."""
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if info.size > _MAX_BYTES or info.size < 0:
            return None
        if info.type != tarfile.XHDTYPE:
            return (info.name, info.size, block) if info.isreg() else None
        # A name of more than 100 bytes is in a record of its own before the member's header.
        record = reader.read(info.size + -info.size % BLOCK)
        name = record[: info.size].decode().partition(" path=")[2].rstrip("\n")
        member_header = reader.read(BLOCK)
        return (
            name,
            tarfile.TarInfo.frombuf(member_header, "utf-8", "surrogateescape").size,
            block + record + member_header,
        )
    except (tarfile.HeaderError, ValueError):
        return None


def _name_in(block: bytes) -> str:
    """The name in a damaged header; '' where it cannot be read."""
    name = block[:100].rstrip(b"\0").decode("ascii", "replace")
    return name if name.isprintable() and block[257:262] == b"ustar" else ""
