"""One run at a time in an output folder, and which run that is."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from skelfit.errors import OutputError
from skelfit.shards.shard_files import ShardError, remove_temporaries
from skelfit.shards.shard_reader import read_json
from skelfit.storage.atomic_write import remove_file
from skelfit.storage.hashed_write import write_json
from skelfit.storage.locations import Location

LOCK_NAME = ".run.lock"  # held while a run writes; never removed, for that would let two runs hold it
RECORD_NAME = ".run.json"  # which run wrote last; it only informs
_TRIES, _PAUSE_SECONDS = 5, 0.2  # `is_locked` of another process holds the lock for a moment

_log = logging.getLogger(__name__)


@contextmanager
def writing(folder: Location, subset: str) -> Iterator[None]:
    """Make the output folder and keep other runs out; clear up after killed ones. Raises OutputError."""
    if not isinstance(folder, Path):
        yield from _in_store(folder, subset)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A file, not the folder: NFS locks only what is open for writing.
        lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written to: {error}") from None
    try:
        _lock(lock, folder)
        # Before, because what a killed run left may be what fills the disk; and after, because its workers may have
        # gone on for a moment. Those that lose a file to this fail, and the shard is done again.
        _clear(folder, subset)
        try:
            yield
        finally:
            # What cannot be removed now is removed by the next run; it must not hide what ended this one.
            with suppress(OutputError):
                _clear(folder, subset)
    finally:
        os.close(lock)


def _in_store(folder: Location, subset: str) -> Iterator[None]:
    _clear(folder, subset)
    try:
        yield
    finally:
        with suppress(OutputError):
            _clear(folder, subset)


def _clear(folder: Location, subset: str) -> None:
    remove_temporaries(folder, subset)
    for path in folder.glob(f".{RECORD_NAME}.*.tmp"):
        remove_file(path)


def _lock(lock: int, folder: Path) -> None:
    for trial in range(_TRIES):
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if trial + 1 < _TRIES:
                time.sleep(_PAUSE_SECONDS)
        except OSError as error:
            _log.warning(
                "%s: no locks on this file system (%s): make sure that no other run writes here",
                folder,
                error,
            )
            return
    record = read_record(folder)
    writer = f" ({record.process}, since {record.started})" if record is not None else ""
    raise OutputError(
        f"{folder}: another run is writing here{writer}; wait for it, stop it, or choose another --out"
    )


@dataclass(frozen=True)
class RunRecord:
    """Which run wrote last to a folder: what `skelfit status` cannot read off the shards."""

    subset: str
    rows: int
    shards: int
    host: str
    pid: int
    started: str  # UTC, ISO 8601

    @property
    def process(self) -> str:
        """Process and host of the run."""
        return f"process {self.pid} on {self.host}"


def write_record(folder: Location, subset: str, rows: int, shards: int) -> None:
    """Say in the output folder that this process makes these shards of so many rows. Raises OutputError."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    record = RunRecord(subset, rows, shards, socket.gethostname(), os.getpid(), now)
    write_json(folder / RECORD_NAME, asdict(record))


def read_record(folder: Location) -> RunRecord | None:
    """The record of a folder; None when there is none that can be read."""
    try:
        return RunRecord(**read_json(folder / RECORD_NAME))
    except (ShardError, TypeError):
        return None


def is_locked(folder: Location) -> bool:
    """Whether a run writes to the folder, as far as this machine can see."""
    if not isinstance(folder, Path):
        return False
    try:
        lock = os.open(folder / LOCK_NAME, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    finally:
        os.close(lock)
    return False
