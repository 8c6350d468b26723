"""Statistics of rows that merge in any order.

Lengths are kept as whole numbers of 0.1 micrometre, and the measures of refinements as whole numbers of 0.0001 of their
units. So sums are exact, and a summary does not depend on how the people were divided into shards or on the order in
which the shards were done.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.shards.row_status import CAMERAS, FILTERED, IMAGE_KINDS, PAIRED_MEASURES, PUBLISHED, REFINEMENTS

UNITS_PER_MM = 10_000
_ROWS_AT_A_TIME = 1000

_LOST_IMAGE = re.compile(r"(?:^|; )image_(\w+)(?:: .*)?$", re.DOTALL)


def round_mm(values: NDArray[np.floating[Any]]) -> list[Any]:
    """Lengths in mm (N,...) as they are stored, as nested lists: to 0.1 micrometre; None for what is not finite."""
    exact = values.astype(np.float64)
    rounded = np.rint(exact * UNITS_PER_MM) / UNITS_PER_MM + 0.0  # 0.0: no -0.0
    lengths = rounded.astype(object)
    lengths[~np.isfinite(exact)] = None
    nested: list[Any] = lengths.tolist()
    return nested


@dataclass
class Distribution:
    """Lengths in mm, rounded to 0.1 micrometre: how often each occurs."""

    counts: Counter[int] = field(default_factory=Counter)

    def add(self, values_mm: Iterable[float | None]) -> None:
        """Count finite lengths. Not every row has each: meshes have no stages and no betas to compare with."""
        self.counts.update([round(value * UNITS_PER_MM) for value in values_mm if value is not None])

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
    refinements: Counter[str] = field(
        default_factory=Counter
    )  # of REFINEMENTS, of the rows of refined shards
    cameras: Counter[str] = field(default_factory=Counter)  # of CAMERAS, of refined people
    refined: dict[str, Distribution] = field(default_factory=dict)  # PAIRED_MEASURES before and after

    @classmethod
    def of_rows(cls, rows: Iterable[Mapping[str, Any]]) -> Summary:
        """The summary of rows as they stand in the sidecars."""
        summary, stream = cls(), iter(rows)
        while block := list(islice(stream, _ROWS_AT_A_TIME)):
            summary._count(block)
        return summary

    def _count(self, rows: list[Mapping[str, Any]]) -> None:
        """Count rows, key by key: that is several times faster than row by row."""
        self.rows_in += len(rows)
        self.statuses.update([row["status"] for row in rows])
        left_out = [row["reason"].split("; ") for row in rows if row["status"] == FILTERED]
        self.filters.update(reason.partition(":")[0] for reasons in left_out for reason in reasons)
        if unseen := [row["unseen_keypoints"] for row in rows if row["unseen_keypoints"]]:
            self.filters["low_confidence"] += len(unseen)
            self.unseen_keypoints += sum(unseen)
        published = [row for row in rows if row["status"] in PUBLISHED]
        self.pve.add(_column(published, "pve_mm"))
        self.skel_genders.update(_column(published, "skel_gender"))
        for distributions, lengths in (
            (self.stage_pve, _column(published, "stage_pve_mm")),
            (self.betas, _column(published, "betas_mm")),
        ):
            for name in dict.fromkeys(chain.from_iterable(lengths)):
                distribution = distributions.setdefault(name, Distribution())
                distribution.add(of_row.get(name) for of_row in lengths)
        self._count_refinements([one for row in rows if (one := row.get("refinement"))])
        self.images.update(_image_kind(row) for row in published if row["image"] is not None)

    def _count_refinements(self, refinements: list[Mapping[str, Any]]) -> None:
        self.refinements.update(_column(refinements, "status"))
        self.cameras.update(camera for camera in _column(refinements, "camera") if camera is not None)
        for when in ("before", "after"):
            measured = [one[when] for one in refinements if one[when] is not None]
            for measure in PAIRED_MEASURES if measured else ():
                distribution = self.refined.setdefault(f"{measure} {when}", Distribution())
                distribution.add(_column(measured, measure))

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
            self.refinements + other.refinements,
            self.cameras + other.cameras,
            _merged(self.refined, other.refined),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data: counts by status (sorted), errors in mm, means of the stages in their order."""
        content: dict[str, Any] = {
            "rows_in": self.rows_in,
            "rows_out": self.rows_out,
            "statuses": {status: self.statuses[status] for status in sorted(self.statuses)},
            "pve_mm": self.pve.to_json(),
            "stage_pve_mm": {stage: d.mean() for stage, d in self.stage_pve.items()},
            "skel_genders": {gender: self.skel_genders[gender] for gender in sorted(self.skel_genders)},
            "betas_mm": {step: d.to_json() for step, d in self.betas.items()},
            "images": {kind: self.images[kind] for kind in IMAGE_KINDS},
        }
        if self.refinements:  # the summary of other runs stays as it was
            content["refinement"] = {
                "statuses": {name: self.refinements[name] for name in REFINEMENTS if self.refinements[name]},
                "cameras": {name: self.cameras[name] for name in CAMERAS if self.cameras[name]},
                **{
                    measure: {
                        when: self.refined[f"{measure} {when}"].to_json() for when in ("before", "after")
                    }
                    for measure in PAIRED_MEASURES
                    if f"{measure} before" in self.refined
                },
            }
        return content


def _column(rows: list[Mapping[str, Any]], key: str) -> list[Any]:
    return [row[key] for row in rows]


def _image_kind(row: Mapping[str, Any]) -> str:
    """What became of an image that was wanted."""
    if row["image"]:
        return "found"
    # Why an image is not there is the last of a row's reasons, perhaps with a detail behind it.
    lost = _LOST_IMAGE.search(row["reason"])
    return lost[1] if lost else ""


def _merged(one: dict[str, Distribution], other: dict[str, Distribution]) -> dict[str, Distribution]:
    """By name, in the order in which names come up."""
    empty = Distribution()
    return {name: one.get(name, empty).merge(other.get(name, empty)) for name in [*one, *other]}
