"""Lane vectors: one number for each person of a group, and the arithmetic that Warp's vectors lack.

V is a vector of L floats. + and - and the product with a plain number are Warp's own; `m` is the product lane by lane.
Conditions are lane vectors too: positive where they hold. Sines, cosines and angles are polynomials, so every lane,
processor and library computes the same bits.
"""

# Warp reads annotations when it compiles, so that they cannot be postponed in the files of kernels.
import sys
from typing import Any

import warp as wp

L: int = getattr(sys.modules[__package__], "LANES", 1)
V: Any = wp.types.vector(length=L, dtype=float)
A1, A2, A3, A4 = wp.array(dtype=V), wp.array2d(dtype=V), wp.array3d(dtype=V), wp.array4d(dtype=V)
F1, F2, F3 = wp.array(dtype=float), wp.array2d(dtype=float), wp.array3d(dtype=float)
I1, I2 = wp.array(dtype=int), wp.array2d(dtype=int)


def _lanewise(name: str, loop: str) -> str:
    """The C++ of a function of lanes: `lanes.h`'s on a CPU, a loop elsewhere."""
    names = "c, a, b" if name == "choose" else "a, b" if name == "exceeds" else "a"
    return f"""
#ifdef SKELFIT_LANES
    return wp::lanes_{name}({names});
#else
    wp::vec_t<{L}, float> r;
    for (int k = 0; k < {L}; ++k) r[k] = {loop};
    return r;
#endif
"""


@wp.func
def m(a: V, b: V) -> V:
    """a b, lane by lane."""
    return wp.cw_mul(a, b)


@wp.func_native(_lanewise("choose", "c[k] > 0.0f ? a[k] : b[k]"))
def choose(c: V, a: V, b: V) -> V:
    """a where c > 0, else b (also where c is not a number)."""


@wp.func_native(_lanewise("exceeds", "a[k] > b[k] ? 1.0f : 0.0f"))
def exceeds(a: V, b: V) -> V:
    """1 where a > b, else 0."""


@wp.func_native(_lanewise("sqrt", "::sqrtf(a[k])"))
def square_root(a: V) -> V:
    """The square root."""


@wp.func_native(_lanewise("round", "::rintf(a[k])"))
def rounded(a: V) -> V:
    """The nearest whole number."""


@wp.func_native("WP_TILE_SYNC();")
def sync():
    """Wait for all threads of the group: what they wrote before is visible after."""


@wp.func
def any_positive(a: V) -> bool:
    """Whether a > 0 in any lane."""
    any_lane = bool(False)
    for k in range(wp.static(L)):
        any_lane = any_lane or a[k] > 0.0
    return any_lane


@wp.func
def finite(a: V) -> V:
    """1 where a number is finite, else 0."""
    return exceeds(V(wp.static(3.0e38)), wp.abs(a))


@wp.func
def within_half_turn(a: V) -> V:
    """The angle, rad, less whole turns: in [-pi, pi]. For angles up to thousands of turns."""
    n = rounded(a * wp.static(0.15915494309189535))
    return (a - n * wp.static(6.28125)) - n * wp.static(0.0019353071795864769)


@wp.func
def sine_and_turn(a: V):
    """sin a and 1 - cos a; the latter without cancellation. By sine and cosine of the half angle in [-pi/2, pi/2]."""
    h = within_half_turn(a) * 0.5
    s, c = _half(h)
    return 2.0 * m(s, c), 2.0 * m(s, s)


@wp.func
def _half(h: V):
    """Sine and cosine in [-pi/2, pi/2], to 1e-7: Taylor's polynomials of degrees 11 and 12."""
    x = m(h, h)
    s = V(wp.static(-2.50521083854417e-8))
    s = m(s, x) + V(wp.static(2.7557319223985893e-6))
    s = m(s, x) + V(wp.static(-1.984126984126984e-4))
    s = m(s, x) + V(wp.static(8.333333333333333e-3))
    s = m(s, x) + V(wp.static(-0.16666666666666666))
    s = h + m(m(s, x), h)
    c = V(wp.static(2.08767569878681e-9))
    c = m(c, x) + V(wp.static(-2.755731922398589e-7))
    c = m(c, x) + V(wp.static(2.48015873015873e-5))
    c = m(c, x) + V(wp.static(-1.388888888888889e-3))
    c = m(c, x) + V(wp.static(4.1666666666666664e-2))
    c = m(c, x) + V(-0.5)
    c = m(c, x) + V(1.0)
    return s, c


@wp.func
def sine_and_cosine(a: V):
    """sin a and cos a."""
    s, t = sine_and_turn(a)
    return s, V(1.0) - t


@wp.func
def angle_of(y: V, x: V) -> V:
    """atan2(y, x) in [-pi, pi], to 3e-7; 0 where both are 0."""
    ax = wp.abs(x)
    ay = wp.abs(y)
    t = wp.cw_div(wp.min(ax, ay), wp.max(wp.max(ax, ay), V(wp.static(1.0e-37))))
    steep = exceeds(t, V(wp.static(0.4142135623730950)))
    t = choose(steep, wp.cw_div(t - V(1.0), t + V(1.0)), t)
    z = m(t, t)
    p = V(wp.static(8.05374449538e-2))
    p = m(p, z) - V(wp.static(1.38776856032e-1))
    p = m(p, z) + V(wp.static(1.99777106478e-1))
    p = m(p, z) - V(wp.static(3.33329491539e-1))
    a = m(m(p, z), t) + t + steep * wp.static(0.7853981633974483)
    a = choose(exceeds(ay, ax), V(wp.static(1.5707963267948966)) - a, a)
    a = choose(exceeds(V(0.0), x), V(wp.static(3.141592653589793)) - a, a)
    return choose(exceeds(V(0.0), y), -a, a)


@wp.func
def gather(x: F2, rows: I2, g: int, i: int) -> V:
    """x[rows[g, lane], i] for each lane."""
    r = V()
    for k in range(wp.static(L)):
        r[k] = x[rows[g, k], i]
    return r


@wp.func
def scatter(x: F2, rows: I2, g: int, i: int, a: V):
    """x[rows[g, lane], i] = a of each lane."""
    for k in range(wp.static(L)):
        x[rows[g, k], i] = a[k]
