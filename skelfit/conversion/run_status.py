"""How far a run is, read from its files alone, so that the run may be on another machine and is not disturbed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal

from skelfit.conversion.rank import Rank
from skelfit.conversion.run_lock import (
    RunRecord,
    is_written_to,
    ranks_at_work,
    read_records,
    record_path,
)
from skelfit.shards.shard_files import (
    SUMMARY_NAME,
    ShardError,
    ShardFiles,
    list_shards,
    list_started,
    list_subsets,
)
from skelfit.shards.shard_reader import read_json, read_marker
from skelfit.shards.shard_schema import ShardMarker
from skelfit.storage.locations import Location, side_by_side

State = Literal["running", "finished", "stopped"]
Finished = tuple[ShardMarker, float]  # a shard, and when its marker was written
RankState = Literal["running", "finished", "dead", "not started"]


@dataclass(frozen=True)
class InProgress:
    """A shard that a task began and did not finish."""

    name: str
    host: str | None
    process: int | None
    seconds: float  # since it was begun


@dataclass(frozen=True)
class RankStatus:
    """How far a rank is with its share of the shards."""

    number: int
    state: RankState  # dead: it began, is not finished, and is not seen to be at work
    shards: int
    shards_done: int
    rows_done: int
    people_per_second: float | None
    record: RunRecord | None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        record = self.record
        return {
            "rank": self.number,
            "state": self.state,
            "host": record.host if record else None,
            "pid": record.pid if record else None,
            "started": record.started if record else None,
            "shards": {"total": self.shards, "done": self.shards_done},
            "rows": {"done": self.rows_done},
            "people_per_second": self.people_per_second,
        }


@dataclass(frozen=True)
class Status:
    """How far a run is. None: the files do not tell."""

    subset: str
    state: State
    locked: bool  # a run is writing here, as far as this machine can see
    record: RunRecord | None
    shards: int | None
    shards_done: int
    in_progress: tuple[InProgress, ...]
    rows: int | None
    rows_done: int
    rows_out: int
    statuses: dict[str, int]
    rejected: dict[str, int]
    people_per_second: float | None  # of the run that wrote last
    seconds_left: float | None
    last_activity: float | None  # seconds ago
    ranks: tuple[RankStatus, ...] = ()  # of a run with ranks, all of them

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        record, now = self.record, datetime.now(timezone.utc)
        return {
            "subset": self.subset,
            "state": self.state,
            "locked": self.locked,
            "host": record.host if record else None,
            "pid": record.pid if record else None,
            "started": record.started if record else None,
            "shards": {
                "total": self.shards,
                "done": self.shards_done,
                "in_progress": [vars(shard) for shard in self.in_progress],
                "pending": None if self.shards is None else self.shards - self.shards_done,
            },
            "rows": {"total": self.rows, "done": self.rows_done, "out": self.rows_out},
            "statuses": self.statuses,
            "rejected": self.rejected,
            "people_per_second": self.people_per_second,
            "seconds_left": self.seconds_left,
            "seconds_since_last_activity": self.last_activity,
            "ranks": [rank.to_json() for rank in self.ranks],
            "read": now.isoformat(timespec="seconds"),
        }


def read_status(folder: Location) -> Status:
    """The status of the run in a folder. Raises ShardError when there is none."""
    records, locked = read_records(folder), is_written_to(folder)
    record = max(records, key=lambda record: record.started, default=None)
    subset = record.subset if record else next(iter(list_subsets(folder)), None)
    if subset is None:
        raise ShardError(folder, None, "the folder of a run", "no shards and no record of a run")
    # Times are compared with each other as the file server has them: its clock may not be ours.
    written = [at for record in records if (at := _changed(record_path(folder, record))) is not None]
    done = _finished(folder, subset)
    names = {marker.name for marker, _ in done}
    begun = [
        (files, at)
        for files in list_started(folder, subset)
        if files.name not in names and (at := _changed(files.started)) is not None
    ]
    times = [at for _, at in [*done, *begun]] + written
    rows_done = sum(marker.rows_in for marker, _ in done)
    complete = (folder / SUMMARY_NAME).exists()
    ranks: tuple[RankStatus, ...] = ()
    if record is not None and record.world is not None:
        ranks = tuple(_ranks(folder, records, done))
        rate, left = _pace_of_ranks(ranks, rows_done / len(done) if done else 0.0)
    else:
        rate = _rate(folder, record, done) if record else None
        left = (record.rows - rows_done) / rate if record and rate else None
    return Status(
        subset=subset,
        state="finished" if complete else "running" if locked else "stopped",
        locked=locked,
        record=record,
        shards=record.shards if record else len(done) if complete else None,
        shards_done=len(done),
        in_progress=tuple(_in_progress(files, at) for files, at in begun),
        rows=record.rows if record else rows_done if complete else None,
        rows_done=rows_done,
        rows_out=sum(marker.rows_out for marker, _ in done),
        statuses=_total(marker.statuses for marker, _ in done),
        rejected=_total(marker.rejected for marker, _ in done),
        people_per_second=rate,
        seconds_left=left,
        last_activity=max(0.0, time.time() - max(times)) if times else None,
        ranks=ranks,
    )


def _rate(folder: Location, record: RunRecord, done: Sequence[Finished]) -> float | None:
    """The people per second of a run, or a rank, since it began; by what a rank kept of its last run, if by nothing."""
    began = _changed(record_path(folder, record))
    since = [(marker.rows_in, at) for marker, at in done if began is not None and at >= began]
    if began is not None and since and (seconds := max(at for _, at in since) - began) > 0:
        return sum(rows for rows, _ in since) / seconds
    # At its end, a rank writes its record again, and nothing behind it.
    with suppress(KeyError, TypeError, ValueError):
        spans = [result["span"] for result in record.results]
        seconds = max(stop for _, stop in spans) - min(start for start, _ in spans)
        return float(sum(result["rows_in"] for result in record.results) / seconds) if seconds > 0 else None
    return None


def _ranks(folder: Location, records: Sequence[RunRecord], done: Sequence[Finished]) -> Iterator[RankStatus]:
    world, shards = records[0].world or 0, max(record.shards for record in records)
    by_number = {record.rank: record for record in records}
    at_work = ranks_at_work(folder, world)
    for number in range(world):
        rank, record = Rank(number, world), by_number.get(number)
        own = [(marker, at) for marker, at in done if rank.owns(marker.name)]
        share = len(range(number, shards, world))
        state: RankState = "finished"
        if number in at_work:
            state = "running"
        elif len(own) < share:
            state = "dead" if record else "not started"
        rate = _rate(folder, record, own) if record else None
        rows = sum(marker.rows_in for marker, _ in own)
        yield RankStatus(number, state, share, len(own), rows, rate, record)


def _pace_of_ranks(ranks: Sequence[RankStatus], rows: float) -> tuple[float | None, float | None]:
    """People per second of the ranks at work, or of all; and the seconds until the last one at work ends.

    rows: of a shard.
    """
    running = [rank for rank in ranks if rank.state == "running"]
    rates = [rank.people_per_second for rank in running or ranks if rank.people_per_second]
    left = [
        (rank.shards - rank.shards_done) * rows / rank.people_per_second
        for rank in running
        if rank.people_per_second
    ]
    # A rank that has not finished a shard yet has no pace: nothing can be said of the end.
    known = len(left) == len(running)
    return sum(rates) if rates else None, max(left, default=None) if known else None


def _finished(folder: Location, subset: str) -> list[Finished]:
    """The markers of the finished shards, and when each was written."""
    shards = side_by_side(_finished_shard, list_shards(folder, subset), folder)
    return [shard for shard in shards if shard is not None]


def _finished_shard(files: ShardFiles) -> Finished | None:
    with suppress(ShardError):
        return read_marker(files), _changed(files.marker) or 0.0
    return None


def _in_progress(files: ShardFiles, at: float) -> InProgress:
    task: dict[str, Any] = {}
    with suppress(ShardError):  # not written yet, or removed meanwhile
        task = read_json(files.started)
    return InProgress(files.name, task.get("host"), task.get("process"), max(0.0, time.time() - at))


def _total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


def _changed(path: Location) -> float | None:
    """When a file was written, in seconds; None when it is not there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None
