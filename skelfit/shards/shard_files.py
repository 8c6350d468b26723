"""The files of a shard and of a folder of shards: their names, which there are, and their removal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from skelfit.errors import InputError
from skelfit.storage.atomic_write import remove_file
from skelfit.storage.locations import Location

SCHEMA_NAME = "schema.json"


SUMMARY_NAME = "summary.json"


class ShardError(InputError):
    """A shard, sidecar or marker that cannot be used."""


@dataclass(frozen=True)
class ShardFiles:
    """The three files of the shard `name` in `folder`."""

    folder: Location
    name: str

    @property
    def tar(self) -> Location:
        """The samples."""
        return self.folder / f"{self.name}.tar"

    @property
    def sidecar(self) -> Location:
        """Every input row, as JSON Lines."""
        return self.folder / f"{self.name}.rows.jsonl"

    @property
    def marker(self) -> Location:
        """What was done, written when the other two are in place."""
        return self.folder / f"{self.name}.done.json"

    @property
    def started(self) -> Location:
        """There while the shard is being made. A killed process leaves it behind."""
        return self.folder / f".{self.name}.started.json"


def shard_of(tar: Location) -> ShardFiles:
    """The shard of a tar."""
    return ShardFiles(tar.parent, tar.stem)


def remove_temporaries(folder: Location, subset: str, owns: Callable[[str], bool] | None = None) -> None:
    """Remove what a killed run left of shards under temporary names. Raises OutputError.

    owns: of which shards, by name; None: of all.
    """
    for files in list_started(folder, subset):
        if owns is None or owns(files.name):
            remove_file(files.started)
    for path, final in _temporaries(folder):
        if (name := _shard_name(final, subset)) and (owns is None or owns(name)):
            remove_file(path)


def remove_shared_temporaries(folder: Location) -> None:
    """Remove what a killed run left of the files beside the shards. Raises OutputError."""
    for path, final in _temporaries(folder):
        if final in (SCHEMA_NAME, SUMMARY_NAME):
            remove_file(path)


def _temporaries(folder: Location) -> Iterator[tuple[Location, str]]:
    """Files under temporary names, and the names that they were to have."""
    for path in folder.glob(".*.tmp"):
        yield path, path.name[1:].rsplit(".", 2)[0]


def remove_shard(files: ShardFiles) -> None:
    """Remove a shard, its marker first. Raises OutputError."""
    for path in (files.marker, files.tar, files.sidecar):
        remove_file(path)


def list_shards(folder: Location, subset: str) -> list[ShardFiles]:
    """The shards of a subset of which the folder has a tar, sidecar or marker, in order."""
    names = {_shard_name(path.name, subset) for path in folder.glob(f"{subset}-*")}
    return [ShardFiles(folder, name) for name in sorted(names) if name]


def list_started(folder: Location, subset: str) -> list[ShardFiles]:
    """The shards of a subset that a task began, in order."""
    names = {_shard_name(path.name[1:], subset) for path in folder.glob(f".{subset}-*.started.json")}
    return [ShardFiles(folder, name) for name in sorted(names) if name]


def list_subsets(folder: Location) -> list[str]:
    """The subsets of which the folder has finished shards, in order."""
    ending = "-[0-9][0-9][0-9][0-9][0-9][0-9].done.json"
    return sorted({path.name[: -len("-000000.done.json")] for path in folder.glob("*" + ending)})


def shard_name(subset: str, index: int) -> str:
    """The name of a subset's shard, without an ending."""
    return f"{subset}-{index:06d}"


def _shard_name(file_name: str, subset: str) -> str:
    """The shard that a file belongs to by its name; '' for other files."""
    match = re.fullmatch(rf"({re.escape(subset)}-\d{{6}})\.(tar|rows\.jsonl|(done|started)\.json)", file_name)
    return match[1] if match else ""
