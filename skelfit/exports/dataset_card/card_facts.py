"""The facts of a card: counts and errors of all rows, joint angles of many people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.dofs import NUM_DOFS
from skelfit.shards.finished_run import checked_shard
from skelfit.shards.label_vector import unpack
from skelfit.shards.row_statistics import Summary
from skelfit.shards.row_status import PUBLISHED
from skelfit.shards.shard_files import SUMMARY_NAME, ShardError, ShardFiles, list_shards
from skelfit.shards.shard_reader import read_json, read_rows, read_samples
from skelfit.shards.shard_schema import ShardMarker
from skelfit.storage.locations import Location, side_by_side

ANGLE_PEOPLE = 50_000  # of each subset, about this many people have their angles read, evenly from all shards
COUNTED_METADATA = ("keypoints3d", "coordinates")  # of the metadata
Array = NDArray[np.float32]


@dataclass(frozen=True)
class SubsetFacts:
    """One finished run."""

    folder: Location
    name: str
    summary: Mapping[str, Any]  # summary.json
    rows: Summary  # of all sidecars
    largest: Mapping[int, int]  # numbers of published people by their largest vertex error in whole mm
    poses: Array  # (K,46) rad, of K people
    metadata_counts: Mapping[
        str, Mapping[str, int]
    ]  # for COUNTED_METADATA, how often each value occurs in the metadata of these K people
    sequences: int  # of which rows are frames
    shards: int
    bytes: int

    @property
    def origins(self) -> Sequence[Mapping[str, str]]:
        """Sources of labels and images from the manifest: of, name, url, license, citation."""
        origins: Sequence[Mapping[str, str]] = self.summary.get("origins", ())
        return origins

    @property
    def identity(self) -> Mapping[str, Any]:
        """The identity of the run: all settings that its results depend on."""
        identity: Mapping[str, Any] = self.summary["identity"]
        return identity


def read_facts(folder: Location, angle_people: int = ANGLE_PEOPLE) -> SubsetFacts:
    """The facts of a finished run. Raises ShardError when the folder is not one, or is damaged."""
    summary = read_json(folder / SUMMARY_NAME)
    for key in ("subset", "shards", "identity"):
        if key not in summary:
            raise ShardError(folder / SUMMARY_NAME, key, "a value", "no such key")
    shard_files = list_shards(folder, summary["subset"])
    if len(shard_files) != summary["shards"]:
        raise ShardError(
            folder, None, f"the {summary['shards']} shards of the summary", f"{len(shard_files)}"
        )
    shards = list(side_by_side(checked_shard, shard_files, folder))
    largest: Counter[int] = Counter()
    sequences: set[tuple[str, str]] = set()
    try:
        sidecars = side_by_side(lambda files: list(read_rows(files.sidecar)), shard_files, folder)
        rows = Summary.of_rows(_counted(chain.from_iterable(sidecars), largest, sequences))
        poses, metadata_counts = _read_people(shards, angle_people)
    except KeyError as error:
        expected = "a value, as rows and metadata of this version of skelfit have it"
        raise ShardError(folder, str(error.args[0]), expected, "no such key") from None
    return SubsetFacts(
        folder=folder,
        name=summary["subset"],
        summary=summary,
        rows=rows,
        largest=largest,
        poses=poses,
        metadata_counts=metadata_counts,
        sequences=len(sequences),
        shards=len(shard_files),
        bytes=sum(marker.tar.bytes for _, marker in shards),
    )


def _counted(
    rows: Iterable[dict[str, Any]], largest: Counter[int], sequences: set[tuple[str, str]]
) -> Iterator[dict[str, Any]]:
    """Yield the rows; count the largest errors of published people in whole mm, and collect the sequences."""
    for row in rows:
        if row["status"] in PUBLISHED:
            largest[int(row["max_vertex_mm"])] += 1
        if row["sequence"] is not None:
            label_file = row["key"].split("-")[-2]
            sequences.add((label_file, row["sequence"]))
        yield row


def _read_people(
    shards: Sequence[tuple[ShardFiles, ShardMarker]], people: int
) -> tuple[Array, dict[str, Counter[str]]]:
    """Poses and metadata counts of at least `people` people, or of all, from whole shards evenly spread."""
    shards_read = len(shards)
    if (total := sum(marker.rows_out for _, marker in shards)) > people:
        shards_read = max(1, -(-people * len(shards) // total))
    poses: list[Array] = []
    metadata_counts: dict[str, Counter[str]] = {name: Counter() for name in COUNTED_METADATA}
    for index in np.linspace(0, len(shards) - 1, shards_read).round().astype(int).tolist():
        for _, label, meta in read_samples(shards[index][0].tar):
            poses.append(unpack(label)["skel_poses"])
            for name in COUNTED_METADATA:
                metadata_counts[name][meta[name]] += 1
    return np.array(poses, np.float32).reshape(-1, NUM_DOFS), metadata_counts
