"""Files of stores that are needed as files of this machine, such as HDF5: fetched once, kept under their version."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from skelfit.errors import InputError, OutputError, StoreError
from skelfit.storage.locations import Location, Place, location_of, side_by_side

if TYPE_CHECKING:
    from skelfit.storage.store_path import StorePath

_DIGITS = 16  # of a hash, in a name


def cache_folder() -> Path:
    """Where they are kept: $XDG_CACHE_HOME/skelfit. It may be removed when nothing runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "skelfit"


def kept_for(location: Location) -> Path:
    """A folder of this machine for what is made for a location."""
    return cache_folder() / "made" / hashlib.sha256(str(location).encode()).hexdigest()[:32]


def fetched(
    location: Location, expected: str = "a file", error: type[InputError] = InputError, *, sha256: str = ""
) -> Path:
    """The file or folder of this machine with the content of a location: itself, or a copy that is made once.

    sha256: the first digits of its hash, where they are known. Raises the error, with what was expected, where nothing
    is there; StoreError; OutputError where the copy cannot be written.
    """
    if isinstance(location, Path):
        return location
    try:
        return _fetch(location, sha256)
    except FileNotFoundError:
        raise error(location, None, expected, "no such file") from None
    except OSError as problem:
        raise OutputError(f"{cache_folder()}: cannot be written: {problem}") from problem


def _fetch(location: StorePath, sha256: str) -> Path:
    files = location.files_below() if location.is_dir() else [location]
    kept = _place(location, files)
    if kept.exists():
        return kept
    temporary = _temporary(kept)
    try:
        if files == [location]:
            location.download(temporary)
            _check(location, temporary, sha256)
        else:
            _fetch_folder(location, files, temporary)
        _move(temporary, kept)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.unlink(missing_ok=True)
    return kept


def upload_named(file: Path, folder: StorePath) -> StorePath:
    """Put a file into a store, under its name and the beginning of its hash, unless it is there. Raises OutputError.

    `local_copy` finds it in the cache of this machine.
    """
    location = folder / f"{file.stem}-{sha256_of(file)[:_DIGITS]}{file.suffix}"
    try:
        if not (location.exists() and location.stat().st_size == file.stat().st_size):
            location.upload(file)
        kept = _place(location, [location])
        temporary = _temporary(kept)
        try:
            os.link(file, temporary)
        except OSError:  # another file system
            shutil.copyfile(file, temporary)
        os.replace(temporary, kept)
    except (OSError, StoreError) as error:
        raise OutputError(f"{location}: cannot be written: {error}") from error
    return location


def local_copy(place: Place) -> Path:
    """The file of this machine of a path, or of what `upload_named` put into a store. Raises as `fetched`."""
    location = location_of(place)
    return location if isinstance(location, Path) else _fetch_named(location)


@lru_cache(maxsize=64)
def _fetch_named(location: StorePath) -> Path:
    return fetched(location, sha256=location.stem.rpartition("-")[2])


def sha256_of(file: Path) -> str:
    """The sha256 (hex) of a file. Raises OSError."""
    with open(file, "rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _place(location: StorePath, files: list[StorePath]) -> Path:
    """Where the copy is kept: its folder is of the address, and of the versions of the files."""
    versions = side_by_side(lambda file: f"{file} {file.version()}", files, location)
    key = hashlib.sha256("\n".join([str(location), *versions]).encode()).hexdigest()[:32]
    return cache_folder() / "files" / key / location.name


def _temporary(kept: Path) -> Path:
    kept.parent.mkdir(parents=True, exist_ok=True)
    return kept.with_name(f".{uuid.uuid4().hex[:12]}.tmp")


def _fetch_folder(location: StorePath, files: list[StorePath], folder: Path) -> None:
    def fetch(file: StorePath) -> None:
        target = folder / file.below(location)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.download(target)

    list(side_by_side(fetch, files, location))


def _check(location: StorePath, file: Path, sha256: str) -> None:
    if sha256 and not (actual := sha256_of(file)).startswith(sha256):
        raise StoreError(f"{location}: expected a file with the sha256 {sha256}..., found {actual}")


def _move(temporary: Path, kept: Path) -> None:
    try:
        os.replace(temporary, kept)
    except OSError:
        if not kept.is_dir():  # else another process was faster
            raise
