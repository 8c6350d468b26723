"""The people of a finished run, one by one, from its tars and markers alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from skelfit.errors import InputError
from skelfit.shards.keep_list import read_keep
from skelfit.shards.label_vector import META, FloatArray, unpack
from skelfit.shards.row_status import PUBLISHED
from skelfit.shards.shard_files import SUMMARY_NAME, ShardError, ShardFiles, list_shards
from skelfit.shards.shard_reader import check_shard, read_json, read_marker, read_rows, read_samples
from skelfit.shards.shard_schema import ShardMarker
from skelfit.storage.locations import Location, side_by_side

Step = Callable[[int], object]  # called with how many more people are done


def no_step(_: int) -> None:
    """Says nothing of how far an export is."""


@dataclass(frozen=True)
class Person:
    """One sample: `fields` are the parts of its label vector by name, each of the part's shape."""

    key: str
    shard: str
    fields: Mapping[str, FloatArray]
    meta: Mapping[str, Any]


@dataclass(frozen=True)
class FinishedRun:
    """A folder of shards that is complete."""

    folder: Location
    summary: Mapping[str, Any]
    shards: tuple[tuple[ShardFiles, ShardMarker], ...]
    kept: frozenset[str] | None = None  # keys of the people to read; None: all

    @property
    def subset(self) -> str:
        """The name of the subset."""
        return str(self.summary["subset"])

    @property
    def rows_out(self) -> int:
        """The number of people to read."""
        return int(self.summary["rows_out"]) if self.kept is None else len(self.kept)

    def keeps(self, key: str) -> bool:
        """Whether a person is read."""
        return self.kept is None or key in self.kept

    def only(self, path: Location) -> FinishedRun:
        """The run without the people that a keep-list drops. Raises InputError, also where the list lacks a key."""
        return replace(self, kept=kept_keys([files for files, _ in self.shards], path))

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the results depend on."""
        identity: Mapping[str, Any] = self.summary["identity"]
        return identity

    def people(self) -> Iterator[Person]:
        """The people, in the order of the shards. Raises ShardError for a tar that is not what its marker says."""
        for key, shard, label, meta in self.samples():
            yield Person(key, shard, unpack(label), meta)

    def samples(self) -> Iterator[tuple[str, str, FloatArray, Mapping[str, Any]]]:
        """The same as they are stored: key, name of the shard, label vector, which may be damaged, and metadata."""
        for files, marker in self.shards:
            count = 0
            for key, label, meta in read_samples(files.tar):
                count += 1
                if missing := [name for name in META if name not in meta]:
                    expected = "a value, as shards of this version of skelfit have it"
                    raise ShardError(files.tar, f"{key}: {missing[0]}", expected, "no such key in meta.json")
                if self.keeps(key):
                    yield key, files.name, label, meta
            if count != marker.rows_out:
                raise ShardError(files.tar, None, f"{marker.rows_out} samples", f"{count}")


def open_run(folder: Location) -> FinishedRun:
    """The run in a folder; every shard is there, of the size and with the sidecar that its marker says.

    Raises ShardError when the folder is not a complete run.
    """
    path = folder / SUMMARY_NAME
    summary = read_json(path)
    for key in ("subset", "shards", "rows_out", "identity"):
        if key not in summary:
            raise ShardError(path, key, "a value", "no such key")
    listed = list_shards(folder, summary["subset"])
    if len(listed) != summary["shards"]:
        raise ShardError(folder, None, f"the {summary['shards']} shards of the summary", f"{len(listed)}")
    shards = tuple(side_by_side(checked_shard, listed, folder))
    people = sum(marker.rows_out for _, marker in shards)
    if people != summary["rows_out"]:
        raise ShardError(path, "rows_out", f"{people}, as the shards have", str(summary["rows_out"]))
    if not people:
        raise ShardError(folder, None, "at least one person in the shards", "none")
    return FinishedRun(folder, summary, shards)


def checked_shard(files: ShardFiles) -> tuple[ShardFiles, ShardMarker]:
    """A shard with its marker. Raises ShardError unless its files are those that the marker tells of."""
    marker = read_marker(files)
    check_shard(files, marker)
    return files, marker


def kept_keys(shards: Iterable[ShardFiles], path: Location) -> frozenset[str]:
    """The keys of the people of some shards that a keep-list keeps. Raises InputError, also when it lacks a key."""
    keep = read_keep(path)
    keys = [row["key"] for files in shards for row in read_rows(files.sidecar) if row["status"] in PUBLISHED]
    if missing := next((key for key in keys if key not in keep), None):
        raise InputError(path, missing, "a line for each person in the shards", "none")
    kept = frozenset(key for key in keys if keep[key])
    if not kept:
        raise InputError(path, "keep", "at least one person to keep", "none")
    return kept
