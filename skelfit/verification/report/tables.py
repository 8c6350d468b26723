"""The measures of a report as plain data. docs/verify.md describes the keys."""

from __future__ import annotations

from typing import Any

import numpy as np

from skelfit.bodies.dofs import DOF_NAMES, LIMITS_SOURCE, NUM_JOINTS, SKEL_JOINT_NAMES, dof_limits
from skelfit.bodies.joint_distances import JOINT_ERRORS
from skelfit.bodies.mirrored_dofs import MIRROR_SIGN, SIDES
from skelfit.verification.measures.accuracy import JOINT_SETS, PARTS
from skelfit.verification.measures.anatomy import BEYOND_DEG, KNEES_ELBOWS
from skelfit.verification.measures.motion_jumps import ADDED_DEG, ADDED_MM, TURN_DEG
from skelfit.verification.measures.reprojection import BAD_FIT, BAD_LABEL, SEEN
from skelfit.verification.report.aggregate import (
    ANGLE_EDGES_DEG,
    EXTREMITY_DEG,
    GROUPED,
    VERTEX_UNITS,
    Aggregate,
)
from skelfit.verification.report.histogram import Histogram
from skelfit.verification.report.worst_people import worst_to_json

Json = dict[str, Any]


def tables(aggregate: Aggregate) -> Json:
    """accuracy, parts, subsets, extremity, reprojection, anatomy and worst."""
    return {
        "accuracy": _accuracy(aggregate),
        "parts": _parts(aggregate),
        "subsets": {name: _group(aggregate, f"subsets/{name}") for name in _names(aggregate, "subsets/")},
        "extremity": _extremity(aggregate),
        "reprojection": _reprojection(aggregate),
        "anatomy": {
            "violations": _violations(aggregate),
            "knees_elbows": _knees_elbows(aggregate),
            "angles": _angles(aggregate),
            "bones": _bones(aggregate),
            "asymmetry": _asymmetry(aggregate),
            "jumps": _jumps(aggregate),
            "jitter": _jitter(aggregate),
        },
        "worst": worst_to_json(aggregate.worst),
    }


def _histogram(aggregate: Aggregate, name: str) -> Json:
    return aggregate.histograms.get(name, Histogram(0.01)).to_json()


def _names(aggregate: Aggregate, start: str) -> list[str]:
    return sorted(
        {name[len(start) :].rsplit("/", 1)[0] for name in aggregate.histograms if name.startswith(start)}
    )


def _group(aggregate: Aggregate, name: str) -> Json:
    return {measure: _histogram(aggregate, f"{name}/{measure}") for measure in GROUPED}


def _share(count: float, people: float) -> float | None:
    return round(float(count) / float(people), 8) if people else None


def _accuracy(aggregate: Aggregate) -> Json:
    joints = {
        name: {
            "regressor": joint_set.regressor,
            "points": len(joint_set.points),
            **{error: _histogram(aggregate, f"joints/{name}/{error}") for error in JOINT_ERRORS},
        }
        for name, joint_set in JOINT_SETS.items()
    }
    return {
        "people": aggregate.counts["people"],
        "without_smpl": aggregate.counts["without_smpl"],
        **_group(aggregate, "all"),
        "vertex_mm": _histogram(aggregate, "accuracy/vertex_mm"),
        "stored_off_mm": _histogram(aggregate, "accuracy/stored_off_mm"),
        "joints": joints,
    }


def _parts(aggregate: Aggregate) -> Json:
    people = aggregate.counts["people"] - aggregate.counts["without_smpl"]
    vertex = aggregate.arrays.get("vertex_um", np.zeros(0)) / VERTEX_UNITS / max(people, 1)
    return {
        "mm": {part: _histogram(aggregate, f"parts/{part}") for part in PARTS},
        "vertex_mean_mm": [round(float(x), 3) for x in vertex] if people else [],
    }


