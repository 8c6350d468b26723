"""Where a fit starts: SMPL's joints posed as a label says, and SKEL's betas and angles in closed form from it.

SMPL is posed without its root's rotation, which puts people into the frame that they are fitted in. A SMPL joint's
rotation vector v is a unit quaternion; its matrix R_j turns all below it, and its skin is moved by [R | p - R J].

The angles follow the rules of `fit/warm_start.py`. A rotation R that a ball joint with world axes d_0, d_1, d_2 (its
DoFs' in the T-posed person, the columns of D) takes over is Rz(c) Ry(b) Rx(a) when seen in them, D^T R D. Of a joint
with one axis u, the rotation's twist about u is taken: of a quaternion (w, v) the angle 2 atan2(v . u, w).
"""

# Warp reads annotations when it compiles, so that they cannot be postponed in the files of kernels.
import warp as wp

from skelfit.body.dofs import NUM_DOFS, NUM_JOINTS
from skelfit.fit.ball_tables import Balls
from skelfit.fit.body_tables import Body
from skelfit.fit.start_tables import Start

from .chart import near_middle, write_ball
from .lanes import A2, A3, F2, F3, I2, V, angle_of, m, put, sine_and_cosine, sync, take
from .place import Place
from .rotations import (
    Matrix,
    Quaternion,
    after,
    angles_of,
    matrix_less_one,
    matrix_of,
    normalized,
    of_rotation_vector,
    quaternion_at,
    seen_in,
    times,
    twist_of,
)
from .shape import bone_of, shape_joints

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.struct
class StartRoom:
    """Scratch of each slot s, in which one group is worked on at a time."""

    given: A2  # (S, 10) SMPL's betas
    betas: A2  # (S, 10) SKEL's
    turns: A3  # (S, 24, 4) quaternions of SMPL's joints, relative to their parents
    pos: A3  # (S, 24, 3) m, of SMPL's joints
    q: A2  # (S, 46) rad


def make_start_room(slots: int, device: str) -> StartRoom:
    """Room for so many groups at a time."""
    room = StartRoom()
    for name, shape in (
        ("given", (10,)),
        ("betas", (10,)),
        ("turns", (24, 4)),
        ("pos", (24, 3)),
        ("q", (46,)),
    ):
        setattr(room, name, wp.zeros((slots, *shape), dtype=V, device=device))
    return room


@wp.kernel
def start(
    pose: F2,
    given: F2,
    rows: I2,
    tables: Start,
    body: Body,
    balls: Balls,
    place: Place,
    room: StartRoom,
    transforms: A3,
    coefficients: A2,
    betas: F2,
    q: F2,
):
    """The start of groups of people, from labels: pose (B, 72) rad, rotation vectors, and SMPL's betas given (B, 10).

    Fills of each group of rows (G, L): of SMPL the transforms (G, 24, 12) and the coefficients (G, 218) [1, betas,
    R - I of joints 1 .. 23]; of SKEL betas (B, 10) and angles q (B, 46), those of the root zero. balls: of all DoFs.
    """
    g, t = wp.tid()
    s = g % room.q.shape[0]
    for i in range(t, room.given.shape[1], wp.block_dim()):
        room.given[s, i] = take(given, rows, g, i)
    for j in range(t, wp.static(NUM_JOINTS), wp.block_dim()):
        x = take(pose, rows, g, 3 * j)
        y = take(pose, rows, g, 3 * j + 1)
        z = take(pose, rows, g, 3 * j + 2)
        turn = of_rotation_vector(x, y, z)
        for i in range(4):
            room.turns[s, j, i] = turn[i]
    sync()
    _write_coefficients(s, t, g, room, coefficients)
    for i in range(t, room.betas.shape[1], wp.block_dim()):
        b = V(tables.beta_offset[i])
        for k in range(room.given.shape[1]):
            b += room.given[s, k] * tables.beta_matrix[i, k]
        room.betas[s, i] = b
        put(betas, rows, g, i, b)
    _pose_smpl(s, t, g, tables, room, transforms)
    shape_joints(s, t, room.betas, body, place)
    _write_angles(s, t, tables, body, balls, place, room)
    sync()
    for i in range(t, wp.static(NUM_DOFS), wp.block_dim()):
        put(q, rows, g, i, room.q[s, i])


@wp.func
def _write_coefficients(s: int, t: int, g: int, room: StartRoom, coefficients: A2):
    """[1, betas, R - I of joints 1 .. 23]."""
    n = room.given.shape[1]
    for i in range(t, n + 1, wp.block_dim()):
        if i == 0:
            coefficients[g, 0] = V(1.0)
        else:
            coefficients[g, i] = room.given[s, i - 1]
    for j in range(t + 1, wp.static(NUM_JOINTS), wp.block_dim()):
        r = matrix_less_one(quaternion_at(room.turns, s, j))
        for i in range(9):
            coefficients[g, n + 1 + 9 * (j - 1) + i] = r[i]


