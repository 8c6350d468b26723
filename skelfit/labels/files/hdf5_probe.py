"""HDF5 files of others, which are tried in a process of their own before they are read here.

libhdf5 is made for files that it has written itself: on some damaged ones it never comes back, or ends its process. A
strange file is worth an error message, and must not cost a run.
"""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache
from pathlib import Path

SECONDS = 60.0  # in which a file must be read, beside what its size takes
_SLOWEST = 10e6  # bytes per second

# What can be read and what not, the reader says later, key by key.
_READ_ALL = """
import sys, h5py
def read(name, item):
    try:
        isinstance(item, h5py.Dataset) and item[()]
    except Exception:
        pass
with h5py.File(sys.argv[1], "r", locking=False) as file:
    file.visititems(read)
"""


def fatal_fault(path: Path) -> str:
    """What reading a file would do to this process; '' where that is no more than an exception."""
    found = path.stat()
    return _tried(path.absolute(), found.st_size, found.st_mtime_ns, SECONDS + found.st_size / _SLOWEST)


@lru_cache(maxsize=64)
def _tried(path: Path, size: int, changed: int, seconds: float) -> str:
    """The same of a file of this size and time of change: whoever looks at its keys reads it a moment later."""
    command = [sys.executable, "-c", _READ_ALL, str(path)]
    try:
        done = subprocess.run(command, check=False, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"reading it does not end within {seconds:.0f} s"
    return f"reading it ends the process, by signal {-done.returncode}" if done.returncode < 0 else ""
