"""Where the fit starts, in closed form: root and joint angles from SMPL's parameters.

The root is exact: SMPL's global_orient conjugated into SKEL's pelvis frame, and a translation that accounts for the
different pivots of the two models. `kernels/closed_form_start.py` takes the other angles from SMPL's local rotations,
conjugated into each SKEL joint frame: Euler angles for joints of three DoFs, the twist about the axis for joints of one
DoF. The tables here say which rotations a joint takes.
Shapes: any leading batch dimensions `...`; angles in radians, lengths in metres.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from skelfit.bodies.ball_joints import ball_joints, rotation_to_angles
from skelfit.bodies.dofs import dof_limits

# SKEL joint <- SMPL joints of which it takes the local rotations, multiplied from the root outwards.
EULER_SOURCES: dict[int, tuple[int, ...]] = {
    1: (2,), 6: (1,),  # hips
    11: (3,), 12: (6, 9), 13: (12, 15),  # spine1; spine2 and spine3; neck and head
}  # fmt: skip
TWIST_SOURCES: dict[int, int] = {2: 5, 7: 4, 5: 11, 10: 10}  # knees, toes
ANKLES = {3: 8, 8: 7}  # talus <- SMPL ankle; the calcn takes the rest
# scapula <- (collar, shoulder, elbow, wrist)
ARMS: dict[int, tuple[int, int, int, int]] = {14: (14, 17, 19, 21), 19: (13, 16, 18, 20)}


def ball_angles(rot: Tensor, joint: int, limits: np.ndarray) -> Tensor:
    """The joint's three angles (..., 3) of a rotation (..., 3, 3); limits (46, 2) rad choose the Euler branch."""
    ball = ball_joints((joint,), rot.device, rot.dtype, limits)
    return rotation_to_angles(ball, rot[..., None, :, :], rot.new_zeros(*rot.shape[:-2], 1, 3))[..., 0, :]


def root_angles(frame: Tensor, rot: Tensor, turned: Tensor | None = None) -> Tensor:
    """Pelvis angles (..., 3) of the global rotation rot (..., 3, 3), exactly; frame (..., 3, 3) is C_0.

    turned (..., 3, 3): a rotation of the pelvis in its own frame, applied first; None: none.
    """
    # Expanded: torch would make one product of all people, and round by the number of people.
    frame = frame.expand(rot.shape)
    local = (frame.mT @ rot @ frame).double()
    local = local if turned is None else local @ turned.double()
    return ball_angles(local, 0, dof_limits()).to(rot.dtype)


def root_translation(transl: Tensor, rot: Tensor, smpl_root: Tensor, skel_root: Tensor) -> Tensor:
    """SKEL's translation (..., 3) for the rigid motion of the skin that SMPL's transl (..., 3) gives.

    Each model rotates about its own root joint at rest. With d the distance between the two: transl + d - R d.
    """
    d = smpl_root - skel_root
    # The small numbers first: far from the origin, sums lose more digits.
    return transl + (d - (rot @ d[..., None])[..., 0])
