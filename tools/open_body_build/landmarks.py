"""Vertex order: ids that public code hard-codes for the SMPL topology are at the right position of the open body."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.open_body_build.tpose import joint_names

Array = NDArray[Any]


def landmark_vertices(template: Array, joints: Array) -> dict[int, int]:
    """Published id -> vertex of the unordered template (V,3), given the MakeHuman joints (J,3)."""
    at = dict(zip(joint_names(), joints, strict=True))
    taken: dict[int, int] = {}

    def best(score: Array) -> int:
        order = np.argsort(score)
        return next(int(v) for v in order if int(v) not in taken.values())

    def take(public: int, point: Array) -> None:
        taken[public] = best(((template - point) ** 2).sum(1))

    def extreme(public: int, direction: Array, near: Array, radius: float) -> None:
        far = np.linalg.norm(template - near, axis=1) > radius
        taken[public] = best(-(template @ direction) + 1e3 * far)

    x, y, z = np.eye(3)
    eye, head = 0.5 * (at["l-eye"] + at["r-eye"]), at["head"]
    middle = np.abs(template[:, 0]) < 1e-5
    extreme(332, z, eye * [0, 1, 1] + [0, -0.04, 0.03], 0.04)
    for side, sign, eye_id, ear_id in (("l", 1, 2800, 583), ("r", -1, 6260, 4071)):
        extreme(eye_id, z, at[f"{side}-eye"], 0.018)
        extreme(ear_id, sign * x, head + [sign * 0.08, 0.0, 0.0], 0.06)
    on_line = template + np.where(middle, 0, 10.0)[:, None]
    taken[410] = best(((on_line - (eye * [0, 1, 1] + [0, 0.035, 0.05])) ** 2).sum(1))
    taken[414] = best(-template[:, 1] + np.where(middle, 0, 1.0))
    taken[384] = best(((on_line - (head * [0, 1, 1] + [0, -0.01, -0.12])) ** 2).sum(1))
    for public, sign in ((196, 1), (3708, -1)):
        extreme(public, sign * x, np.array([sign * 0.08, eye[1] + 0.06, head[2]]), 0.04)
    _fingers(take, extreme, at, template, taken)
    _feet(extreme, at)
    chest = 0.5 * (at["spine-1"] + at["spine-2"])
    for public, height, forward in ((3027, 0.0, -0.3), (3495, 0.0, 0.3), (3506, 0.03, 0.3)):
        taken[public] = best((on_line - [0, chest[1] + height, forward]) ** 2 @ [1, 25, 1])
    return taken


def _fingers(
    take: Callable[[int, Array], None],
    extreme: Callable[[int, Array, Array, float], None],
    at: dict[str, Array],
    template: Array,
    taken: dict[int, int],
) -> None:
    tips = {1: (2746, 6191), 2: (2319, 5782), 3: (2445, 5905), 4: (2556, 6016), 5: (2673, 6133)}
    for k, (left, right) in tips.items():
        for public, side in ((left, "l"), (right, "r")):
            end, before = at[f"{side}-finger-{k}-4"], at[f"{side}-finger-{k}-3"]
            direction = (end - before) / np.linalg.norm(end - before)
            extreme(public, direction, end, 0.016)
    take(5906, template[taken[5905]])
    palm = 0.5 * (at["r-hand"] + at["r-finger-3-1"])
    take(6179, palm + [0, 0.05, 0])
    take(6137, palm + [0, -0.05, 0])
    take(5670, at["r-hand"] + [0.0, 0.03, 0.0])


def _feet(extreme: Callable[[int, Array, Array, float], None], at: dict[str, Array]) -> None:
    z = np.array([0, 0, 1.0])
    for side, big, small, heel in (("l", 3216, 3226, 3387), ("r", 6617, 6624, 6787)):
        extreme(big, z, at[f"{side}-toe-1-3"], 0.03)
        extreme(small, z, at[f"{side}-toe-5-4"], 0.016)
        ankle = at[f"{side}-ankle"]
        extreme(heel, -z, ankle + [0, -0.05, -0.04], 0.05)


def ordering(template: Array, joints: Array) -> Array:
    """order (V,): new vertex i is old vertex order[i]. All but the landmarks keep their sequence."""
    fixed = landmark_vertices(template, joints)
    rest = iter(sorted(set(range(len(template))) - set(fixed.values())))
    return np.array([fixed[i] if i in fixed else next(rest) for i in range(len(template))])
