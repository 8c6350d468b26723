"""Rotations of a group of people: quaternions and 3 x 3 matrices of lane vectors.

A quaternion (x, y, z, w) is written like a vector of four lane vectors, a matrix row by row like one of nine.
"""

# Warp reads annotations when it compiles, so that they cannot be postponed in the files of kernels.
from typing import Any

import warp as wp

from .lanes import A3, L, V, angle_of, choose, exceeds, m, sine_and_cosine, sine_and_turn, square_root
from .retraction import outer_angles

wp.set_module_options({"enable_backward": False, "max_unroll": 1})

Quaternion: Any = wp.types.matrix(shape=(4, L), dtype=float)
Matrix: Any = wp.types.matrix(shape=(9, L), dtype=float)
_TINY = 1.0e-30  # of a square, so small that the square is still a float


@wp.func
def from_rotation_vector(x: V, y: V, z: V) -> Quaternion:
    """The quaternion of a rotation vector (3,) rad of any length."""
    angle = square_root(wp.max(m(x, x) + m(y, y) + m(z, z), V(wp.static(_TINY))))
    sine, cosine = sine_and_cosine(0.5 * angle)
    share = wp.cw_div(sine, angle)
    q = Quaternion()
    q[0] = m(share, x)
    q[1] = m(share, y)
    q[2] = m(share, z)
    q[3] = cosine
    return q


@wp.func
def quaternion_at(a: A3, s: int, j: int) -> Quaternion:
    """The quaternion a[s, j]."""
    q = Quaternion()
    for i in range(4):
        q[i] = a[s, j, i]
    return q


@wp.func
def normalized(q: Quaternion) -> Quaternion:
    """The quaternion of length 1."""
    over = wp.cw_div(V(1.0), square_root(m(q[0], q[0]) + m(q[1], q[1]) + m(q[2], q[2]) + m(q[3], q[3])))
    r = Quaternion()
    for i in range(4):
        r[i] = m(over, q[i])
    return r


@wp.func
def compose(p: Quaternion, q: Quaternion) -> Quaternion:
    """The rotation q, then p."""
    r = Quaternion()
    r[0] = m(p[3], q[0]) + m(p[0], q[3]) + m(p[1], q[2]) - m(p[2], q[1])
    r[1] = m(p[3], q[1]) + m(p[1], q[3]) + m(p[2], q[0]) - m(p[0], q[2])
    r[2] = m(p[3], q[2]) + m(p[2], q[3]) + m(p[0], q[1]) - m(p[1], q[0])
    r[3] = m(p[3], q[3]) - m(p[0], q[0]) - m(p[1], q[1]) - m(p[2], q[2])
    return r


@wp.func
def twist_of(q: Quaternion, x: V, y: V, z: V):
    """Sine and cosine of half the angle by which a rotation twists about a unit axis; 0 and 1 where it does not."""
    sine = m(q[0], x) + m(q[1], y) + m(q[2], z)
    square = m(sine, sine) + m(q[3], q[3])
    vanishes = exceeds(V(wp.static(_TINY)), square)
    over = wp.cw_div(V(1.0), square_root(square))
    return choose(vanishes, V(0.0), m(sine, over)), choose(vanishes, V(1.0), m(q[3], over))


@wp.func
def matrix_minus_identity(q: Quaternion) -> Matrix:
    """R - I of a quaternion, without cancellation."""
    x = 2.0 * q[0]
    y = 2.0 * q[1]
    z = 2.0 * q[2]
    r = Matrix()
    r[0] = -m(y, q[1]) - m(z, q[2])
    r[1] = m(x, q[1]) - m(z, q[3])
    r[2] = m(x, q[2]) + m(y, q[3])
    r[3] = m(x, q[1]) + m(z, q[3])
    r[4] = -m(x, q[0]) - m(z, q[2])
    r[5] = m(y, q[2]) - m(x, q[3])
    r[6] = m(x, q[2]) - m(y, q[3])
    r[7] = m(y, q[2]) + m(x, q[3])
    r[8] = -m(x, q[0]) - m(y, q[1])
    return r


@wp.func
def matrix_of(q: Quaternion) -> Matrix:
    """R of a quaternion."""
    r = matrix_minus_identity(q)
    for i in range(3):
        r[4 * i] = r[4 * i] + V(1.0)
    return r


@wp.func
def rotation_about(x: float, y: float, z: float, a: V) -> Matrix:
    """The rotation by a about a unit axis."""
    sine, turn = sine_and_turn(a)
    r = Matrix()
    r[0] = V(1.0) - turn * (y * y + z * z)
    r[1] = turn * (x * y) - sine * z
    r[2] = turn * (x * z) + sine * y
    r[3] = turn * (x * y) + sine * z
    r[4] = V(1.0) - turn * (x * x + z * z)
    r[5] = turn * (y * z) - sine * x
    r[6] = turn * (x * z) - sine * y
    r[7] = turn * (y * z) + sine * x
    r[8] = V(1.0) - turn * (x * x + y * y)
    return r


@wp.func
def times(a: Matrix, b: Matrix) -> Matrix:
    """a b."""
    r = Matrix()
    for i in range(3):
        for k in range(3):
            r[3 * i + k] = m(a[3 * i], b[k]) + m(a[3 * i + 1], b[3 + k]) + m(a[3 * i + 2], b[6 + k])
    return r


@wp.func
def transposed(a: Matrix) -> Matrix:
    """The transpose."""
    r = Matrix()
    for i in range(3):
        for k in range(3):
            r[3 * i + k] = a[3 * k + i]
    return r


@wp.func
def in_frame(frame: Matrix, a: Matrix) -> Matrix:
    """frame^T a frame."""
    return times(transposed(frame), times(a, frame))


@wp.func
def angles_of(r: Matrix):
    """The angles a, b, c of R = Rz(c) Ry(b) Rx(a), b within a quarter turn; a is 0 at a pole."""
    a, c, cosine = outer_angles(r[1], r[2], r[4], r[5], r[7], r[8])
    return a, angle_of(-r[6], cosine), c
