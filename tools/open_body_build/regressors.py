"""Sparse joint regressors fitted to joint centres over all three shape spaces."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from tools.open_body_build.shapes import ShapeSpace

EVEN = 0.02  # weight of an even ring, so that posed skin moves the joint little


def fit_regressor(
    spaces: list[ShapeSpace],
    joints: list[tuple[np.ndarray, np.ndarray]],
    slabs: list[tuple[np.ndarray, float, float]],
    sources: np.ndarray,
) -> np.ndarray:
    """Non-negative rows (J,V) that sum to 1.

    `joints` holds per space the joints (J,3) and their shape motion (J,3,B); `slabs` per joint the
    direction of the slab of skin to use, its half thickness and its radius (m); `sources` (V,) bool
    excludes skin that never serves.
    """
    count = len(spaces[0].template)
    rows = np.zeros((len(slabs), count))
    for j, (axis, thickness, radius) in enumerate(slabs):
        away = spaces[0].template - joints[0][0][j]
        near = np.flatnonzero(
            (np.abs(away @ axis) < thickness) & (np.linalg.norm(away, axis=1) < radius) & sources[j]
        )
        columns, targets = [], []
        for space, (centre, motion) in zip(spaces, joints, strict=True):
            columns += [
                space.template[near].T,
                space.shapedirs[near].transpose(2, 1, 0).reshape(-1, len(near)),
            ]
            targets += [centre[j], motion[j].T.reshape(-1)]
        n = len(near)
        matrix = np.concatenate([*columns, EVEN * np.eye(n), 100.0 * np.ones((1, n))])
        target = np.concatenate([*targets, np.full(n, EVEN / n), [100.0]])
        weights, _ = nnls(matrix, target, maxiter=50 * n)
        weights[weights < 1e-4] = 0.0
        rows[j, near] = weights / weights.sum()
    return rows