def _extremity(aggregate: Aggregate) -> Json:
    bins = [
        {"from_deg": low, "to_deg": high, **_group(aggregate, f"extremity/{k}")}
        for k, (low, high) in enumerate(zip(EXTREMITY_DEG, EXTREMITY_DEG[1:], strict=False))
    ]
    measure = "root mean square rotation of SMPL's joints 1 to 21 in the label"
    return {"measure": measure, "deg": _histogram(aggregate, "extremity/deg"), "bins": bins}


def _reprojection(aggregate: Aggregate) -> Json:
    names = ("people", "behind_camera", "keypoints", "bad_label", "bad_fit", "keypoints_exchanged")
    counts = {name: aggregate.counts[f"reprojection/{name}"] for name in names}
    both = {
        side: {
            "px": _histogram(aggregate, f"reprojection/{side}/px"),
            "share_of_box": _histogram(aggregate, f"reprojection/{side}/share"),
            "pck_05": aggregate.histograms.get(f"reprojection/{side}/pck_05", Histogram(0.0001)).mean(),
            "pck_10": aggregate.histograms.get(f"reprojection/{side}/pck_10", Histogram(0.0001)).mean(),
        }
        for side in ("smpl", "skel")
    }
    return {
        "regressor": JOINT_SETS["keypoints44"].regressor,
        "seen_confidence": SEEN,
        "bad_label_share": BAD_LABEL,
        "bad_fit_share": BAD_FIT,
        **counts,
        **both,
    }


def _violations(aggregate: Aggregate) -> Json:
    people = aggregate.counts["people"]
    counts = aggregate.arrays.get("violations", np.zeros((len(DOF_NAMES), len(BEYOND_DEG))))
    limits = np.degrees(dof_limits())
    rows = [
        {
            "dof": name,
            "limits_deg": [round(float(x), 3) for x in limits[i]] if np.isfinite(limits[i]).all() else None,
            "share": [_share(n, people) for n in counts[i]],
        }
        for i, name in enumerate(DOF_NAMES)
    ]
    return {
        "limits": LIMITS_SOURCE,
        "beyond_deg": list(BEYOND_DEG),
        "dofs": rows,
        "any": [_share(aggregate.counts[f"violations/any/{d}"], people) for d in BEYOND_DEG],
        "worst_deg": _histogram(aggregate, "violations/worst_deg"),
    }


def _knees_elbows(aggregate: Aggregate) -> Json:
    people = aggregate.arrays.get("hinge_people", np.zeros(2))
    counts = aggregate.arrays.get("hinges", np.zeros((2, len(KNEES_ELBOWS), len(BEYOND_DEG))))
    rows = {
        name: {side: [_share(n, people[s]) for n in counts[s, k]] for s, side in enumerate(("smpl", "skel"))}
        for k, name in enumerate(KNEES_ELBOWS)
    }
    smpl, skel = (int(n) for n in people)
    return {"beyond_deg": list(BEYOND_DEG), "people": {"smpl": smpl, "skel": skel}, "joints": rows}


def _angles(aggregate: Aggregate) -> Json:
    limits = np.degrees(dof_limits())
    counts = aggregate.arrays.get("angles", np.zeros((len(DOF_NAMES), len(ANGLE_EDGES_DEG) - 1), np.int64))
    dofs = {}
    for i, name in enumerate(DOF_NAMES):
        bins = np.flatnonzero(counts[i])
        first, last = (int(bins[0]), int(bins[-1]) + 1) if len(bins) else (0, 0)
        dofs[name] = {
            "limits_deg": [round(float(x), 3) for x in limits[i]] if np.isfinite(limits[i]).all() else None,
            "start_deg": int(ANGLE_EDGES_DEG[first]),
            "counts": counts[i, first:last].tolist(),
        }
    width = int(ANGLE_EDGES_DEG[1] - ANGLE_EDGES_DEG[0])
    return {"width_deg": width, "open_beyond_deg": int(ANGLE_EDGES_DEG[-1]), "dofs": dofs}


