"""The joints of the T-posed person, from betas.

Joints and their offsets are linear in betas. A joint's frame follows its bone vector: it turns by the smallest rotation
from the template's bone t to the person's b (both of unit length), which with n = t x b and c = t . b is
I + [n] + [n]^2 / (1 + c). The axes of its DoFs turn with it. Offsets have tables of their own: as differences of
positions they would lose a digit, and with it the direction of a short bone.
"""

import warp as wp

from skelfit.bodies.dofs import NUM_JOINTS, SKEL_PARENTS
from skelfit.bodies.kinematics import LUMBAR, SCAPULA_L, SCAPULA_R, THORAX
from skelfit.fitting.backends.body_tables import BodyTables

from .joint_frames import JointFrames
from .lanes import A2, V, m, square_root, sync

wp.set_module_options({"enable_backward": False, "max_unroll": 1})

# So offsets alone give the width and height of the thorax.
assert SKEL_PARENTS[THORAX] == LUMBAR and SKEL_PARENTS[SCAPULA_L] == SKEL_PARENTS[SCAPULA_R]


@wp.func
def shape_joints(s: int, t: int, betas: A2, body: BodyTables, joints: JointFrames):
    """Fill rest, offsets, axes, spine and thorax of a slot from its betas (S, K)."""
    for i in range(t, wp.static(3 * NUM_JOINTS), wp.block_dim()):
        j = i // 3
        r = i % 3
        at = V()
        off = V()
        for k in range(betas.shape[1]):
            at += betas[s, k] * body.speeds[j, r, k]
            off += betas[s, k] * body.offset_speeds[j, r, k]
        joints.rest[s, j, r] = V(body.joints[j, r]) + at
        joints.offsets[s, j, r] = V(body.offsets[j, r]) + off
    sync()
    for j in range(t, wp.static(NUM_JOINTS), wp.block_dim()):
        _turn_axes(s, j, body, joints)
    for k in range(t, 3, wp.block_dim()):
        joints.spine[s, k] = wp.abs(joints.offsets[s, wp.static(LUMBAR) + k, 1])
    for k in range(t, 2, wp.block_dim()):
        joints.thorax[s, k] = _thorax(s, k, joints)
    sync()


@wp.func
def _thorax(s: int, k: int, joints: JointFrames) -> V:
    """Its width (k = 0), between the scapulae, or its height (k = 1), above the lumbar joint."""
    square = V()
    for r in range(3):
        x = joints.offsets[s, wp.static(THORAX), r]
        if k == 0:
            x = joints.offsets[s, wp.static(SCAPULA_L), r] - joints.offsets[s, wp.static(SCAPULA_R), r]
        square += m(x, x)
    return square_root(square)


@wp.func
def bone_of(s: int, j: int, body: BodyTables, joints: JointFrames):
    """A joint's bone: its direction (3), and one over its length, 1/m."""
    a = body.bones[j, 0]
    b = body.bones[j, 1]
    x = joints.offsets[s, a, 0]
    y = joints.offsets[s, a, 1]
    z = joints.offsets[s, a, 2]
    if b >= 0:
        x += joints.offsets[s, b, 0]
        y += joints.offsets[s, b, 1]
        z += joints.offsets[s, b, 2]
    over = wp.cw_div(V(1.0), square_root(m(x, x) + m(y, y) + m(z, z)))
    return m(x, over), m(y, over), m(z, over), over


@wp.func
def _turn_axes(s: int, j: int, body: BodyTables, joints: JointFrames):
    """The axes of a joint's DoFs, turned with its frame."""
    if body.bones[j, 0] < 0:
        for i in range(body.first_dof[j], body.first_dof[j + 1]):
            for r in range(3):
                joints.axes[s, i, r] = V(body.axes[i, r])
    else:
        t0 = body.directions[j, 0]
        t1 = body.directions[j, 1]
        t2 = body.directions[j, 2]
        b0, b1, b2, _over = bone_of(s, j, body, joints)
        share = wp.cw_div(V(1.0), V(1.0) + b0 * t0 + b1 * t1 + b2 * t2)
        n0 = b2 * t1 - b1 * t2
        n1 = b0 * t2 - b2 * t0
        n2 = b1 * t0 - b0 * t1
        square = m(share, m(n0, n0) + m(n1, n1) + m(n2, n2))
        for i in range(body.first_dof[j], body.first_dof[j + 1]):
            x = body.axes[i, 0]
            y = body.axes[i, 1]
            z = body.axes[i, 2]
            along = m(share, n0 * x + n1 * y + n2 * z)
            joints.axes[s, i, 0] = V(x) + n1 * z - n2 * y + m(along, n0) - square * x
            joints.axes[s, i, 1] = V(y) + n2 * x - n0 * z + m(along, n1) - square * y
            joints.axes[s, i, 2] = V(z) + n0 * y - n1 * x + m(along, n2) - square * z
