"""Files that are whole or absent."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skelfit.errors import OutputError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`: the file written there replaces `path` when the block ends without an error.

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


def remove_file(path: Path) -> None:
    """Remove a file if it is there. Raises OutputError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be removed: {error}") from error
