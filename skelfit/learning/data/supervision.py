"""Which labels a training learns from. A label that does not count leaves its person in the batch, with the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skelfit.config.yaml_dataclasses import bounded
from skelfit.shards.label_vector import FloatArray

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class SupervisionConfig:
    """Labels that do not count; the defaults are those of SKEL-CF, where all do. HSMR: 0.3, 60, 3, true."""

    # 2D keypoints of a lower confidence do not count
    min_confidence: float = bounded(0, 1, default=0.0)
    # pose and betas of people whose fit has a vertex farther off, mm, do not count; null: all do
    max_vertex_mm: float | None = bounded(0, default=None)
    # nor do those of people with a larger beta; null: all do
    max_abs_beta: float | None = bounded(0, default=None)
    # betas that do not count are drawn to 0 in place of it
    zero_betas: bool = False

    @property
    def selects(self) -> bool:
        """Whether there are labels that do not count."""
        return bool(self.min_confidence) or self.max_vertex_mm is not None or self.max_abs_beta is not None


class Supervision(NamedTuple):
    """What counts of N people."""

    keypoints2d: FloatArray  # (N,44,3), with confidence 0 where they do not count
    betas: FloatArray  # (N,10)
    has_pose: Bools  # (N,)
    has_betas: Bools  # (N,)
    left_out: NDArray[np.int64]  # (N,3) how many labels do not count: keypoints, poses, betas


def supervised(labels: dict[str, FloatArray], config: SupervisionConfig) -> Supervision:
    """What counts of the fields of label vectors."""
    keypoints2d, betas = labels["gtkps"].copy(), labels["skel_betas"].copy()
    unsure = (keypoints2d[..., 2] < config.min_confidence) & (keypoints2d[..., 2] > 0)
    keypoints2d[unsure, 2] = 0
    good = np.ones(len(betas), np.bool_)
    if config.max_vertex_mm is not None:
        good &= labels["errors"][:, 1] <= config.max_vertex_mm  # false for NaN
    if config.max_abs_beta is not None:
        good &= (np.abs(betas) <= config.max_abs_beta).all(axis=1)
    left_out = np.stack((unsure.sum(axis=1), ~good, ~good), axis=1)
    if config.zero_betas:
        betas[~good] = 0
    return Supervision(keypoints2d, betas, good, good | config.zero_betas, left_out)
