"""Files that are whole or absent; paths, and what is none."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from skelfit.errors import OutputError

LOCAL = "a path on this machine"
# Anywhere in a text: patterns and chained addresses (simplecache::s3://...) have them further inside.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_FILE = re.compile(r"file://(localhost(?=/))?", re.IGNORECASE)


def not_local(text: str) -> str | None:
    """What a text is that should be a path and is an address or a command, and what to do; None for a path."""
    if _FILE.match(text):
        return f"the address {text}; give the path alone: {unquote(_FILE.sub('', text))}"
    if _ADDRESS.search(text):
        return f"the address {text}; copy the files to this machine, or mount their storage"
    if text.startswith("pipe:"):  # webdataset would run it
        return f"the command {text}; write its output to a file"
    return None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; the file takes the place of `path` when the block ends well.

    The name is unique because Dask may run one task on two workers at a time. Raises OutputError.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error}") from error


def remove(path: Path) -> None:
    """Remove a file if it is there. Raises OutputError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be removed: {error}") from error
