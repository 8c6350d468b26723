"""The forward kinematics of a group of people, and the twist of each DoF: `bodies.kinematics` in lanes.

A joint's DoFs turn it one after the other, the last one outermost: its global rotation is that of its parent times
R_last ... R_first. A DoF with world axis omega at a joint at p moves a point x of its subtree by omega x x + v with
v = p x omega, plus the sliding of spine and scapulae. A spine segment of length l bent by an angle a is an arc: its end
moves sideways by l (1 - cos a) / a and along by l sin a / a; a scapula slides on an ellipsoid.
"""

from math import cos, pi

import warp as wp

from skelfit.bodies.kinematics import ABDUCTION, ELEVATION, SCAPULAE, SPINE, SPINE_BENDING, SPINE_EXTENSION
from skelfit.fitting.backends.body_tables import BodyTables

from .joint_frames import JointFrames
from .lanes import A2, V, choose, exceeds, m, sine_and_cosine, sine_and_turn, sync

wp.set_module_options({"enable_backward": False, "max_unroll": 1})

_QUARTER = pi / 4
_SMALL = 0.1  # rad, below which an arc's closed form cancels


@wp.func
def spine_segment(j: int) -> int:
    """0, 1, 2 for lumbar, thorax and head; -1 for any other joint."""
    k = int(-1)
    if j == wp.static(SPINE[0]):
        k = 0
    if j == wp.static(SPINE[1]):
        k = 1
    if j == wp.static(SPINE[2]):
        k = 2
    return k


@wp.func
def scapula_side(j: int) -> int:
    """0 for the right scapula, 1 for the left; -1 for any other joint."""
    k = int(-1)
    if j == wp.static(SCAPULAE[0]):
        k = 0
    if j == wp.static(SCAPULAE[1]):
        k = 1
    return k


@wp.func
def lateral_flexion_dof(k: int) -> int:
    """The DoF of the lateral flexion of a spine segment."""
    return wp.static(SPINE_BENDING[0]) + k * wp.static(SPINE_BENDING[1] - SPINE_BENDING[0])


@wp.func
def extension_dof(k: int) -> int:
    """The DoF of the extension of a spine segment."""
    return wp.static(SPINE_EXTENSION[0]) + k * wp.static(SPINE_EXTENSION[1] - SPINE_EXTENSION[0])


@wp.func
def abduction_dof(k: int) -> int:
    """The DoF of the abduction of a scapula."""
    return wp.static(ABDUCTION[0]) + k * wp.static(ABDUCTION[1] - ABDUCTION[0])


@wp.func
def elevation_dof(k: int) -> int:
    """The DoF of the elevation of a scapula."""
    return wp.static(ELEVATION[0]) + k * wp.static(ELEVATION[1] - ELEVATION[0])


@wp.func
def arc(a: V):
    """(1 - cos a) / a and sin a / a."""
    small = exceeds(V(wp.static(_SMALL)), wp.abs(a))
    x = choose(small, V(1.0), a)
    s, t = sine_and_turn(x)
    a2 = m(a, a)
    side = m(a, V(0.5) - m(a2, V(wp.static(1 / 24)) - a2 * wp.static(1 / 720)))
    up = V(1.0) - m(a2, V(wp.static(1 / 6)) - a2 * wp.static(1 / 120))
    return choose(small, side, wp.cw_div(t, x)), choose(small, up, wp.cw_div(s, x))


@wp.func
def arc_derivatives(a: V):
    """The derivatives of `arc`."""
    small = exceeds(V(wp.static(_SMALL)), wp.abs(a))
    x = choose(small, V(1.0), a)
    s, t = sine_and_turn(x)
    side_slope = wp.cw_div(s - wp.cw_div(t, x), x)
    up_slope = wp.cw_div(V(1.0) - t - wp.cw_div(s, x), x)
    a2 = m(a, a)
    side = V(0.5) - m(a2, V(0.125) - a2 * wp.static(1 / 144))
    up = m(a, m(a2, V(wp.static(1 / 30)) - a2 * wp.static(1 / 840)) - V(wp.static(1 / 3)))
    return choose(small, side, side_slope), choose(small, up, up_slope)


@wp.func
def arc_second_derivatives(a: V):
    """The second derivatives of `arc`."""
    small = exceeds(V(wp.static(_SMALL)), wp.abs(a))
    x = choose(small, V(1.0), a)
    s, t = sine_and_turn(x)
    side, up = arc_derivatives(x)
    far_side = wp.cw_div(V(1.0) - t - 2.0 * side, x)
    far_up = wp.cw_div(-s - 2.0 * up, x)
    a2 = m(a, a)
    near_side = m(a, m(a2, V(wp.static(1 / 36)) - a2 * wp.static(1 / 960)) - V(0.25))
    near_up = m(a2, V(0.1) - a2 * wp.static(1 / 168)) - V(wp.static(1 / 3))
    return choose(small, near_side, far_side), choose(small, near_up, far_up)


