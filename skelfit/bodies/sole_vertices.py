"""Which skin vertices are the soles of the feet: computed from a SKEL body, so it holds for any skin with its rig."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from skelfit.bodies.assets import SkelAsset
from skelfit.bodies.dofs import SKEL_JOINT_NAMES

SOLE_PARTS = ("heel_r", "forefoot_r", "heel_l", "forefoot_l")  # forefoot: the ball of the foot and the toes
FEET: dict[str, tuple[int, int]] = {"r": (0, 1), "l": (2, 3)}  # of each foot, its parts
FOOT_JOINTS = tuple(
    SKEL_JOINT_NAMES.index(f"{joint}_{side}") for side in "rl" for joint in ("talus", "calcn", "toes")
)

# Shares of the length of a foot, from its back: the heel's pad ends at about a third, and the heads of the metatarsals
# lie at about two thirds.
_HEEL_TO, _FOREFOOT_FROM = 0.30, 0.62
_DEPTH = 0.02  # m above the lowest point of the foot; less would miss the edges that touch as the foot rolls
_APART = 0.012  # m; of vertices that are closer than this, the lowest one: heights change by less than 1 mm


@dataclass(frozen=True)
class SoleVertices:
    """The vertices of the soles, those of each of SOLE_PARTS in turn."""

    vertices: NDArray[np.int64]  # (K,)
    parts: tuple[slice, ...]  # (4,) of SOLE_PARTS, in `vertices`


def sole_vertices(asset: SkelAsset) -> SoleVertices:
    """The soles of a body, from its mean shape in the T-pose (y up).

    The vertices of a foot have more than half of their weight on talus, calcn and toes. A part is the stretch of the
    foot along the line from calcn to toes, seen from above: the heel its rear 30 %, the forefoot its front 38 %. Of it,
    the vertices on its convex hull count, up to 20 mm above the lowest of the foot: only they can touch a level floor,
    however the part is turned. Of neighbours within 12 mm the lowest is enough. Raises ValueError for a body in which a
    part has none.
    """
    rest = np.asarray(asset.v_template, np.float64)
    joints = np.asarray(asset.J_regressor_osim, np.float64) @ rest
    chosen: list[NDArray[np.int64]] = []
    for name in SOLE_PARTS:
        kind, side = name.split("_")
        _, calcn, toes = own = [
            SKEL_JOINT_NAMES.index(f"{joint}_{side}") for joint in ("talus", "calcn", "toes")
        ]
        foot = np.flatnonzero(np.asarray(asset.skin_weights)[:, own].sum(1) > 0.5)
        if len(foot) == 0:
            raise ValueError(f"{name}: expected skin vertices that talus, calcn and toes carry, found none")
        forward = (joints[toes] - joints[calcn]) * [1.0, 0.0, 1.0]
        along = rest[foot] @ forward
        share = (along - along.min()) / (np.ptp(along) or 1.0)
        stretch = foot[share <= _HEEL_TO if kind == "heel" else share >= _FOREFOOT_FROM]
        if len(stretch) < 4:
            raise ValueError(f"{name}: expected skin vertices along the foot, found {len(stretch)}")
        hull = stretch[np.sort(ConvexHull(rest[stretch]).vertices)]
        low = hull[rest[hull, 1] <= rest[foot, 1].min() + _DEPTH].astype(np.int64)
        chosen.append(_thinned(low, rest))
        if len(low) == 0:
            raise ValueError(f"{name}: expected vertices within 20 mm of the lowest of the foot, found none")
    ends = np.cumsum([0, *map(len, chosen)])
    parts = tuple(slice(int(start), int(stop)) for start, stop in zip(ends, ends[1:], strict=False))
    return SoleVertices(np.concatenate(chosen), parts)


def _thinned(vertices: NDArray[np.int64], rest: NDArray[np.float64]) -> NDArray[np.int64]:
    """The lowest of the vertices, then the lowest of those that are far enough from all before, and so on."""
    kept: list[int] = []
    for vertex in vertices[np.argsort(rest[vertices, 1], kind="stable")].tolist():
        if all(np.linalg.norm(rest[vertex] - rest[other]) > _APART for other in kept):
            kept.append(vertex)
    return np.array(sorted(kept), np.int64)
