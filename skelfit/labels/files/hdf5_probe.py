"""HDF5 files are read in a process of their own before they are read here.

libhdf5 trusts its files: on some damaged ones it never returns, or crashes the process. A damaged file should cost an
error message, not a run.
"""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache
from pathlib import Path

SECONDS = 60.0  # to read a file, plus the time for its size
_SLOWEST = 10e6  # bytes per second

# Errors of single keys are ignored here: the reader reports them.
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
    """How reading a file would hang or crash this process; '' where it raises an exception at worst."""
    status = path.stat()
    return _probe(path.absolute(), status.st_size, status.st_mtime_ns, SECONDS + status.st_size / _SLOWEST)


@lru_cache(maxsize=64)
def _probe(path: Path, size: int, changed: int, seconds: float) -> str:
    """The same, cached by size and time of change: a file is opened several times in a row."""
    command = [sys.executable, "-c", _READ_ALL, str(path)]
    try:
        process = subprocess.run(command, check=False, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"reading it does not end within {seconds:.0f} s"
    return f"reading it ends the process, by signal {-process.returncode}" if process.returncode < 0 else ""