@wp.func
def slide(s: int, j: int, q: A2, spine: A2, thorax: A2):
    """The sliding of joint j, added to its offset, in its parent, m; spine (S, 3) and thorax (S, 2) are lengths."""
    x = V()
    y = V()
    z = V()
    k = spine_segment(j)
    if k >= 0:
        side_b, up_b = arc(q[s, lateral_flexion_dof(k)])
        side_e, up_e = arc(q[s, extension_dof(k)])
        x = -m(side_b, spine[s, k])
        y = m(up_b + up_e - V(2.0), spine[s, k])
        z = -m(side_e, spine[s, k])
    h = scapula_side(j)
    if h >= 0:
        sign = 1.0 - 2.0 * float(h)
        sin_a, cos_a = sine_and_cosine(sign * q[s, abduction_dof(h)])
        sin_e, cos_e = sine_and_cosine(sign * q[s, elevation_dof(h)] - V(wp.static(_QUARTER)))
        x = -(0.25 * sign) * m(thorax[s, 0], m(cos_e, cos_a) - V(wp.static(cos(_QUARTER))))
        y = -0.5 * m(thorax[s, 1], sin_e + V(wp.static(cos(_QUARTER))))
        z = 0.25 * m(thorax[s, 0], sin_a)
    return x, y, z


@wp.func
def _add_slide_derivatives(s: int, j: int, q: A2, joints: JointFrames, up: int):
    """Add the derivative of the sliding to the twists of the DoFs that slide joint j, whose parent is up."""
    k = spine_segment(j)
    if k >= 0:
        b = lateral_flexion_dof(k)
        e = extension_dof(k)
        side_b, up_b = arc_derivatives(q[s, b])
        side_e, up_e = arc_derivatives(q[s, e])
        length = joints.spine[s, k]
        for r in range(3):
            x = joints.rot[s, up, 3 * r]
            y = joints.rot[s, up, 3 * r + 1]
            z = joints.rot[s, up, 3 * r + 2]
            joints.v[s, b, r] = joints.v[s, b, r] + m(length, m(y, up_b) - m(x, side_b))
            joints.v[s, e, r] = joints.v[s, e, r] + m(length, m(y, up_e) - m(z, side_e))
    h = scapula_side(j)
    if h >= 0:
        sign = 1.0 - 2.0 * float(h)
        a = abduction_dof(h)
        e = elevation_dof(h)
        sin_a, cos_a = sine_and_cosine(sign * q[s, a])
        sin_e, cos_e = sine_and_cosine(sign * q[s, e] - V(wp.static(_QUARTER)))
        width = 0.25 * joints.thorax[s, 0]
        height = (0.5 * sign) * joints.thorax[s, 1]
        for r in range(3):
            x = joints.rot[s, up, 3 * r]
            y = joints.rot[s, up, 3 * r + 1]
            z = joints.rot[s, up, 3 * r + 2]
            joints.v[s, a, r] = joints.v[s, a, r] + m(width, m(x, m(cos_e, sin_a)) + sign * m(z, cos_a))
            joints.v[s, e, r] = joints.v[s, e, r] + m(width, m(x, m(sin_e, cos_a))) - m(height, m(y, cos_e))


@wp.func
def _attach_joint(s: int, j: int, q: A2, body: BodyTables, joints: JointFrames):
    """Write the position of joint j, and its rotation before its own DoFs: that of its parent."""
    x, y, z = slide(s, j, q, joints.spine, joints.thorax)
    x += joints.offsets[s, j, 0]
    y += joints.offsets[s, j, 1]
    z += joints.offsets[s, j, 2]
    up = body.parents[j]
    if up < 0:
        joints.pos[s, j, 0] = x + joints.trans[s, 0]
        joints.pos[s, j, 1] = y + joints.trans[s, 1]
        joints.pos[s, j, 2] = z + joints.trans[s, 2]
        for r in range(9):
            joints.rot[s, j, r] = V(wp.where(r % 4 == 0, 1.0, 0.0))
    else:
        for r in range(3):
            a = joints.rot[s, up, 3 * r]
            b = joints.rot[s, up, 3 * r + 1]
            c = joints.rot[s, up, 3 * r + 2]
            joints.pos[s, j, r] = joints.pos[s, up, r] + m(a, x) + m(b, y) + m(c, z)
            joints.rot[s, j, 3 * r] = a
            joints.rot[s, j, 3 * r + 1] = b
            joints.rot[s, j, 3 * r + 2] = c


