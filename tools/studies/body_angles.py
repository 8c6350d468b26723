"""The closed-form start of the kernels in torch: what studies and tests compare with."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skelfit.bodies.ball_joints import angles_to_rotation, ball_joints, wrap_near
from skelfit.bodies.dofs import dof_axes, dof_index, dof_limits, dofs_of_joint, limits_middle
from skelfit.bodies.lazy_roma import roma
from skelfit.fitting.start.warm_start import ANKLES, ARMS, EULER_SOURCES, TWIST_SOURCES, ball_angles


def _twist(rot: Tensor, axis: Tensor) -> Tensor:
    """Angle of the rotation's twist about a unit axis (3,), in [-pi, pi]."""
    quat = roma.rotmat_to_unitquat(rot)  # XYZW
    angle = 2 * torch.atan2((quat[..., :3] * axis).sum(-1), quat[..., 3])
    return wrap_near(angle, torch.zeros_like(angle))


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
        q[..., list(dofs_of_joint(joint))] = ball_angles(in_frame(joint, rot), joint, limits)
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
    angles = torch.minimum(torch.maximum(ball_angles(c.mT @ collar @ c, scapula, limits), low), high)
    q[..., dofs] = angles
    ball = ball_joints((scapula,), q.device, q.dtype, limits)
    taken = angles_to_rotation(ball, angles[..., None, :])[..., 0, :, :]
    rest = c @ taken.mT @ c.mT @ collar @ shoulder
    c = frame[..., humerus, :, :]
    q[..., list(dofs_of_joint(humerus))] = ball_angles(c.mT @ rest @ c, humerus, limits)

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
