"""Fit rows of labels, gender by gender. A row that is not fitted keeps its place, with NaN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from skelfit.conversion.fitted_rows import RowFits, RowsToFit
from skelfit.fitting.fit_result import FitResult
from skelfit.fitting.mesh_labels import MeshLabelFitter
from skelfit.fitting.sequences.frame_index import FrameIndex


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


# SMPL gender and the numbers (K,) of rows -> their fits.
FitRows = Callable[[str, NDArray[np.int64]], FitResult]


def fit_rows(rows: RowsToFit, fit: FitRows, stages: int) -> RowFits:
    """Fit the good rows, gender by gender: each gender in one call."""
    fits = RowFits.unfitted(len(rows), stages)
    for gender, numbers in rows.by_gender().items():
        result = fit(gender, numbers)
        for field in fields(RowFits):
            column = getattr(result, field.name)
            if column is not None:
                getattr(fits, field.name)[numbers] = column.numpy()
    return fits


def labels_fit(rows: RowsToFit, fitter: LabelFitter) -> FitRows:
    """Fits rows to their SMPL parameters. Frames of one person are fitted as one problem."""
    frames = rows.frames

    def fit(gender: str, numbers: NDArray[np.int64]) -> FitResult:
        pose, betas, transl = (torch.tensor(a[numbers]) for a in (rows.pose, rows.betas, rows.transl))
        return fitter.fit(gender, pose, betas, transl, None if frames is None else frames.take(numbers))

    return fit


def meshes_fit(rows: RowsToFit, fitter: MeshLabelFitter) -> FitRows:
    """Fits rows to their meshes."""
    vertices = rows.vertices
    assert vertices is not None
    return lambda gender, numbers: fitter.fit(gender, torch.tensor(vertices[numbers]))
