"""Locks that processes of several machines see: one holder at a time, told apart from what a dead one left."""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path

from skelfit.storage.locations import Location

_log = logging.getLogger(__name__)


class FileLock:
    """A lock on a file (`flock`), held until it is released or the process ends. The file itself stays.

    To remove it would let two processes hold it: one the old file, the other a new one of the same name.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Let others have it."""
        os.close(self._descriptor)


def take_lock(path: Location, *, wait: bool = False) -> FileLock | None:
    """The lock of this path; None where another process holds it, unless `wait`. Raises OSError.

    On a file system without locks it warns, and gives a lock that keeps nothing out.
    """
    if not isinstance(path, Path):
        return FileLock(os.open(os.devnull, os.O_RDONLY))
    # A file, not a folder: NFS locks only what is open for writing.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        _log.warning(
            "%s: no locks on this file system (%s): make sure that no other run writes here",
            path.parent,
            error,
        )
    return FileLock(descriptor)


def is_locked(path: Location) -> bool:
    """Whether a process holds the lock of this path, as far as this machine can see. It holds it for a moment."""
    if not isinstance(path, Path):
        return False
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
