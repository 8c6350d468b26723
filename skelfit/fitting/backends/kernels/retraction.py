"""The retraction: how a step moves the variables. Ball joints follow rotations; other angles and betas add the step.

In the basis of a ball joint's axes its rotation is Rz(c) Ry(b) Rx(a), where a, b, c are the joint's angles, or their
negatives where the basis is left-handed. A step (da, db, dc) turns it, to first order, by

    w = Rz(c) t,   t = (da cos b, db, dc - da sin b),

and it moves to exp(w) Rz(c) Ry(b) Rx(a) = Rz(c) M Rx(a) with M = exp(t) Ry(b). So M alone determines the changes of the
angles: M = Rz(dc') Ry(b') Rx(da') with da' = atan2(M21, M22), and so on. A small step gives a small change of the
angles, to the resolution of a float of its size: no angle is read from a large matrix.

Where cos b' vanishes, M does not separate da' from dc'; da' is 0 there. All angles in rad.
"""

# Warp reads annotations when it compiles, so that they cannot be postponed in the files of kernels.
from math import pi

import warp as wp

from skelfit.fitting.backends.retraction_tables import BallTables

from .lanes import (
    A2,
    F2,
    V,
    angle_of,
    choose,
    exceeds,
    m,
    sine_and_cosine,
    sine_and_turn,
    square_root,
    sync,
    within_half_turn,
)

wp.set_module_options({"enable_backward": False, "max_unroll": 1})

# Squared cosine of the middle angle below which the outer angles are not determined: b, a float of about 1.6, is
# known to 1.2e-7, and so is cos b. Above ten times that, da' is known to a tenth; keeping a costs 1.2e-6 da' at most.
_POLE = 1.2e-6**2
_TINY = 1.0e-30  # rad^2, an angle so small that its square is still a float


@wp.func
def retract(s: int, t: int, x: A2, step: A2, max_step: float, balls: BallTables, scratch: A2, out: A2):
    """Retract a step of angles from x, scaled so that no joint turns by more than max_step rad.

    x, step, out (S, n): the angles are in the columns that balls names; out may be x. scratch (S, k). The threads of a
    group need to sync before and after.
    """
    for j in range(t, balls.index.shape[0], wp.block_dim()):
        u, v, w, sine, cosine = _turn(s, j, x, step, balls)
        scratch[s, j] = m(u, u) + m(v, v) + m(w, w)
    sync()
    longest = V(max_step)
    for j in range(balls.index.shape[0]):
        longest = wp.max(longest, square_root(scratch[s, j]))
    for i in range(balls.straight.shape[0]):
        longest = wp.max(longest, wp.abs(step[s, balls.straight[i]]))
    share = wp.cw_div(V(max_step), longest)
    for i in range(t, balls.straight.shape[0], wp.block_dim()):
        k = balls.straight[i]
        out[s, k] = x[s, k] + m(share, step[s, k])
    for j in range(t, balls.index.shape[0], wp.block_dim()):
        _move_ball(s, j, x, step, share, balls, out)


@wp.func
def retract_betas(s: int, t: int, x: A2, step: A2, first: int, count: int, max_step: float, out: A2):
    """Add a step to betas, scaled so that none changes by more than max_step.

    x, step, out (S, n): the betas are the variables first .. first + count; out may be x. Sync before and after.
    """
    longest = V(max_step)
    for i in range(count):
        longest = wp.max(longest, wp.abs(step[s, first + i]))
    share = wp.cw_div(V(max_step), longest)
    for i in range(t, count, wp.block_dim()):
        out[s, first + i] = x[s, first + i] + m(share, step[s, first + i])


@wp.func
def _turn(s: int, j: int, x: A2, step: A2, balls: BallTables):
    """The turn t of ball joint j by a step, its three components; sin b and cos b."""
    hand = balls.hand[j]
    sine, cosine = sine_and_cosine(hand * x[s, balls.index[j, 1]])
    da = hand * step[s, balls.index[j, 0]]
    db = hand * step[s, balls.index[j, 1]]
    dc = hand * step[s, balls.index[j, 2]]
    return m(da, cosine), db, dc - m(da, sine), sine, cosine


@wp.func
def _move_ball(s: int, j: int, x: A2, step: A2, share: V, balls: BallTables, out: A2):
    """The angles of ball joint j after a share of a step; of the two Euler triples the one nearer to the limits."""
    u, v, w, sine, cosine = _turn(s, j, x, step, balls)
    da, db, dc = _changes(m(share, u), m(share, v), m(share, w), sine, cosine)
    hand = balls.hand[j]
    a = x[s, balls.index[j, 0]] + hand * da
    b = x[s, balls.index[j, 1]] + hand * db
    c = x[s, balls.index[j, 2]] + hand * dc
    write_ball(s, j, a, b, c, balls, out)


@wp.func
def write_ball(s: int, j: int, a: V, b: V, c: V, balls: BallTables, out: A2):
    """Write the angles of ball joint j, or the other Euler triple of the same rotation if it is nearer to the limits.

    Nearer: a smaller sum of squared excesses. Angles are within half a turn of the middle of the limits.
    """
    half = V(wp.static(3.141592653589793))
    a0 = near_middle(a, balls.middle[j, 0])
    b0 = near_middle(b, balls.middle[j, 1])
    c0 = near_middle(c, balls.middle[j, 2])
    a1 = near_middle(a + half, balls.middle[j, 0])
    b1 = near_middle(half - b, balls.middle[j, 1])
    c1 = near_middle(c + half, balls.middle[j, 2])
    excess = _beyond(a0, j, 0, balls) + _beyond(b0, j, 1, balls) + _beyond(c0, j, 2, balls)
    other_excess = _beyond(a1, j, 0, balls) + _beyond(b1, j, 1, balls) + _beyond(c1, j, 2, balls)
    choose_other = exceeds(excess, other_excess)
    out[s, balls.index[j, 0]] = choose(choose_other, a1, a0)
    out[s, balls.index[j, 1]] = choose(choose_other, b1, b0)
    out[s, balls.index[j, 2]] = choose(choose_other, c1, c0)


