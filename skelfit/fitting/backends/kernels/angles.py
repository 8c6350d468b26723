"""SKEL's joint angles from SMPL's local rotations, in closed form.

The angles follow the rules of `start/warm_start.py`. A ball joint with world axes d_0, d_1, d_2 (its DoFs' in the
T-posed person, the columns of D) takes a rotation R, seen in its axes, as Rz(c) Ry(b) Rx(a) = D^T R D. A joint with one
axis u takes the twist of the rotation about u: of a quaternion (w, v) the angle 2 atan2(v . u, w).
"""

# Warp reads annotations when it compiles, so that they cannot be postponed in the files of kernels.
import warp as wp

from skelfit.fitting.backends.body_tables import BodyTables
from skelfit.fitting.backends.retraction_tables import BallTables
from skelfit.fitting.start.angle_tables import AngleTables

from .joint_frames import JointFrames
from .lanes import A2, A3, F2, V, angle_of, m, sine_and_cosine
from .rest_joints import bone_of
from .retraction import near_middle, write_ball
from .rotations import (
    Matrix,
    Quaternion,
    angles_of,
    compose,
    in_frame,
    matrix_of,
    normalized,
    quaternion_at,
    times,
    twist_of,
)

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.func
def write_angles(
    s: int, t: int, rotations: A3, tables: AngleTables, body: BodyTables, balls: BallTables, joints: JointFrames,
    q: A2,
):  # fmt: skip
    """SKEL's angles q (S, 46) of SMPL's local rotations (S, 24, 4), quaternions; 0 for the root."""
    for i in range(t, 3, wp.block_dim()):
        q[s, i] = V(0.0)
    for i in range(t, tables.arms.shape[0], wp.block_dim()):
        _write_shoulder(s, i, tables, balls, joints, rotations, q)
        _write_forearm(s, i, tables, body, joints, rotations, q)
    for i in range(t, tables.eulers.shape[0], wp.block_dim()):
        rotation = quaternion_at(rotations, s, tables.eulers[i, 1])
        if tables.eulers[i, 2] >= 0:
            rotation = compose(rotation, quaternion_at(rotations, s, tables.eulers[i, 2]))
        _write_ball(s, tables.eulers[i, 0], matrix_of(rotation), balls, joints, q)
    for i in range(t, tables.twists.shape[0], wp.block_dim()):
        rotation = quaternion_at(rotations, s, tables.twists[i, 1])
        _write_twist(s, tables.twists[i, 0], rotation, tables, joints, q)
    for i in range(t, tables.ankles.shape[0], wp.block_dim()):
        _write_ankle(s, i, tables, body, joints, rotations, q)


@wp.func
def _write_ankle(
    s: int, i: int, tables: AngleTables, body: BodyTables, joints: JointFrames, rotations: A3, q: A2
):
    """The twist of the ankle; then the twist of the remainder in the subtalar joint."""
    rotation = quaternion_at(rotations, s, tables.ankles[i, 2])
    remainder = _write_twist(s, tables.ankles[i, 0], rotation, tables, joints, q)
    # The subtalar axis is given in the frame of the talus, as that of the ankle.
    r = _bone_rotation(s, tables.ankles[i, 3], body, joints)
    x = tables.subtalars[i, 0]
    y = tables.subtalars[i, 1]
    z = tables.subtalars[i, 2]
    u0 = r[0] * x + r[1] * y + r[2] * z
    u1 = r[3] * x + r[4] * y + r[5] * z
    u2 = r[6] * x + r[7] * y + r[8] * z
    sine, cosine = twist_of(remainder, u0, u1, u2)
    _write_angle(s, tables.ankles[i, 1], 2.0 * angle_of(sine, cosine), tables, q)


@wp.func
def _write_angle(s: int, i: int, a: V, tables: AngleTables, q: A2):
    q[s, i] = near_middle(a, tables.middle[i])


@wp.func
def _write_twist(
    s: int, i: int, rotation: Quaternion, tables: AngleTables, joints: JointFrames, q: A2
) -> Quaternion:
    """Write the angle of DoF i, the twist of a rotation about its axis; returns the rotation without it."""
    x = joints.axes[s, i, 0]
    y = joints.axes[s, i, 1]
    z = joints.axes[s, i, 2]
    sine, cosine = twist_of(rotation, x, y, z)
    _write_angle(s, i, 2.0 * angle_of(sine, cosine), tables, q)
    back = Quaternion()
    back[0] = -m(sine, x)
    back[1] = -m(sine, y)
    back[2] = -m(sine, z)
    back[3] = cosine
    return compose(back, rotation)


