"""The figures of evaluations, as pure functions of points and skins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.dofs import dof_index
from skelfit.bodies.joint_distances import procrustes_aligned

Array = NDArray[np.float64]
SEEN = 0.5  # a labelled keypoint counts when its confidence is above this
BEYOND_DEG = (0, 5, 10, 20, 30)
# Ranges of SKEL's knees and elbows in degrees as HSMR counts violations: pronation is wider on the left.
SKEL_HINGES: dict[str, dict[str, tuple[float, float]]] = {
    "left knee": {"knee_angle_l": (0, 135)},
    "right knee": {"knee_angle_r": (0, 135)},
    "left elbow": {"elbow_flexion_l": (0, 135), "pro_sup_l": (-90, 90)},
    "right elbow": {"elbow_flexion_r": (0, 135), "pro_sup_r": (-67.5, 67.5)},
}


def roots(points: Array, root: Sequence[int]) -> Array:
    """The means (K,1,3) of those of the points (K,J,3)."""
    mean: Array = points[:, list(root)].mean(1, keepdims=True)
    return mean


def joint_figures(target: Array, estimate: Array, joints: Sequence[int], root: Sequence[int]) -> Array:
    """MPJPE and PA-MPJPE (K,2) mm of points (K,J,3) m: mean distances with equal roots, and after Procrustes."""
    label, fit = ((points - roots(points, root))[:, list(joints)] for points in (target, estimate))
    aligned = procrustes_aligned(fit, label)
    errors = [np.linalg.norm(points - label, axis=-1).mean(1) for points in (fit, aligned)]
    return 1000 * np.stack(errors, 1)


def skin_figure(target: NDArray[np.floating], estimate: NDArray[np.floating], shift: Array) -> Array:
    """PVE (K,) mm of skins (K,V,3) m; shift (K,1,3) m is taken from the estimate: its root minus the target's."""
    apart = estimate - target - shift.astype(estimate.dtype)
    mean: Array = np.sqrt(np.einsum("kvc,kvc->kv", apart, apart)).mean(1, dtype=np.float64)
    return 1000 * mean


def keypoint_distances(labelled: Array, estimate: Array, size: Array) -> Array:
    """Distances (K,44) of 2D keypoints (K,44,2) px to labelled ones (K,44,3), in the longer side of boxes (K,2) px.

    NaN where a keypoint is not labelled with a confidence above SEEN; infinite where the estimate is not finite.
    """
    apart = np.linalg.norm(estimate - labelled[..., :2], axis=-1) / size.max(1)[:, None]
    apart = np.where(np.isfinite(apart), apart, np.inf)
    return np.where(labelled[..., 2] > SEEN, apart, np.nan)


@dataclass(frozen=True)
class PckFigure:
    """The share of correct keypoints within a distance."""

    at: float
    of_keypoints: tuple[float | None, ...]  # (44,) None for a keypoint that is never labelled

    @property
    def mean(self) -> float | None:
        """The mean over the keypoints, each with the same weight."""
        known = [share for share in self.of_keypoints if share is not None]
        return float(np.mean(known)) if known else None


def pck(distances: Array, at: float) -> PckFigure:
    """The PCK of distances (N,44) of `keypoint_distances`: of each keypoint, the share of people below `at`."""
    labelled = ~np.isnan(distances)
    correct = (np.nan_to_num(distances, nan=np.inf) < at).sum(0)
    counts = labelled.sum(0)
    shares = [float(c / n) if n else None for c, n in zip(correct.tolist(), counts.tolist(), strict=True)]
    return PckFigure(at, tuple(shares))


def skel_hinges(poses: NDArray[np.floating]) -> Array:
    """How far knees and elbows of SKEL poses (K,46) rad lie beyond their ranges, (K,4) degrees; 0 within."""
    degrees = (np.degrees(np.asarray(poses, np.float64)) + 180) % 360 - 180
    columns = []
    for ranges in SKEL_HINGES.values():
        beyond = [
            np.maximum(np.maximum(low - angle, angle - high), 0.0)
            for name, (low, high) in ranges.items()
            for angle in [degrees[:, dof_index(name)]]
        ]
        columns.append(np.max(beyond, axis=0))
    return np.stack(columns, 1)


def violations(hinges_deg: Array) -> dict[str, list[float]]:
    """The shares of people (N,4) whose joint lies further beyond its range than each of BEYOND_DEG, by joint."""
    return {
        name: [float((hinges_deg[:, k] > degrees).mean()) for degrees in BEYOND_DEG]
        if len(hinges_deg)
        else []
        for k, name in enumerate(SKEL_HINGES)
    }
