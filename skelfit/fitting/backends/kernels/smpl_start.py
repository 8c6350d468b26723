"""The start of a fit of SMPL to SKEL: SKEL's skin in its canonical frame, and SMPL's rotations from SKEL's joints."""

import warp as wp

from skelfit.bodies.smpl import NUM_SMPL_JOINTS
from skelfit.fitting.backends.skin_tables import SkinTables

from .joint_frames import JointFrames
from .lanes import F2, I1, I2, V, choose, exceeds, scatter
from .mesh_alignment import nearest_rotation
from .posing import PoseInputs, pose_people
from .rotations import Matrix, matrix_of, normalized, times, transposed
from .skinning import SkinInputs
from .smpl_joints import global_rotation

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.func
def _halfway(s: int, a: int, b: int, joints: JointFrames) -> Matrix:
    """The global rotation halfway between those of two joints."""
    first = global_rotation(s, a, joints)
    q = nearest_rotation(times(transposed(global_rotation(s, b, joints)), first))
    sign = choose(exceeds(V(0.0), q[3]), V(-1.0), V(1.0))
    q[3] = q[3] + sign
    return times(first, matrix_of(normalized(q)))


@wp.kernel
def start_smpl(
    rows: I2, skin: SkinTables, posing: PoseInputs, parents: I1, sources: I2, people: SkinInputs,
    rotations: F2,
):  # fmt: skip
    """Pose SKEL for its skin pass; rotations (B, 96) get the quaternions of SMPL's joints, relative to their parents.

    parents (24,) of SMPL's joints, -1: none; sources (24, 2): SKEL joints; a SMPL joint is turned halfway between the
    two at first.
    """
    g, t = wp.tid()
    s = g % posing.angles.shape[0]
    pose_people(g, s, t, skin, posing, people)
    for j in range(t, wp.static(NUM_SMPL_JOINTS), wp.block_dim()):
        r = _halfway(s, sources[j, 0], sources[j, 1], posing.joints)
        up = parents[j]
        if up >= 0:
            r = times(transposed(_halfway(s, sources[up, 0], sources[up, 1], posing.joints)), r)
        q = nearest_rotation(transposed(r))
        for i in range(4):
            scatter(rotations, rows, g, 4 * j + i, q[i])
