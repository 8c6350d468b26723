"""How far angles lie beyond the limits of their DoFs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.dofs import DOF_NAMES, dof_limits


def limit_excess(
    poses: NDArray[np.floating[Any]], limits: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], list[str]]:
    """How far each person's worst DoF lies beyond its limits, and which DoF that is.

    poses: (N,46) rad; limits (46,2) rad, None: the table's. Returns (N,) degrees, 0 within the limits, and N names
    of DoFs.
    """
    beyond = excess_deg(poses, limits)
    worst = beyond.argmax(axis=-1)
    return beyond.max(axis=-1), [DOF_NAMES[i] for i in worst]


def excess_deg(
    poses: NDArray[np.floating[Any]], limits: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """How far each angle of poses (N,46) rad lies beyond its limits (46,2) rad, None: the table's: (N,46) degrees."""
    low, high = (dof_limits() if limits is None else limits).T
    angles = np.asarray(poses, dtype=np.float64)
    beyond: NDArray[np.float64] = np.degrees(np.maximum(np.maximum(low - angles, angles - high), 0.0))
    return beyond