@wp.func
def _changes(x: V, y: V, z: V, sine: V, cosine: V):
    """Changes of the angles a, b, c of Ry(b) Rx(a) that exp(x, y, z) turns; from sin b and cos b."""
    square = wp.max(m(x, x) + m(y, y) + m(z, z), V(wp.static(_TINY)))
    angle = square_root(square)
    p, q = sine_and_turn(angle)
    p = wp.cw_div(p, angle)
    q = wp.cw_div(q, square)
    # exp(x, y, z), without the middle of its lowest row.
    xy, xz, yz = m(q, m(x, y)), m(q, m(x, z)), m(q, m(y, z))
    e00, e01, e02 = V(1.0) - m(q, m(y, y) + m(z, z)), xy - m(p, z), xz + m(p, y)
    e10, e11, e12 = xy + m(p, z), V(1.0) - m(q, m(x, x) + m(z, z)), yz - m(p, x)
    e20, e22 = xz - m(p, y), V(1.0) - m(q, m(x, x) + m(y, y))
    m20, m21, m22 = m(e20, cosine) - m(e22, sine), yz + m(p, x), m(e20, sine) + m(e22, cosine)
    m01, m02 = e01, m(e00, sine) + m(e02, cosine)
    m11, m12 = e11, m(e10, sine) + m(e12, cosine)
    da, dc, z2 = outer_angles(m01, m02, m11, m12, m21, m22)
    db = angle_of(-m(m20, cosine) - m(z2, sine), m(z2, cosine) - m(m20, sine))
    return da, db, dc


@wp.func
def outer_angles(m01: V, m02: V, m11: V, m12: V, m21: V, m22: V):
    """a, c and cos b >= 0 of M = Rz(c) Ry(b) Rx(a); a is 0 where cos b vanishes. sin b = -M20."""
    level = m(m21, m21) + m(m22, m22)
    pole = exceeds(V(wp.static(_POLE)), level)
    size = square_root(level)
    sine = choose(pole, V(0.0), wp.cw_div(m21, size))
    cosine = choose(pole, V(1.0), wp.cw_div(m22, size))
    # The middle column of M Rx(-a) = Rz(c) Ry(b), and its last number.
    x = m(cosine, m01) - m(sine, m02)
    y = m(cosine, m11) - m(sine, m12)
    return angle_of(sine, cosine), angle_of(-x, y), m(sine, m21) + m(cosine, m22)


@wp.func
def near_middle(a: V, middle: float) -> V:
    """The same angle, within half a turn of the middle."""
    return V(middle) + within_half_turn(a - V(middle))


@wp.func
def _beyond(a: V, j: int, r: int, balls: BallTables) -> V:
    """The squared excess of an angle of ball joint j over its limits."""
    over = wp.max(a - V(balls.limits[j, r, 1]), V(0.0)) + wp.max(V(balls.limits[j, r, 0]) - a, V(0.0))
    return m(over, over)


@wp.func
def move_along_pole(s: int, i: int, j: int, k: int, pole_point: int, limits: F2, selected: V, x: A2):
    """Move the angles x[i], x[j], x[k] of a ball joint (a, b, c above) of the selected lanes to an Euler pole.

    At the pole nearest to b, a quarter turn, a and c turn about one axis: the rotation depends on a - c alone, or on
    a + c where b is negative. So a line of angles is one rotation, and the two Euler triples of the rotations nearby
    lie on either side of it. Of the part of the line within the limits, pole_point 0 is the end with the lowest c, 1
    the other end, 2 the middle. limits (n, 2) rad of the variables.
    """
    middle_a = 0.5 * (limits[i, 0] + limits[i, 1])
    middle_c = 0.5 * (limits[k, 0] + limits[k, 1])
    b = near_middle(x[s, j], 0.5 * (limits[j, 0] + limits[j, 1]))
    sign = choose(exceeds(V(0.0), b), V(-1.0), V(1.0))
    middle = V(middle_a) - sign * middle_c
    visible = middle + within_half_turn(x[s, i] - m(sign, x[s, k]) - middle)
    first_end = m(sign, V(limits[i, 0]) - visible)
    other_end = m(sign, V(limits[i, 1]) - visible)
    low = wp.max(V(limits[k, 0]), wp.min(first_end, other_end))
    high = wp.min(V(limits[k, 1]), wp.max(first_end, other_end))
    c = 0.5 * (low + high)
    if pole_point == 0:
        c = low
    if pole_point == 1:
        c = high
    c = _within(c, limits[k, 0], limits[k, 1])
    a = _within(visible + m(sign, c), limits[i, 0], limits[i, 1])
    b = _within(sign * wp.static(pi / 2), limits[j, 0], limits[j, 1])
    x[s, i] = choose(selected, a, x[s, i])
    x[s, j] = choose(selected, b, x[s, j])
    x[s, k] = choose(selected, c, x[s, k])


@wp.func
def _within(a: V, low: float, high: float) -> V:
    """The angle, clamped to limits."""
    return wp.min(wp.max(a, V(low)), V(high))
