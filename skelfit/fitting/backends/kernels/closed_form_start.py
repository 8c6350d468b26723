"""Where a fit starts: SMPL's joints posed as a label says, and SKEL's betas and angles in closed form from it.

SMPL is posed without its root's rotation, which puts people into the frame that they are fitted in. A SMPL joint's
rotation vector v is a unit quaternion; its matrix R_j turns all below it, and its skin is moved by [R | p - R J].
"""

# Warp reads annotations when it compiles, so that they cannot be postponed in the files of kernels.
import warp as wp

from skelfit.bodies.dofs import NUM_DOFS, NUM_JOINTS
from skelfit.fitting.backends.body_tables import Body
from skelfit.fitting.backends.retraction_tables import Balls
from skelfit.fitting.start.warm_start_tables import WarmStartTables

from .angles import write_angles
from .joint_frames import Place
from .lanes import A2, A3, F2, F3, I2, V, m, put, sync, take
from .rest_joints import shape_joints
from .rotations import Matrix, matrix_less_one, matrix_of, of_rotation_vector, quaternion_at, times

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
    tables: WarmStartTables,
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
    write_angles(s, t, room.turns, tables.angles, body, balls, place, room.q)
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
def _pose_smpl(s: int, t: int, g: int, tables: WarmStartTables, room: StartRoom, transforms: A3):
    """[R | p - R J] of SMPL's joints, one depth after the other; the root's R is the identity."""
    for depth in range(tables.level.shape[0] - 1):
        for i in range(tables.level[depth] + t, tables.level[depth + 1], wp.block_dim()):
            _pose_joint(s, g, tables.order[i], tables, room, transforms)
        sync()


@wp.func
def _pose_joint(s: int, g: int, j: int, tables: WarmStartTables, room: StartRoom, transforms: A3):
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
