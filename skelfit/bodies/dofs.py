"""The SKEL joint and degree-of-freedom tables: names, tree, rotation axes and joint limits.

Everything here is a fact of SKEL v1.1.1 (Keller et al., TOG 2023) or of HSMR (Xia et al., CVPR 2025).
Angles are in radians. An axis is given in its joint's own frame; the first listed axis of a joint is applied first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import pi
from types import MappingProxyType

import numpy as np
from scipy.spatial.transform import Rotation

SKEL_JOINT_NAMES: tuple[str, ...] = (
    "pelvis", "femur_r", "tibia_r", "talus_r", "calcn_r", "toes_r", "femur_l", "tibia_l", "talus_l", "calcn_l",
    "toes_l", "lumbar_body", "thorax", "head", "scapula_r", "humerus_r", "ulna_r", "radius_r", "hand_r",
    "scapula_l", "humerus_l", "ulna_l", "radius_l", "hand_l",
)  # fmt: skip
SKEL_PARENTS: tuple[int, ...] = (
    -1, 0, 1, 2, 3, 4, 0, 6, 7, 8, 9, 0, 11, 12, 12, 14, 15, 16, 17, 12, 19, 20, 21, 22,
)  # fmt: skip
NUM_JOINTS = len(SKEL_JOINT_NAMES)

# Entry j is the SMPL joint whose pose correctives SKEL joint j drives. 0 drives none; of two entries the later counts.
SMPL_JOINT_OF_SKEL: tuple[int, ...] = (
    0, 2, 5, 8, 8, 11, 1, 4, 7, 7, 10, 3, 6, 15, 14, 17, 19, 0, 21, 13, 16, 18, 0, 20,
)  # fmt: skip

# Change it with any limit below: it is part of a run's identity.
LIMITS_VERSION = "hsmr-2025.1"
LIMITS_SOURCE = "Xia et al., HSMR, CVPR 2025; pro_sup as on the right on both sides"


def _tilted_z(a: float, b: float) -> tuple[float, float, float]:
    """The z axis turned by the intrinsic XYZ Euler rotation (a, b, c); c does not matter."""
    x, y, z = Rotation.from_euler("XYZ", (a, b, 0.0)).apply((0.0, 0.0, 1.0))
    return float(x), float(y), float(z)


_X, _Y, _Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
_NX, _NY, _NZ = (-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0)
_ANKLE = _tilted_z(0.175895, -0.105208)
_SUBTALAR_R = _tilted_z(-1.76818999, 0.906223)
_SUBTALAR_L = _tilted_z(1.76818999, -0.906223)
_MTP_R = _tilted_z(-3.141589999, 0.619901)
_MTP_L = _tilted_z(-3.141589999, -0.619901)

AngleRange = tuple[float, float]
_QUARTER: AngleRange = (-pi / 4, pi / 4)
_HALF: AngleRange = (-pi / 2, pi / 2)
_FREE: AngleRange = (-np.inf, np.inf)
_FLEXION: AngleRange = (0.0, 3 * pi / 4)


@dataclass(frozen=True)
class Dof:
    """One degree of freedom: its name, joint index, axis in the joint frame, and [low, high] limit in rad."""

    name: str
    joint: int
    axis: tuple[float, float, float]
    limits: AngleRange


def _arm(side: str, joint: int) -> list[Dof]:
    """Ten DoFs of an arm; `joint` is the index of its scapula."""
    right = side == "r"
    s = 1.0 if right else -1.0
    upward = (-0.190, 0.319) if right else (-0.210, 0.219)
    shoulder_x = (-pi / 2, pi / 2 + 1.5) if right else (-pi / 2 - 1.5, pi / 2)
    rows: list[tuple[str, int, tuple[float, float, float], AngleRange]] = [
        ("scapula_abduction", 0, _Y, (-0.628, 0.628)),
        ("scapula_elevation", 0, _NZ if right else _Z, (-0.4, -0.1)),
        ("scapula_upward_rot", 0, _NX if right else _X, upward),
        ("shoulder_x", 1, _X, shoulder_x),
        ("shoulder_y", 1, _Y, _HALF),
        ("shoulder_z", 1, _Z, _HALF),
        ("elbow_flexion", 2, (s * 0.0494, s * 0.0366, 0.99810825), _FLEXION),
        # The source gives +-3pi/8 on the right and +-pi/2 on the left; anatomy has no such asymmetry, and the
        # narrower range covers human pronation and supination (about 80 degrees each way), so both sides get it.
        ("pro_sup", 3, (s * -0.01716099, s * 0.99266564, -0.11966796), (-3 * pi / 8, 3 * pi / 8)),
        ("wrist_flexion", 4, _X if right else _NX, _HALF),
        ("wrist_deviation", 4, _NZ, _QUARTER),
    ]
    names = {
        "shoulder_x": f"shoulder_{side}_x",
        "shoulder_y": f"shoulder_{side}_y",
        "shoulder_z": f"shoulder_{side}_z",
    }
    return [Dof(names.get(name, f"{name}_{side}"), joint + k, axis, limits) for name, k, axis, limits in rows]


def _leg(side: str, joint: int) -> list[Dof]:
    """Seven DoFs of a leg; `joint` is the index of its femur."""
    right = side == "r"
    rows: list[tuple[str, int, tuple[float, float, float], AngleRange]] = [
        ("hip_flexion", 0, _Z, (-pi / 4, 3 * pi / 4)),
        ("hip_adduction", 0, _X if right else _NX, (-pi / 4, pi / 6)),
        ("hip_rotation", 0, _Y if right else _NY, _QUARTER),
        ("knee_angle", 1, _NZ, _FLEXION),
        ("ankle_angle", 2, _ANKLE, _QUARTER),
        ("subtalar_angle", 3, _SUBTALAR_R if right else _SUBTALAR_L, _QUARTER),
        ("mtp_angle", 4, _MTP_R if right else _MTP_L, _QUARTER),
    ]
    return [Dof(f"{name}_{side}", joint + k, axis, limits) for name, k, axis, limits in rows]


def _spine(name: str, joint: int, bending: AngleRange = _QUARTER) -> list[Dof]:
    axes = (("bending", _X, bending), ("extension", _Z, _QUARTER), ("twist", _Y, _QUARTER))
    return [Dof(f"{name}_{motion}", joint, axis, limits) for motion, axis, limits in axes]


DOFS: tuple[Dof, ...] = (
    Dof("pelvis_tilt", 0, _Z, _FREE),
    Dof("pelvis_list", 0, _X, _FREE),
    Dof("pelvis_rotation", 0, _Y, _FREE),
    *_leg("r", 1),
    *_leg("l", 6),
    *_spine("lumbar", 11, (-pi / 6, pi / 6)),
    *_spine("thorax", 12),
    *_spine("head", 13),
    *_arm("r", 14),
    *_arm("l", 19),
)
NUM_DOFS = len(DOFS)
DOF_NAMES: tuple[str, ...] = tuple(d.name for d in DOFS)
DOF_JOINT: tuple[int, ...] = tuple(d.joint for d in DOFS)
ROOT_DOFS: tuple[int, ...] = (0, 1, 2)

# The joints of each fitting stage. Labels freeze the pelvis; only the fit of a mesh moves it too.
STAGE_JOINTS: dict[str, tuple[int, ...]] = {
    "lower_body": tuple(range(1, 11)),
    "upper_body": tuple(range(11, 24)),
    "all": tuple(range(1, 24)),
    "with_root": tuple(range(24)),
}


def dof_axes() -> np.ndarray:
    """Axes of the 46 DoFs in their joint frames, (46, 3) float64."""
    return np.array([d.axis for d in DOFS])


def dof_limits(changed: Mapping[str, AngleRange] = MappingProxyType({})) -> np.ndarray:
    """[low, high] of the 46 DoFs, (46, 2) float64 rad; the three root DoFs are unbounded. Source: LIMITS_SOURCE.

    changed: DoF name -> [low, high] in place of the table's.
    """
    return np.array([changed.get(d.name, d.limits) for d in DOFS])


def limits_middle(limits: np.ndarray | None = None) -> np.ndarray:
    """Middle of limits (46, 2), (46,) float64 rad; 0 for the unbounded root. None: the table's limits."""
    limits = dof_limits() if limits is None else limits
    return np.where(np.isfinite(limits), limits, 0.0).mean(1)


def dof_index(name: str) -> int:
    """Index of a DoF by its name."""
    return DOF_NAMES.index(name)


def dofs_of_joint(joint: int) -> tuple[int, ...]:
    """Indices of a joint's DoFs, in the order in which they are applied."""
    return tuple(i for i, j in enumerate(DOF_JOINT) if j == joint)


def axis_dependence(dofs: Sequence[int]) -> np.ndarray:
    """Which of n DoFs turn the axes of which: (n, n) bool, true at i, j where DoF i is applied outside of j or is j."""
    index = np.array(dofs)
    owner = np.array(DOF_JOINT)[index]
    above = np.array([[a != b and b in descendants(a) for b in owner] for a in owner])
    dependence: np.ndarray = above | ((owner[:, None] == owner) & (index[:, None] >= index))
    return dependence


def descendants(joint: int) -> tuple[int, ...]:
    """A joint and all joints below it in the tree, in joint order."""
    subtree = [joint]
    for j in range(joint + 1, NUM_JOINTS):
        if SKEL_PARENTS[j] in subtree:
            subtree.append(j)
    return tuple(subtree)
