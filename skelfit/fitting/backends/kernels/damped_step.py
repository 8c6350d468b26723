"""A damped Newton step for a group of people: factorise, substitute, promise.

With the model M of the Hessian, E = M + bend the Hessian itself where it is wanted, and damping c, the step d solves
(E + c diag M + floor) d = -g, by U^T U = matrix with U upper triangular. Where that matrix is not positive definite, M
takes the place of E; where that is not either, d is the gradient scaled by the largest curvature. The decrease that d
promises is -g . d - d . (E d) / 2.
"""

from typing import Any

import warp as wp

from .lanes import A2, A3, V, choose, exceeds, finite, m, root, some, sync

wp.set_module_options({"enable_backward": False, "max_unroll": 1})

FLOOR = 1e-8  # of the damping, as a share of the largest curvature
_TINY = 1.1754943508222875e-38


@wp.struct
class Steps:
    """Of each slot S: what N variables need."""

    # Two buffers a slot, h = 2 s and 2 s + 1: where a person is, and where a step may lead.
    gradient: A2  # (2 S, N)
    hessian: A3  # (2 S, N, N) M, upper triangle
    bend: A3  # (2 S, N, N) what the Hessian is more, upper triangle
    factor: A3  # (S, N, N) U
    row: A2  # (S, N) a row of U before it is scaled
    step: A2  # (S, N)
    other: A2  # (S, N) the step without bend
    part: A2  # (S, N) of the promise


def make_steps(slots: int, variables: int, device: str) -> Any:
    """Room for so many groups."""
    steps = Steps()
    for name in ("row", "step", "other", "part"):
        setattr(steps, name, wp.zeros((slots, variables), dtype=V, device=device))
    steps.gradient = wp.zeros((2 * slots, variables), dtype=V, device=device)
    steps.factor = wp.zeros((slots, variables, variables), dtype=V, device=device)
    for name in ("hessian", "bend"):
        setattr(steps, name, wp.zeros((2 * slots, variables, variables), dtype=V, device=device))
    return steps


@wp.func
def largest_curvature(h: int, n: int, hessian: A3) -> V:
    """The largest entry of the diagonal."""
    largest = hessian[h, 0, 0]
    for i in range(1, n):
        largest = wp.max(largest, hessian[h, i, i])
    return largest


@wp.func
def _entry(h: int, i: int, j: int, bent: int, w: Steps) -> V:
    e = w.hessian[h, i, j]
    if bent != 0:
        e += w.bend[h, i, j]
    return e


@wp.func
def _factor(s: int, t: int, h: int, n: int, bent: int, damping: V, floor: V, w: Steps) -> V:
    """U of the damped matrix; returns 1 where it is positive definite."""
    good = V(1.0)
    for i in range(n):
        # Four columns at a time: what row k of U has in column i is read once for all of them.
        for b in range(t, (n - i + 3) / 4, wp.block_dim()):
            j = i + 4 * b
            j1 = wp.min(j + 1, n - 1)
            j2 = wp.min(j + 2, n - 1)
            j3 = wp.min(j + 3, n - 1)
            e0 = _entry(h, i, j, bent, w)
            e1 = _entry(h, i, j1, bent, w)
            e2 = _entry(h, i, j2, bent, w)
            e3 = _entry(h, i, j3, bent, w)
            if b == 0:
                e0 += m(damping, w.hessian[h, i, i]) + floor
            for k in range(i):
                u = w.factor[s, k, i]
                e0 -= m(u, w.factor[s, k, j])
                e1 -= m(u, w.factor[s, k, j1])
                e2 -= m(u, w.factor[s, k, j2])
                e3 -= m(u, w.factor[s, k, j3])
            w.row[s, j] = e0
            if j + 1 < n:
                w.row[s, j1] = e1
            if j + 2 < n:
                w.row[s, j2] = e2
            if j + 3 < n:
                w.row[s, j3] = e3
        sync()
        pivot = w.row[s, i]
        definite = exceeds(pivot, V(0.0))
        good = m(good, definite)
        scale = wp.cw_div(V(1.0), root(choose(definite, pivot, V(1.0))))
        for j in range(i + t, n, wp.block_dim()):
            w.factor[s, i, j] = m(w.row[s, j], scale)
        sync()
    return good


@wp.func
def _substitute(s: int, t: int, h: int, n: int, good: V, w: Steps, x: A2) -> V:
    """x = -(U^T U)^-1 g; returns good where that is finite, else 0. `row` holds what is left of the right side."""
    for i in range(t, n, wp.block_dim()):
        w.row[s, i] = -w.gradient[h, i]
    sync()
    for i in range(n):
        y = wp.cw_div(w.row[s, i], w.factor[s, i, i])
        for j in range(i + 1 + t, n, wp.block_dim()):
            w.row[s, j] = w.row[s, j] - m(w.factor[s, i, j], y)
        sync()
        if t == 0:
            x[s, i] = y
    sync()
    for r in range(n):
        i = n - 1 - r
        y = wp.cw_div(x[s, i], w.factor[s, i, i])
        good = m(good, finite(y))
        for j in range(t, i, wp.block_dim()):
            x[s, j] = x[s, j] - m(w.factor[s, j, i], y)
        if t == 0:
            w.row[s, i] = y
        sync()
    for i in range(t, n, wp.block_dim()):
        x[s, i] = w.row[s, i]
    sync()
    return good


@wp.func
def damped_step(s: int, t: int, h: int, n: int, bent: int, damping: V, w: Steps) -> V:
    """Write the step from buffer h; returns the promise. bent 0: without bend."""
    largest = largest_curvature(h, n, w.hessian)
    floor = largest * wp.static(FLOOR) + V(wp.static(_TINY))
    exact = V(0.0)
    if bent != 0:
        exact = _factor(s, t, h, n, 1, damping, floor, w)
        exact = _substitute(s, t, h, n, exact, w, w.step)
    if bent == 0 or some(V(1.0) - exact):
        plain = _factor(s, t, h, n, 0, damping, floor, w)
        plain = _substitute(s, t, h, n, plain, w, w.other)
        straight = wp.cw_div(V(1.0), m(largest, V(1.0) + damping) + floor)
        for i in range(t, n, wp.block_dim()):
            x = choose(plain, w.other[s, i], -m(w.gradient[h, i], straight))
            w.step[s, i] = choose(exact, w.step[s, i], x)
        sync()
    return _promise(s, t, h, n, bent, exact, w)


@wp.func
def _promise(s: int, t: int, h: int, n: int, bent: int, exact: V, w: Steps) -> V:
    """-g . d - d . (E d) / 2, with E where the step is exact, else M."""
    for i in range(t, n, wp.block_dim()):
        half = 0.5 * w.hessian[h, i, i]
        if bent != 0:
            half += 0.5 * m(exact, w.bend[h, i, i])
        total = m(half, w.step[s, i])
        for j in range(i + 1, n):
            e = w.hessian[h, i, j]
            if bent != 0:
                e += m(exact, w.bend[h, i, j])
            total += m(e, w.step[s, j])
        w.part[s, i] = m(w.step[s, i], w.gradient[h, i] + total)
    sync()
    total = V()
    for i in range(n):
        total -= w.part[s, i]
    return total
