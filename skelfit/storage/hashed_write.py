"""Files that are written whole or not at all, with their size and hash."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any

from skelfit.storage.atomic_write import atomic_write
from skelfit.storage.locations import Location


@dataclass(frozen=True)
class FileRecord:
    """Size and hash of a finished file."""

    bytes: int
    sha256: str


class _Hashing(io.RawIOBase):
    """Passes bytes on to a stream, hashing and counting them."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.digest, self.count = stream, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.count += len(data)
        return self.stream.write(data)


def write_atomically(path: Location, write: Callable[[io.RawIOBase], object]) -> FileRecord:
    """Let `write` fill the file, which is then whole or absent. Raises OutputError."""
    with atomic_write(path) as temporary, open(temporary, "wb") as stream:
        hashing = _Hashing(stream)
        write(hashing)
    return FileRecord(hashing.count, hashing.digest.hexdigest())


def write_json(path: Location, content: Mapping[str, Any]) -> None:
    """Write indented JSON atomically. Raises OutputError."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda stream: stream.write(text.encode()))
