"""The rows of a shard, fitted and judged: what was found of each, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from skelfit.bodies.dofs import dof_limits
from skelfit.bodies.joint_limits import limit_excess
from skelfit.config.fit_settings import TemporalConfig
from skelfit.config.pipeline import GateConfig, Pipeline
from skelfit.fitting.fit_result import FitResult
from skelfit.fitting.mesh_labels import MeshPeople
from skelfit.fitting.sequences.frame_index import Frames
from skelfit.labels.filters import FilterResult, vertex_error_reason
from skelfit.labels.label_batch import LabelBatch
from skelfit.shards.label_vector import FloatArray
from skelfit.shards.row_status import FILTERED, PUBLISHED

BAD_INPUT, NOT_CONVERGED, ABOVE_GATE = "bad_input", "not_converged", "residual_above_gate"
OK, LIMIT_VIOLATION = PUBLISHED


class FitterLike(Protocol):
    """What a job asks of a fitter."""

    def fit(
        self,
        smpl_gender: str,
        pose: torch.Tensor,
        betas: torch.Tensor,
        transl: torch.Tensor,
        frames: Frames | None = None,
    ) -> FitResult:
        """Fit N people: pose (N,24,3) rad, betas (N,10), transl (N,3) m; frames: which of them are one person's."""


@dataclass(frozen=True)
class Fitted:
    """What the fit found of N people; NaN and False where a row was not fitted."""

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
    betas_mm: FloatArray  # (N,2) what the betas' transfer and their refinement leave, at rest
    keypoints3d: FloatArray  # (N,44,3) m, camera frame

    @classmethod
    def nothing(cls, people: int, stages: int) -> Fitted:
        """No row fitted yet."""

        def nans(*shape: int) -> FloatArray:
            return np.full((people, *shape), np.nan, np.float32)

        def no() -> NDArray[np.bool_]:
            return np.zeros(people, bool)

        errors = nans(), nans(), nans(stages)
        return cls(nans(46), nans(10), nans(3), no(), nans(), no(), *errors, no(), nans(2), nans(44, 3))


# SMPL gender and rows (K,) of a batch -> what was found of them.
FitRows = Callable[[str, NDArray[np.int64]], FitResult]


def frames_of(batch: LabelBatch, temporal: TemporalConfig | None) -> Frames | None:
    """Which rows of a batch are to be fitted as frames of one person, and when they are; None where none are."""
    if temporal is None or not batch.sequences:
        return None
    sequence, time = np.full(len(batch), -1, np.int64), np.zeros(len(batch))
    for k, found in enumerate(batch.sequences):
        rows = slice(*np.searchsorted(batch.row, [found.start, found.start + found.frames]))
        sequence[rows] = k
        time[rows] = (batch.row[rows] - found.start) / (found.frame_rate or temporal.frame_rate)
    return Frames(sequence, time)


def fitted_rates(
    batch: LabelBatch,
    temporal: TemporalConfig | None,
    left_out: Sequence[str] | None = None,
    finite: NDArray[np.bool_] | None = None,
) -> list[float | None]:
    """Of N rows, the frames per second at which each is fitted together with others; None: by itself, or not at all.

    finite (N,): whose fit is; frames whose fit is not are tied to no other. None: all.
    """
    rates: list[float | None] = [None] * len(batch)
    frames = frames_of(batch, temporal)
    if temporal is None or frames is None:
        return rates
    for rows in _by_gender(batch, left_out).values():
        if finite is not None:
            rows = rows[finite[rows]]
        for together in frames.take(rows).sequences():
            found = batch.sequences[frames.sequence[rows[together[0]]]].frame_rate or temporal.frame_rate
            for row in rows[together] if len(together) > 1 else ():
                rates[row] = found
    return rates


def to_labels(batch: LabelBatch, fitter: FitterLike, frames: Frames | None = None) -> FitRows:
    """Fits rows of a batch to their SMPL parameters; those that are frames of one person as one problem."""

    def fit(gender: str, rows: NDArray[np.int64]) -> FitResult:
        pose, betas, transl = (torch.tensor(a[rows]) for a in (batch.pose, batch.betas, batch.transl))
        return fitter.fit(gender, pose, betas, transl, None if frames is None else frames.take(rows))

    return fit


