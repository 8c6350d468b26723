"""The kernels of the fit, one source for CPU and GPU, in NVIDIA Warp.

A kernel works on a *group* of L people at once: every number is a lane vector V of L floats, one per person. L is a
constant of the compiled code: the width of a vector register on a CPU, 1 or a few on a GPU. On a GPU a block of T
threads shares a group: the *items* of a phase (joints, vertices, entries of a matrix) are dealt out to the threads,
and `sync` separates phases. On a CPU T is 1. No item reads what another item of its phase writes, and every sum has a
fixed order, so results depend neither on T nor on the other people of the group.

Scratch has S *slots*: one for each group in work at the same time. Arguments of functions: s slot, t thread, g group.

The files here are executed once for each L, in a package of its own: `kernels_for(16)` is that package, and
`kernels_for(16).levenberg_marquardt` the file `levenberg_marquardt.py` in it. So they import each other relatively.
"""

from __future__ import annotations

import importlib
import sys
from functools import lru_cache
from types import ModuleType
from typing import Any


class _Kernels(ModuleType):
    """A package of the files here for lane vectors of one length; a file is executed when it is asked for."""

    LANES: int

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return importlib.import_module(f"{self.__name__}.{name}")


@lru_cache
def kernels_for(lanes: int) -> Any:
    """The kernels for groups of so many people."""
    package = _Kernels(f"{__name__}.of_{lanes}")
    package.__path__ = __path__
    package.LANES = lanes
    sys.modules[package.__name__] = package
    return package
