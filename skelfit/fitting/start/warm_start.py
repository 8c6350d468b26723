"""Where the fit starts, in closed form: root, joint angles and betas from SMPL's parameters.

The root is exact: SMPL's global orientation conjugated into SKEL's pelvis frame, and a translation that accounts for
the two models' turning about different points. The other angles come from SMPL's local rotations conjugated into
each SKEL joint frame: Euler angles for three-DoF joints, the twist about the axis for one-DoF joints.
Shapes: any leading batch dimensions `...`; angles in radians, lengths in metres.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from skelfit.bodies.ball_joints import angles_to_rotation, ball_joints, rotation_to_angles, wrap_near
from skelfit.bodies.dofs import dof_axes, dof_index, dof_limits, dofs_of_joint, limits_middle
from skelfit.bodies.lazy_roma import roma
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.config.fit_settings import InitialBetas

if TYPE_CHECKING:
    pass

# SKEL joint <- SMPL joints whose local rotations it takes over, multiplied from the root outwards.
EULER_SOURCES: dict[int, tuple[int, ...]] = {
    1: (2,), 6: (1,),  # hips
    11: (3,), 12: (6, 9), 13: (12, 15),  # spine1; spine2 and spine3; neck and head
}  # fmt: skip
TWIST_SOURCES: dict[int, int] = {2: 5, 7: 4, 5: 11, 10: 10}  # knees, toes
ANKLES = {3: 8, 8: 7}  # talus <- SMPL ankle; the calcn takes what is left
# scapula <- (collar, shoulder, elbow, wrist)
ARMS: dict[int, tuple[int, int, int, int]] = {14: (14, 17, 19, 21), 19: (13, 16, 18, 20)}


def _twist(rot: Tensor, axis: Tensor) -> Tensor:
    """Angle of the rotation's twist about a unit axis (3,), in [-pi, pi]."""
    quat = roma.rotmat_to_unitquat(rot)  # XYZW
    angle = 2 * torch.atan2((quat[..., :3] * axis).sum(-1), quat[..., 3])
    return wrap_near(angle, torch.zeros_like(angle))


def _ball(rot: Tensor, joint: int, limits: np.ndarray) -> Tensor:
    """The joint's three angles (..., 3) that give the rotation (..., 3, 3); limits (46, 2) rad choose the branch."""
    ball = ball_joints((joint,), rot.device, rot.dtype, limits)
    return rotation_to_angles(ball, rot[..., None, :, :], rot.new_zeros(*rot.shape[:-2], 1, 3))[..., 0, :]


def root_angles(frame: Tensor, rot: Tensor, turned: Tensor | None = None) -> Tensor:
    """Pelvis angles (..., 3) that give the global rotation (..., 3, 3), exactly; frame (..., 3, 3) is C_0.

    turned (..., 3, 3): how far the pelvis itself is turned before, in its own frame; None: not.
    """
    frame = frame.expand(
        rot.shape
    )  # or torch makes one product of all people, whose shape tells how it adds up
    local = (frame.mT @ rot @ frame).double()
    local = local if turned is None else local @ turned.double()
    return _ball(local, 0, dof_limits()).to(rot.dtype)


def root_translation(transl: Tensor, rot: Tensor, smpl_root: Tensor, skel_root: Tensor) -> Tensor:
    """SKEL's translation (..., 3) for the same rigid motion of the skin as SMPL's transl (..., 3).

    Both models turn about their own root joint at rest; d is how far apart the two stand: trans + d - R d.
    """
    d = smpl_root - skel_root
    # The small numbers first: far from the origin every sum is rounded by more.
    return transl + (d - (rot @ d[..., None])[..., 0])


def body_angles(frame: Tensor, local_rot: Tensor, limits: np.ndarray | None = None) -> Tensor:
    """Start of the 46 angles, (..., 46), from SMPL's local rotations (..., 24, 3, 3); the root's are zero.

    frame (..., 24, 3, 3) holds SKEL's joint frames C_j; limits (46, 2) rad, None: the table's.
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
        left = roma.rotvec_to_rotmat(-q[..., ankle, None] * axes[ankle]) @ rot
        q[..., subtalar] = _twist(left, axes[subtalar])
    for scapula, sources in ARMS.items():
        _arm_angles(q, frame, [local_rot[..., s, :, :] for s in sources], scapula, axes, limits)
    middle = torch.tensor(limits_middle(limits), dtype=q.dtype, device=q.device)
    return wrap_near(q, middle)


def _arm_angles(
    q: Tensor, frame: Tensor, rots: list[Tensor], scapula: int, axes: Tensor, limits: np.ndarray
) -> None:
    """Fill in the ten angles of one arm, from the rotations of collar, shoulder, elbow and wrist."""
    collar, shoulder, elbow, wrist = rots
    humerus, ulna, hand = scapula + 1, scapula + 2, scapula + 4

    # A shoulder blade moves little: it takes what its limits allow, the humerus takes the rest.
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
    bend = c.mT @ elbow @ c
    q[..., flexion] = _twist(bend, axes[flexion])
    c = frame[..., hand, :, :]
    rest = roma.rotvec_to_rotmat(-q[..., flexion, None] * axes[flexion]) @ bend @ (c.mT @ wrist @ c)
    x, z, y = roma.rotmat_to_euler("xzy", rest).unbind(-1)
    side = "r" if scapula == 14 else "l"
    sign = 1.0 if side == "r" else -1.0
    q[..., pro_sup] = sign * y
    q[..., dof_index(f"wrist_flexion_{side}")] = sign * x
    q[..., dof_index(f"wrist_deviation_{side}")] = -z


def beta_map(smpl: SmplModel, skel: SkelModel, how: InitialBetas = "transfer") -> tuple[Tensor, Tensor]:
    """Affine map from SMPL betas to SKEL betas: betas_skel = offset + matrix @ betas_smpl.

    transfer: linear least squares between the two shape spaces at rest; the identity where they are the same space.
    copy: the same numbers, whatever the spaces. Returns offset (10,) and matrix (10, 10).
    """
    if how == "copy":
        copied = torch.eye(skel.num_betas, smpl.num_betas).to(skel.v_template)
        return torch.zeros_like(copied[:, 0]), copied
    s = torch.tensor(skel.asset.shapedirs, dtype=torch.float64).flatten(0, 1)
    n = torch.tensor(smpl.asset.shapedirs[:, :, : smpl.num_betas], dtype=torch.float64).flatten(0, 1)
    gap = torch.tensor(smpl.asset.v_template, dtype=torch.float64) - torch.tensor(
        skel.asset.v_template, dtype=torch.float64
    )
    solved = torch.linalg.lstsq(s, torch.cat((gap.reshape(-1, 1), n), 1)).solution
    solved = solved.to(skel.v_template.device, skel.v_template.dtype)
    return solved[:, 0], solved[:, 1:]
