"""Counts operations and bytes of kernels while they run on a CPU for one person, in a process of its own.

A program calls `start` before any kernel is compiled, because the counters are compiled into the kernels.
"""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import dataclass
from pathlib import Path

import warp as wp

import skelfit.fitting.backends.kernels
from skelfit.fitting.backends.backend import start_warp

ADDRESS = 0x2000_0000_0000  # the same in each process, so that kernels are compiled once
_TABLE = 8 * 2**20
_NAMES = ("flops", "asked", "read", "written", "lost")
_FIXED = 0x100000  # MAP_FIXED_NOREPLACE


@dataclass(frozen=True)
class KernelWork:
    """Operations and bytes since `start`."""

    flops: int
    asked: int  # bytes that were read and written
    read: int  # bytes that had to come from memory
    written: int
    lost: int  # more addresses than the table holds: must be zero

    @property
    def moved(self) -> int:
        """Bytes from and to memory."""
        return self.read + self.written


def start(folder: Path) -> None:
    """From now on compile kernels with counters, into this folder."""
    start_warp()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _FIXED
    size = 8 * len(_NAMES) + _TABLE
    if libc.mmap(ADDRESS, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0) != ADDRESS:
        raise OSError(ctypes.get_errno(), "no memory for the counters")
    lanes = Path(skelfit.fitting.backends.kernels.__path__[0]) / "lanes.h"
    text = Path(__file__).with_name("counting.h").read_text()
    header = folder / "skelfit_lanes_counting.h"  # a backend takes this name as a sign that Warp has started
    header.write_text(text.replace("@LANES@", str(lanes)).replace("@ADDRESS@", hex(ADDRESS)))
    wp.config.kernel_cache_dir = str(folder)
    wp.config.cpu_compiler_flags = f"-march=native -include {header}"


def begin_launch() -> None:
    """Forget which addresses were touched; call it before each launch."""
    ctypes.memset(ADDRESS + 8 * len(_NAMES), 0, _TABLE)


def counted() -> KernelWork:
    """The count so far."""
    numbers = (ctypes.c_uint64 * len(_NAMES)).from_address(ADDRESS)
    return KernelWork(**dict(zip(_NAMES, map(int, numbers), strict=True)))
