"""Which refinements are accepted, and the measures before and after on which that is decided."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.config.refine_job import AcceptConfig
from skelfit.shards import row_status

Array = NDArray[np.float64]
DIGITS = 4  # of the measures in rows


@dataclass(frozen=True)
class RefinementMeasures:
    """Measures of N people; pairs are before and after. NaN: it cannot be measured."""

    seen: NDArray[np.int64]  # (N,) keypoints that count
    px: Array  # (N,2) mean distance of these from the given ones
    reprojection: Array  # (N,2) the same in shoulder-hip lengths of the image
    limit_deg: Array  # (N,2) of the angle that is furthest beyond its limit
    max_abs_beta: Array  # (N,2)
    moved_mm: (
        Array  # (N,) mean distance of the new skin from the label's, both with their middles in one place
    )
    shift: Array  # (N,) way from the old place, as a share of the old distance from the camera
    depth_m: Array  # (N,2) of the person
    focal_px: Array  # (N,2)
    estimated: NDArray[np.bool_]  # (N,) whether the camera was estimated
    chain: NDArray[
        np.int64
    ]  # (N,) the sequence with which a person was refined as one problem; -1: by itself


@dataclass(frozen=True)
class Refinement:
    """What became of a row."""

    status: str  # of REFINEMENTS
    reason: str  # why it keeps what it had, with the figures that were refused; '' for a refined one
    seen: int | None
    camera: str | None  # of CAMERAS, for a refined person
    before: dict[str, float | None] | None  # measures of what it had; None where there is no person
    after: dict[str, float | None] | None  # of what it has now
    moved_mm: float | None  # of a refined person, from the label
    shift: float | None  # of a refined person, from the old place

    @property
    def accepted(self) -> bool:
        """Whether the row has new parameters."""
        return self.status == row_status.REFINED

    def to_json(self) -> dict[str, Any]:
        """Plain data, as rows and metadata have it."""
        return dict(vars(self))


def without_person() -> Refinement:
    """That of a row without a sample."""
    return Refinement(row_status.NO_PERSON, "", None, None, None, None, None, None)


def judge_refinements(
    tried: Sequence[str], measures: RefinementMeasures, accept: AcceptConfig
) -> list[Refinement]:
    """The refinements of N people. tried: what the solver made of each, of REFINEMENTS; the first fault counts."""
    verdicts = [(status, "") for status in tried]
    for fault in reversed(list(_faults(measures, accept))):
        for i in np.flatnonzero(fault.rows & (np.array(tried) == row_status.REFINED)).tolist():
            verdicts[i] = fault.status, fault.reason(i)
    return [_refinement(measures, i, status, reason) for i, (status, reason) in enumerate(verdicts)]


@dataclass(frozen=True)
class _RefusedRows:
    status: str
    rows: NDArray[np.bool_]  # (N,)
    reason: Callable[[int], str]


def _faults(m: RefinementMeasures, accept: AcceptConfig) -> Iterator[_RefusedRows]:
    """What keeps a refinement from being accepted. A measure that cannot be taken (NaN) is a fault."""

    def change(values: Array, digits: int) -> Callable[[int], str]:
        return lambda i: f"{values[i, 0]:.{digits}f} before, {values[i, 1]:.{digits}f} after"

    together = _mean_of_sequences(m.reprojection, m.chain)
    with np.errstate(invalid="ignore"):  # infinite of who is behind the camera
        closer, gain = change(together, 4), together[:, 0] - together[:, 1]
    yield _RefusedRows(
        row_status.NOT_CLOSER,
        # To have a camera is a gain.
        ~np.where(m.estimated, gain >= 0, (gain > 0) & (gain >= accept.least_gain)),
        lambda i: f"reprojection {'of the sequence ' if m.chain[i] >= 0 else ''}{closer(i)}",
    )
    excess = change(m.limit_deg, 2)
    yield _RefusedRows(
        row_status.MORE_VIOLATION,
        ~(m.limit_deg[:, 1] <= m.limit_deg[:, 0] + accept.limit_slack_deg),
        lambda i: f"limit_deg {excess(i)}",
    )
    betas, bound = change(m.max_abs_beta, 2), np.maximum(m.max_abs_beta[:, 0], accept.max_abs_beta)
    yield _RefusedRows(
        row_status.LARGER_BETAS, ~(m.max_abs_beta[:, 1] <= bound), lambda i: f"max_abs_beta {betas(i)}"
    )
    yield _RefusedRows(
        row_status.FAR_FROM_LABEL,
        ~(m.moved_mm <= accept.max_moved_mm),
        lambda i: f"moved_mm {m.moved_mm[i]:.1f} > {accept.max_moved_mm:g}",
    )
    yield _RefusedRows(
        row_status.FAR_FROM_LABEL,
        ~(m.shift <= accept.max_shift),
        lambda i: f"shift {m.shift[i]:.3f} > {accept.max_shift:g}",
    )


def _mean_of_sequences(pairs: Array, chain: NDArray[np.int64]) -> Array:
    """Pairs (N,2), means where frames were refined as one problem: ties keep the noise of single ones out."""
    means = pairs.copy()
    for number in np.unique(chain[chain >= 0]):
        rows = chain == number
        means[rows] = pairs[rows].mean(0)
    return means


def _refinement(m: RefinementMeasures, i: int, status: str, reason: str) -> Refinement:
    """That of a person; what is refused leaves the measures as they were."""
    accepted = status == row_status.REFINED
    before, after = (
        {name: _rounded(getattr(m, name)[i, k]) for name in row_status.PAIRED_MEASURES}
        for k in (0, int(accepted))
    )
    moved, shift = (_rounded(x[i]) if accepted else None for x in (m.moved_mm, m.shift))
    camera = (row_status.ESTIMATED if m.estimated[i] else row_status.GIVEN) if accepted else None
    return Refinement(status, reason, int(m.seen[i]), camera, before, after, moved, shift)


def _rounded(value: float) -> float | None:
    return round(float(value), DIGITS) + 0.0 if np.isfinite(value) else None
