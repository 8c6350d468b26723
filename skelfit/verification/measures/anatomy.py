"""Whether poses are anatomical: angles against their limits, knees and elbows in HSMR's form, sides exchanged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from skelfit.bodies.angle_continuity import canonical_angles
from skelfit.bodies.dofs import DOF_NAMES, NUM_DOFS, dof_index, dof_limits
from skelfit.verification.measures.decoded_samples import People
from skelfit.verification.measures.remade_bodies import Array, Bodies, Group

BEYOND_DEG = (5, 10, 20, 30)
# HSMR's table (Xia et al., CVPR 2025): SMPL's joint, the order of its Euler angles (each about an axis of what those
# before it turned), their ranges in degrees; and the DoFs that SKEL has instead.
KNEES_ELBOWS: dict[str, tuple[int, str, tuple[tuple[float, float], ...], tuple[str, ...]]] = {
    "left knee": (4, "xzy", ((0, 135), (0, 0), (0, 0)), ("knee_angle_l",)),
    "right knee": (5, "xzy", ((0, 135), (0, 0), (0, 0)), ("knee_angle_r",)),
    "left elbow": (18, "yzx", ((-135, 0), (0, 0), (-67.5, 67.5)), ("elbow_flexion_l", "pro_sup_l")),
    "right elbow": (19, "yzx", ((0, 135), (0, 0), (-67.5, 67.5)), ("elbow_flexion_r", "pro_sup_r")),
}
_OTHER_SIDE = [
    dof_index(n[:-2] + {"_r": "_l", "_l": "_r"}[n[-2:]]) if n[-2:] in ("_r", "_l")
    else dof_index(n.replace("_r_", "_#_").replace("_l_", "_r_").replace("_#_", "_l_")) if "shoulder_" in n
    else i
    for i, n in enumerate(DOF_NAMES)
]  # fmt: skip
# DoFs whose sign turns round in a mirror, as SKEL's axes have it.
_TURNED = ("_bending", "_twist", "pelvis_list", "pelvis_rotation", "scapula_abduction", "scapula_elevation")
MIRROR_SIGN = np.array(
    [-1.0 if any(t in n for t in _TURNED) or n.endswith(("_x", "_y")) else 1.0 for n in DOF_NAMES]
)
SIDES: tuple[tuple[str, int, int], ...] = tuple(
    (n[:-2] if n.endswith("_r") else n.replace("_r_", "_"), i, _OTHER_SIDE[i])
    for i, n in enumerate(DOF_NAMES)
    if i < _OTHER_SIDE[i]
)  # name without side, right DoF, left DoF
_ROOT_AND_SPINE = [i for i in range(NUM_DOFS) if _OTHER_SIDE[i] == i]
# Knees, ankles, toes, elbows and hands: where exchanged sides show.
_LIMBS = (2, 3, 5, 7, 8, 10, 16, 18, 21, 23)
_SWAP_LEAST_MM, _SWAP_GAIN = 40.0, 0.5


@dataclass(frozen=True)
class Anatomy:
    """Of N people, in degrees."""

    angles_deg: Array  # (N,46) as the label describes them nearest to the limits
    excess_deg: Array  # (N,46) beyond the limits, 0 within
    smpl_hinges_deg: (
        Array  # (N,4) largest excess of KNEES_ELBOWS, of the SMPL label; NaN without SMPL parameters
    )
    skel_hinges_deg: Array  # (N,4) of the fit
    swapped: NDArray[np.bool_]  # (N,) the fit has left and right exchanged


def measure_anatomy(bodies: Bodies, people: People, groups: list[Group]) -> Anatomy:
    """Angles of people whose bodies are posed in `groups`."""
    fields, limits = people.fields(), dof_limits()
    stored = fields["skel_poses"].astype(np.float64)
    # The frames of a sequence may be described by angles that are whole turns, or a twin, off.
    moving = np.array([m["angles"] == "continuous" for m in people.metas], bool)
    poses = np.where(moving[:, None], canonical_angles(stored), stored)
    excess = np.degrees(beyond(poses, limits))
    known = np.array([bool(m["smpl"]) for m in people.metas], bool)
    hinges = smpl_hinges(fields["smpl_pose"].astype(np.float64))
    skel = [excess[:, [dof_index(d) for d in dofs]].max(1) for _, _, _, dofs in KNEES_ELBOWS.values()]
    swapped = np.zeros(len(people), bool)
    for group in groups:
        if group.smpl_joints is not None:
            swapped[group.rows] = sides_exchanged(bodies, group)
    return Anatomy(
        angles_deg=np.degrees(poses),
        excess_deg=excess,
        smpl_hinges_deg=np.where(known[:, None], hinges, np.nan),
        skel_hinges_deg=np.stack(skel, 1),
        swapped=swapped,
    )


def beyond(angles: Array, limits: Array) -> Array:
    """How far angles (N,K) lie outside limits (K,2); 0 within, in the unit of both."""
    low, high = limits.T
    found: Array = np.maximum(np.maximum(low - angles, angles - high), 0.0)
    return found


def smpl_hinges(pose: Array) -> Array:
    """The largest excess in degrees (N,4) over the angles of KNEES_ELBOWS, of SMPL poses (N,24,3) axis-angle.

    Of the two triples of Euler angles that a rotation has, the one that exceeds less in sum, as HSMR takes it.
    """
    found = []
    for joint, order, ranges, _ in KNEES_ELBOWS.values():
        first = euler_angles(Rotation.from_rotvec(pose[:, joint]).as_matrix(), order)
        second = np.stack([first[:, 0] + np.pi, np.pi - first[:, 1], first[:, 2] + np.pi], 1)
        both = np.degrees(np.stack([first, second], 1))
        excess = beyond((both + 180) % 360 - 180, np.array(ranges, float))
        less = excess.sum(-1).argmin(1)
        found.append(excess.max(-1)[np.arange(len(pose)), less])
    return np.stack(found, 1)


def euler_angles(turns: Array, order: str) -> Array:
    """Angles (N,3) rad of rotations (N,3,3) = R(a about order[0]) R(b, order[1]) R(c, order[2]), |b| <= pi/2."""
    i, j, k = ("xyz".index(axis) for axis in order)
    sign = 1.0 if (j - i) % 3 == 1 else -1.0
    a = np.arctan2(-sign * turns[:, j, k], turns[:, k, k])
    b = np.arcsin(np.clip(sign * turns[:, i, k], -1.0, 1.0))
    c = np.arctan2(-sign * turns[:, i, j], turns[:, i, i])
    return np.stack([a, b, c], 1)


@torch.no_grad()
def sides_exchanged(bodies: Bodies, group: Group) -> NDArray[np.bool_]:
    """Whether a fit has its sides exchanged, (K,): exchanging them back brings its limbs to where the label has them.

    They may be exchanged as numbers, a column for its neighbour, or as motions, which turns some signs.
    """
    goal = bodies.skel_joints(group.skel.gender)(group.target) - group.target_to_skin[:, None]
    limbs = list(_LIMBS)

    def error(joints: Array) -> Array:
        found: Array = 1000 * np.linalg.norm(joints[:, limbs] - goal[:, limbs], axis=-1).mean(1)
        return found

    as_is = error(group.joints)
    sign = torch.tensor(MIRROR_SIGN)
    sign[_ROOT_AND_SPINE] = 1.0  # trunk and root stay where they are
    exchanged = group.pose[:, _OTHER_SIDE]
    best = np.minimum(
        *(error(group.skel.joints(group.frames, q).pos.numpy()) for q in (exchanged, exchanged * sign))
    )
    found: NDArray[np.bool_] = (as_is > _SWAP_LEAST_MM) & (best < _SWAP_GAIN * as_is)
    return found
