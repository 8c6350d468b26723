"""How the loops that CPUs run are compiled."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numpy.typing import NDArray

# Off by default; what is done to the eight problems of a group at once is a scalar operation each without it.
numba.config.SLP_VECTORIZE = 1  # type: ignore[attr-defined]

F = TypeVar("F", bound=Callable[..., Any])
Array = NDArray[Any]


@cache
def _sources() -> str:
    """A hash of all that compiled code is made of: the sources of the fit, and of the body's constants."""
    package = Path(__file__).parents[1]
    texts = [p.read_bytes() for part in ("fit", "body") for p in sorted((package / part).glob("*.py"))]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:12]


def compiled(function: F) -> F:
    """Compile at the first call and keep it on disk; while it runs, other threads do too.

    `contract` lets a product and a sum be one instruction; nothing else may be rearranged, so that a result depends on
    nothing but the arguments. numba looks whether a function's own file has changed, not whether those have that it
    calls into: a hash of all of them in the name of what is kept makes that anew, too.
    """
    name = function.__qualname__
    function.__qualname__ = f"{name}-{_sources()}"
    try:
        found = numba.njit(nogil=True, cache=True, fastmath={"contract"}, error_model="numpy")(function)
    finally:
        function.__qualname__ = name
    return cast("F", found)


def is_compiled() -> bool:
    """Whether these sources have been compiled on this machine, and kept beside them."""
    return any(Path(__file__).parent.glob(f"__pycache__/*-{_sources()}-*.nbi"))