def _bones(aggregate: Aggregate) -> Json:
    known = aggregate.arrays.get("bone_known", np.zeros(len(SKEL_JOINT_NAMES)))
    sums = aggregate.arrays.get("bone_share", np.zeros(len(SKEL_JOINT_NAMES)))
    return {
        "people": aggregate.counts["bones/people"],
        "with_any_outside": aggregate.counts["bones/outside"],
        "share": _histogram(aggregate, "bones/share"),
        "depth_mm": _histogram(aggregate, "bones/depth_mm"),
        "share_by_joint": {
            name: _share(sums[j] / 1e6, known[j]) for j, name in enumerate(SKEL_JOINT_NAMES) if known[j]
        },
    }


def _asymmetry(aggregate: Aggregate) -> Json:
    people = aggregate.counts["people"]
    zeros = np.zeros(len(DOF_NAMES))
    mean = aggregate.arrays.get("angle_sum_udeg", zeros) / 1e6 / max(people, 1)
    square = aggregate.arrays.get("angle_square", zeros) / 1e3 / max(people, 1)
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    beyond = aggregate.arrays.get("violations", np.zeros((len(DOF_NAMES), len(BEYOND_DEG))))
    ten_deg = BEYOND_DEG.index(10)
    sides = [
        {
            "dof": name,
            # the left angle as in the mirror image
            "mean_deg": [round(float(mean[r]), 4), round(float(MIRROR_SIGN[r] * mean[left]), 4)],
            "spread_deg": [round(float(spread[i]), 4) for i in (r, left)],
            "beyond_10": [_share(beyond[i, ten_deg], people) for i in (r, left)],
        }
        for name, r, left in SIDES
    ]
    parts = {
        part[:-2]: [aggregate.histograms.get(f"parts/{part[:-2]}_{s}", Histogram(0.01)).mean() for s in "rl"]
        for part in PARTS
        if part.endswith("_r")
    }
    return {
        "order": ["right", "left"],
        "dofs": sides,
        "parts_mm": parts,
        "sides_exchanged": aggregate.counts["asymmetry/sides_exchanged"],
    }


def _jumps(aggregate: Aggregate) -> Json:
    pairs = aggregate.histograms.get("jumps/turn_deg", Histogram(0.01)).count
    above = {"turn": TURN_DEG, "added_deg": ADDED_DEG, "added_mm": ADDED_MM}
    return {
        "sequences": aggregate.counts["sequences"] + len(aggregate.runs),
        "frames": aggregate.counts["sequences/frames"],
        "pairs": pairs,
        **{
            name: _histogram(aggregate, f"jumps/{name}")
            for name in ("turn_deg", "label_turn_deg", "added_deg", "added_mm")
        },
        **{
            f"{name}_above": {str(d): _share(aggregate.counts[f"jumps/{name}/{d}"], pairs) for d in limits}
            for name, limits in above.items()
        },
        "worst": [jump.to_json() for jump in aggregate.jumps],
    }


def _jitter(aggregate: Aggregate) -> Json:
    sums = aggregate.arrays.get("jitter_udeg", np.zeros((NUM_JOINTS, 2))) / 1e6
    known = aggregate.arrays.get("jitter_known", np.zeros(2))
    return {
        "measure": "deg per frame^2: how much a joint's turn to the next frame differs from the one before; the mean "
        "over SKEL's joints but the pelvis, and over SMPL's but the pelvis and the hands",
        "triples": int(known[0]),
        "fit_deg": _histogram(aggregate, "jitter/fit_deg"),
        "label_deg": _histogram(aggregate, "jitter/label_deg"),
        "by_joint": {
            name: [_share(total, n) for total, n in zip(sums[j], known, strict=True)]
            for j, name in enumerate(SKEL_JOINT_NAMES)
        },
    }