@wp.func
def _pose_smpl(s: int, t: int, g: int, tables: Start, room: StartRoom, transforms: A3):
    """[R | p - R J] of SMPL's joints, one depth after the other; the root's R is the identity."""
    for depth in range(tables.level.shape[0] - 1):
        for i in range(tables.level[depth] + t, tables.level[depth + 1], wp.block_dim()):
            _pose_joint(s, g, tables.order[i], tables, room, transforms)
        sync()


@wp.func
def _pose_joint(s: int, g: int, j: int, tables: Start, room: StartRoom, transforms: A3):
    up = tables.parents[j]
    r = Matrix()
    if up < 0:
        for i in range(3):
            r[4 * i] = V(1.0)
            room.pos[s, j, i] = _combined(s, j, i, tables.offsets, tables.offset_speeds, room)
    else:
        above = Matrix()
        for i in range(9):
            above[i] = transforms[g, up, 4 * (i // 3) + i % 3]
        r = times(above, matrix_of(quaternion_at(room.turns, s, j)))
        x = _combined(s, j, 0, tables.offsets, tables.offset_speeds, room)
        y = _combined(s, j, 1, tables.offsets, tables.offset_speeds, room)
        z = _combined(s, j, 2, tables.offsets, tables.offset_speeds, room)
        for i in range(3):
            room.pos[s, j, i] = (
                room.pos[s, up, i] + m(above[3 * i], x) + m(above[3 * i + 1], y) + m(above[3 * i + 2], z)
            )
    x = _combined(s, j, 0, tables.joints, tables.speeds, room)
    y = _combined(s, j, 1, tables.joints, tables.speeds, room)
    z = _combined(s, j, 2, tables.joints, tables.speeds, room)
    for i in range(3):
        moved = m(r[3 * i], x) + m(r[3 * i + 1], y) + m(r[3 * i + 2], z)
        for k in range(3):
            transforms[g, j, 4 * i + k] = r[3 * i + k]
        transforms[g, j, 4 * i + 3] = room.pos[s, j, i] - moved


@wp.func
def _combined(s: int, j: int, i: int, at: F2, speeds: F3, room: StartRoom) -> V:
    """A coordinate of a SMPL joint at rest, m."""
    moved = V()
    for k in range(room.given.shape[1]):
        moved += room.given[s, k] * speeds[j, i, k]
    return V(at[j, i]) + moved


@wp.func
def _write_angles(s: int, t: int, tables: Start, body: Body, balls: Balls, place: Place, room: StartRoom):
    """SKEL's angles; the root's zero."""
    for i in range(t, 3, wp.block_dim()):
        room.q[s, i] = V(0.0)
    for i in range(t, tables.arms.shape[0], wp.block_dim()):
        _write_shoulder(s, i, tables, balls, place, room)
        _write_forearm(s, i, tables, body, place, room)
    for i in range(t, tables.eulers.shape[0], wp.block_dim()):
        turn = quaternion_at(room.turns, s, tables.eulers[i, 1])
        if tables.eulers[i, 2] >= 0:
            turn = after(turn, quaternion_at(room.turns, s, tables.eulers[i, 2]))
        _write_ball(s, tables.eulers[i, 0], matrix_of(turn), balls, place, room.q)
    for i in range(t, tables.twists.shape[0], wp.block_dim()):
        turn = quaternion_at(room.turns, s, tables.twists[i, 1])
        _take_twist(s, tables.twists[i, 0], turn, tables, place, room.q)
    for i in range(t, tables.ankles.shape[0], wp.block_dim()):
        _write_ankle(s, i, tables, body, place, room)


@wp.func
def _write_ankle(s: int, i: int, tables: Start, body: Body, place: Place, room: StartRoom):
    """The ankle's twist, then that of the subtalar joint of what is left."""
    turn = quaternion_at(room.turns, s, tables.ankles[i, 2])
    left = _take_twist(s, tables.ankles[i, 0], turn, tables, place, room.q)
    # The subtalar axis is seen in the frame of the talus, where the ankle's is.
    r = _bone_turn(s, tables.ankles[i, 3], body, place)
    x = tables.subtalars[i, 0]
    y = tables.subtalars[i, 1]
    z = tables.subtalars[i, 2]
    u0 = r[0] * x + r[1] * y + r[2] * z
    u1 = r[3] * x + r[4] * y + r[5] * z
    u2 = r[6] * x + r[7] * y + r[8] * z
    sine, cosine = twist_of(left, u0, u1, u2)
    _write_angle(s, tables.ankles[i, 1], 2.0 * angle_of(sine, cosine), tables, room.q)


@wp.func
def _write_angle(s: int, i: int, a: V, tables: Start, q: A2):
    q[s, i] = near_middle(a, tables.middle[i])


@wp.func
def _take_twist(s: int, i: int, turn: Quaternion, tables: Start, place: Place, q: A2) -> Quaternion:
    """Write the angle of DoF i, the twist of a rotation about its axis; returns the rotation without it."""
    x = place.axes[s, i, 0]
    y = place.axes[s, i, 1]
    z = place.axes[s, i, 2]
    sine, cosine = twist_of(turn, x, y, z)
    _write_angle(s, i, 2.0 * angle_of(sine, cosine), tables, q)
    back = Quaternion()
    back[0] = -m(sine, x)
    back[1] = -m(sine, y)
    back[2] = -m(sine, z)
    back[3] = cosine
    return after(back, turn)


@wp.func
def _ball_frame(s: int, j: int, balls: Balls, place: Place) -> Matrix:
    """D: the axes of ball joint j in the T-posed person, a column each."""
    frame = Matrix()
    for k in range(3):
        for r in range(3):
            frame[3 * r + k] = place.axes[s, balls.index[j, k], r]
    return frame


@wp.func
def _write_ball(s: int, j: int, rot: Matrix, balls: Balls, place: Place, q: A2):
    """The angles of ball joint j that turn it by a rotation of the T-posed person."""
    a, b, c = angles_of(seen_in(_ball_frame(s, j, balls, place), rot))
    hand = balls.hand[j]
    write_ball(s, j, hand * a, hand * b, hand * c, balls, q)


@wp.func
def _write_shoulder(s: int, i: int, tables: Start, balls: Balls, place: Place, room: StartRoom):
    """A shoulder blade moves little: it takes what its limits allow, the humerus takes the rest."""
    scapula = tables.arms[i, 0]
    collar = quaternion_at(room.turns, s, tables.arms[i, 2])
    _write_ball(s, scapula, matrix_of(collar), balls, place, room.q)
    taken = Quaternion()
    taken[3] = V(1.0)
    for k in range(3):
        dof = balls.index[scapula, k]
        a = wp.min(wp.max(room.q[s, dof], V(tables.limits[dof, 0])), V(tables.limits[dof, 1]))
        room.q[s, dof] = a
        sine, cosine = sine_and_cosine(0.5 * a)
        turn = Quaternion()
        for r in range(3):
            turn[r] = m(sine, place.axes[s, dof, r])
        turn[3] = cosine
        taken = after(turn, taken)
    for r in range(3):
        taken[r] = -taken[r]
    rest = after(after(taken, collar), quaternion_at(room.turns, s, tables.arms[i, 3]))
    _write_ball(s, tables.arms[i, 1], matrix_of(rest), balls, place, room.q)


@wp.func
def _write_forearm(s: int, i: int, tables: Start, body: Body, place: Place, room: StartRoom):
    """Flexion of the elbow, then pro_sup about y, then the hand about x and z, all in the forearm's frame."""
    elbow = quaternion_at(room.turns, s, tables.arms[i, 4])
    wrist = quaternion_at(room.turns, s, tables.arms[i, 5])
    left = _take_twist(s, tables.arms[i, 7], elbow, tables, place, room.q)
    forearm = times(_bone_turn(s, tables.arms[i, 6], body, place), _plain(tables.ulnae, i))
    both = times(seen_in(forearm, matrix_of(left)), seen_in(_plain(tables.hands, i), matrix_of(wrist)))
    # x, z, y are a left-handed basis.
    a, b, c = angles_of(both)
    sign = tables.arm_signs[i]
    _write_angle(s, tables.arms[i, 8], -sign * c, tables, room.q)
    _write_angle(s, tables.arms[i, 9], -sign * a, tables, room.q)
    _write_angle(s, tables.arms[i, 10], b, tables, room.q)


@wp.func
def _plain(x: F2, i: int) -> Matrix:
    """The same matrix x[i] (9,) for all."""
    r = Matrix()
    for k in range(9):
        r[k] = V(x[i, k])
    return r


@wp.func
def _bone_turn(s: int, j: int, body: Body, place: Place) -> Matrix:
    """The smallest rotation from the template's bone to the person's: see `shape.py`."""
    x = body.directions[j, 0]
    y = body.directions[j, 1]
    z = body.directions[j, 2]
    b0, b1, b2, _over = bone_of(s, j, body, place)
    turn = Quaternion()
    turn[0] = b2 * y - b1 * z
    turn[1] = b0 * z - b2 * x
    turn[2] = b1 * x - b0 * y
    turn[3] = V(1.0) + b0 * x + b1 * y + b2 * z
    return matrix_of(normalized(turn))
