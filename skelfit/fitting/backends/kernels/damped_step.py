"""A damped Newton step for a group of people: factorise, substitute, predict the decrease.

With M the Gauss-Newton matrix, C the second-order part of the Hessian, E = M + C (or M, if C is not wanted) and the
damping c, the step d solves (E + c diag M + floor) d = -g, by U^T U = matrix with U upper triangular. If that matrix
is not positive definite, M replaces E. If that one is not either, d is the gradient scaled by the largest curvature.
The predicted decrease of d is -g . d - d . (E d) / 2.
"""

from typing import Any

import warp as wp

from .lanes import A2, A3, V, any_positive, choose, exceeds, finite, m, square_root, sync

wp.set_module_options({"enable_backward": False, "max_unroll": 1})

FLOOR = 1e-8  # of the damping, as a share of the largest curvature
_TINY = 1.1754943508222875e-38


@wp.struct
class NewtonScratch:
    """The equations of a step in N variables, for each of S slots."""

    # Two buffers a slot, h = 2 s and 2 s + 1: the accepted variables, and the trial.
    gradient: A2  # (2 S, N)
    hessian: A3  # (2 S, N, N) M, upper triangle
    curvature: A3  # (2 S, N, N) C, upper triangle
    factor: A3  # (S, N, N) U
    row: A2  # (S, N) a row of U before it is scaled
    step: A2  # (S, N)
    plain_step: A2  # (S, N) the step without C
    decrease_part: A2  # (S, N) of the predicted decrease


def make_newton_scratch(slots: int, variables: int, device: str) -> Any:
    """Scratch for so many groups."""
    newton = NewtonScratch()
    for name in ("row", "step", "plain_step", "decrease_part"):
        setattr(newton, name, wp.zeros((slots, variables), dtype=V, device=device))
    newton.gradient = wp.zeros((2 * slots, variables), dtype=V, device=device)
    newton.factor = wp.zeros((slots, variables, variables), dtype=V, device=device)
    for name in ("hessian", "curvature"):
        setattr(newton, name, wp.zeros((2 * slots, variables, variables), dtype=V, device=device))
    return newton


@wp.func
def next_damping(damping: V, going: V, better: V, rules: Any) -> V:
    """The damping after a trial, in the lanes that go on: less where it was accepted, else more."""
    scaled = m(damping, choose(better, V(rules.damping_down), V(rules.damping_up)))
    scaled = wp.min(wp.max(scaled, V(rules.damping_min)), V(rules.damping_max))
    return choose(going, scaled, damping)


@wp.func
def largest_curvature(h: int, n: int, hessian: A3) -> V:
    """The largest entry of the diagonal."""
    largest = hessian[h, 0, 0]
    for i in range(1, n):
        largest = wp.max(largest, hessian[h, i, i])
    return largest


@wp.func
def _entry(h: int, i: int, j: int, full_hessian: int, newton: NewtonScratch) -> V:
    e = newton.hessian[h, i, j]
    if full_hessian != 0:
        e += newton.curvature[h, i, j]
    return e


@wp.func
def _factor(
    s: int, t: int, h: int, n: int, full_hessian: int, damping: V, floor: V, newton: NewtonScratch
) -> V:
    """U of the damped matrix; returns 1 where it is positive definite."""
    definite = V(1.0)
    for i in range(n):
        # Four columns at a time share one read of U[k, i].
        for b in range(t, (n - i + 3) / 4, wp.block_dim()):
            j = i + 4 * b
            j1 = wp.min(j + 1, n - 1)
            j2 = wp.min(j + 2, n - 1)
            j3 = wp.min(j + 3, n - 1)
            e0 = _entry(h, i, j, full_hessian, newton)
            e1 = _entry(h, i, j1, full_hessian, newton)
            e2 = _entry(h, i, j2, full_hessian, newton)
            e3 = _entry(h, i, j3, full_hessian, newton)
            if b == 0:
                e0 += m(damping, newton.hessian[h, i, i]) + floor
            for k in range(i):
                u = newton.factor[s, k, i]
                e0 -= m(u, newton.factor[s, k, j])
                e1 -= m(u, newton.factor[s, k, j1])
                e2 -= m(u, newton.factor[s, k, j2])
                e3 -= m(u, newton.factor[s, k, j3])
            newton.row[s, j] = e0
            if j + 1 < n:
                newton.row[s, j1] = e1
            if j + 2 < n:
                newton.row[s, j2] = e2
            if j + 3 < n:
                newton.row[s, j3] = e3
        sync()
        pivot = newton.row[s, i]
        positive = exceeds(pivot, V(0.0))
        definite = m(definite, positive)
        scale = wp.cw_div(V(1.0), square_root(choose(positive, pivot, V(1.0))))
        for j in range(i + t, n, wp.block_dim()):
            newton.factor[s, i, j] = m(newton.row[s, j], scale)
        sync()
    return definite