@wp.func
def _turn(s: int, j: int, i: int, q: A2, joints: JointFrames):
    """Write the twist of DoF i, then turn joint j by its angle."""
    x = joints.axes[s, i, 0]
    y = joints.axes[s, i, 1]
    z = joints.axes[s, i, 2]
    sin, turn = sine_and_turn(q[s, i])
    tx = m(turn, x)
    ty = m(turn, y)
    tz = m(turn, z)
    g00 = V(1.0) - m(ty, y) - m(tz, z)
    g11 = V(1.0) - m(tx, x) - m(tz, z)
    g22 = V(1.0) - m(tx, x) - m(ty, y)
    xy = m(tx, y)
    xz = m(tx, z)
    yz = m(ty, z)
    sx = m(sin, x)
    sy = m(sin, y)
    sz = m(sin, z)
    for r in range(3):
        a = joints.rot[s, j, 3 * r]
        b = joints.rot[s, j, 3 * r + 1]
        c = joints.rot[s, j, 3 * r + 2]
        joints.omega[s, i, r] = m(a, x) + m(b, y) + m(c, z)
        joints.rot[s, j, 3 * r] = m(a, g00) + m(b, xy + sz) + m(c, xz - sy)
        joints.rot[s, j, 3 * r + 1] = m(a, xy - sz) + m(b, g11) + m(c, yz + sx)
        joints.rot[s, j, 3 * r + 2] = m(a, xz + sy) + m(b, yz - sx) + m(c, g22)
    for r in range(3):
        r1 = (r + 1) % 3
        r2 = (r + 2) % 3
        joints.v[s, i, r] = m(joints.pos[s, j, r1], joints.omega[s, i, r2]) - m(
            joints.pos[s, j, r2], joints.omega[s, i, r1]
        )


@wp.func
def pose(s: int, t: int, q: A2, body: BodyTables, joints: JointFrames):
    """Global rotations and positions of the joints, and the world twists of the DoFs, at angles q (S, 46) rad.

    The whole person is moved by `joints.trans`.
    """
    for level in range(body.level.shape[0] - 1):
        for n in range(body.level[level] + t, body.level[level + 1], wp.block_dim()):
            j = body.order[n]
            _attach_joint(s, j, q, body, joints)
            count = body.first_dof[j + 1] - body.first_dof[j]
            for k in range(count):
                _turn(s, j, body.first_dof[j + 1] - 1 - k, q, joints)
            _add_slide_derivatives(s, j, q, joints, body.parents[j])
        sync()


@wp.func
def slide_second_derivative(s: int, p: int, q: A2, body: BodyTables, joints: JointFrames):
    """The second derivative, in the world, of the sliding offset with respect to pair p of kinematics.SLIDE_PAIRS.

    The pairs: lateral flexion, extension, abduction, elevation, each with itself, then elevation with abduction.
    """
    x = V()
    y = V()
    z = V()
    up = int(0)
    if p < 6:
        k = p % 3
        up = body.parents[wp.static(SPINE[0]) + k]
        if p < 3:
            side, along = arc_second_derivatives(q[s, lateral_flexion_dof(k)])
            x = -m(joints.spine[s, k], side)
            y = m(joints.spine[s, k], along)
        else:
            side, along = arc_second_derivatives(q[s, extension_dof(k)])
            z = -m(joints.spine[s, k], side)
            y = m(joints.spine[s, k], along)
    else:
        h = p % 2
        up = body.parents[wp.static(SCAPULAE[0]) + h * wp.static(SCAPULAE[1] - SCAPULAE[0])]
        sign = 1.0 - 2.0 * float(h)
        sin_a, cos_a = sine_and_cosine(sign * q[s, abduction_dof(h)])
        sin_e, cos_e = sine_and_cosine(sign * q[s, elevation_dof(h)] - V(wp.static(_QUARTER)))
        width = 0.25 * joints.thorax[s, 0]
        if p < 8:
            x = sign * m(width, m(cos_e, cos_a))
            z = -m(width, sin_a)
        elif p < 10:
            x = sign * m(width, m(cos_e, cos_a))
            y = 0.5 * m(joints.thorax[s, 1], sin_e)
        else:
            x = -sign * m(width, m(sin_e, sin_a))
    rx = m(joints.rot[s, up, 0], x) + m(joints.rot[s, up, 1], y) + m(joints.rot[s, up, 2], z)
    ry = m(joints.rot[s, up, 3], x) + m(joints.rot[s, up, 4], y) + m(joints.rot[s, up, 5], z)
    rz = m(joints.rot[s, up, 6], x) + m(joints.rot[s, up, 7], y) + m(joints.rot[s, up, 8], z)
    return rx, ry, rz
