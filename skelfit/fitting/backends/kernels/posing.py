"""Pose the people of a group for a vertex pass: skinning transforms and coefficients from angles and betas."""

from typing import Any

import warp as wp

from skelfit.bodies.dofs import NUM_DOFS
from skelfit.fitting.backends.body_tables import NUM_BETAS, BodyTables
from skelfit.fitting.backends.skin_tables import SkinTables

from .joint_chain import pose
from .joint_frames import JointFrames, make_joint_frames
from .lanes import A2, A3, F2, V, gather, m, sync
from .rest_joints import shape_joints
from .skinning import SkinInputs

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.struct
class PoseInputs:
    """The variables of B people, and scratch for the joints of a group in each of S slots."""

    q: F2  # (B, 46) rad
    betas: F2  # (B, K)
    trans: F2  # (B, 3) m
    body: BodyTables
    joints: JointFrames
    angles: A2  # (S, 46)
    shape: A2  # (S, K)


def make_pose_inputs(slots: int, device: str) -> Any:
    """Scratch for so many groups; the caller sets q, betas, trans and body."""
    posing = PoseInputs()
    posing.joints = make_joint_frames(slots, device)
    posing.angles = wp.empty((slots, NUM_DOFS), dtype=V, device=device)
    posing.shape = wp.empty((slots, NUM_BETAS), dtype=V, device=device)
    return posing


@wp.func
def pose_people(g: int, s: int, t: int, skin: SkinTables, posing: PoseInputs, people: SkinInputs):
    """Coefficients and transforms of the people of group g; their joints are left in slot s of `posing.joints`."""
    for i in range(t, posing.angles.shape[1], wp.block_dim()):
        posing.angles[s, i] = gather(posing.q, people.rows, g, i)
    for i in range(t, posing.shape.shape[1], wp.block_dim()):
        posing.shape[s, i] = gather(posing.betas, people.rows, g, i)
    for i in range(t, 3, wp.block_dim()):
        posing.joints.trans[s, i] = gather(posing.trans, people.rows, g, i)
    sync()
    shape_joints(s, t, posing.shape, posing.body, posing.joints)
    pose(s, t, posing.angles, posing.body, posing.joints)
    write_skinned(g, s, t, posing.shape, skin, posing.body, posing.joints, people)
    sync()


@wp.func
def write_transforms(g: int, s: int, t: int, joints: JointFrames, transforms: A3):
    """[R | p - R J] of the posed joints of slot s, into the transforms of group g."""
    for j in range(t, 24, wp.block_dim()):
        for r in range(3):
            x = joints.rot[s, j, 3 * r]
            y = joints.rot[s, j, 3 * r + 1]
            z = joints.rot[s, j, 3 * r + 2]
            transforms[g, j, 4 * r] = x
            transforms[g, j, 4 * r + 1] = y
            transforms[g, j, 4 * r + 2] = z
            turned = m(x, joints.rest[s, j, 0]) + m(y, joints.rest[s, j, 1]) + m(z, joints.rest[s, j, 2])
            transforms[g, j, 4 * r + 3] = joints.pos[s, j, r] - turned


@wp.func
def write_skinned(
    g: int, s: int, t: int, betas: A2, skin: SkinTables, body: BodyTables, joints: JointFrames,
    people: SkinInputs,
):  # fmt: skip
    """Coefficients and transforms of group g, whose betas (S, K) and posed joints are in slot s."""
    write_transforms(g, s, t, joints, people.transforms)
    n = betas.shape[1]
    for i in range(t, 1 + n, wp.block_dim()):
        if i == 0:
            people.coefficients[g, 0] = V(1.0)
        else:
            people.coefficients[g, i] = betas[s, i - 1]
    for i in range(t, 9 * skin.drivers.shape[0], wp.block_dim()):
        j = skin.drivers[i // 9]
        people.coefficients[g, 1 + n + i] = _feature(joints.rot, s, j, body.parents[j], (i % 9) // 3, i % 3)


@wp.func
def _feature(rot: A3, s: int, j: int, up: int, r: int, c: int) -> V:
    """Entry (r, c) of R_up^T R_j - I, the parent's rotation I if there is none."""
    x = rot[s, j, 3 * r + c]
    if up >= 0:
        x = m(rot[s, up, r], rot[s, j, c]) + m(rot[s, up, 3 + r], rot[s, j, 3 + c])
        x += m(rot[s, up, 6 + r], rot[s, j, 6 + c])
    if r == c:
        x -= V(1.0)
    return x
