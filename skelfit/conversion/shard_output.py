"""The work on one shard after its rows are fitted: they are judged, its images are read, and it is written.

A row that cannot be used or fitted is data: it gets a status and a reason. Writer processes start with this module, so
it imports nothing of the fit.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from threading import Event
from typing import TypeVar

from skelfit.conversion.shard_samples import FittedBatch, shard_entries
from skelfit.conversion.stopwatch import Stopwatch
from skelfit.shards.shard_schema import ShardMarker
from skelfit.shards.shard_writer import write_shard

T = TypeVar("T")


@dataclass(frozen=True)
class WrittenShard:
    """A shard on disk, and what its writing took."""

    marker: ShardMarker
    seconds: Mapping[str, float]  # of each phase
    ended: float  # s since the epoch


class StoppedError(Exception):
    """The run was ended while a shard was being written."""


def write_fitted(shard: FittedBatch, stop: Event | None = None) -> WrittenShard:
    """Judge the rows of a fitted shard, read its images, and write it.

    stop: ends it with StoppedError before the next row. Raises OutputError, ImageError.
    """
    stopwatch, task = Stopwatch(), shard.task
    with stopwatch.phase("writing"):
        entries = _until(stop, shard_entries(shard, stopwatch))
        span = task.start, task.stop
        marker = write_shard(task.files, entries, task.run.identity(), span, shard.labels_sha256)
    return WrittenShard(marker, stopwatch.seconds, time.time())


def _until(stop: Event | None, entries: Iterable[T]) -> Iterator[T]:
    for entry in entries:
        if stop is not None and stop.is_set():
            raise StoppedError
        yield entry
