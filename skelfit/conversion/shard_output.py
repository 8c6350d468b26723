"""The work on one shard after its rows are fitted: its images are read, and it is written.

A row that cannot be used or fitted is data: it gets a status and a reason. Writer processes start with this module, so
it imports nothing of the fit.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from threading import Event
from typing import Protocol, TypeVar

from skelfit.conversion.planned_shard import PlannedShard
from skelfit.conversion.stopwatch import Stopwatch
from skelfit.shards.shard_schema import ShardMarker, ShardRow, ShardSample
from skelfit.shards.shard_writer import write_shard

T = TypeVar("T")


@dataclass(frozen=True)
class WrittenShard:
    """A shard on disk, and what its writing took."""

    marker: ShardMarker
    seconds: Mapping[str, float]  # of each phase
    ended: float  # s since the epoch


class ReadyShard(Protocol):
    """A shard that can be written. It travels to a writer process."""

    @property
    def task(self) -> PlannedShard:
        """Which shard that is."""

    @property
    def labels_sha256(self) -> str:
        """Hash of the label rows as they came in."""

    def entries(self, stopwatch: Stopwatch) -> Iterator[tuple[ShardRow, ShardSample | None]]:
        """Every row, and the sample of those that are published. Images are read on the way."""


class StoppedError(Exception):
    """The run was ended while a shard was being written."""


def write_fitted(shard: ReadyShard, stop: Event | None = None) -> WrittenShard:
    """Write a shard; its images are read on the way.

    stop: ends it with StoppedError before the next row. Raises OutputError, ImageError.
    """
    stopwatch, task = Stopwatch(), shard.task
    with stopwatch.phase("writing"):
        entries = _until(stop, shard.entries(stopwatch))
        span = task.start, task.stop
        marker = write_shard(task.files, entries, task.run.identity(), span, shard.labels_sha256)
    return WrittenShard(marker, stopwatch.seconds, time.time())


def _until(stop: Event | None, entries: Iterable[T]) -> Iterator[T]:
    for entry in entries:
        if stop is not None and stop.is_set():
            raise StoppedError
        yield entry
