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
from .lanes import A2, A3, F2, I2, V, gather, scatter, sync
from .posing import write_transforms
from .rest_joints import shape_joints
from .rotations import Quaternion, from_rotation_vector
from .smpl_joints import pose_smpl, shape_smpl, write_smpl_coefficients

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.struct
class StartScratch:
    """The labels and the start of a group, for each of S slots."""

    smpl_betas: A2  # (S, 10) SMPL's betas
    betas: A2  # (S, 10) SKEL's
    rotations: (
        A3  # (S, 24, 4) quaternions of SMPL's joints, relative to their parents; the root does not turn
    )
    q: A2  # (S, 46) rad


def make_start_scratch(slots: int, device: str) -> StartScratch:
    """Scratch for so many groups at a time."""
    scratch = StartScratch()
    for name, shape in (
        ("smpl_betas", (10,)),
        ("betas", (10,)),
        ("rotations", (24, 4)),
        ("q", (46,)),
    ):
        setattr(scratch, name, wp.zeros((slots, *shape), dtype=V, device=device))
    return scratch


@wp.kernel
def start(
    pose: F2, smpl_betas: F2, rows: I2, tables: WarmStartTables, body: BodyTables, balls: BallTables,
    joints: JointFrames, smpl: JointFrames, scratch: StartScratch, transforms: A3, coefficients: A2, betas: F2, q: F2,
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
        rotation = Quaternion()
        rotation[3] = V(1.0)
        if j > 0:
            rotation = from_rotation_vector(
                gather(pose, rows, g, 3 * j),
                gather(pose, rows, g, 3 * j + 1),
                gather(pose, rows, g, 3 * j + 2),
            )
        for i in range(4):
            scratch.rotations[s, j, i] = rotation[i]
    sync()
    write_smpl_coefficients(g, s, t, scratch.smpl_betas, scratch.rotations, coefficients)
    for i in range(t, scratch.betas.shape[1], wp.block_dim()):
        b = V(tables.beta_offset[i])
        for k in range(scratch.smpl_betas.shape[1]):
            b += scratch.smpl_betas[s, k] * tables.beta_matrix[i, k]
        scratch.betas[s, i] = b
        scatter(betas, rows, g, i, b)
    for i in range(t, 3, wp.block_dim()):
        smpl.trans[s, i] = V()
    shape_smpl(s, t, scratch.smpl_betas, tables.smpl, smpl)
    pose_smpl(s, t, scratch.rotations, tables.smpl, smpl)
    write_transforms(g, s, t, smpl, transforms)
    shape_joints(s, t, scratch.betas, body, joints)
    write_angles(s, t, scratch.rotations, tables.angles, body, balls, joints, scratch.q)
    sync()
    for i in range(t, wp.static(NUM_DOFS), wp.block_dim()):
        scatter(q, rows, g, i, scratch.q[s, i])
