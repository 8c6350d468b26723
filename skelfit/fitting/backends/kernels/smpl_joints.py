"""SMPL's joints for a group of people: at rest, posed by ball joints, and the twists of these.

The rotation of a joint relative to its parent is a unit quaternion. Joint j has the DoFs 3 j .. 3 j + 2: turns about
the axes of its parent, after its own rotation, so that a step of them is a rotation vector w with q' = exp(w) q.
"""

import warp as wp

from skelfit.bodies.smpl import NUM_SMPL_JOINTS
from skelfit.fitting.backends.smpl_tree import SmplTree

from .joint_frames import JointFrames
from .lanes import A2, A3, F2, F3, V, m, sync
from .rotations import Matrix, matrix_minus_identity, matrix_of, quaternion_at, times

wp.set_module_options({"enable_backward": False, "max_unroll": 1})

NUM_SMPL_DOFS = 3 * NUM_SMPL_JOINTS


def make_smpl_frames(slots: int, device: str) -> JointFrames:
    """Scratch for so many groups; what only SKEL's joints have is not there."""
    joints = JointFrames()
    for name, shape in (
        ("rest", (NUM_SMPL_JOINTS, 3)), ("offsets", (NUM_SMPL_JOINTS, 3)), ("trans", (3,)),
        ("rot", (NUM_SMPL_JOINTS, 9)), ("pos", (NUM_SMPL_JOINTS, 3)), ("omega", (NUM_SMPL_DOFS, 3)),
        ("v", (NUM_SMPL_DOFS, 3)),
    ):  # fmt: skip
        setattr(joints, name, wp.zeros((slots, *shape), dtype=V, device=device))
    return joints


@wp.func
def shape_smpl(s: int, t: int, betas: A2, tree: SmplTree, joints: JointFrames):
    """Fill rest and offsets of a slot from its betas (S, 10)."""
    for i in range(t, wp.static(3 * NUM_SMPL_JOINTS), wp.block_dim()):
        j = i // 3
        r = i % 3
        joints.rest[s, j, r] = _coordinate(s, j, r, betas, tree.joints, tree.speeds)
        joints.offsets[s, j, r] = _coordinate(s, j, r, betas, tree.offsets, tree.offset_speeds)
    sync()


@wp.func
def _coordinate(s: int, j: int, r: int, betas: A2, at: F2, speeds: F3) -> V:
    """A coordinate of a joint at rest, m."""
    moved = V()
    for k in range(betas.shape[1]):
        moved += betas[s, k] * speeds[j, r, k]
    return V(at[j, r]) + moved


@wp.func
def pose_smpl(s: int, t: int, rotations: A3, tree: SmplTree, joints: JointFrames):
    """Global rotations and positions, from quaternions (S, 24, 4); the whole person is moved by `joints.trans`."""
    for depth in range(tree.level.shape[0] - 1):
        for i in range(tree.level[depth] + t, tree.level[depth + 1], wp.block_dim()):
            _pose_joint(s, tree.order[i], rotations, tree, joints)
        sync()


@wp.func
def _pose_joint(s: int, j: int, rotations: A3, tree: SmplTree, joints: JointFrames):
    r = matrix_of(quaternion_at(rotations, s, j))
    up = tree.parents[j]
    if up < 0:
        for i in range(3):
            joints.pos[s, j, i] = joints.offsets[s, j, i] + joints.trans[s, i]
    else:
        above = global_rotation(s, up, joints)
        r = times(above, r)
        x = joints.offsets[s, j, 0]
        y = joints.offsets[s, j, 1]
        z = joints.offsets[s, j, 2]
        for i in range(3):
            joints.pos[s, j, i] = (
                joints.pos[s, up, i] + m(above[3 * i], x) + m(above[3 * i + 1], y) + m(above[3 * i + 2], z)
            )
    for i in range(9):
        joints.rot[s, j, i] = r[i]


@wp.func
def global_rotation(s: int, j: int, joints: JointFrames) -> Matrix:
    """The global rotation of joint j."""
    r = Matrix()
    for i in range(9):
        r[i] = joints.rot[s, j, i]
    return r


@wp.func
def smpl_twists(s: int, t: int, tree: SmplTree, joints: JointFrames):
    """The world twists of the DoFs, of posed joints."""
    for d in range(t, wp.static(NUM_SMPL_DOFS), wp.block_dim()):
        j = d // 3
        up = tree.parents[j]
        for r in range(3):
            axis = V(wp.where(r == d % 3, 1.0, 0.0))
            if up >= 0:
                axis = joints.rot[s, up, 3 * r + d % 3]
            joints.omega[s, d, r] = axis
        for r in range(3):
            r1 = (r + 1) % 3
            r2 = (r + 2) % 3
            joints.v[s, d, r] = m(joints.pos[s, j, r1], joints.omega[s, d, r2]) - m(
                joints.pos[s, j, r2], joints.omega[s, d, r1]
            )
    sync()


@wp.func
def write_smpl_coefficients(g: int, s: int, t: int, betas: A2, rotations: A3, coefficients: A2):
    """[1, betas, R - I of joints 1 .. 23] of slot s, into the coefficients of group g."""
    n = betas.shape[1]
    for i in range(t, n + 1, wp.block_dim()):
        if i == 0:
            coefficients[g, 0] = V(1.0)
        else:
            coefficients[g, i] = betas[s, i - 1]
    for j in range(t + 1, wp.static(NUM_SMPL_JOINTS), wp.block_dim()):
        r = matrix_minus_identity(quaternion_at(rotations, s, j))
        for i in range(9):
            coefficients[g, n + 1 + 9 * (j - 1) + i] = r[i]
