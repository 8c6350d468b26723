"""The end of a fit: from the frame that people are fitted in, where their root does not turn, to the label's.

SMPL turns by R about its own root joint, then moves by t; SKEL turns about its own. With their places at rest J and K,
d = J - K, SKEL moves by t + d - R d. So the same rigid motion moves both: a point x goes to R (x - J) + J + t.
"""

# Warp reads annotations when it compiles, so that they cannot be postponed in the files of kernels.
import warp as wp

from skelfit.body.dofs import NUM_DOFS
from skelfit.fit.ball_tables import Balls
from skelfit.fit.body_tables import Body
from skelfit.fit.start_tables import Start

from .chart import near_middle, write_ball
from .lanes import A2, F2, F3, I2, V, m, put, sync, take
from .rotations import Matrix, angles_of, matrix_of, of_rotation_vector, seen_in

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.kernel
def finish(
    pose: F2,
    given: F2,
    transl: F2,
    betas: F2,
    rows: I2,
    tables: Start,
    body: Body,
    balls: Balls,
    room: A2,
    q: F2,
    trans: F2,
    points: F2,
):
    """Put people back to where their labels, pose (B, 72) rad, SMPL's betas given (B, 10), transl (B, 3) m, have them.

    betas (B, 10) are SKEL's. Changed: q (B, 46), which gets the root's angles and the others within half a turn of the
    limits' middle, and points (B, 3 P) m; filled: trans (B, 3) m. balls: of all DoFs. room (S, 46) is scratch.
    """
    g, t = wp.tid()
    s = g % room.shape[0]
    rot = matrix_of(
        of_rotation_vector(take(pose, rows, g, 0), take(pose, rows, g, 1), take(pose, rows, g, 2))
    )
    if t == 0:
        _write_root(s, rot, body, balls, room)
    sync()
    for i in range(t, wp.static(NUM_DOFS), wp.block_dim()):
        if i < 3:
            put(q, rows, g, i, room[s, i])
        else:
            put(q, rows, g, i, near_middle(take(q, rows, g, i), tables.angles.middle[i]))
    x, y, z = _root_at(given, rows, g, tables.joints, tables.speeds)
    a, b, c = _root_at(betas, rows, g, body.joints, body.speeds)
    for r in range(t, 3, wp.block_dim()):
        d = wp.where(r == 0, x - a, wp.where(r == 1, y - b, z - c))
        # The small numbers first: far from the origin every sum is rounded by more.
        put(trans, rows, g, r, take(transl, rows, g, r) + (d - _row(rot, r, x - a, y - b, z - c)))
    for i in range(t, points.shape[1] // 3, wp.block_dim()):
        _place_point(g, 3 * i, rot, x, y, z, transl, rows, points)


@wp.func
def _place_point(g: int, i: int, rot: Matrix, x: V, y: V, z: V, transl: F2, rows: I2, points: F2):
    """Move the point at column i; SMPL's root stands at x, y, z."""
    p0 = take(points, rows, g, i) - x
    p1 = take(points, rows, g, i + 1) - y
    p2 = take(points, rows, g, i + 2) - z
    put(points, rows, g, i, take(transl, rows, g, 0) + (x + _row(rot, 0, p0, p1, p2)))
    put(points, rows, g, i + 1, take(transl, rows, g, 1) + (y + _row(rot, 1, p0, p1, p2)))
    put(points, rows, g, i + 2, take(transl, rows, g, 2) + (z + _row(rot, 2, p0, p1, p2)))


@wp.func
def _row(rot: Matrix, r: int, x: V, y: V, z: V) -> V:
    """Coordinate r of a turned vector."""
    return m(rot[3 * r], x) + m(rot[3 * r + 1], y) + m(rot[3 * r + 2], z)


@wp.func
def _root_at(betas: F2, rows: I2, g: int, at: F2, speeds: F3):
    """Where the root joint of a model stands at rest, m."""
    x = V(at[0, 0])
    y = V(at[0, 1])
    z = V(at[0, 2])
    for k in range(betas.shape[1]):
        b = take(betas, rows, g, k)
        x += b * speeds[0, 0, k]
        y += b * speeds[0, 1, k]
        z += b * speeds[0, 2, k]
    return x, y, z


@wp.func
def _write_root(s: int, rot: Matrix, body: Body, balls: Balls, room: A2):
    """The root's angles; its axes are the same for all shapes."""
    frame = Matrix()
    for k in range(3):
        for r in range(3):
            frame[3 * r + k] = V(body.axes[balls.index[0, k], r])
    a, b, c = angles_of(seen_in(frame, rot))
    hand = balls.hand[0]
    write_ball(s, 0, hand * a, hand * b, hand * c, balls, room)
