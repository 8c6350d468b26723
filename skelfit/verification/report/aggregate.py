"""Measures of many people as counts and fine histograms, which add up in any order and division into batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.dofs import NUM_DOFS
from skelfit.bodies.joint_distances import JOINT_ERRORS
from skelfit.verification.measures.accuracy import JOINT_SETS, PARTS, VERTICES
from skelfit.verification.measures.anatomy import BEYOND_DEG
from skelfit.verification.measures.motion_jumps import (
    ADDED_DEG,
    ADDED_MM,
    TURN_DEG,
    FrameRuns,
    FrameSteps,
    Jump,
    join,
    measure_steps,
    runs_of,
)
from skelfit.verification.measures.person_measures import PersonMetrics
from skelfit.verification.measures.posed_bodies import Array
from skelfit.verification.measures.reprojection import BAD_FIT, BAD_LABEL
from skelfit.verification.report.histogram import Histogram
from skelfit.verification.report.worst_people import Worst, merge_worst, worst_of

# Bins of a label's root mean square joint rotation, degrees: everyday poses are below 25.
EXTREMITY_DEG = (0, 10, 15, 20, 25, 30, 40, 60, 180)
ANGLE_EDGES_DEG = np.arange(-200, 201, 2)  # angles outside are in the first or the last bin
WORST_JUMPS, WORST_OF_ONE = 20, 3  # in all, and at most of one sequence
VERTEX_UNITS = 1000  # sums of vertex distances are in micrometres
_MAX_MM, _MAX_DEG = 1e6, 1e4  # larger numbers are clipped to this

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Aggregate:
    """The measures of many people."""

    counts: Counter[str] = field(default_factory=Counter)  # by name, or 'name/part'
    histograms: Mapping[str, Histogram] = field(default_factory=dict)  # by the same names
    arrays: Mapping[str, Ints] = field(default_factory=dict)  # counts and sums, by name
    worst: Worst = field(default_factory=dict)
    runs: FrameRuns = field(default_factory=dict)  # ends of sequences that may continue in another batch
    jumps: tuple[Jump, ...] = ()  # the largest ones

    @classmethod
    def of(cls, m: PersonMetrics) -> Aggregate:
        """The measures of one batch."""
        runs, windows = runs_of(m.people, m.accuracy)
        batch = cls(_counts(m), dict(_histograms(m)), _arrays(m), worst_of(m))
        return batch._sum(_of_steps(measure_steps(windows)), runs)

    def merge(self, other: Aggregate) -> Aggregate:
        """The measures of both. Associative and exact, but for the order of people of equal rank."""
        runs, windows = join(self.runs, other.runs)
        return self._sum(other, runs)._sum(_of_steps(measure_steps(windows)), runs)

    def closed(self) -> Aggregate:
        """The same without the ends of sequences: a shard holds whole sequences, so none continues in another."""
        sequences = Counter({"sequences": len(self.runs)} if self.runs else {})
        return replace(self, counts=self.counts + sequences, runs={})

    def _sum(self, other: Aggregate, runs: FrameRuns) -> Aggregate:
        """The sums of both, with these ends of sequences."""
        return Aggregate(
            counts=self.counts + other.counts,
            histograms=_merged(self.histograms, other.histograms, Histogram.merge),
            arrays=_merged(self.arrays, other.arrays, np.add),
            worst=merge_worst(self.worst, other.worst),
            runs=runs,
            jumps=_largest((*self.jumps, *other.jumps)),
        )


def _of_steps(steps: FrameSteps) -> Aggregate:
    """The measures between frames."""
    histograms = dict(_step_histograms(steps))
    return Aggregate(_step_counts(steps), histograms, _step_arrays(steps), jumps=steps.jumps)


def _largest(jumps: tuple[Jump, ...]) -> tuple[Jump, ...]:
    """The largest jumps, with at most WORST_OF_ONE of a sequence; does not depend on the order of `jumps`."""
    largest: list[Jump] = []
    for jump in sorted(jumps, key=lambda jump: jump.order):
        if sum(other.sequence_id == jump.sequence_id for other in largest) < WORST_OF_ONE:
            largest.append(jump)
        if len(largest) == WORST_JUMPS:
            break
    return tuple(largest)


def _added_deg(steps: FrameSteps) -> Array:
    """The largest turn of any joint beyond the label (P,) degrees; NaN where not known."""
    added: Array = (steps.turn_deg - steps.label_turn_deg).max(1)
    return added


def _step_counts(steps: FrameSteps) -> Counter[str]:
    turned, added = steps.turn_deg.max(1), _added_deg(steps)
    counts = Counter({f"jumps/turn/{d}": int((turned > d).sum()) for d in TURN_DEG})
    counts += Counter({f"jumps/added_deg/{d}": int((added > d).sum()) for d in ADDED_DEG})
    counts += Counter({f"jumps/added_mm/{d}": int((steps.added_mm > d).sum()) for d in ADDED_MM})
    return counts


def _step_histograms(steps: FrameSteps) -> Iterator[tuple[str, Histogram]]:
    """Of pairs, the joint that turns most; of triples, the mean over the joints of the body."""
    if len(steps.turn_deg):
        yield "jumps/turn_deg", Histogram.of(steps.turn_deg.max(1))
        yield "jumps/label_turn_deg", Histogram.of(steps.label_turn_deg.max(1))
        yield "jumps/added_deg", Histogram.of(_added_deg(steps))
        yield "jumps/added_mm", Histogram.of(steps.added_mm)
    if len(steps.jitter_deg):
        for k, side in enumerate(("fit", "label")):
            yield f"jitter/{side}_deg", Histogram.of(steps.mean_jitter_deg[:, k], 0.001)


def _step_arrays(steps: FrameSteps) -> dict[str, Ints]:
    """Sums of jitter by joint (24,2), and numbers of triples (2,), of fit and label."""
    jitter = np.minimum(steps.jitter_deg, _MAX_DEG)
    return {
        "jitter_udeg": np.round(np.nan_to_num(jitter) * 1e6).astype(np.int64).sum(0),
        "jitter_known": np.isfinite(jitter).all(1).sum(0).astype(np.int64),
    }


def _merged(one: Mapping[str, Any], other: Mapping[str, Any], add: Any) -> dict[str, Any]:
    merged = dict(one)
    for name, value in other.items():
        merged[name] = add(merged[name], value) if name in merged else value
    return merged


def extremity_bins(extremity_deg: Array) -> NDArray[np.int64]:
    """The bin of EXTREMITY_DEG of each person (N,); -1 for NaN."""
    bins = np.clip(np.digitize(extremity_deg, EXTREMITY_DEG) - 1, 0, len(EXTREMITY_DEG) - 2)
    return np.where(np.isnan(extremity_deg), -1, bins)


def _counts(m: PersonMetrics) -> Counter[str]:
    r, a, people = m.reprojection, m.accuracy, len(m.people)
    label, added = r.share[:, 0], r.share[:, 1] - r.share[:, 0]
    bad_label = ~(label <= BAD_LABEL)
    known = np.isfinite(r.pck[:, 0, 0])
    counts = {
        "people": people,
        "without_smpl": int(np.isnan(a.pve_mm).sum()),
        "reprojection/people": int(known.sum()),
        "reprojection/behind_camera": int((known & np.isnan(r.px).any(1)).sum()),
        "reprojection/keypoints": int(r.seen[known].sum()),
        "reprojection/bad_label": int((known & bad_label).sum()),
        "reprojection/bad_fit": int((known & ~bad_label & ~(added <= BAD_FIT)).sum()),
        "reprojection/keypoints_exchanged": int(r.swapped.sum()),
        "asymmetry/sides_exchanged": int(m.anatomy.swapped.sum()),
        "bones/people": len(m.bones.rows),
        "bones/outside": int((m.bones.depth_mm > 0).sum()),
        "sequences/frames": sum(meta["sequence"] is not None for meta in m.people.metas),
    }
    for d in BEYOND_DEG:
        counts[f"violations/any/{d}"] = int((m.anatomy.excess_deg > d).any(1).sum())
    return Counter({name: n for name, n in counts.items() if n})


def _histograms(m: PersonMetrics) -> Iterator[tuple[str, Histogram]]:
    a, r = m.accuracy, m.reprojection
    yield "accuracy/vertex_mm", Histogram.of(a.vertex_mm[:, ::16])
    yield "accuracy/stored_off_mm", Histogram.of(np.nanmax(np.nan_to_num(a.stored_off_mm), axis=1), 0.0001)
    for name in JOINT_SETS:
        for k, error in enumerate(JOINT_ERRORS):
            yield f"joints/{name}/{error}", Histogram.of(a.joints_mm[name][:, k])
    for p, part in enumerate(PARTS):
        yield f"parts/{part}", Histogram.of(a.part_mm[:, p])
    for k, side in enumerate(("smpl", "skel")):
        known = np.isfinite(r.pck[:, 0, 0])
        yield f"reprojection/{side}/px", Histogram.of(r.px[known, k])
        yield f"reprojection/{side}/share", Histogram.of(r.share[known, k], 0.0001)
        for t, name in enumerate(("pck_05", "pck_10")):
            yield f"reprojection/{side}/{name}", Histogram.of(r.pck[known, k, t], 0.0001)
    yield "violations/worst_deg", Histogram.of(m.anatomy.excess_deg.max(1))
    yield "bones/share", Histogram.of(m.bones.share, 0.0001)
    yield "bones/depth_mm", Histogram.of(m.bones.depth_mm)
    yield "extremity/deg", Histogram.of(a.extremity_deg)
    yield from _grouped(m, "all", np.ones(len(m.people), bool))
    subsets = np.array([str(meta["subset"]) for meta in m.people.metas])
    for subset in sorted(set(subsets.tolist())):
        yield from _grouped(m, f"subsets/{subset}", subsets == subset)
    bins = extremity_bins(a.extremity_deg)
    for k in sorted({*bins.tolist()} - {-1}):
        yield from _grouped(m, f"extremity/{k}", bins == k)


# Measures of every group of people.
GROUPED = ("pve_mm", "max_vertex_mm", "mpjpe_mm", "pa_mpjpe_mm", "smpl_px", "skel_px", "violation_deg")


def _grouped(m: PersonMetrics, name: str, mask: NDArray[np.bool_]) -> Iterator[tuple[str, Histogram]]:
    a = m.accuracy
    values = (
        a.pve_mm,
        a.max_vertex_mm,
        a.joints_mm["smpl24"][:, 0],
        a.joints_mm["smpl24"][:, 2],
        m.reprojection.px[:, 0],
        m.reprojection.px[:, 1],
        m.anatomy.excess_deg.max(1),
    )
    for measure, value in zip(GROUPED, values, strict=True):
        yield f"{name}/{measure}", Histogram.of(value[mask])


def _arrays(m: PersonMetrics) -> dict[str, Ints]:
    a = m.anatomy
    known = np.isfinite(m.accuracy.pve_mm)
    vertex = np.round(np.minimum(m.accuracy.vertex_mm[known], _MAX_MM) * VERTEX_UNITS).astype(np.int64)
    bins = np.clip(np.digitize(a.angles_deg, ANGLE_EDGES_DEG) - 1, 0, len(ANGLE_EDGES_DEG) - 2)
    angles = np.zeros((NUM_DOFS, len(ANGLE_EDGES_DEG) - 1), np.int64)
    np.add.at(angles, (np.arange(NUM_DOFS), bins), 1)
    clipped = np.clip(a.angles_deg, -_MAX_DEG, _MAX_DEG)
    hinges = (a.smpl_hinges_deg, a.skel_hinges_deg)
    outside = m.bones.joint_share
    return {
        "vertex_um": vertex.sum(0) if len(vertex) else np.zeros(VERTICES, np.int64),
        "violations": np.stack([(a.excess_deg > d).sum(0) for d in BEYOND_DEG], 1).astype(np.int64),
        "angles": angles,
        "angle_sum_udeg": np.round(clipped * 1e6).astype(np.int64).sum(0),
        "angle_square": np.round(clipped**2 * 1e3).astype(np.int64).sum(0),
        # (label or fit, KNEES_ELBOWS, BEYOND_DEG), and the numbers of people
        "hinges": np.stack([[(h > d).sum(0) for d in BEYOND_DEG] for h in hinges])
        .swapaxes(1, 2)
        .astype(np.int64),
        "hinge_people": np.array([np.isfinite(h[:, 0]).sum() for h in hinges], np.int64),
        "bone_share": np.round(np.nan_to_num(outside) * 1e6).astype(np.int64).sum(0),
        "bone_known": np.isfinite(outside).sum(0).astype(np.int64),
    }
