"""The filters of 4D-Humans and HSMR, as named rules that a manifest or the command line switches on.

| rule | published | what it does |
|---|---|---|
| `low_confidence` | 0.3 (4D-Humans) | a 2D keypoint of less confidence counts as unseen: its confidence becomes 0 |
| `few_keypoints` | 4 (4D-Humans) | a row needs more seen 2D keypoints than this; counted after `low_confidence` |
| `large_betas` | 3 (4D-Humans) | a label with any |beta| beyond it is invalid |
| `vertex_error` | 60 mm (HSMR) | a fit with a vertex that is this far off, or further, is left out |

A row that a rule leaves out has the status `filtered` and names every rule that it breaks. All but the last rule are
applied before the fit. `few_keypoints` is not applied to a label file without any 2D keypoint: its people may well be
visible.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.config.manifest import Filters
from skelfit.labels.label_batch import LabelBatch

PUBLISHED_VALUES: dict[str, float] = {
    "low_confidence": 0.3,
    "few_keypoints": 4,
    "large_betas": 3.0,
    "vertex_error": 60.0,
}
# The labels that a rule needs; `vertex_error` needs the fit.
REQUIRED_DATA = {
    "low_confidence": "2D keypoints",
    "few_keypoints": "2D keypoints",
    "large_betas": "SMPL betas",
}
FILTER_GROUPS = {
    "4dhumans": ("low_confidence", "few_keypoints", "large_betas"),
    "hsmr": ("vertex_error",),
    "all": tuple(PUBLISHED_VALUES),
}


@dataclass(frozen=True)
class FilterResult:
    """What the rules that need no fit decide about N rows."""

    filters: Filters
    reasons: list[str]  # (N,) the rules that a row breaks, with numbers; '' for a row that stays
    unseen: NDArray[np.int64]  # (N,) 2D keypoints that `low_confidence` made unseen


def switch_filters(filters: Filters, on: Iterable[tuple[str, float | None]], off: Iterable[str]) -> Filters:
    """Filters with rules, or FILTER_GROUPS of rules, switched on or off.

    on: names with values; None is the published value. A rule overrides the group that has it, and a small group
    overrides a large one.
    """
    changes: dict[str, Any] = {}
    switches: list[tuple[tuple[str, ...], bool, float | None]]
    switches = [(FILTER_GROUPS.get(name, (name,)), False, None) for name in off]
    switches += [(FILTER_GROUPS.get(name, (name,)), True, value) for name, value in on]
    for rules, is_on, value in sorted(switches, key=lambda switch: -len(switch[0])):
        for rule in rules:
            changes[rule] = (PUBLISHED_VALUES[rule] if value is None else value) if is_on else None
    return replace(filters, **changes)


def active_filters(filters: Filters) -> dict[str, float]:
    """The rules that are on, with their values."""
    return {rule: value for rule, value in asdict(filters).items() if value is not None}


def apply_filters(batch: LabelBatch, filters: Filters) -> tuple[LabelBatch, FilterResult]:
    """The batch with confidence 0 for doubtful keypoints, and what the rules decide about its rows."""
    keypoints = batch.gtkps
    reasons: list[list[str]] = [[] for _ in range(len(batch))]
    unseen = np.zeros(len(batch), np.int64)
    if filters.low_confidence is not None:
        doubtful = (keypoints[..., 2] > 0) & (keypoints[..., 2] < filters.low_confidence)
        unseen = doubtful.sum(axis=1)
        keypoints = keypoints.copy()
        keypoints[doubtful, 2] = 0
    if filters.few_keypoints is not None and batch.about.has_keypoints:
        seen = (keypoints[..., 2] > 0).sum(axis=1)
        for i in np.flatnonzero(seen <= filters.few_keypoints):
            reasons[i].append(f"few_keypoints: {seen[i]} seen, needs more than {filters.few_keypoints:g}")
    if filters.large_betas is not None:
        beta = np.abs(batch.betas).max(axis=1)
        for i in np.flatnonzero(beta > filters.large_betas):
            reasons[i].append(f"large_betas: |beta| max {beta[i]:.2f} > {filters.large_betas:g}")
    texts = ["; ".join(reason) for reason in reasons]
    return replace(batch, gtkps=keypoints), FilterResult(filters, texts, unseen)


def vertex_error_reason(max_vertex_mm: float, limit: float) -> str:
    """Why a fit is left out by `vertex_error`."""
    return f"vertex_error: {max_vertex_mm:.2f} mm, not below {limit:g}"
