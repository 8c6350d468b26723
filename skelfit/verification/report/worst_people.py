"""The worst people by each of a few criteria."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from skelfit.bodies.dofs import DOF_NAMES
from skelfit.shards.label_vector import FIELDS
from skelfit.shards.row_status import REFINED
from skelfit.verification.measures.anatomy import KNEES_ELBOWS
from skelfit.verification.measures.person_measures import PersonMetrics
from skelfit.verification.measures.posed_bodies import Array

KEPT = 12  # per criterion
# Parts of the label vector that are needed to draw a person.
_DRAWN = tuple(f.name for f in FIELDS if f.name not in ("keypoints3d", "errors"))


def criteria(m: PersonMetrics) -> dict[str, Array]:
    """Values (N,) by criterion, larger is worse; rounded, so that float64 rounding changes no order. NaN: not known."""
    bones = np.full(len(m.people), np.nan)
    bones[m.bones.rows] = m.bones.depth_mm
    refinements = [meta.get("refinement") or {} for meta in m.people.metas]
    measures = {
        "pve_mm": m.accuracy.pve_mm,
        "max_vertex_mm": m.accuracy.max_vertex_mm,
        "violation_deg": m.anatomy.excess_deg.max(1),
        "fit_adds_px_share": m.reprojection.share[:, 1] - m.reprojection.share[:, 0],
        "label_px_share": m.reprojection.share[:, 0],
        "bone_depth_mm": bones,
        "sides_exchanged": np.where(m.anatomy.swapped, m.accuracy.pve_mm, np.nan),
        "refined_moved_mm": np.array([one.get("moved_mm") for one in refinements], float),
        "refined_gain": np.array([_gain(one) for one in refinements]),
    }
    return {name: np.round(values, 6) for name, values in measures.items()}


def _gain(refinement: Mapping[str, Any]) -> float:
    """By how many shoulder-hip lengths a refinement brought the keypoints nearer; NaN where there was none."""
    if refinement.get("status") != REFINED:
        return float("nan")
    return float(refinement["before"]["reprojection"] - refinement["after"]["reprojection"])


# Smallest value by criterion with which a person counts as one of the worst; mm, degrees, a share of the box side, or
# shoulder-hip lengths. The last two are of refined shards: who moved most, and who came nearest.
LEAST: Mapping[str, float] = {
    "pve_mm": 1.0,
    "max_vertex_mm": 5.0,
    "violation_deg": 1.0,
    "fit_adds_px_share": 0.005,
    "label_px_share": 0.005,
    "bone_depth_mm": 1.0,
    "sides_exchanged": 0.0,
    "refined_moved_mm": 0.0,
    "refined_gain": 0.0,
}
CRITERIA = tuple(LEAST)


@dataclass(frozen=True)
class WorstCase:
    """A person who is among the worst by one criterion."""

    value: float
    key: str
    content: Mapping[str, Any]  # of the person in the report, without the criteria

    @property
    def order(self) -> tuple[float, str]:
        """Worst first; of equal ones, by key."""
        return (-self.value, self.key)


Worst = Mapping[str, tuple[WorstCase, ...]]  # by criterion


def worst_of(m: PersonMetrics) -> Worst:
    """The worst of a batch by each criterion."""
    worst = {}
    for name, values in criteria(m).items():
        order = np.lexsort((np.array(m.people.keys), -np.nan_to_num(values)))[:KEPT]
        worse = [i for i in order if values[i] > LEAST[name]]
        worst[name] = tuple(WorstCase(float(values[i]), m.people.keys[i], _content(m, i)) for i in worse)
    return worst


def _order(case: WorstCase) -> tuple[float, str]:
    return case.order


def merge_worst(one: Worst, other: Worst) -> Worst:
    """The worst people of both."""
    both = {name: (*one.get(name, ()), *other.get(name, ())) for name in CRITERIA}
    return {name: tuple(sorted(cases, key=_order)[:KEPT]) for name, cases in both.items()}


def worst_to_json(worst: Worst) -> list[dict[str, Any]]:
    """Each person once with all their criteria, in the order of CRITERIA."""
    people: dict[str, dict[str, Any]] = {}
    for name in CRITERIA:
        for case in worst.get(name, ()):
            person = people.setdefault(case.key, {**case.content, "worst_by": []})
            person["worst_by"].append(name)
    return list(people.values())


def person_to_json(m: PersonMetrics, i: int) -> dict[str, Any]:
    """The measures of one person as plain data; None where not known."""
    a, r = m.accuracy, m.reprojection
    dof = int(m.anatomy.excess_deg[i].argmax())
    bones = np.flatnonzero(m.bones.rows == i)
    from_bones = {
        "bone_share": float(m.bones.share[bones[0]]) if len(bones) else None,
        "bone_depth_mm": _number(m.bones.depth_mm[bones[0]]) if len(bones) else None,
    }
    return {
        "pve_mm": _number(a.pve_mm[i]),
        "max_vertex_mm": _number(a.max_vertex_mm[i]),
        "mpjpe_mm": _number(a.joints_mm["smpl24"][i, 0]),
        "pa_mpjpe_mm": _number(a.joints_mm["smpl24"][i, 2]),
        "extremity_deg": _number(a.extremity_deg[i]),
        "smpl_px": _number(r.px[i, 0]),
        "skel_px": _number(r.px[i, 1]),
        "violation_deg": _number(m.anatomy.excess_deg[i, dof]),
        "violation_dof": DOF_NAMES[dof],
        "knees_elbows_deg": {
            name: {
                "smpl": _number(m.anatomy.smpl_hinges_deg[i, k]),
                "skel": _number(m.anatomy.skel_hinges_deg[i, k]),
            }
            for k, name in enumerate(KNEES_ELBOWS)
        },
        "sides_exchanged": bool(m.anatomy.swapped[i]),
        "keypoints_exchanged": bool(r.swapped[i]),
        "refinement": m.people.metas[i].get("refinement"),
        **from_bones,
    }


def _content(m: PersonMetrics, i: int) -> dict[str, Any]:
    fields = m.people.select(np.arange(len(m.people)) == i).fields()
    return {
        "key": m.people.keys[i],
        "shard": m.people.shard,
        "subset": m.people.metas[i]["subset"],
        "metrics": person_to_json(m, i),
        "parameters": {name: fields[name][0].astype(float).round(6).tolist() for name in _DRAWN},
        "meta": dict(m.people.metas[i]),
    }


def _number(value: Any) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
