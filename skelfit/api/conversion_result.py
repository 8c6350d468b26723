"""What a conversion gives back: what became of each subset, or what a dry run says would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skelfit.api.run_costs import RunCosts
from skelfit.storage.locations import Location


@dataclass(frozen=True)
class PlannedFile:
    """A label file, or a folder of sequences, that a run would read."""

    path: Location
    layout: str
    rows: int  # that the run takes of it
    sequences: int


@dataclass(frozen=True)
class ConversionPlan:
    """What a run would do with one subset, by a dry run. Nothing of it was written. Bytes and costs are estimates."""

    files: tuple[PlannedFile, ...]  # none of a demo whose people are not made yet
    rows: int
    shards: int
    fit_batches: int  # of the shards that are left
    rows_done: int  # in shards that are finished already
    shards_done: int
    label_file_bytes: int  # to be read
    source_image_bytes: int  # to be read, at most: people of one photograph share it
    store_bytes: int  # the validated copy of the labels
    label_bytes: int  # of all rows in the shards
    image_bytes: int  # of all rows in the shards, by the images looked at
    images_looked_at: int
    images_there: int  # of those looked at
    workers: int  # of all machines
    people_per_second: float | None  # of one worker's fit; None: not known
    last_people_per_second: float | None  # of the last run in the folder, all of its workers together
    costs: RunCosts  # of the rows that are left
    missing: tuple[str, ...]  # what is not there, each in a sentence

    @property
    def bytes_read(self) -> int:
        """Label files and images."""
        return self.label_file_bytes + self.source_image_bytes

    @property
    def bytes_written(self) -> int:
        """Shards, with their sidecars and markers, and label stores."""
        return self.store_bytes + self.label_bytes + self.image_bytes

    @property
    def hours_left(self) -> float | None:
        """The time for the rows that are left; None where no speed is known. A last run tells it best."""
        if self.people_per_second is None and self.last_people_per_second:
            return (self.rows - self.rows_done) / self.last_people_per_second / 3600
        return self.costs.hours


@dataclass(frozen=True)
class ConvertedSubset:
    """What became of one subset."""

    name: str
    folder: Location  # of its shards
    summary: Mapping[str, Any] | None  # as in summary.json; None where it was not converted
    problem: str = ""  # why it was not
    missing: bool = False  # whether that is because its label files are not there
    plan: ConversionPlan | None = None  # of a dry run
    waits: bool = False  # of a rank that is done: whether shards of other ranks are not finished


@dataclass(frozen=True)
class Conversion:
    """What became of the subsets of a call: one, or those of a folder of manifests."""

    subsets: tuple[ConvertedSubset, ...]

    @property
    def summary(self) -> Mapping[str, Any]:
        """The summary of the only subset. Raises ValueError where there are several, or there is no summary (yet)."""
        if len(self.subsets) == 1 and self.subsets[0].waits:
            raise ValueError("summary: expected the shards of all ranks, found some that are not finished")
        if len(self.subsets) != 1 or self.subsets[0].summary is None:
            raise ValueError(f"summary: expected one converted subset, found {len(self.subsets)}")
        return self.subsets[0].summary
