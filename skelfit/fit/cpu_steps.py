"""The solver's damped step on a CPU: a factorisation per problem, in the cache, and the same in every batch.

LAPACK's factors depend on where in memory a matrix lies; these do not. Problems go through in groups of eight, the
problem being the innermost dimension, so that each instruction works on all of a group.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from skelfit.fit.compiled import Array, compiled

FLOOR = 1e-8  # of the damping, as a share of the largest curvature
_TINY = float(np.finfo(np.float32).tiny)
_GROUP = 8
Group = tuple[Any, ...]  # a number of each problem of a group


def damped_steps(
    hessian: Tensor, bend: Tensor | None, gradient: Tensor, damping: Tensor
) -> tuple[Tensor, Tensor]:
    """As `solver.damped_step`, of CPU tensors (B, n, n) twice, (B, n) and (B,): steps (B, n) and promises (B,)."""
    step, promised = gradient.new_empty(gradient.shape), gradient.new_empty(len(gradient))
    more = gradient.new_empty(0, 0, 0) if bend is None else bend
    h, e, g, by = (t.contiguous().numpy() for t in (hessian, more, gradient, damping))
    _solve_all(h, e, g, by, step.numpy(), promised.numpy())
    return step, promised


@compiled
def _solve_all(
    hessian: Array, bend: Array, gradient: Array, damping: Array, step: Array, promised: Array
) -> None:
    n, kind = gradient.shape[1], hessian.dtype
    h, e, u, g, x, plain = (
        np.empty((n, n, _GROUP), kind), np.empty((n, n, _GROUP), kind), np.empty((n, n, _GROUP), kind),
        np.empty((n, _GROUP), kind), np.empty((n, _GROUP), kind), np.empty((n, _GROUP), kind),
    )  # fmt: skip
    by, largest, total, row = (
        np.empty(_GROUP, kind), np.empty(_GROUP, kind), np.empty(_GROUP, kind), np.empty(_GROUP, kind),
    )  # fmt: skip
    good, exact = np.empty(_GROUP, np.bool_), np.zeros(_GROUP, np.bool_)
    for start in range(0, len(gradient), _GROUP):
        for p in range(_GROUP):
            k = min(start + p, len(gradient) - 1)  # a last group that is not full repeats its last problem
            by[p] = damping[k]
            for i in range(n):
                g[i, p] = gradient[k, i]
                for j in range(i, n):
                    h[i, j, p] = hessian[k, i, j]
        if len(bend):
            for p in range(_GROUP):
                k = min(start + p, len(gradient) - 1)
                for i in range(n):
                    for j in range(i, n):
                        e[i, j, p] = h[i, j, p] + bend[k, i, j]
            _damp(h, e, by, g, u, x, largest)
            _factor(u, row, exact)
            _substitute(u, x, exact)
        if not exact.all():
            _damp(h, h, by, g, u, plain, largest)
            _factor(u, row, good)
            _substitute(u, plain, good)
            for p in range(_GROUP):
                if not exact[p]:
                    floor = _floor(largest[p])
                    for i in range(n):
                        x[i, p] = plain[i, p] if good[p] else -g[i, p] / (largest[p] * (1 + by[p]) + floor)
                    if len(bend):
                        for i in range(n):
                            for j in range(i, n):
                                e[i, j, p] = h[i, j, p]
        _promise(e if len(bend) else h, g, x, row, total)
        for p in range(min(_GROUP, len(gradient) - start)):
            promised[start + p] = total[p]
            for i in range(n):
                step[start + p, i] = x[i, p]


@compiled
def _floor(largest: float) -> float:
    return FLOOR * largest + _TINY


@compiled
def _damp(h: Array, e: Array, by: Array, g: Array, u: Array, x: Array, largest: Array) -> None:
    """The upper triangles of e, damped as h is, into u; the right sides into x, the largest curvatures into largest."""
    n = len(g)
    for p in range(_GROUP):
        largest[p] = h[0, 0, p]
    for i in range(n):
        for p in range(_GROUP):
            largest[p] = max(largest[p], h[i, i, p])
            x[i, p] = -g[i, p]
    for i in range(n):
        for j in range(i, n):
            _store(_load(e[i, j]), u[i, j])
        for p in range(_GROUP):
            u[i, i, p] += by[p] * h[i, i, p] + _floor(largest[p])


@compiled
def _factor(u: Array, scale: Array, good: Array) -> None:
    """Of symmetric matrices, their upper triangles u (n, n, p), make U with U^T U = matrix; good: positive definite.

    scale (p,) is room.
    """
    n = len(u)
    good[:] = True
    for i in range(n):
        for j in range(i, n):
            entry = _load(u[i, j])
            for k in range(i):
                entry = _less(entry, u[k, i], u[k, j])
            _store(entry, u[i, j])
        for p in range(_GROUP):
            pivot = u[i, i, p]
            good[p] = good[p] and pivot > 0
            scale[p] = 1 / np.sqrt(pivot if pivot > 0 else 1.0)
        for j in range(i, n):
            _store(_times(_load(u[i, j]), scale), u[i, j])


@compiled
def _substitute(u: Array, x: Array, good: Array) -> None:
    """x (n, p) becomes the solutions of U^T U x = x; no good where they are not finite."""
    n = len(u)
    for i in range(n):
        entry = _load(x[i])
        for k in range(i):
            entry = _less(entry, u[k, i], x[k])
        _store(_over(entry, u[i, i]), x[i])
    for i in range(n - 1, -1, -1):
        entry = _load(x[i])
        for j in range(i + 1, n):
            entry = _less(entry, u[i, j], x[j])
        _store(_over(entry, u[i, i]), x[i])
        for p in range(_GROUP):
            good[p] = good[p] and np.isfinite(x[i, p])


@compiled
def _promise(h: Array, g: Array, x: Array, half: Array, total: Array) -> None:
    """The decreases that the models promise for steps x; half (p,) is room."""
    n = len(g)
    total[:] = 0
    for i in range(n):
        for p in range(_GROUP):
            half[p] = 0.5 * h[i, i, p]
        row = _times(_load(half), x[i])
        for j in range(i + 1, n):
            row = _plus(row, h[i, j], x[j])
        for p in range(_GROUP):
            total[p] -= x[i, p] * (g[i, p] + row[p])


# A group's numbers are loaded, worked on and stored together, which is what the compiler makes vectors of.


@compiled
def _load(a: Array) -> Group:
    return a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]


@compiled
def _store(x: Group, a: Array) -> None:
    a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7] = x


@compiled
def _less(x: Group, a: Array, b: Array) -> Group:
    """x - a b."""
    return (
        x[0] - a[0] * b[0], x[1] - a[1] * b[1], x[2] - a[2] * b[2], x[3] - a[3] * b[3],
        x[4] - a[4] * b[4], x[5] - a[5] * b[5], x[6] - a[6] * b[6], x[7] - a[7] * b[7],
    )  # fmt: skip


@compiled
def _plus(x: Group, a: Array, b: Array) -> Group:
    """x + a b."""
    return (
        x[0] + a[0] * b[0], x[1] + a[1] * b[1], x[2] + a[2] * b[2], x[3] + a[3] * b[3],
        x[4] + a[4] * b[4], x[5] + a[5] * b[5], x[6] + a[6] * b[6], x[7] + a[7] * b[7],
    )  # fmt: skip


@compiled
def _times(x: Group, a: Array) -> Group:
    return (
        x[0] * a[0], x[1] * a[1], x[2] * a[2], x[3] * a[3], x[4] * a[4], x[5] * a[5], x[6] * a[6], x[7] * a[7]
    )  # fmt: skip


@compiled
def _over(x: Group, a: Array) -> Group:
    return (
        x[0] / a[0], x[1] / a[1], x[2] / a[2], x[3] / a[3], x[4] / a[4], x[5] / a[5], x[6] / a[6], x[7] / a[7]
    )  # fmt: skip
