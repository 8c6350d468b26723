"""Estimates of the people of label rows, by stages from coarse to fine, whatever they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from skelfit.protocols.evaluated_bodies import PosedSkins

Array = NDArray[np.float64]
BAD_PREDICTION, NOT_FITTED, NOT_FINITE = "bad_prediction", "not_fitted", "not_finite"


@dataclass(frozen=True)
class RowFailure:
    """A row without an estimate."""

    row: int  # of the labels
    status: str
    reason: str


@dataclass(frozen=True)
class StageEstimate:
    """The people of K rows by one stage."""

    bodies: PosedSkins
    hinges_deg: Array  # (K,4) how far knees and elbows lie beyond HSMR's ranges
    trans: Array | None = None  # (K,3) m in the camera
    cam_int: Array | None = None  # (K,3,3) px


@dataclass(frozen=True)
class SkelParameters:
    """K people, to draw them."""

    poses: Array  # (K,46) rad
    betas: Array  # (K,10)
    female: NDArray[np.bool_]  # (K,)


@dataclass(frozen=True)
class ChunkEstimates:
    """The people of K label rows by all stages."""

    rows: NDArray[np.int64]  # (K,) of the labels
    stages: tuple[StageEstimate, ...]
    final: SkelParameters  # of the last stage
    failures: tuple[RowFailure, ...] = ()  # the other rows that were asked for


class Estimates(Protocol):
    """Where estimates come from."""

    @property
    def stages(self) -> Sequence[str]:
        """Their names, from coarse to fine."""

    def of_rows(self, rows: NDArray[np.int64]) -> ChunkEstimates:
        """The people of some rows of the labels."""


def points_px(points: Array, estimate: StageEstimate) -> Array:
    """Points (K,J,3) m of an estimate's bodies in the image, (K,J,2) px; NaN behind the camera."""
    assert estimate.trans is not None and estimate.cam_int is not None
    seen = (points + estimate.trans[:, None]) @ estimate.cam_int.swapaxes(1, 2)
    depth = seen[..., 2:]
    return np.divide(seen[..., :2], depth, out=np.full(seen[..., :2].shape, np.nan), where=depth > 0)
