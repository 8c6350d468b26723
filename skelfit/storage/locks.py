"""Locks that processes of several machines see: on a disk by the file system, in a store by an object with a lease."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from skelfit.errors import StoreError
from skelfit.storage.locations import Location

if TYPE_CHECKING:
    from skelfit.storage.store_path import StorePath

# An object that is not renewed for so long is what a dead process left.
RENEW_SECONDS, LEASE_SECONDS = 60.0, 300.0
_POLL_SECONDS, _SETTLE_SECONDS = 2.0, 1.0
_PROCESS = uuid.uuid4().hex  # tells this process from an earlier one of its number
_HELD: set[str] = set()  # tokens of this process; an object that could not be removed is none of them
_log = logging.getLogger(__name__)


class Lock(Protocol):
    """A lock that is held."""

    def release(self) -> None:
        """Let others have it."""


def take_lock(path: Location, *, wait: bool = False) -> Lock | None:
    """The lock of this path; None where another process holds it, unless `wait`. Raises OSError, StoreError.

    Where there are no locks, on some file systems and in some stores, it warns and gives one that keeps nothing out.
    """
    if isinstance(path, Path):
        return _take_file_lock(path, wait)
    while (lock := _take_lease(path)) is None and wait:
        time.sleep(_POLL_SECONDS)
    return lock


def is_locked(path: Location) -> bool:
    """Whether a process holds the lock of this path, as far as this machine can see. Raises StoreError.

    On a disk, it holds the lock itself for a moment.
    """
    if not isinstance(path, Path):
        return not _is_left_behind(path, _owner_of(path))
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    finally:
        os.close(descriptor)
    return False


class NoLock:
    """Keeps nothing out."""

    def release(self) -> None:
        """Nothing."""


class FileLock:
    """A lock on a file (`flock`), held until it is released or the process ends. The file itself stays.

    To remove it would let two processes hold it: one the old file, the other a new one of the same name.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Let others have it."""
        os.close(self._descriptor)


def _take_file_lock(path: Path, wait: bool) -> FileLock | None:
    # A file, not a folder: NFS locks only what is open for writing.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        _warn(path.parent, error)
    return FileLock(descriptor)


def _warn(folder: Location, error: Exception) -> None:
    _log.warning("%s: no locks here (%s): make sure that no other run writes here", folder, error)


class LeaseLock:
    """An object in a store, which says who holds the lock and is renewed as long as it is held.

    It keeps nothing out by force: a process that is stopped for longer than its lease goes on to write. What runs write
    is the same from any writer, so that costs time and no results.
    """

    def __init__(self, path: StorePath, token: str) -> None:
        self._path, self._token = path, token
        self._ended = threading.Event()
        _HELD.add(token)
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Let others have it."""
        self._ended.set()
        self._thread.join()
        _HELD.discard(self._token)
        # An object that stays is one that nothing renews.
        with suppress(StoreError, OSError):
            if (_owner_of(self._path) or {}).get("token") == self._token:
                self._path.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            try:
                if (_owner_of(self._path) or {}).get("token") != self._token:
                    _log.warning(
                        "%s: another process has taken this lock: is a run started twice?", self._path
                    )
                    return
                self._path.write_bytes(_owner(self._token))
            except (StoreError, OSError) as error:  # it is tried again, and lasts meanwhile
                _log.warning("%s: not renewed: %s", self._path, error)


def _take_lease(path: StorePath) -> Lock | None:
    token = uuid.uuid4().hex
    removed = _is_left_behind(path, owner := _owner_of(path)) and owner is not None
    if removed:
        path.unlink(missing_ok=True)
    try:
        path.create(_owner(token))
    except FileExistsError:
        pass
    except StoreError as error:
        _warn(path.parent, error)
        return NoLock()
    if removed:
        # Another may have found it left behind at the same time, and remove ours: of the two, the later one has it.
        time.sleep(_SETTLE_SECONDS)
    # Also where the object was there: its answer to us may have been lost, and the request made again.
    return LeaseLock(path, token) if (_owner_of(path) or {}).get("token") == token else None


def _owner(token: str) -> bytes:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    about = {"token": token, "host": socket.gethostname(), "pid": os.getpid(), "of": _PROCESS, "renewed": now}
    return (json.dumps(about) + "\n").encode()


def _owner_of(path: StorePath) -> dict[str, Any] | None:
    """Who holds a lock, as its object says; None where there is none."""
    try:
        owner = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _is_left_behind(path: StorePath, owner: Mapping[str, Any] | None) -> bool:
    """Whether no living process has the lock of an object, or there is no object."""
    if owner is None:
        return True
    if owner.get("host") == socket.gethostname():
        if owner.get("pid") == os.getpid():
            return owner.get("of") != _PROCESS or owner.get("token") not in _HELD
        if not _is_alive(owner.get("pid")):
            return True
    try:
        # By the clock of the store, and by ours, which it lets differ by minutes at most.
        return time.time() - path.stat().st_mtime > LEASE_SECONDS
    except FileNotFoundError:
        return True


def _is_alive(pid: object) -> bool:
    if not isinstance(pid, int):
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
