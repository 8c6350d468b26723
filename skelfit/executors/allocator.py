"""How the C library keeps memory. A fit often frees large blocks and asks for them again at once."""

from __future__ import annotations

import ctypes

# Of glibc's mallopt. Dask has its workers give memory back at once: a third of their time was page faults. Blocks up to
# 32 MiB (the most that glibc takes) come from glibc's heap, which keeps up to 1 GiB.
_MALLOC = {-1: 1 << 30, -3: 32 << 20}  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees. It does nothing where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in _MALLOC.items():
            mallopt(option, value)
