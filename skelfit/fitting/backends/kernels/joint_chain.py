"""Where a person's joints stand and what each DoF moves: `body.kinematics` for a group of people.

A joint's DoFs turn it one after the other, the last one outermost: its global rotation is that of its parent times
R_last ... R_first. A DoF with world axis omega at a joint at p moves a point x of its subtree by omega x x + v with
v = p x omega, to which the sliding of spine and scapulae adds. A spine segment of length l bent by an angle a is an
arc: its end moves sideways by l (1 - cos a) / a and along by l sin a / a; a scapula slides on an ellipsoid.
"""

from math import cos, pi

import warp as wp

from skelfit.bodies.kinematics import ABDUCTION, ELEVATION, SCAPULAE, SPINE, SPINE_BENDING, SPINE_EXTENSION
from skelfit.fitting.backends.body_tables import Body

from .joint_frames import Place
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
def bend_dof(k: int) -> int:
    """The DoF that bends a spine segment."""
    return wp.static(SPINE_BENDING[0]) + k * wp.static(SPINE_BENDING[1] - SPINE_BENDING[0])


@wp.func
def extend_dof(k: int) -> int:
    """The DoF that extends a spine segment."""
    return wp.static(SPINE_EXTENSION[0]) + k * wp.static(SPINE_EXTENSION[1] - SPINE_EXTENSION[0])


@wp.func
def abduct_dof(k: int) -> int:
    """The DoF that abducts a scapula."""
    return wp.static(ABDUCTION[0]) + k * wp.static(ABDUCTION[1] - ABDUCTION[0])


@wp.func
def elevate_dof(k: int) -> int:
    """The DoF that elevates a scapula."""
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
def arc_slopes(a: V):
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
def arc_bends(a: V):
    """The second derivatives of `arc`."""
    small = exceeds(V(wp.static(_SMALL)), wp.abs(a))
    x = choose(small, V(1.0), a)
    s, t = sine_and_turn(x)
    side, up = arc_slopes(x)
    far_side = wp.cw_div(V(1.0) - t - 2.0 * side, x)
    far_up = wp.cw_div(-s - 2.0 * up, x)
    a2 = m(a, a)
    near_side = m(a, m(a2, V(wp.static(1 / 36)) - a2 * wp.static(1 / 960)) - V(0.25))
    near_up = m(a2, V(0.1) - a2 * wp.static(1 / 168)) - V(wp.static(1 / 3))
    return choose(small, near_side, far_side), choose(small, near_up, far_up)


@wp.func
def slide(s: int, j: int, q: A2, spine: A2, thorax: A2):
    """What the sliding of joint j adds to its offset, in its parent, m; spine (S, 3) and thorax (S, 2) are lengths."""
    x = V()
    y = V()
    z = V()
    k = spine_segment(j)
    if k >= 0:
        side_b, up_b = arc(q[s, bend_dof(k)])
        side_e, up_e = arc(q[s, extend_dof(k)])
        x = -m(side_b, spine[s, k])
        y = m(up_b + up_e - V(2.0), spine[s, k])
        z = -m(side_e, spine[s, k])
    h = scapula_side(j)
    if h >= 0:
        sign = 1.0 - 2.0 * float(h)
        sin_a, cos_a = sine_and_cosine(sign * q[s, abduct_dof(h)])
        sin_e, cos_e = sine_and_cosine(sign * q[s, elevate_dof(h)] - V(wp.static(_QUARTER)))
        x = -(0.25 * sign) * m(thorax[s, 0], m(cos_e, cos_a) - V(wp.static(cos(_QUARTER))))
        y = -0.5 * m(thorax[s, 1], sin_e + V(wp.static(cos(_QUARTER))))
        z = 0.25 * m(thorax[s, 0], sin_a)
    return x, y, z


@wp.func
def _add_slide_slopes(s: int, j: int, q: A2, place: Place, up: int):
    """Add the derivative of the sliding to the twists of the DoFs that slide joint j, whose parent is up."""
    k = spine_segment(j)
    if k >= 0:
        b = bend_dof(k)
        e = extend_dof(k)
        side_b, up_b = arc_slopes(q[s, b])
        side_e, up_e = arc_slopes(q[s, e])
        length = place.spine[s, k]
        for r in range(3):
            x = place.rot[s, up, 3 * r]
            y = place.rot[s, up, 3 * r + 1]
            z = place.rot[s, up, 3 * r + 2]
            place.v[s, b, r] = place.v[s, b, r] + m(length, m(y, up_b) - m(x, side_b))
            place.v[s, e, r] = place.v[s, e, r] + m(length, m(y, up_e) - m(z, side_e))
    h = scapula_side(j)
    if h >= 0:
        sign = 1.0 - 2.0 * float(h)
        a = abduct_dof(h)
        e = elevate_dof(h)
        sin_a, cos_a = sine_and_cosine(sign * q[s, a])
        sin_e, cos_e = sine_and_cosine(sign * q[s, e] - V(wp.static(_QUARTER)))
        width = 0.25 * place.thorax[s, 0]
        height = (0.5 * sign) * place.thorax[s, 1]
        for r in range(3):
            x = place.rot[s, up, 3 * r]
            y = place.rot[s, up, 3 * r + 1]
            z = place.rot[s, up, 3 * r + 2]
            place.v[s, a, r] = place.v[s, a, r] + m(width, m(x, m(cos_e, sin_a)) + sign * m(z, cos_a))
            place.v[s, e, r] = place.v[s, e, r] + m(width, m(x, m(sin_e, cos_a))) - m(height, m(y, cos_e))


