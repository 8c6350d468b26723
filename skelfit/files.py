"""Files that are whole or absent, and paths that are files."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skelfit.errors import InputError, OutputError

# What a path can be, beside a regular file.
_OTHERS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def other_than_file(path: str | Path) -> str:
    """What a path is, where something other than a regular file is there (links are followed); else ''."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # ValueError: a zero byte in the path
        return ""
    if stat.S_ISREG(mode):
        return ""
    return next((words for is_kind, words in _OTHERS if is_kind(mode)), "something that is no file")


def regular_file(path: str | Path, expected: str, fault: type[InputError]) -> None:
    """Raise the fault where something other than a regular file is at a path; to be called before it is opened.

    Opening a named pipe waits for its writer for ever, reading a device may never end, and neither can be read
    twice. A path where nothing is raises nothing: whoever opens it says so.
    """
    if found := other_than_file(path):
        raise fault(path, None, expected, f"{found}, not a regular file")


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
