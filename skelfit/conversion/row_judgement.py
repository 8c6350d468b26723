"""The status of each row of a batch: published, or kept out for a reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.dofs import dof_limits
from skelfit.bodies.limit_excess import limit_excess
from skelfit.config.pipeline import Pipeline
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
    judgements = [Judgement(OK)] * len(batch)
    faults = [*_label_faults(batch, screening), *_fit_faults(fits, pipeline, screening)]
    for fault in reversed(faults):
        for i in np.flatnonzero(fault.rows).tolist():
            judgements[i] = Judgement(fault.status, fault.reason(i))
    return judgements


@dataclass(frozen=True)
class _Fault:
    """A fault that rows may have."""

    status: str
    rows: NDArray[np.bool_]  # (N,) which have it
    reason: Callable[[int], str]  # of a row


def _label_faults(batch: LabelBatch, screening: FilterResult | None) -> Iterator[_Fault]:
    yield _Fault(BAD_INPUT, np.array(batch.bad, bool), batch.bad.__getitem__)
    if screening:
        yield _Fault(FILTERED, np.array(screening.reasons, bool), screening.reasons.__getitem__)


def _fit_faults(fits: RowFits, pipeline: Pipeline, screening: FilterResult | None) -> Iterator[_Fault]:
    gates, diverged = pipeline.gates, ~fits.converged
    # In float64, as the limits are.
    pve, furthest = fits.pve_mm.astype(np.float64), fits.max_vertex_mm.astype(np.float64)
    yield _Fault(NOT_CONVERGED, ~fits.finite, lambda _: "the fit is not finite")
    yield _Fault(
        NOT_CONVERGED, diverged & ~np.isfinite(fits.gain), lambda _: "the fit to the mesh was still gaining"
    )
    yield _Fault(
        NOT_CONVERGED,
        diverged,
        lambda i: f"gain {100 * fits.gain[i]:.2f} % of the objective in one more step",
    )
    if (most := gates.max_pve_mm) is not None:
        yield _Fault(ABOVE_GATE, pve > most, lambda i: f"pve_mm {pve[i]:.2f} > {most:g}")
    if (far := gates.max_vertex_mm) is not None:
        yield _Fault(ABOVE_GATE, furthest > far, lambda i: f"max_vertex_mm {furthest[i]:.2f} > {far:g}")
    if screening and (bound := screening.filters.vertex_error) is not None:
        yield _Fault(FILTERED, ~(furthest < bound), lambda i: vertex_error_reason(furthest[i], bound))
    if (limit := gates.limit_deg) is not None:
        excess, worst = limit_excess(np.nan_to_num(fits.poses), dof_limits(pipeline.fit.limits))
        reason = "{} {:.1f} deg beyond its limit"
        yield _Fault(LIMIT_VIOLATION, excess > limit, lambda i: reason.format(worst[i], excess[i]))
