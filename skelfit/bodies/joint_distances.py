"""Joint errors in the measures that papers report: MPJPE, root-aligned MPJPE and PA-MPJPE."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
JOINT_ERRORS = ("mpjpe_mm", "root_mpjpe_mm", "pa_mpjpe_mm")


def joint_errors(label: Array, fit: Array, root: tuple[int, ...]) -> Array:
    """Mean distances (N,3) mm of points fit (N,J,3) m to label (N,J,3) m, in the order of JOINT_ERRORS.

    root: the joints whose mean is the root of MPJPE.
    """
    roots = [x[:, list(root)].mean(1, keepdims=True) for x in (label, fit)]
    moved = fit - roots[1] + roots[0]
    errors = [
        np.sqrt(((x - label) ** 2).sum(-1)).mean(1) for x in (fit, moved, procrustes_aligned(fit, label))
    ]
    return 1000 * np.stack(errors, 1)


def procrustes_aligned(points: Array, goal: Array) -> Array:
    """Points (N,J,3) under the similarity, not mirrored, that takes them nearest to goal (N,J,3) (Umeyama 1991)."""
    middle, goal_middle = points.mean(1, keepdims=True), goal.mean(1, keepdims=True)
    x, y = points - middle, goal - goal_middle
    u, s, vt = np.linalg.svd(np.swapaxes(y, 1, 2) @ x)
    flip = np.ones_like(s)
    flip[:, 2] = np.sign(np.linalg.det(u @ vt))
    turn = (u * flip[:, None]) @ vt
    spread = (x**2).sum((1, 2))
    scale = (s * flip).sum(1) / np.where(spread > 0, spread, 1.0)
    moved: Array = scale[:, None, None] * (x @ np.swapaxes(turn, 1, 2)) + goal_middle
    return moved
