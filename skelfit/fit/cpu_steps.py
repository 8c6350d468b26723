"""The solver's damped step on a CPU: a factorisation per problem, in the cache, and the same in every batch.

LAPACK's factors depend on where in memory a matrix lies; these do not.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from skelfit.fit.compiled import Array, compiled

FLOOR = 1e-8  # of the damping, as a share of the largest curvature


def damped_steps(hessian: Tensor, gradient: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
    """As `solver.damped_step`, of CPU tensors (B, n, n), (B, n) and (B,): steps (B, n) and promised decreases (B,)."""
    step, promised = gradient.new_empty(gradient.shape), gradient.new_empty(len(gradient))
    h, g, by = (t.contiguous().numpy() for t in (hessian, gradient, damping))
    _solve_all(h, g, by, step.numpy(), promised.numpy())
    return step, promised


@compiled
def _solve_all(hessian: Array, gradient: Array, damping: Array, step: Array, promised: Array) -> None:
    n = gradient.shape[1]
    u = np.empty((n, n), hessian.dtype)
    tiny = np.finfo(hessian.dtype).tiny
    for k in range(len(gradient)):
        h, g, x = hessian[k], gradient[k], step[k]
        largest = h[0, 0]
        for i in range(n):
            largest = max(largest, h[i, i])
        floor = FLOOR * largest + tiny
        for i in range(n):
            for j in range(i, n):
                u[i, j] = h[i, j]
            u[i, i] += damping[k] * h[i, i] + floor
            x[i] = -g[i]
        if not (_factor(u) and _substitute(u, x)):
            for i in range(n):
                x[i] = -g[i] / (largest * (1 + damping[k]) + floor)
        total = 0.0
        for i in range(n):
            row = 0.0
            for j in range(n):
                row += h[i, j] * x[j]
            total -= x[i] * (g[i] + 0.5 * row)
        promised[k] = total


@compiled
def _factor(u: Array) -> bool:
    """Of a symmetric matrix, its upper triangle u (n, n), make U with U^T U = matrix; False: not positive definite."""
    n = len(u)
    for k in range(n):
        if not u[k, k] > 0:
            return False
        pivot = 1 / np.sqrt(u[k, k])
        for j in range(k, n):
            u[k, j] *= pivot
        for i in range(k + 1, n):
            above, row, factor = u[k], u[i], u[k, i]
            for j in range(i, n):
                row[j] -= factor * above[j]
    return True


@compiled
def _substitute(u: Array, x: Array) -> bool:
    """x (n,) becomes the solution of U^T U x = x; False: it is not finite."""
    n, finite = len(u), True
    for i in range(n):
        x[i] /= u[i, i]
        for j in range(i + 1, n):
            x[j] -= u[i, j] * x[i]
    for i in range(n - 1, -1, -1):
        for j in range(i + 1, n):
            x[i] -= u[i, j] * x[j]
        x[i] /= u[i, i]
        finite = finite and np.isfinite(x[i])
    return finite