@wp.func
def _substitute(s: int, t: int, h: int, n: int, definite: V, newton: NewtonScratch, x: A2) -> V:
    """x = -(U^T U)^-1 g; returns `definite` where x is finite, else 0. `row` holds the rest of the right side."""
    for i in range(t, n, wp.block_dim()):
        newton.row[s, i] = -newton.gradient[h, i]
    sync()
    for i in range(n):
        y = wp.cw_div(newton.row[s, i], newton.factor[s, i, i])
        for j in range(i + 1 + t, n, wp.block_dim()):
            newton.row[s, j] = newton.row[s, j] - m(newton.factor[s, i, j], y)
        sync()
        if t == 0:
            x[s, i] = y
    sync()
    for r in range(n):
        i = n - 1 - r
        y = wp.cw_div(x[s, i], newton.factor[s, i, i])
        definite = m(definite, finite(y))
        for j in range(t, i, wp.block_dim()):
            x[s, j] = x[s, j] - m(newton.factor[s, j, i], y)
        if t == 0:
            newton.row[s, i] = y
        sync()
    for i in range(t, n, wp.block_dim()):
        x[s, i] = newton.row[s, i]
    sync()
    return definite


@wp.func
def damped_step(s: int, t: int, h: int, n: int, full_hessian: int, damping: V, newton: NewtonScratch) -> V:
    """Write the step from buffer h; returns the predicted decrease. full_hessian 0: without C."""
    largest = largest_curvature(h, n, newton.hessian)
    floor = largest * wp.static(FLOOR) + V(wp.static(_TINY))
    exact = V(0.0)
    if full_hessian != 0:
        exact = _factor(s, t, h, n, 1, damping, floor, newton)
        exact = _substitute(s, t, h, n, exact, newton, newton.step)
    if full_hessian == 0 or any_positive(V(1.0) - exact):
        plain = _factor(s, t, h, n, 0, damping, floor, newton)
        plain = _substitute(s, t, h, n, plain, newton, newton.plain_step)
        straight = wp.cw_div(V(1.0), m(largest, V(1.0) + damping) + floor)
        for i in range(t, n, wp.block_dim()):
            x = choose(plain, newton.plain_step[s, i], -m(newton.gradient[h, i], straight))
            newton.step[s, i] = choose(exact, newton.step[s, i], x)
        sync()
    return _predicted_decrease(s, t, h, n, full_hessian, exact, newton)


@wp.func
def _predicted_decrease(
    s: int, t: int, h: int, n: int, full_hessian: int, exact: V, newton: NewtonScratch
) -> V:
    """-g . d - d . (E d) / 2, with E where the step is exact, else M."""
    for i in range(t, n, wp.block_dim()):
        half = 0.5 * newton.hessian[h, i, i]
        if full_hessian != 0:
            half += 0.5 * m(exact, newton.curvature[h, i, i])
        total = m(half, newton.step[s, i])
        for j in range(i + 1, n):
            e = newton.hessian[h, i, j]
            if full_hessian != 0:
                e += m(exact, newton.curvature[h, i, j])
            total += m(e, newton.step[s, j])
        newton.decrease_part[s, i] = m(newton.step[s, i], newton.gradient[h, i] + total)
    sync()
    total = V()
    for i in range(n):
        total -= newton.decrease_part[s, i]
    return total
