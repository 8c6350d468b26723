"""Fit the rows of a batch, gender by gender. A row that is not fitted keeps its place, with NaN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from skelfit.config.fit_settings import TemporalConfig
from skelfit.fitting.fit_result import FitResult
from skelfit.fitting.mesh_labels import MeshLabelFitter
from skelfit.fitting.sequences.frame_index import FrameIndex
from skelfit.labels.label_batch import LabelBatch
from skelfit.shards.label_vector import FloatArray


class LabelFitter(Protocol):
    """Fits SKEL to SMPL parameters."""

    def fit(
        self,
        smpl_gender: str,
        pose: torch.Tensor,
        betas: torch.Tensor,
        transl: torch.Tensor,
        frames: FrameIndex | None = None,
    ) -> FitResult:
        """Fit N people: pose (N,24,3) rad, betas (N,10), transl (N,3) m; frames: which rows are one person."""


@dataclass(frozen=True)
class RowFits:
    """The fits of N rows; NaN and False where a row was not fitted."""

    poses: FloatArray  # (N,46) rad
    betas: FloatArray  # (N,10)
    trans: FloatArray  # (N,3) m
    converged: NDArray[np.bool_]  # (N,)
    gain: FloatArray  # (N,) what one more step promises, as a share of the objective
    finite: NDArray[np.bool_]  # (N,)
    pve_mm: FloatArray  # (N,)
    max_vertex_mm: FloatArray  # (N,)
    stage_pve_mm: FloatArray  # (N,S)
    female: NDArray[np.bool_]  # (N,) of the SKEL body
    betas_mm: FloatArray  # (N,2) at rest, after the transfer of betas and after their refinement
    keypoints3d: FloatArray  # (N,44,3) m, camera frame

    @classmethod
    def unfitted(cls, rows: int, stages: int) -> RowFits:
        """Rows of which none is fitted yet."""

        def nans(*shape: int) -> FloatArray:
            return np.full((rows, *shape), np.nan, np.float32)

        def no() -> NDArray[np.bool_]:
            return np.zeros(rows, bool)

        errors = nans(), nans(), nans(stages)
        return cls(nans(46), nans(10), nans(3), no(), nans(), no(), *errors, no(), nans(2), nans(44, 3))


# SMPL gender and row numbers (K,) of a batch -> their fits.
FitRows = Callable[[str, NDArray[np.int64]], FitResult]


def fit_rows(batch: LabelBatch, fit: FitRows, stages: int, left_out: Sequence[str] | None = None) -> RowFits:
    """Fit the rows of a batch that have no fault and no reason in `left_out`, gender by gender."""
    fits = RowFits.unfitted(len(batch), stages)
    for gender, rows in _rows_by_gender(batch, left_out).items():
        result = fit(gender, rows)
        for field in fields(RowFits):
            column = getattr(result, field.name)
            if column is not None:
                getattr(fits, field.name)[rows] = column.numpy()
    return fits


def labels_fit(batch: LabelBatch, fitter: LabelFitter, frames: FrameIndex | None = None) -> FitRows:
    """Fits rows to their SMPL parameters. Frames of one person are fitted as one problem."""

    def fit(gender: str, rows: NDArray[np.int64]) -> FitResult:
        pose, betas, transl = (torch.tensor(a[rows]) for a in (batch.pose, batch.betas, batch.transl))
        return fitter.fit(gender, pose, betas, transl, None if frames is None else frames.take(rows))

    return fit


def meshes_fit(batch: LabelBatch, fitter: MeshLabelFitter) -> FitRows:
    """Fits rows to their meshes."""
    vertices = batch.vertices
    assert vertices is not None
    return lambda gender, rows: fitter.fit(gender, torch.tensor(vertices[rows]))


def frames_of(batch: LabelBatch, temporal: TemporalConfig | None) -> FrameIndex | None:
    """The rows of a batch that are frames of one person, with their times; None where there are none."""
    if temporal is None or not batch.sequences:
        return None
    number, time = np.full(len(batch), -1, np.int64), np.zeros(len(batch))
    for k, sequence in enumerate(batch.sequences):
        rows = batch.frames_of(sequence)
        number[rows] = k
        time[rows] = (batch.row[rows] - sequence.start) / (sequence.frame_rate or temporal.frame_rate)
    return FrameIndex(number, time)


def fitted_rates(
    batch: LabelBatch,
    temporal: TemporalConfig | None,
    left_out: Sequence[str] | None = None,
    finite: NDArray[np.bool_] | None = None,
) -> list[float | None]:
    """The frames per second at which each of N rows is fitted with others; None: by itself, or not fitted.

    finite (N,): the rows with a finite fit; other frames are tied to none. None: all rows.
    """
    rates: list[float | None] = [None] * len(batch)
    frames = frames_of(batch, temporal)
    if temporal is None or frames is None:
        return rates
    for rows in _rows_by_gender(batch, left_out).values():
        if finite is not None:
            rows = rows[finite[rows]]
        for together in frames.take(rows).sequences():
            number = frames.sequence[rows[together[0]]]
            rate = batch.sequences[number].frame_rate or temporal.frame_rate
            for row in rows[together] if len(together) > 1 else ():
                rates[row] = rate
    return rates


def _rows_by_gender(batch: LabelBatch, left_out: Sequence[str] | None) -> dict[str, NDArray[np.int64]]:
    """The rows of a batch that are fitted, by the gender of their SMPL bodies, in alphabetical order."""
    reasons = zip(batch.bad, left_out or [""] * len(batch), strict=True)
    good = np.array([not bad and not reason for bad, reason in reasons], dtype=bool)
    genders = np.array(batch.gender, dtype=str)
    return {str(g): np.flatnonzero(good & (genders == g)) for g in sorted(set(genders[good]))}