def to_meshes(batch: LabelBatch, fitter: MeshPeople) -> FitRows:
    """Fits rows of a batch to their meshes."""
    vertices = batch.vertices
    assert vertices is not None
    return lambda gender, rows: fitter.fit(gender, torch.tensor(vertices[rows]))


def fit_people(
    batch: LabelBatch, fitter: FitterLike, stages: int, left_out: Sequence[str] | None = None
) -> Fitted:
    """Fit rows of a batch to their SMPL parameters, as `fit_rows` does."""
    return fit_rows(batch, to_labels(batch, fitter), stages, left_out)


def fit_rows(batch: LabelBatch, fit: FitRows, stages: int, left_out: Sequence[str] | None = None) -> Fitted:
    """Fit the rows of a batch that have no fault, gender by gender; and no reason in `left_out`."""
    fitted = Fitted.nothing(len(batch), stages)
    for gender, index in _by_gender(batch, left_out).items():
        result = fit(gender, index)
        for field in fields(Fitted):
            found = getattr(result, field.name)
            if found is not None:
                getattr(fitted, field.name)[index] = found.numpy()
    return fitted


def _by_gender(batch: LabelBatch, left_out: Sequence[str] | None) -> dict[str, NDArray[np.int64]]:
    """The rows of a batch that are to be fitted, by the gender of their SMPL bodies, sorted."""
    reasons = zip(batch.bad, left_out or [""] * len(batch), strict=True)
    good = np.array([not bad and not left for bad, left in reasons], dtype=bool)
    genders = np.array(batch.gender, dtype=str)
    return {str(g): np.flatnonzero(good & (genders == g)) for g in sorted(set(genders[good]))}


@dataclass(frozen=True)
class Verdict:
    """What becomes of a row, and why; ok needs no reason."""

    status: str
    reason: str = ""


def judge(
    batch: LabelBatch, fitted: Fitted, pipeline: Pipeline, screening: FilterResult | None = None
) -> list[Verdict]:
    """The verdict on each row; of several faults the first counts: of the label, of the fit, of the pose."""
    excess, worst = limit_excess(np.nan_to_num(fitted.poses), dof_limits(pipeline.fit.limits))
    verdicts = []
    for i in range(len(batch)):
        if batch.bad[i]:
            verdict = Verdict(BAD_INPUT, batch.bad[i])
        elif screening and screening.reasons[i]:
            verdict = Verdict(FILTERED, screening.reasons[i])
        else:
            verdict = _fit_verdict(fitted, i, pipeline.gates)
        if verdict.status == OK and screening:
            fault = vertex_error_reason(float(fitted.max_vertex_mm[i]), screening.filters)
            verdict = Verdict(FILTERED, fault) if fault else verdict
        limit = pipeline.gates.limit_deg
        if verdict.status == OK and limit is not None and excess[i] > limit:
            verdict = Verdict(LIMIT_VIOLATION, f"{worst[i]} {excess[i]:.1f} deg beyond its limit")
        verdicts.append(verdict)
    return verdicts


def _fit_verdict(fitted: Fitted, i: int, gates: GateConfig) -> Verdict:
    if not fitted.finite[i]:
        return Verdict(NOT_CONVERGED, "the fit is not finite")
    if not fitted.converged[i]:
        if not np.isfinite(fitted.gain[i]):
            return Verdict(NOT_CONVERGED, "the fit to the mesh was still gaining")
        return Verdict(NOT_CONVERGED, f"gain {100 * fitted.gain[i]:.2f} % of the objective in one more step")
    pve, furthest = float(fitted.pve_mm[i]), float(fitted.max_vertex_mm[i])
    if gates.max_pve_mm is not None and pve > gates.max_pve_mm:
        return Verdict(ABOVE_GATE, f"pve_mm {pve:.2f} > {gates.max_pve_mm:g}")
    if gates.max_vertex_mm is not None and furthest > gates.max_vertex_mm:
        return Verdict(ABOVE_GATE, f"max_vertex_mm {furthest:.2f} > {gates.max_vertex_mm:g}")
    return Verdict(OK)
