"""The files of a published dataset: the shards as they are, and what is made beside them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from skelfit.errors import OutputError
from skelfit.publishing.publication_record import PublicationRecord
from skelfit.shards.finished_run import FinishedRun
from skelfit.storage.hashed_write import FileRecord
from skelfit.storage.locations import Location

MOST_IN_FOLDER = 10_000  # files that the Hub recommends in one folder


@dataclass(frozen=True)
class PublishedFile:
    """A file of a dataset."""

    name: str  # its path there
    path: Location  # where it is now
    record: FileRecord
    people: int = 0  # of a tar: how many it holds


@dataclass(frozen=True)
class Publication:
    """A dataset that is ready to be sent."""

    run: FinishedRun
    shards: tuple[PublishedFile, ...]  # tars, sidecars and markers, in their order
    beside: tuple[PublishedFile, ...]  # all others; summary.json and the card are the last

    @property
    def files(self) -> tuple[PublishedFile, ...]:
        """All files but the record."""
        return self.shards + self.beside

    def record(self, complete: bool) -> PublicationRecord:
        """What the dataset says of itself."""
        identity = str(self.run.summary.get("identity_sha256"))
        files = {file.name: file.record for file in self.files}
        return PublicationRecord(self.run.subset, identity, complete, files)

    def record_file(self) -> FileRecord:
        """Size and hash of the record's own file."""
        content = self.record(complete=True).to_bytes()
        return FileRecord(len(content), hashlib.sha256(content).hexdigest())


def check_size(run: FinishedRun) -> None:
    """Raise OutputError for a run that has more files than the Hub recommends in a folder."""
    files = 3 * len(run.shards)
    if files > MOST_IN_FOLDER - 100:
        raise OutputError(
            f"{run.folder}: {files} files in {len(run.shards)} shards, and the Hub recommends at most "
            f"{MOST_IN_FOLDER} in a folder; convert with a larger --shard-size"
        )


def published_file(path: Location, folder: Location) -> PublishedFile:
    """A file in a folder, which has the same path in the dataset."""
    name = path.name
    if isinstance(path, Path) and isinstance(folder, Path):
        name = path.relative_to(folder).as_posix()
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
            size += len(block)
    return PublishedFile(name, path, FileRecord(size, digest.hexdigest()))


def size_text(size: int) -> str:
    """A number of bytes as people read it."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"
