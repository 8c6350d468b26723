"""Where the fit starts, in closed form: root and joint angles from SMPL's parameters.

The root is exact: SMPL's global_orient conjugated into SKEL's pelvis frame, and a translation that accounts for the
different pivots of the two models. The other angles come from SMPL's local rotations, conjugated into each SKEL joint
frame: Euler angles for joints of three DoFs, the twist about the axis for joints of one DoF.
Shapes: any leading batch dimensions `...`; angles in radians, lengths in metres.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skelfit.bodies.ball_joints import angles_to_rotation, ball_joints, rotation_to_angles, wrap_near
from skelfit.bodies.dofs import dof_axes, dof_index, dof_limits, dofs_of_joint, limits_middle
from skelfit.bodies.lazy_roma import roma

# SKEL joint <- SMPL joints of which it takes the local rotations, multiplied from the root outwards.
EULER_SOURCES: dict[int, tuple[int, ...]] = {
    1: (2,), 6: (1,),  # hips
    11: (3,), 12: (6, 9), 13: (12, 15),  # spine1; spine2 and spine3; neck and head
}  # fmt: skip
TWIST_SOURCES: dict[int, int] = {2: 5, 7: 4, 5: 11, 10: 10}  # knees, toes
ANKLES = {3: 8, 8: 7}  # talus <- SMPL ankle; the calcn takes the rest
# scapula <- (collar, shoulder, elbow, wrist)
ARMS: dict[int, tuple[int, int, int, int]] = {14: (14, 17, 19, 21), 19: (13, 16, 18, 20)}


def _twist(rot: Tensor, axis: Tensor) -> Tensor:
    """Angle of the rotation's twist about a unit axis (3,), in [-pi, pi]."""
    quat = roma.rotmat_to_unitquat(rot)  # XYZW
    angle = 2 * torch.atan2((quat[..., :3] * axis).sum(-1), quat[..., 3])
    return wrap_near(angle, torch.zeros_like(angle))


def _ball(rot: Tensor, joint: int, limits: np.ndarray) -> Tensor:
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
    return _ball(local, 0, dof_limits()).to(rot.dtype)


def root_translation(transl: Tensor, rot: Tensor, smpl_root: Tensor, skel_root: Tensor) -> Tensor:
    """SKEL's translation (..., 3) for the rigid motion of the skin that SMPL's transl (..., 3) gives.

    Each model rotates about its own root joint at rest. With d the distance between the two: transl + d - R d.
    """
    d = smpl_root - skel_root
    # The small numbers first: far from the origin, sums lose more digits.
    return transl + (d - (rot @ d[..., None])[..., 0])


def body_angles(frame: Tensor, local_rot: Tensor, limits: np.ndarray | None = None) -> Tensor:
    """The first 46 angles, (..., 46), of SMPL's local rotations (..., 24, 3, 3); the root's are zero.

    frame (..., 24, 3, 3) holds SKEL's joint frames C_j; limits (46, 2) rad, None: those of `dof_limits`.
    """
    limits = dof_limits() if limits is None else limits
    axes = torch.tensor(dof_axes(), dtype=local_rot.dtype, device=local_rot.device)
    q = local_rot.new_zeros(*local_rot.shape[:-3], len(axes))

    def in_frame(joint: int, rot: Tensor) -> Tensor:
        c = frame[..., joint, :, :]
        return c.mT @ rot @ c

    for joint, sources in EULER_SOURCES.items():
        rot = local_rot[..., sources[0], :, :]
        for source in sources[1:]:
            rot = rot @ local_rot[..., source, :, :]
        q[..., list(dofs_of_joint(joint))] = _ball(in_frame(joint, rot), joint, limits)
    for joint, source in TWIST_SOURCES.items():
        (dof,) = dofs_of_joint(joint)
        q[..., dof] = _twist(in_frame(joint, local_rot[..., source, :, :]), axes[dof])
    for talus, source in ANKLES.items():
        (ankle,), (subtalar,) = dofs_of_joint(talus), dofs_of_joint(talus + 1)
        rot = in_frame(talus, local_rot[..., source, :, :])
        q[..., ankle] = _twist(rot, axes[ankle])
        rest = roma.rotvec_to_rotmat(-q[..., ankle, None] * axes[ankle]) @ rot
        q[..., subtalar] = _twist(rest, axes[subtalar])
    for scapula, sources in ARMS.items():
        _arm_angles(q, frame, [local_rot[..., s, :, :] for s in sources], scapula, axes, limits)
    middle = torch.tensor(limits_middle(limits), dtype=q.dtype, device=q.device)
    return wrap_near(q, middle)


def _arm_angles(
    q: Tensor, frame: Tensor, rots: list[Tensor], scapula: int, axes: Tensor, limits: np.ndarray
) -> None:
    """Write the ten angles of one arm into q, from the rotations of collar, shoulder, elbow and wrist."""
    collar, shoulder, elbow, wrist = rots
    humerus, ulna, hand = scapula + 1, scapula + 2, scapula + 4

    # A scapula moves little: it takes what its limits allow, and the humerus takes the rest.
    dofs = list(dofs_of_joint(scapula))
    c = frame[..., scapula, :, :]
    low, high = torch.tensor(limits[dofs], dtype=q.dtype, device=q.device).unbind(-1)
    angles = torch.minimum(torch.maximum(_ball(c.mT @ collar @ c, scapula, limits), low), high)
    q[..., dofs] = angles
    ball = ball_joints((scapula,), q.device, q.dtype, limits)
    taken = angles_to_rotation(ball, angles[..., None, :])[..., 0, :, :]
    rest = c @ taken.mT @ c.mT @ collar @ shoulder
    c = frame[..., humerus, :, :]
    q[..., list(dofs_of_joint(humerus))] = _ball(c.mT @ rest @ c, humerus, limits)

    # Elbow and wrist together: flexion, then pro_sup about y, then the hand about x and z, all in the forearm's frame.
    (flexion,), (pro_sup,) = dofs_of_joint(ulna), dofs_of_joint(ulna + 1)
    c = frame[..., ulna, :, :]
    elbow = c.mT @ elbow @ c
    q[..., flexion] = _twist(elbow, axes[flexion])
    c = frame[..., hand, :, :]
    rest = roma.rotvec_to_rotmat(-q[..., flexion, None] * axes[flexion]) @ elbow @ (c.mT @ wrist @ c)
    x, z, y = roma.rotmat_to_euler("xzy", rest).unbind(-1)
    side = "r" if scapula == 14 else "l"
    sign = 1.0 if side == "r" else -1.0
    q[..., pro_sup] = sign * y
    q[..., dof_index(f"wrist_flexion_{side}")] = sign * x
    q[..., dof_index(f"wrist_deviation_{side}")] = -z