@wp.func
def _stand(s: int, j: int, q: A2, body: Body, place: Place):
    """Write where joint j stands, and its rotation before its own DoFs turn it: its parent's."""
    x, y, z = slide(s, j, q, place.spine, place.thorax)
    x += place.offsets[s, j, 0]
    y += place.offsets[s, j, 1]
    z += place.offsets[s, j, 2]
    up = body.parents[j]
    if up < 0:
        place.pos[s, j, 0] = x + place.trans[s, 0]
        place.pos[s, j, 1] = y + place.trans[s, 1]
        place.pos[s, j, 2] = z + place.trans[s, 2]
        for r in range(9):
            place.rot[s, j, r] = V(wp.where(r % 4 == 0, 1.0, 0.0))
    else:
        for r in range(3):
            a = place.rot[s, up, 3 * r]
            b = place.rot[s, up, 3 * r + 1]
            c = place.rot[s, up, 3 * r + 2]
            place.pos[s, j, r] = place.pos[s, up, r] + m(a, x) + m(b, y) + m(c, z)
            place.rot[s, j, 3 * r] = a
            place.rot[s, j, 3 * r + 1] = b
            place.rot[s, j, 3 * r + 2] = c


@wp.func
def _turn(s: int, j: int, i: int, q: A2, place: Place):
    """Write the twist of DoF i, then turn its joint j by it."""
    x = place.axes[s, i, 0]
    y = place.axes[s, i, 1]
    z = place.axes[s, i, 2]
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
        a = place.rot[s, j, 3 * r]
        b = place.rot[s, j, 3 * r + 1]
        c = place.rot[s, j, 3 * r + 2]
        place.omega[s, i, r] = m(a, x) + m(b, y) + m(c, z)
        place.rot[s, j, 3 * r] = m(a, g00) + m(b, xy + sz) + m(c, xz - sy)
        place.rot[s, j, 3 * r + 1] = m(a, xy - sz) + m(b, g11) + m(c, yz + sx)
        place.rot[s, j, 3 * r + 2] = m(a, xz + sy) + m(b, yz - sx) + m(c, g22)
    for r in range(3):
        r1 = (r + 1) % 3
        r2 = (r + 2) % 3
        place.v[s, i, r] = m(place.pos[s, j, r1], place.omega[s, i, r2]) - m(
            place.pos[s, j, r2], place.omega[s, i, r1]
        )


@wp.func
def pose(s: int, t: int, q: A2, body: Body, place: Place):
    """Global rotations and positions of the joints, and the world twists of the DoFs, at angles q (S, 46) rad.

    The person is moved by `place.trans`.
    """
    for level in range(body.level.shape[0] - 1):
        for n in range(body.level[level] + t, body.level[level + 1], wp.block_dim()):
            j = body.order[n]
            _stand(s, j, q, body, place)
            count = body.first_dof[j + 1] - body.first_dof[j]
            for k in range(count):
                _turn(s, j, body.first_dof[j + 1] - 1 - k, q, place)
            _add_slide_slopes(s, j, q, place, body.parents[j])
        sync()


@wp.func
def slide_bend(s: int, p: int, q: A2, body: Body, place: Place):
    """The second derivative, in the world, of the sliding offset with respect to pair p of kinematics.SLIDE_PAIRS.

    These are the bendings, the extensions, the abductions and the elevations, each with itself, then elevation with
    abduction.
    """
    x = V()
    y = V()
    z = V()
    up = int(0)
    if p < 6:
        k = p % 3
        up = body.parents[wp.static(SPINE[0]) + k]
        if p < 3:
            side, along = arc_bends(q[s, bend_dof(k)])
            x = -m(place.spine[s, k], side)
            y = m(place.spine[s, k], along)
        else:
            side, along = arc_bends(q[s, extend_dof(k)])
            z = -m(place.spine[s, k], side)
            y = m(place.spine[s, k], along)
    else:
        h = p % 2
        up = body.parents[wp.static(SCAPULAE[0]) + h * wp.static(SCAPULAE[1] - SCAPULAE[0])]
        sign = 1.0 - 2.0 * float(h)
        sin_a, cos_a = sine_and_cosine(sign * q[s, abduct_dof(h)])
        sin_e, cos_e = sine_and_cosine(sign * q[s, elevate_dof(h)] - V(wp.static(_QUARTER)))
        width = 0.25 * place.thorax[s, 0]
        if p < 8:
            x = sign * m(width, m(cos_e, cos_a))
            z = -m(width, sin_a)
        elif p < 10:
            x = sign * m(width, m(cos_e, cos_a))
            y = 0.5 * m(place.thorax[s, 1], sin_e)
        else:
            x = -sign * m(width, m(sin_e, sin_a))
    rx = m(place.rot[s, up, 0], x) + m(place.rot[s, up, 1], y) + m(place.rot[s, up, 2], z)
    ry = m(place.rot[s, up, 3], x) + m(place.rot[s, up, 4], y) + m(place.rot[s, up, 5], z)
    rz = m(place.rot[s, up, 6], x) + m(place.rot[s, up, 7], y) + m(place.rot[s, up, 8], z)
    return rx, ry, rz
