"""Which process may write to an output folder, and which run that is.

One run at a time: one process for all shards, or ranks of one world, each of them once. A process takes its own lock
first and looks at the others then, so that of two that exclude each other none is missed.
"""

from __future__ import annotations

import random
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import partial
from os import getpid
from typing import Any

from skelfit.conversion.rank import Rank
from skelfit.errors import OutputError
from skelfit.shards.shard_files import ShardError, remove_shared_temporaries, remove_temporaries
from skelfit.shards.shard_reader import read_json
from skelfit.storage.atomic_write import remove_file
from skelfit.storage.hashed_write import write_json
from skelfit.storage.locations import Location, side_by_side
from skelfit.storage.locks import Lock, is_locked, take_lock

LOCK_NAME = ".run.lock"  # held while a run without ranks writes
RECORD_NAME = ".run.json"  # which run without ranks wrote last; it only informs
SHARED_NAME = ".run.shared.lock"  # held while a rank does what ranks share: label stores and the summary
_OF_RANK = re.compile(r"\.run\.(\d+)-of-(\d+)\.(lock|json)")
_TRIES, _PAUSE_SECONDS = 5, 0.2  # a process that looks at a lock holds it for a moment


@contextmanager
def writing(folder: Location, subset: str, rank: Rank | None = None) -> Iterator[None]:
    """Make the output folder and keep others out; clear up after killed ones. Raises OutputError.

    A rank clears up what is its own. What ranks share, `sharing` clears up.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder, rank)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written to: {error}") from None
    try:
        # Before, because what a killed run left may be what fills the disk; and after, because its workers may have
        # gone on for a moment. Those that lose a file to this fail, and the shard is done again.
        _clear(folder, subset, rank)
        try:
            yield
        finally:
            # What cannot be removed now is removed by the next run; it must not hide what ended this one.
            with suppress(OutputError):
                _clear(folder, subset, rank)
    finally:
        lock.release()


@contextmanager
def sharing(folder: Location, rank: Rank | None, say: Callable[[str], object]) -> Iterator[None]:
    """Let one rank at a time into a block that makes what all ranks use; the others wait. Raises OutputError."""
    if rank is None:
        yield
        return
    try:
        lock = take_lock(folder / SHARED_NAME)
        if lock is None:
            say("waiting for another rank, which reads the labels or writes the summary")
            lock = take_lock(folder / SHARED_NAME, wait=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written to: {error}") from None
    assert lock is not None
    try:
        remove_shared_temporaries(folder)
        yield
    finally:
        lock.release()


def _clear(folder: Location, subset: str, rank: Rank | None) -> None:
    if rank is None:
        remove_shared_temporaries(folder)
    remove_temporaries(folder, subset, None if rank is None else rank.owns)
    for path in folder.glob(f".{_named(rank, 'json')}.*.tmp"):
        remove_file(path)


def _named(rank: Rank | None, ending: str) -> str:
    """The name of the lock or record of a run without ranks, or of a rank."""
    return f".run.{ending}" if rank is None else f".run.{rank.number}-of-{rank.world}.{ending}"


def _ranks(folder: Location, ending: str) -> list[Rank]:
    """The ranks that left a lock or a record, by their number."""
    names = (_OF_RANK.fullmatch(path.name) for path in folder.glob(f".run.*-of-*.{ending}"))
    ranks = [Rank(int(name[1]), int(name[2])) for name in names if name]
    return sorted(ranks, key=lambda rank: (rank.world, rank.number))


def _lock(folder: Location, rank: Rank | None) -> Lock:
    """The lock of a run without ranks, or of a rank. Raises OutputError when another process excludes it."""
    for trial in range(_TRIES):
        if trial:
            # Not the same time for all: two that exclude each other would go on to do so.
            time.sleep(_PAUSE_SECONDS * random.uniform(0.5, 1.5))
        lock, other = take_lock(folder / _named(rank, "lock")), rank
        if lock is not None:
            if not (others := [other for other in _excluded(folder, rank) if _is_writing(folder, other)]):
                return lock
            other = others[0]
            lock.release()
    record = _read_record(folder, other)
    writer = f" ({record.process}, since {record.started})" if record is not None else ""
    who = "another run" if other is None else str(other)
    advice = "wait for it, stop it, or choose another --out"
    if rank is not None and other == rank:
        who, advice = f"another process with --rank {rank.number}", "give each process its own --rank"
    elif rank is not None and other is not None:
        advice = f"all ranks at work need the same --world ({other.world}, not {rank.world})"
    raise OutputError(f"{folder}: {who} is writing here{writer}; {advice}")


def _excluded(folder: Location, rank: Rank | None) -> Sequence[Rank | None]:
    """Which other ranks, or None for a run without, must not write at the same time."""
    if rank is None:
        return _ranks(folder, "lock")
    return [None, *(other for other in _ranks(folder, "lock") if other.world != rank.world)]


def _is_writing(folder: Location, rank: Rank | None) -> bool:
    return is_locked(folder / _named(rank, "lock"))


def is_written_to(folder: Location) -> bool:
    """Whether a run, or a rank of one, writes to the folder, as far as this machine can see."""
    ranks: list[Rank | None] = [None, *_ranks(folder, "lock")]
    return any(side_by_side(partial(_is_writing, folder), ranks, folder))


def ranks_at_work(folder: Location, world: int) -> set[int]:
    """The numbers of the ranks that write to the folder, as far as this machine can see."""
    ranks = [rank for rank in _ranks(folder, "lock") if rank.world == world]
    at_work = side_by_side(partial(_is_writing, folder), ranks, folder)
    return {rank.number for rank, is_at_work in zip(ranks, at_work, strict=True) if is_at_work}


@dataclass(frozen=True)
class RunRecord:
    """Which run, or rank of one, wrote last to a folder: what `skelfit status` cannot read off the shards."""

    subset: str
    rows: int  # of the whole run
    shards: int  # of the whole run
    host: str
    pid: int
    started: str  # UTC, ISO 8601
    rank: int | None = None  # None: a run without ranks
    world: int | None = None
    # What a rank did when it last made shards, for the times in the summary: as the fields of ShardResult.
    results: Sequence[Mapping[str, Any]] = ()

    @property
    def process(self) -> str:
        """Process and host of the run."""
        return f"process {self.pid} on {self.host}"


def write_record(folder: Location, subset: str, rows: int, shards: int, rank: Rank | None = None) -> None:
    """Say in the output folder that this process makes these shards of so many rows. Raises OutputError.

    The records of earlier runs, with other ranks or without, are removed.
    """
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    of_rank = {} if rank is None else {"rank": rank.number, "world": rank.world}
    before = _read_record(folder, rank)
    results = () if before is None or rank is None else before.results
    record = RunRecord(subset, rows, shards, socket.gethostname(), getpid(), now, **of_rank, results=results)
    _write_record(folder, record, rank)
    world = None if rank is None else rank.world
    for other in (None, *_ranks(folder, "json")):
        if (None if other is None else other.world) != world:
            remove_file(folder / _named(other, "json"))


def keep_results(folder: Location, rank: Rank, results: Sequence[Mapping[str, Any]]) -> None:
    """Keep what a rank did in its record, unless that is nothing. Raises OutputError."""
    if results and (record := _read_record(folder, rank)) is not None:
        _write_record(folder, RunRecord(**{**vars(record), "results": results}), rank)


def _write_record(folder: Location, record: RunRecord, rank: Rank | None) -> None:
    content = asdict(record)
    if rank is None:
        content = {key: value for key, value in content.items() if key not in ("rank", "world", "results")}
    write_json(folder / _named(rank, "json"), content)


def _read_record(folder: Location, rank: Rank | None) -> RunRecord | None:
    """The record of a run without ranks, or of a rank; None when there is none that can be read."""
    try:
        return RunRecord(**read_json(folder / _named(rank, "json")))
    except (ShardError, TypeError):
        return None


def read_records(folder: Location) -> list[RunRecord]:
    """The records of a folder: of a run without ranks, or of each rank that began, by its number."""
    ranks = side_by_side(partial(_read_record, folder), _ranks(folder, "json"), folder)
    records = [record for record in (_read_record(folder, None), *ranks) if record is not None]
    # Those of another run are there for a moment, while a new one removes them.
    last = max(records, key=lambda record: record.started, default=None)
    return [record for record in records if last is not None and record.world == last.world]


def read_record(folder: Location) -> RunRecord | None:
    """The record of the run, or the rank, that was started last; None when there is none that can be read."""
    return max(read_records(folder), key=lambda record: record.started, default=None)


def record_path(folder: Location, record: RunRecord) -> Location:
    """The file of a record."""
    rank = None
    if record.rank is not None and record.world is not None:
        rank = Rank(record.rank, record.world)
    return folder / _named(rank, "json")
