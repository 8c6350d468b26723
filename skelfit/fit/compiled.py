"""How the loops that CPUs run are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numpy.typing import NDArray

# Off by default; what is done to the eight problems of a group at once is a scalar operation each without it.
numba.config.SLP_VECTORIZE = 1  # type: ignore[attr-defined]

F = TypeVar("F", bound=Callable[..., Any])
Array = NDArray[Any]


def compiled(function: F) -> F:
    """Compile at the first call and keep it on disk; while it runs, other threads do too.

    `contract` lets a product and a sum be one instruction; nothing else may be rearranged, so that a result depends on
    nothing but the arguments. What is on disk is made anew when the function's own file changes, not when a constant
    that it imports does: then remove `__pycache__` (`make clean`).
    """
    return cast("F", numba.njit(nogil=True, cache=True, fastmath={"contract"}, error_model="numpy")(function))
