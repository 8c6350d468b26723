"""The folder of a dry run: the dataset as it would be, and nothing of the user's replaced."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from skelfit.errors import OutputError
from skelfit.publishing.publication import Publication
from skelfit.publishing.publication_record import RECORD_NAME, read_record
from skelfit.storage.atomic_write import remove_file
from skelfit.storage.hashed_write import write_atomically
from skelfit.storage.locations import Location


def prepare_dry_run(out: Path, overwrite: bool) -> None:
    """Make an empty folder; `overwrite` removes the files of an earlier dry run, and no others. Raises OutputError."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: expected a folder, found a file; choose another name")
    if out.is_dir() and any(out.iterdir()):
        record = read_record((out / RECORD_NAME).read_bytes()) if (out / RECORD_NAME).is_file() else None
        if record is None or not overwrite:
            remedy = "choose another folder" + ("" if record is None else " or --overwrite")
            raise OutputError(f"{out}: holds files already; {remedy}")
        for name in (RECORD_NAME, *record.files):
            if ".." not in Path(name).parts and not Path(name).is_absolute():
                remove_file(out / name)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be made: {error}") from error


def complete_dry_run(publication: Publication, out: Path) -> None:
    """Put the shards beside what was made in a folder, as hard links where possible. Raises OutputError, StoreError."""
    for file in publication.files:
        if file.path != out / file.name:
            _link(file.path, out / file.name)
    record = publication.record(complete=True).to_bytes()
    write_atomically(out / RECORD_NAME, lambda stream: stream.write(record))


def _link(path: Location, link: Path) -> None:
    try:
        if not isinstance(path, Path):
            return path.download(link)
        try:
            os.link(path, link)
        except OSError:  # another disk, or one without hard links
            shutil.copyfile(path, link)
    except OSError as error:
        raise OutputError(f"{link}: cannot be written: {error}") from error
