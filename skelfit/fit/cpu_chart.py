"""A solver step of angles on a CPU: `chart.joint_move` for one person after the other, compiled.

In the basis of a ball joint's axes its rotation is Rz(c) Ry(b) Rx(a), whose angles are the joint's, or their negatives
where the basis is left-handed. Steps are worked out in float64.
"""

from __future__ import annotations

from math import pi

import numpy as np

from skelfit.fit.compiled import Array, compiled

_POLE = 1e-15  # cosine of the middle angle below which the outer angles can no longer be told apart
_SMALL = 1e-8  # rad^2


@compiled
def move_all(
    x: Array, step: Array, max_step: float, index: Array, straight: Array, hand: Array, limits: Array,
    middle: Array, moved: Array,
) -> None:  # fmt: skip
    """Fills moved (B, n), where steps (B, n) of at most max_step lead from x (B, n).

    index (k, 3): the ball joints' angles among the variables; straight (m,): the others; of each ball joint hand (k,),
    limits (k, 3, 2) and their middle (k, 3), rad.
    """
    count = len(index)
    rot, turn, new = np.empty((count, 3, 3)), np.empty((count, 3)), np.empty((3, 3))
    one, twin = np.empty(3), np.empty(3)
    for p in range(len(x)):
        longest = max_step
        for i in straight:
            longest = max(longest, abs(np.float64(step[p, i])))
        for j in range(count):
            longest = max(longest, _turn(x[p], step[p], index[j], hand[j], rot[j], turn[j]))
        share = max_step / longest
        for i in straight:
            moved[p, i] = x[p, i] + share * step[p, i]
        for j in range(count):
            _rotate(rot[j], turn[j], share, new)
            _angles(new, hand[j], x[p, index[j, 0]], middle[j], one, twin)
            chosen = one if _excess(one, limits[j]) <= _excess(twin, limits[j]) else twin
            for r in range(3):
                moved[p, index[j, r]] = chosen[r]


@compiled
def _turn(x: Array, step: Array, index: Array, hand: float, rot: Array, turn: Array) -> float:
    """A ball joint's rotation (3, 3), and the rotation (3,) that a step of its angles is to first order; its length."""
    a, b, c = hand * x[index[0]], hand * x[index[1]], hand * x[index[2]]
    sa, ca, sb, cb, sc, cc = np.sin(a), np.cos(a), np.sin(b), np.cos(b), np.sin(c), np.cos(c)
    rot[0, 0], rot[0, 1], rot[0, 2] = cc * cb, cc * sb * sa - sc * ca, cc * sb * ca + sc * sa
    rot[1, 0], rot[1, 1], rot[1, 2] = sc * cb, sc * sb * sa + cc * ca, sc * sb * ca - cc * sa
    rot[2, 0], rot[2, 1], rot[2, 2] = -sb, cb * sa, cb * ca
    da, db, dc = hand * step[index[0]], hand * step[index[1]], hand * step[index[2]]
    turn[0], turn[1], turn[2] = da * cc * cb - db * sc, da * sc * cb + db * cc, dc - da * sb
    return np.sqrt(turn[0] * turn[0] + turn[1] * turn[1] + turn[2] * turn[2])


@compiled
def _rotate(rot: Array, turn: Array, share: float, new: Array) -> None:
    """rot turned by a share of a rotation vector."""
    x, y, z = share * turn[0], share * turn[1], share * turn[2]
    square = x * x + y * y + z * z
    angle = np.sqrt(square)
    s = np.sin(angle) / angle if square > _SMALL else 1 - square / 6
    t = 2 * np.sin(angle / 2) ** 2 / square if square > _SMALL else 0.5 - square / 24
    for c in range(3):
        u, v, w = rot[0, c], rot[1, c], rot[2, c]
        along = t * (x * u + y * v + z * w)
        new[0, c] = u - t * square * u + along * x + s * (y * w - z * v)
        new[1, c] = v - t * square * v + along * y + s * (z * u - x * w)
        new[2, c] = w - t * square * w + along * z + s * (x * v - y * u)


@compiled
def _angles(rot: Array, hand: float, near: float, middle: Array, one: Array, twin: Array) -> None:
    """The two triples of angles (3,) of a rotation; at a pole the first angle stays near where it was."""
    a = hand * near
    if np.hypot(rot[2, 1], rot[2, 2]) > _POLE:
        a = np.arctan2(rot[2, 1], rot[2, 2])
    sin, cos = np.sin(a), np.cos(a)
    # Columns of rot Rx(-a) = Rz(c) Ry(b).
    c = np.arctan2(sin * rot[0, 2] - cos * rot[0, 1], cos * rot[1, 1] - sin * rot[1, 2])
    b = np.arctan2(-rot[2, 0], sin * rot[2, 1] + cos * rot[2, 2])
    one[0], one[1], one[2] = hand * a, hand * b, hand * c
    twin[0], twin[1], twin[2] = hand * (a + pi), hand * (pi - b), hand * (c + pi)
    for r in range(3):
        one[r] = middle[r] + (one[r] - middle[r] + pi) % (2 * pi) - pi
        twin[r] = middle[r] + (twin[r] - middle[r] + pi) % (2 * pi) - pi


@compiled
def _excess(angles: Array, limits: Array) -> float:
    total = 0.0
    for r in range(3):
        beyond = max(angles[r] - limits[r, 1], 0.0) + max(limits[r, 0] - angles[r], 0.0)
        total += beyond * beyond
    return total
