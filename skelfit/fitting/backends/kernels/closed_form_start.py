"""The start of a fit from a label: SMPL's joints posed, and SKEL's betas and angles in closed form.

SMPL is posed without the rotation of its root, in the canonical frame of the fit. The rotation vector of a SMPL joint
is a unit quaternion here; the joint's matrix R_j turns its subtree, and the skin is moved by [R | p - R J].
"""

# Warp reads annotations when it compiles, so that they cannot be postponed in the files of kernels.
import warp as wp

from skelfit.bodies.dofs import NUM_DOFS, NUM_JOINTS
from skelfit.fitting.backends.body_tables import BodyTables
from skelfit.fitting.backends.retraction_tables import BallTables
from skelfit.fitting.start.warm_start_tables import WarmStartTables

from .angles import write_angles
from .joint_frames import JointFrames
from .lanes import A2, A3, F2, F3, I2, V, gather, m, scatter, sync
from .rest_joints import shape_joints
from .rotations import Matrix, from_rotation_vector, matrix_minus_identity, matrix_of, quaternion_at, times

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.struct
class StartScratch:
    """The labels and the start of a group, for each of S slots."""

    smpl_betas: A2  # (S, 10) SMPL's betas
    betas: A2  # (S, 10) SKEL's
    rotations: A3  # (S, 24, 4) quaternions of SMPL's joints, relative to their parents
    pos: A3  # (S, 24, 3) m, of SMPL's joints
    q: A2  # (S, 46) rad


def make_start_scratch(slots: int, device: str) -> StartScratch:
    """Scratch for so many groups at a time."""
    scratch = StartScratch()
    for name, shape in (
        ("smpl_betas", (10,)),
        ("betas", (10,)),
        ("rotations", (24, 4)),
        ("pos", (24, 3)),
        ("q", (46,)),
    ):
        setattr(scratch, name, wp.zeros((slots, *shape), dtype=V, device=device))
    return scratch


@wp.kernel
def start(
    pose: F2, smpl_betas: F2, rows: I2, tables: WarmStartTables, body: BodyTables, balls: BallTables,
    joints: JointFrames, scratch: StartScratch, transforms: A3, coefficients: A2, betas: F2, q: F2,
):  # fmt: skip
    """The start of people of rows (G, L), from labels: pose (B, 72) rad, rotation vectors, and smpl_betas (B, 10).

    Writes of SMPL the transforms (G, 24, 12) and the coefficients (G, 218) [1, betas,
    R - I of joints 1 .. 23]; of SKEL betas (B, 10) and angles q (B, 46), 0 for the root. balls: of all DoFs.
    """
    g, t = wp.tid()
    s = g % scratch.q.shape[0]
    for i in range(t, scratch.smpl_betas.shape[1], wp.block_dim()):
        scratch.smpl_betas[s, i] = gather(smpl_betas, rows, g, i)
    for j in range(t, wp.static(NUM_JOINTS), wp.block_dim()):
        x = gather(pose, rows, g, 3 * j)
        y = gather(pose, rows, g, 3 * j + 1)
        z = gather(pose, rows, g, 3 * j + 2)
        rotation = from_rotation_vector(x, y, z)
        for i in range(4):
            scratch.rotations[s, j, i] = rotation[i]
    sync()
    _write_coefficients(s, t, g, scratch, coefficients)
    for i in range(t, scratch.betas.shape[1], wp.block_dim()):
        b = V(tables.beta_offset[i])
        for k in range(scratch.smpl_betas.shape[1]):
            b += scratch.smpl_betas[s, k] * tables.beta_matrix[i, k]
        scratch.betas[s, i] = b
        scatter(betas, rows, g, i, b)
    _pose_smpl(s, t, g, tables, scratch, transforms)
    shape_joints(s, t, scratch.betas, body, joints)
    write_angles(s, t, scratch.rotations, tables.angles, body, balls, joints, scratch.q)
    sync()
    for i in range(t, wp.static(NUM_DOFS), wp.block_dim()):
        scatter(q, rows, g, i, scratch.q[s, i])


@wp.func
def _write_coefficients(s: int, t: int, g: int, scratch: StartScratch, coefficients: A2):
    """[1, betas, R - I of joints 1 .. 23]."""
    n = scratch.smpl_betas.shape[1]
    for i in range(t, n + 1, wp.block_dim()):
        if i == 0:
            coefficients[g, 0] = V(1.0)
        else:
            coefficients[g, i] = scratch.smpl_betas[s, i - 1]
    for j in range(t + 1, wp.static(NUM_JOINTS), wp.block_dim()):
        r = matrix_minus_identity(quaternion_at(scratch.rotations, s, j))
        for i in range(9):
            coefficients[g, n + 1 + 9 * (j - 1) + i] = r[i]


@wp.func
def _pose_smpl(s: int, t: int, g: int, tables: WarmStartTables, scratch: StartScratch, transforms: A3):
    """[R | p - R J] of SMPL's joints, one depth after the other; the root's R is the identity."""
    for depth in range(tables.level.shape[0] - 1):
        for i in range(tables.level[depth] + t, tables.level[depth + 1], wp.block_dim()):
            _pose_joint(s, g, tables.order[i], tables, scratch, transforms)
        sync()


@wp.func
def _pose_joint(s: int, g: int, j: int, tables: WarmStartTables, scratch: StartScratch, transforms: A3):
    up = tables.parents[j]
    r = Matrix()
    if up < 0:
        for i in range(3):
            r[4 * i] = V(1.0)
            scratch.pos[s, j, i] = _smpl_coordinate(s, j, i, tables.offsets, tables.offset_speeds, scratch)
    else:
        above = Matrix()
        for i in range(9):
            above[i] = transforms[g, up, 4 * (i // 3) + i % 3]
        r = times(above, matrix_of(quaternion_at(scratch.rotations, s, j)))
        x = _smpl_coordinate(s, j, 0, tables.offsets, tables.offset_speeds, scratch)
        y = _smpl_coordinate(s, j, 1, tables.offsets, tables.offset_speeds, scratch)
        z = _smpl_coordinate(s, j, 2, tables.offsets, tables.offset_speeds, scratch)
        for i in range(3):
            scratch.pos[s, j, i] = (
                scratch.pos[s, up, i] + m(above[3 * i], x) + m(above[3 * i + 1], y) + m(above[3 * i + 2], z)
            )
    x = _smpl_coordinate(s, j, 0, tables.joints, tables.speeds, scratch)
    y = _smpl_coordinate(s, j, 1, tables.joints, tables.speeds, scratch)
    z = _smpl_coordinate(s, j, 2, tables.joints, tables.speeds, scratch)
    for i in range(3):
        moved = m(r[3 * i], x) + m(r[3 * i + 1], y) + m(r[3 * i + 2], z)
        for k in range(3):
            transforms[g, j, 4 * i + k] = r[3 * i + k]
        transforms[g, j, 4 * i + 3] = scratch.pos[s, j, i] - moved


@wp.func
def _smpl_coordinate(s: int, j: int, i: int, at: F2, speeds: F3, scratch: StartScratch) -> V:
    """A coordinate of a SMPL joint at rest, m."""
    moved = V()
    for k in range(scratch.smpl_betas.shape[1]):
        moved += scratch.smpl_betas[s, k] * speeds[j, i, k]
    return V(at[j, i]) + moved
