"""The rows and samples of a refined shard: those of its source, with new parameters where they were accepted.

Writer processes start with this module, so it imports nothing of the fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from skelfit.bodies.angle_continuity import canonical_angles
from skelfit.bodies.dofs import dof_limits
from skelfit.bodies.limit_excess import limit_excess
from skelfit.conversion.stopwatch import Stopwatch
from skelfit.refining.acceptance import Refinement, without_person
from skelfit.refining.refine_run import RefineTask
from skelfit.refining.source_shard import SourceShard
from skelfit.shards.label_vector import FloatArray, unpack
from skelfit.shards.row_statistics import round_mm
from skelfit.shards.row_status import ESTIMATED, LIMIT_VIOLATION, OK, PUBLISHED
from skelfit.shards.shard_files import ShardError
from skelfit.shards.shard_reader import read_members
from skelfit.shards.shard_schema import ShardRow, ShardSample

_OWN = ("label.npy", "meta.json")


@dataclass(frozen=True)
class RefinedShard:
    """A shard whose people are refined and judged. Images are copied from its source when it is written."""

    source: SourceShard
    labels: FloatArray  # (P, LABEL_SIZE), new ones where they were accepted
    refinements: tuple[Refinement, ...]  # (P,)

    @property
    def task(self) -> RefineTask:
        """Which shard that is."""
        return self.source.task

    @property
    def labels_sha256(self) -> str:
        """Hash of the label rows as they came in, as the source has it."""
        return self.source.labels_sha256

    def entries(self, stopwatch: Stopwatch) -> Iterator[tuple[ShardRow, ShardSample | None]]:
        """Every row, and the sample of those that are published. Raises ShardError."""
        people = iter(zip(self.labels, self.source.metas, self.refinements, strict=True))
        members = read_members(self.task.source.tar)
        for old in self.source.rows:
            if old["status"] not in PUBLISHED:
                yield _row(old, without_person()), None
                continue
            label, meta, refinement = next(people)
            with stopwatch.phase("images"):
                key, content = next(members, ("", {}))
            if key != old["key"]:
                raise ShardError(self.task.source.tar, old["key"], "the sample of this row", f"{key!r}")
            row = _row(old, refinement)
            if refinement.accepted:
                row = _with_label(row, label, self.task.run.identity())
            image = next((ending for ending in content if ending not in _OWN), "")
            changes: dict[str, Any] = {"status": row.status, "refinement": row.refinement}
            if refinement.camera == ESTIMATED:
                changes |= {"camera": True, "coordinates": "camera"}
            yield row, ShardSample(row.key, label, {**meta, **changes}, content.get(image), image)


def _row(old: Mapping[str, Any], refinement: Refinement) -> ShardRow:
    return ShardRow(**{**old, "refinement": refinement.to_json(), "digest": ""})


def _with_label(row: ShardRow, label: FloatArray, identity: Mapping[str, Any]) -> ShardRow:
    """The row with errors and status of new parameters."""
    part = unpack(label)
    pve, furthest = round_mm(part["errors"])
    row = replace(row, pve_mm=pve, max_vertex_mm=furthest)
    pipeline = identity["pipeline"]
    if (limit := pipeline["gates"]["limit_deg"]) is None:
        return row
    limits, angles = dof_limits(pipeline["fit"]["limits"]), part["skel_poses"][None].astype(np.float64)
    if row.sequence is not None:  # its angles are continuous in time, and may lie whole turns away
        angles = canonical_angles(angles, limits)
    (excess,), (worst,) = limit_excess(angles, limits)
    status, reason = OK, ""
    if excess > limit:
        status, reason = LIMIT_VIOLATION, f"{worst} {excess:.1f} deg beyond its limit"
    # Of the reasons, the one of the limit comes first; why there is no image stays.
    others = row.reason.split("; ")[int(row.status == LIMIT_VIOLATION) :]
    return replace(row, status=status, reason="; ".join(filter(None, (reason, *others))))