@wp.func
def _ball_frame(s: int, j: int, balls: BallTables, joints: JointFrames) -> Matrix:
    """D: the axes of ball joint j in the T-posed person, a column each."""
    frame = Matrix()
    for k in range(3):
        for r in range(3):
            frame[3 * r + k] = joints.axes[s, balls.index[j, k], r]
    return frame


@wp.func
def _write_ball(s: int, j: int, rot: Matrix, balls: BallTables, joints: JointFrames, q: A2):
    """The angles of ball joint j for a rotation in the frame of the T-posed person."""
    a, b, c = angles_of(in_frame(_ball_frame(s, j, balls, joints), rot))
    hand = balls.hand[j]
    write_ball(s, j, hand * a, hand * b, hand * c, balls, q)


@wp.func
def _write_shoulder(
    s: int, i: int, tables: AngleTables, balls: BallTables, joints: JointFrames, rotations: A3, q: A2
):
    """The scapula moves little: it takes what its limits allow, and the humerus takes the rest."""
    scapula = tables.arms[i, 0]
    collar = quaternion_at(rotations, s, tables.arms[i, 2])
    _write_ball(s, scapula, matrix_of(collar), balls, joints, q)
    taken = Quaternion()
    taken[3] = V(1.0)
    for k in range(3):
        dof = balls.index[scapula, k]
        a = wp.min(wp.max(q[s, dof], V(tables.limits[dof, 0])), V(tables.limits[dof, 1]))
        q[s, dof] = a
        sine, cosine = sine_and_cosine(0.5 * a)
        rotation = Quaternion()
        for r in range(3):
            rotation[r] = m(sine, joints.axes[s, dof, r])
        rotation[3] = cosine
        taken = compose(rotation, taken)
    for r in range(3):
        taken[r] = -taken[r]
    rest = compose(compose(taken, collar), quaternion_at(rotations, s, tables.arms[i, 3]))
    _write_ball(s, tables.arms[i, 1], matrix_of(rest), balls, joints, q)


@wp.func
def _write_forearm(
    s: int, i: int, tables: AngleTables, body: BodyTables, joints: JointFrames, rotations: A3, q: A2
):
    """Flexion of the elbow, then pro_sup about y, then the hand about x and z, all in the forearm's frame."""
    elbow = quaternion_at(rotations, s, tables.arms[i, 4])
    wrist = quaternion_at(rotations, s, tables.arms[i, 5])
    remainder = _write_twist(s, tables.arms[i, 7], elbow, tables, joints, q)
    forearm = times(_bone_rotation(s, tables.arms[i, 6], body, joints), _same_for_all(tables.ulnae, i))
    both = times(
        in_frame(forearm, matrix_of(remainder)), in_frame(_same_for_all(tables.hands, i), matrix_of(wrist))
    )
    # x, z, y are a left-handed basis.
    a, b, c = angles_of(both)
    sign = tables.arm_signs[i]
    _write_angle(s, tables.arms[i, 8], -sign * c, tables, q)
    _write_angle(s, tables.arms[i, 9], -sign * a, tables, q)
    _write_angle(s, tables.arms[i, 10], b, tables, q)


@wp.func
def _same_for_all(x: F2, i: int) -> Matrix:
    """The matrix x[i] (9,) in every lane."""
    r = Matrix()
    for k in range(9):
        r[k] = V(x[i, k])
    return r


@wp.func
def _bone_rotation(s: int, j: int, body: BodyTables, joints: JointFrames) -> Matrix:
    """The smallest rotation from the template's bone to the person's: see `rest_joints.py`."""
    x = body.directions[j, 0]
    y = body.directions[j, 1]
    z = body.directions[j, 2]
    b0, b1, b2, _over = bone_of(s, j, body, joints)
    rotation = Quaternion()
    rotation[0] = b2 * y - b1 * z
    rotation[1] = b0 * z - b2 * x
    rotation[2] = b1 * x - b0 * y
    rotation[3] = V(1.0) + b0 * x + b1 * y + b2 * z
    return matrix_of(normalized(rotation))
