"""Files that are whole or absent, on a disk or in a store."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skelfit.errors import OutputError, StoreError
from skelfit.storage.locations import Location
from skelfit.storage.path_checks import describe_non_file


@contextmanager
def atomic_write(path: Location) -> Iterator[Path]:
    """A temporary path of this machine: the file written there replaces `path` when the block ends without an error.

    It is beside `path`, and renamed. A store has no such thing: there it is uploaded at once, and a store shows an
    upload when all of it has arrived. The name is unique because Dask may run one task on two workers at a time.
    Raises OutputError.
    """
    if not isinstance(path, Path):
        with _uploaded(path) as temporary:
            yield temporary
        return
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


@contextmanager
def _uploaded(location: Location) -> Iterator[Path]:
    """A path in a folder that exists for the block; at its end the file goes to a store. Raises OutputError."""
    assert not isinstance(location, Path)
    try:
        with tempfile.TemporaryDirectory(prefix="skelfit-upload-") as folder:
            file = Path(folder, location.name)
            yield file  # a StoreError in the block is of something else, which is read
            try:
                location.upload(file)
            except StoreError as error:
                raise OutputError(f"cannot be written: {error}") from error
    except OSError as error:
        raise OutputError(f"{location}: cannot be written: {error}") from error


def check_writable(path: Location) -> None:
    """Raise OutputError where a file could not be written: known before the work of which it tells.

    Of a store nothing is known before: only an upload shows it.
    """
    if not isinstance(path, Path):
        return
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    fault = ""
    if kind := describe_non_file(path):
        fault = f"it is {kind}"
    elif not folder.is_dir():
        fault = f"{folder} is no folder"
    elif not os.access(folder, os.W_OK | os.X_OK):
        fault = f"no permission to write in {folder}"
    if fault:
        raise OutputError(f"{path}: cannot be written: {fault}")


def remove_file(path: Location) -> None:
    """Remove a file if it is there. Raises OutputError."""
    try:
        path.unlink(missing_ok=True)
    except (OSError, StoreError) as error:
        raise OutputError(f"{path}: cannot be removed: {error}") from error
