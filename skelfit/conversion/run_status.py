"""How far a run is, read from its files alone, so that the run may be on another machine and is not disturbed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal

from skelfit.conversion.run_lock import RECORD_NAME, RunRecord, is_locked, read_record
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


@dataclass(frozen=True)
class InProgress:
    """A shard that a task began and did not finish."""

    name: str
    host: str | None
    process: int | None
    seconds: float  # since it was begun


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
            "read": now.isoformat(timespec="seconds"),
        }


def read_status(folder: Location) -> Status:
    """The status of the run in a folder. Raises ShardError when there is none."""
    record, locked = read_record(folder), is_locked(folder)
    subset = record.subset if record else next(iter(list_subsets(folder)), None)
    if subset is None:
        raise ShardError(folder, None, "the folder of a run", "no shards and no record of a run")
    # Times are compared with each other as the file server has them: its clock may not be ours.
    began = _changed(folder / RECORD_NAME)
    done = _finished(folder, subset)
    now_done = [(marker, at) for marker, at in done if began is not None and at >= began]
    names = {marker.name for marker, _ in done}
    begun = [
        (files, at)
        for files in list_started(folder, subset)
        if files.name not in names and (at := _changed(files.started)) is not None
    ]
    times = [at for _, at in [*done, *begun]] + ([] if began is None else [began])
    rows_done = sum(marker.rows_in for marker, _ in done)
    rate = None
    if began is not None and now_done and (seconds := max(at for _, at in now_done) - began) > 0:
        rate = sum(marker.rows_in for marker, _ in now_done) / seconds
    complete = (folder / SUMMARY_NAME).exists()
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
        seconds_left=(record.rows - rows_done) / rate if record and rate else None,
        last_activity=max(0.0, time.time() - max(times)) if times else None,
    )


def _finished(folder: Location, subset: str) -> list[tuple[ShardMarker, float]]:
    """The markers of the finished shards, and when each was written."""
    shards = side_by_side(_finished_shard, list_shards(folder, subset), folder)
    return [shard for shard in shards if shard is not None]


def _finished_shard(files: ShardFiles) -> tuple[ShardMarker, float] | None:
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
