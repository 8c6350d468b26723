"""Mirror images of people: left and right are swapped, and rotations change their direction.

SKEL's two sides mirror each other but for the axes of the ankles, so mirrored toes are off by some millimetres. All
else is exact on bodies with symmetric shapes.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skelfit.bodies.continuous_pose import angles_to_pose, pose_to_angles
from skelfit.bodies.dofs import DOF_NAMES, DOFS

# Of the 44 keypoints: OpenPose's 25, then 19 extra; those in the middle map to themselves.
_PAIRS = (
    *((2, 5), (3, 6), (4, 7), (9, 12), (10, 13), (11, 14), (15, 16), (17, 18), (19, 22), (20, 23), (21, 24)),
    *((25, 30), (26, 29), (27, 28), (31, 36), (32, 35), (33, 34)),
)
MIRRORED = np.arange(44)  # the keypoint that each one becomes
for _one, _other in _PAIRS:
    MIRRORED[[_one, _other]] = _other, _one
Floats = NDArray[np.float32]


@cache
def _angles() -> tuple[NDArray[np.int64], Floats]:
    """For each angle of a mirrored person: the index of its source, (46,), and its sign, (46,)."""
    index = [DOF_NAMES.index(_other_side(name)) for name in DOF_NAMES]
    # Joint frames have z to the side. A rotation is an axial vector: mirrored across z it keeps only its z.
    mirrored = np.array([DOFS[i].axis for i in index]) * (-1, -1, 1)
    sign = np.sign((mirrored * [dof.axis for dof in DOFS]).sum(1))
    return np.array(index), sign.astype(np.float32)


def _other_side(name: str) -> str:
    """'hip_flexion_l' of 'hip_flexion_r', 'shoulder_r_x' of 'shoulder_l_x', others as they are."""
    sides = {"_r": "_l", "_l": "_r"}
    if name.startswith("shoulder_"):
        return name[:8] + sides[name[8:10]] + name[10:]
    return name[:-2] + sides.get(name[-2:], name[-2:])


def mirrored_angles(poses: Floats) -> Floats:
    """The angles (..., 46) rad of mirrored people."""
    index, sign = _angles()
    return poses[..., index] * sign


def mirrored_pose(pose: Tensor) -> Tensor:
    """Continuous poses (..., 24, 6) of mirrored people, with vectors of length 1."""
    index, sign = map(torch.from_numpy, _angles())
    return angles_to_pose(pose_to_angles(pose)[..., index] * sign.to(pose))


def mirrored_keypoints(keypoints: Floats) -> Floats:
    """The keypoints (..., 44, n) of people mirrored at x = 0; the first column is x."""
    swapped = keypoints[..., MIRRORED, :]
    swapped[..., 0] *= -1
    return swapped
