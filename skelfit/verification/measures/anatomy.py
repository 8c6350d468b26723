"""Whether poses are anatomical: joint limits, ranges of knees and elbows as HSMR has them, exchanged sides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from skelfit.bodies.angle_continuity import canonical_angles
from skelfit.bodies.dofs import NUM_DOFS, dof_index, dof_limits
from skelfit.bodies.mirrored_dofs import MIRROR_SIGN, OTHER_SIDE
from skelfit.verification.measures.decoded_samples import DecodedPeople
from skelfit.verification.measures.posed_bodies import Array, BodyModels, PosedGroup

BEYOND_DEG = (5, 10, 20, 30)
# HSMR's table (Xia et al., CVPR 2025): SMPL's joint, the order of its intrinsic Euler angles, their ranges in degrees,
# and the corresponding DoFs of SKEL.
KNEES_ELBOWS: dict[str, tuple[int, str, tuple[tuple[float, float], ...], tuple[str, ...]]] = {
    "left knee": (4, "xzy", ((0, 135), (0, 0), (0, 0)), ("knee_angle_l",)),
    "right knee": (5, "xzy", ((0, 135), (0, 0), (0, 0)), ("knee_angle_r",)),
    "left elbow": (18, "yzx", ((-135, 0), (0, 0), (-67.5, 67.5)), ("elbow_flexion_l", "pro_sup_l")),
    "right elbow": (19, "yzx", ((0, 135), (0, 0), (-67.5, 67.5)), ("elbow_flexion_r", "pro_sup_r")),
}
_ROOT_AND_SPINE = [i for i in range(NUM_DOFS) if OTHER_SIDE[i] == i]
# Knees, ankles, toes, elbows and hands: joints that show exchanged sides.
_LIMBS = (2, 3, 5, 7, 8, 10, 16, 18, 21, 23)
_SWAP_LEAST_MM, _SWAP_GAIN = 40.0, 0.5


@dataclass(frozen=True)
class Anatomy:
    """Angles of N people, in degrees."""

    angles_deg: Array  # (N,46) of the equivalent Euler angles nearest to the limits
    excess_deg: Array  # (N,46) beyond the limits, 0 within
    smpl_hinges_deg: Array  # (N,4) largest excess of KNEES_ELBOWS in the label; NaN without SMPL parameters
    skel_hinges_deg: Array  # (N,4) of the fit
    swapped: NDArray[np.bool_]  # (N,) the fit has left and right exchanged


def measure_anatomy(bodies: BodyModels, people: DecodedPeople, groups: list[PosedGroup]) -> Anatomy:
    """Angles of people whose bodies are posed in `groups`."""
    fields, limits = people.fields(), dof_limits()
    stored = fields["skel_poses"].astype(np.float64)
    # Angles of a sequence are continuous in time: they may lie whole turns away, or on the other Euler branch.
    is_continuous = np.array([m["angles"] == "continuous" for m in people.metas], bool)
    poses = np.where(is_continuous[:, None], canonical_angles(stored), stored)
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
    excess: Array = np.maximum(np.maximum(low - angles, angles - high), 0.0)
    return excess


def smpl_hinges(pose: Array) -> Array:
    """The largest excess in degrees (N,4) over the angles of KNEES_ELBOWS, of SMPL poses (N,24,3) axis-angle.

    A rotation has two triples of Euler angles; as in HSMR, the one with the smaller sum of excesses counts.
    """
    hinges = []
    for joint, order, ranges, _ in KNEES_ELBOWS.values():
        first = euler_angles(Rotation.from_rotvec(pose[:, joint]).as_matrix(), order)
        second = np.stack([first[:, 0] + np.pi, np.pi - first[:, 1], first[:, 2] + np.pi], 1)
        both = np.degrees(np.stack([first, second], 1))
        excess = beyond((both + 180) % 360 - 180, np.array(ranges, float))
        branch = excess.sum(-1).argmin(1)
        hinges.append(excess.max(-1)[np.arange(len(pose)), branch])
    return np.stack(hinges, 1)


def euler_angles(rotations: Array, order: str) -> Array:
    """Angles (N,3) rad of rotations (N,3,3) = R(a about order[0]) R(b, order[1]) R(c, order[2]), |b| <= pi/2."""
    i, j, k = ("xyz".index(axis) for axis in order)
    sign = 1.0 if (j - i) % 3 == 1 else -1.0
    a = np.arctan2(-sign * rotations[:, j, k], rotations[:, k, k])
    b = np.arcsin(np.clip(sign * rotations[:, i, k], -1.0, 1.0))
    c = np.arctan2(-sign * rotations[:, i, j], rotations[:, i, i])
    return np.stack([a, b, c], 1)


@torch.no_grad()
def sides_exchanged(bodies: BodyModels, group: PosedGroup) -> NDArray[np.bool_]:
    """Whether a fit has left and right exchanged, (K,): exchanging them again brings its limbs to those of the label.

    Both ways of exchanging are tried: values as they are, and values with the signs of a mirror image.
    """
    label_joints = bodies.skel_joints(group.skel.gender)(group.target) - group.target_to_skin[:, None]
    limbs = list(_LIMBS)

    def error(joints: Array) -> Array:
        mean_mm: Array = 1000 * np.linalg.norm(joints[:, limbs] - label_joints[:, limbs], axis=-1).mean(1)
        return mean_mm

    as_is = error(group.joints)
    sign = torch.tensor(MIRROR_SIGN)
    sign[_ROOT_AND_SPINE] = 1.0  # root and trunk stay as they are
    exchanged = group.pose[:, list(OTHER_SIDE)]
    best = np.minimum(
        *(error(group.skel.joints(group.frames, q).pos.numpy()) for q in (exchanged, exchanged * sign))
    )
    is_exchanged: NDArray[np.bool_] = (as_is > _SWAP_LEAST_MM) & (best < _SWAP_GAIN * as_is)
    return is_exchanged
