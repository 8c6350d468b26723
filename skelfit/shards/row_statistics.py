"""Statistics of rows that merge in any order.

Lengths are kept as whole numbers of 0.1 micrometre, so that sums are exact and a summary does not depend on
how the people were divided into shards or on the order in which the shards were done.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.shards.row_status import FILTERED, IMAGE_KINDS, PUBLISHED

UNITS_PER_MM = 10_000

_LOST_IMAGE = re.compile(r"(?:^|; )image_(\w+)(?:: .*)?$", re.DOTALL)


def round_mm(values: NDArray[np.floating[Any]]) -> list[Any]:
    """Lengths in mm (N,...) as they are stored, as nested lists: to 0.1 micrometre; None for what is not finite."""
    exact = values.astype(np.float64)
    rounded = np.rint(exact * UNITS_PER_MM) / UNITS_PER_MM + 0.0  # 0.0: no -0.0
    lengths: list[Any] = np.where(np.isfinite(exact), rounded, None).tolist()
    return lengths


@dataclass
class Distribution:
    """Lengths in mm, rounded to 0.1 micrometre: how often each occurs."""

    counts: Counter[int] = field(default_factory=Counter)

    def add(self, value_mm: float) -> None:
        """Count one finite length."""
        self.counts[round(value_mm * UNITS_PER_MM)] += 1

    def add_known(self, value_mm: float | None) -> None:
        """Count a length that not every row has: meshes have no stages and no betas to compare with."""
        if value_mm is not None:
            self.add(value_mm)

    def merge(self, other: Distribution) -> Distribution:
        """The lengths of both."""
        return Distribution(self.counts + other.counts)

    def mean(self) -> float | None:
        """The mean in mm; None without lengths."""
        count = self.counts.total()
        return sum(v * n for v, n in self.counts.items()) / count / UNITS_PER_MM if count else None

    def quantile(self, *shares: float) -> list[float | None]:
        """The lengths in mm below which the given shares lie, interpolated as numpy.quantile does."""
        if not self.counts:
            return [None for _ in shares]
        values = np.array(sorted(self.counts), dtype=np.int64)
        ends = np.cumsum([self.counts[int(v)] for v in values])
        positions = np.asarray(shares) * (ends[-1] - 1)
        low = values[np.searchsorted(ends, np.floor(positions), side="right")]
        high = values[np.searchsorted(ends, np.ceil(positions), side="right")]
        result = low + (high - low) * (positions - np.floor(positions))
        return [float(v) / UNITS_PER_MM for v in result]

    def to_json(self) -> dict[str, float | None]:
        """mean, p50, p95 and max in mm."""
        p50, p95, top = self.quantile(0.5, 0.95, 1.0)
        return {"mean": self.mean(), "p50": p50, "p95": p95, "max": top}


@dataclass
class Summary:
    """Counts over all input rows, and errors over the published people."""

    rows_in: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    filters: Counter[str] = field(default_factory=Counter)  # rows that a rule left out, or changed
    unseen_keypoints: int = 0  # 2D keypoints that a rule made unseen
    images: Counter[str] = field(default_factory=Counter)  # of IMAGE_KINDS, of the published people
    pve: Distribution = field(default_factory=Distribution)
    stage_pve: dict[str, Distribution] = field(default_factory=dict)
    skel_genders: Counter[str] = field(default_factory=Counter)  # of the published people
    betas: dict[str, Distribution] = field(default_factory=dict)  # what the betas leave at rest

    @classmethod
    def of_rows(cls, rows: Iterable[Mapping[str, Any]]) -> Summary:
        """The summary of rows as they stand in the sidecars."""
        summary = cls()
        for row in rows:
            summary.rows_in += 1
            summary.statuses[row["status"]] += 1
            if row["status"] == FILTERED:
                summary.filters.update(reason.partition(":")[0] for reason in row["reason"].split("; "))
            if row["unseen_keypoints"]:
                summary.filters["low_confidence"] += 1
                summary.unseen_keypoints += row["unseen_keypoints"]
            if row["status"] not in PUBLISHED:
                continue
            summary.pve.add(row["pve_mm"])
            for stage, value in row["stage_pve_mm"].items():
                summary.stage_pve.setdefault(stage, Distribution()).add_known(value)
            summary.skel_genders[row["skel_gender"]] += 1
            for step, value in row["betas_mm"].items():
                summary.betas.setdefault(step, Distribution()).add_known(value)
            if row["image"] is not None:
                # Why an image is not there is the last of a row's reasons, perhaps with a detail behind it.
                lost = _LOST_IMAGE.search(row["reason"])
                kind = "found" if row["image"] else lost[1] if lost else ""
                summary.images[kind] += 1
        return summary

    @property
    def rows_out(self) -> int:
        """The number of published people."""
        return sum(self.statuses[status] for status in PUBLISHED)

    def merge(self, other: Summary) -> Summary:
        """The summary of the rows of both; associative and exact."""
        return Summary(
            self.rows_in + other.rows_in,
            self.statuses + other.statuses,
            self.filters + other.filters,
            self.unseen_keypoints + other.unseen_keypoints,
            self.images + other.images,
            self.pve.merge(other.pve),
            _merged(self.stage_pve, other.stage_pve),
            self.skel_genders + other.skel_genders,
            _merged(self.betas, other.betas),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data: counts by status (sorted), errors in mm, means of the stages in their order."""
        return {
            "rows_in": self.rows_in,
            "rows_out": self.rows_out,
            "statuses": {status: self.statuses[status] for status in sorted(self.statuses)},
            "pve_mm": self.pve.to_json(),
            "stage_pve_mm": {stage: d.mean() for stage, d in self.stage_pve.items()},
            "skel_genders": {gender: self.skel_genders[gender] for gender in sorted(self.skel_genders)},
            "betas_mm": {step: d.to_json() for step, d in self.betas.items()},
            "images": {kind: self.images[kind] for kind in IMAGE_KINDS},
        }


def _merged(one: dict[str, Distribution], other: dict[str, Distribution]) -> dict[str, Distribution]:
    """By name, in the order in which names come up."""
    empty = Distribution()
    return {name: one.get(name, empty).merge(other.get(name, empty)) for name in [*one, *other]}
