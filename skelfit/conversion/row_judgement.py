"""The status of each row of a batch: published, or kept out for a reason."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skelfit.bodies.dofs import dof_limits
from skelfit.bodies.limit_excess import limit_excess
from skelfit.config.pipeline import GateConfig, Pipeline
from skelfit.conversion.fitted_rows import RowFits
from skelfit.labels.filters import FilterResult, vertex_error_reason
from skelfit.labels.label_batch import LabelBatch
from skelfit.shards.row_status import (
    ABOVE_GATE,
    BAD_INPUT,
    FILTERED,
    LIMIT_VIOLATION,
    NOT_CONVERGED,
    OK,
    PUBLISHED,
)


@dataclass(frozen=True)
class Judgement:
    """The status of a row, and the reason for it; ok needs none."""

    status: str
    reason: str = ""

    @property
    def published(self) -> bool:
        """Whether the row becomes a sample."""
        return self.status in PUBLISHED


def judge_rows(
    batch: LabelBatch, fits: RowFits, pipeline: Pipeline, screening: FilterResult | None = None
) -> list[Judgement]:
    """Judge each row. Of several faults the first counts: of the label, of the fit, of the pose."""
    excess, worst = limit_excess(np.nan_to_num(fits.poses), dof_limits(pipeline.fit.limits))
    limit = pipeline.gates.limit_deg
    judgements = []
    for i in range(len(batch)):
        if batch.bad[i]:
            judgement = Judgement(BAD_INPUT, batch.bad[i])
        elif screening and screening.reasons[i]:
            judgement = Judgement(FILTERED, screening.reasons[i])
        else:
            judgement = _judge_fit(fits, i, pipeline.gates)
        if judgement.status == OK and screening:
            fault = vertex_error_reason(float(fits.max_vertex_mm[i]), screening.filters)
            judgement = Judgement(FILTERED, fault) if fault else judgement
        if judgement.status == OK and limit is not None and excess[i] > limit:
            judgement = Judgement(LIMIT_VIOLATION, f"{worst[i]} {excess[i]:.1f} deg beyond its limit")
        judgements.append(judgement)
    return judgements


def _judge_fit(fits: RowFits, i: int, gates: GateConfig) -> Judgement:
    if not fits.finite[i]:
        return Judgement(NOT_CONVERGED, "the fit is not finite")
    if not fits.converged[i]:
        if not np.isfinite(fits.gain[i]):
            return Judgement(NOT_CONVERGED, "the fit to the mesh was still gaining")
        return Judgement(NOT_CONVERGED, f"gain {100 * fits.gain[i]:.2f} % of the objective in one more step")
    pve, furthest = float(fits.pve_mm[i]), float(fits.max_vertex_mm[i])
    if gates.max_pve_mm is not None and pve > gates.max_pve_mm:
        return Judgement(ABOVE_GATE, f"pve_mm {pve:.2f} > {gates.max_pve_mm:g}")
    if gates.max_vertex_mm is not None and furthest > gates.max_vertex_mm:
        return Judgement(ABOVE_GATE, f"max_vertex_mm {furthest:.2f} > {gates.max_vertex_mm:g}")
    return Judgement(OK)
