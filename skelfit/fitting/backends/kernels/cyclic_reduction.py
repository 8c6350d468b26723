"""Chains of frames as one block-tridiagonal system of linear equations, solved by cyclic reduction.

Each frame f has a symmetric matrix D_f (n, n), the coupling E_f = H[f, next] to the frame after it, and a right side
r_f. With p the frame before f and q the frame after it, the equations are E_p^T x_p + D_f x_f + E_f x_q = r_f.

Every second frame of a chain is eliminated at once, then every second one of the rest, until one is left. With
D_f = U^T U, the eliminated frame has

    W_l = U^-T E_p^T,   W_r = U^-T E_f,   y = U^-T r_f,

and its neighbours, which become adjacent, are updated:

    D_p -= W_l^T W_l,   D_q -= W_r^T W_r,   E_p = -W_l^T W_r,   r_p -= W_l^T y,   r_q -= W_r^T y.

Back substitution gives x_f = U^-1 (y - W_l x_p - W_r x_q). Both neighbours of a frame update it: `eliminate` updates
the frame before an eliminated one, `update_after` the frame after it. So no two groups write the same numbers, and the
order of sums is fixed.

A pivot is at least a small share of its diagonal entry, so that U exists for any finite matrix. This damps variables
that have no curvature left after rounding.
"""

# Warp reads annotations when it compiles, so that they cannot be postponed in the files of kernels.
from typing import Any

import warp as wp

from .lanes import A2, A3, F2, F3, I2, L, V, choose, exceeds, m, square_root, sync

wp.set_module_options({"enable_backward": False, "max_unroll": 1})

_PIVOT = 1.0e-6  # of a diagonal entry, the least that a pivot may be
_TINY = 1.0e-30


@wp.struct
class ChainSystem:
    """The equations of N frames; the solver overwrites all but x."""

    matrix: F3  # (N, n, n) D, upper triangle
    coupling: F3  # (N, n, n) E
    right: F2  # (N, n) r
    x: F2  # (N, n)


@wp.struct
class ChainFactors:
    """The factors of eliminated frames, in G groups."""

    upper: A3  # (G, n, n) U
    before: A3  # (G, n, n) W_l
    after: A3  # (G, n, n) W_r
    y: A2  # (G, n)


def make_chain_system(frames: int, n: int, device: str) -> Any:
    """Scratch for so many frames of n variables."""
    system = ChainSystem()
    system.matrix, system.coupling = (wp.empty((frames, n, n), dtype=float, device=device) for _ in range(2))
    system.right, system.x = (wp.empty((frames, n), dtype=float, device=device) for _ in range(2))
    return system


def make_chain_factors(groups: int, n: int, device: str) -> Any:
    """Scratch for so many groups."""
    factors = ChainFactors()
    for name in ("upper", "before", "after"):
        setattr(factors, name, wp.empty((groups, n, n), dtype=V, device=device))
    factors.y = wp.empty((groups, n), dtype=V, device=device)
    return factors


@wp.func
def entry(x: F3, frames: I2, g: int, i: int, j: int) -> V:
    """x[frame, i, j] of each lane; 0 where there is no frame."""
    r = V()
    for k in range(wp.static(L)):
        f = frames[g, k]
        if f >= 0:
            r[k] = x[f, i, j]
    return r


@wp.func
def _coupling(x: F3, frames: I2, after: I2, g: int, i: int, j: int) -> V:
    """x[frame, i, j] of each lane; 0 where the chain ends: that frame may be coupled to a frame that is held."""
    r = V()
    for k in range(wp.static(L)):
        if after[g, k] >= 0:
            r[k] = x[frames[g, k], i, j]
    return r


@wp.func
def _vector_entry(x: F2, frames: I2, g: int, i: int) -> V:
    r = V()
    for k in range(wp.static(L)):
        f = frames[g, k]
        if f >= 0:
            r[k] = x[f, i]
    return r


@wp.func
def write_entry(x: F3, frames: I2, g: int, i: int, j: int, a: V):
    """x[frame, i, j] = a of each lane that has a frame."""
    for k in range(wp.static(L)):
        f = frames[g, k]
        if f >= 0:
            x[f, i, j] = a[k]


@wp.func
def _write_vector_entry(x: F2, frames: I2, g: int, i: int, a: V):
    for k in range(wp.static(L)):
        f = frames[g, k]
        if f >= 0:
            x[f, i] = a[k]


@wp.func
def _load(
    e: int, t: int, g: int, n: int, frames: I2, before: I2, after: I2, system: ChainSystem,
    factors: ChainFactors,
):  # fmt: skip
    """Read the frames of group g and their couplings into factors e."""
    for i in range(t, n, wp.block_dim()):
        for j in range(i, n):
            factors.upper[e, i, j] = entry(system.matrix, frames, g, i, j)
        for j in range(n):
            factors.before[e, j, i] = entry(system.coupling, before, g, i, j)
        for j in range(n):
            factors.after[e, i, j] = _coupling(system.coupling, frames, after, g, i, j)
        factors.y[e, i] = _vector_entry(system.right, frames, g, i)
    sync()


@wp.func
def _factor(e: int, t: int, n: int, u: A3):
    """Replace the matrix u[e] by its U."""
    for i in range(n):
        least = wp.static(_PIVOT) * wp.abs(u[e, i, i]) + V(wp.static(_TINY))
        sync()
        # Four columns at a time share one read of U[k, i].
        for b in range(t, (n - i + 3) / 4, wp.block_dim()):
            j = i + 4 * b
            j1 = wp.min(j + 1, n - 1)
            j2 = wp.min(j + 2, n - 1)
            j3 = wp.min(j + 3, n - 1)
            e0 = u[e, i, j]
            e1 = u[e, i, j1]
            e2 = u[e, i, j2]
            e3 = u[e, i, j3]
            for k in range(i):
                a = u[e, k, i]
                e0 -= m(a, u[e, k, j])
                e1 -= m(a, u[e, k, j1])
                e2 -= m(a, u[e, k, j2])
                e3 -= m(a, u[e, k, j3])
            u[e, i, j3] = e3
            u[e, i, j2] = e2
            u[e, i, j1] = e1
            u[e, i, j] = e0
        sync()
        pivot = choose(exceeds(u[e, i, i], least), u[e, i, i], least)
        scale = wp.cw_div(V(1.0), square_root(pivot))
        sync()
        for j in range(i + t, n, wp.block_dim()):
            if j == i:
                u[e, i, i] = m(pivot, scale)
            else:
                u[e, i, j] = m(u[e, i, j], scale)
        sync()


@wp.func
def _substitute_columns(e: int, t: int, n: int, u: A3, x: A3):
    """U^-T x[e], in place; each thread has columns of its own."""
    for b in range(t, (n + 3) / 4, wp.block_dim()):
        # The last four columns may overlap those before: both threads would write the same.
        j = wp.max(wp.min(4 * b, n - 4), 0)
        if b * 4 == j:
            _substitute_four(e, j, n, u, x)
        else:
            for r in range(4 * b, n):
                _substitute_one(e, r, n, u, x)
    sync()


@wp.func
def _substitute_four(e: int, j: int, n: int, u: A3, x: A3):
    for i in range(n):
        e0 = x[e, i, j]
        e1 = x[e, i, j + 1]
        e2 = x[e, i, j + 2]
        e3 = x[e, i, j + 3]
        for k in range(i):
            a = u[e, k, i]
            e0 -= m(a, x[e, k, j])
            e1 -= m(a, x[e, k, j + 1])
            e2 -= m(a, x[e, k, j + 2])
            e3 -= m(a, x[e, k, j + 3])
        over = wp.cw_div(V(1.0), u[e, i, i])
        x[e, i, j] = m(e0, over)
        x[e, i, j + 1] = m(e1, over)
        x[e, i, j + 2] = m(e2, over)
        x[e, i, j + 3] = m(e3, over)


@wp.func
def _substitute_one(e: int, j: int, n: int, u: A3, x: A3):
    for i in range(n):
        e0 = x[e, i, j]
        for k in range(i):
            e0 -= m(u[e, k, i], x[e, k, j])
        x[e, i, j] = m(e0, wp.cw_div(V(1.0), u[e, i, i]))


@wp.func
def _four_products(e: int, i: int, j: int, n: int, left: A3, right: A3):
    """(one^T two)[i, j .. j + 3]; the last column again beyond it."""
    j1 = wp.min(j + 1, n - 1)
    j2 = wp.min(j + 2, n - 1)
    j3 = wp.min(j + 3, n - 1)
    e0 = V()
    e1 = V()
    e2 = V()
    e3 = V()
    for k in range(n):
        a = left[e, k, i]
        e0 += m(a, right[e, k, j])
        e1 += m(a, right[e, k, j1])
        e2 += m(a, right[e, k, j2])
        e3 += m(a, right[e, k, j3])
    return e0, e1, e2, e3


@wp.func
def _subtract_entry(frames: I2, g: int, i: int, j: int, a: V, system: ChainSystem):
    write_entry(system.matrix, frames, g, i, j, entry(system.matrix, frames, g, i, j) - a)


@wp.func
def _subtract_square(
    e: int, t: int, g: int, n: int, frames: I2, w: A3, factors: ChainFactors, system: ChainSystem
):
    """Subtract W^T W from the matrix and W^T y from the right side of frames (G, L)."""
    for i in range(t, n, wp.block_dim()):
        total = V()
        for k in range(n):
            total += m(w[e, k, i], factors.y[e, k])
        _write_vector_entry(system.right, frames, g, i, _vector_entry(system.right, frames, g, i) - total)
        for b in range((n - i + 3) / 4):
            j = i + 4 * b
            e0, e1, e2, e3 = _four_products(e, i, j, n, w, w)
            _subtract_entry(frames, g, i, j, e0, system)
            if j + 1 < n:
                _subtract_entry(frames, g, i, j + 1, e1, system)
            if j + 2 < n:
                _subtract_entry(frames, g, i, j + 2, e2, system)
            if j + 3 < n:
                _subtract_entry(frames, g, i, j + 3, e3, system)


@wp.kernel
def eliminate(first: int, frames: I2, before: I2, after: I2, system: ChainSystem, factors: ChainFactors):
    """Eliminate frames (G, L) into factors from `first` on; before, after (G, L): their neighbours, -1: none."""
    g, t = wp.tid()
    e = first + g
    n = system.right.shape[1]
    _load(e, t, g, n, frames, before, after, system, factors)
    _factor(e, t, n, factors.upper)
    _substitute_columns(e, t, n, factors.upper, factors.before)
    _substitute_columns(e, t, n, factors.upper, factors.after)
    for i in range(n):
        y = wp.cw_div(factors.y[e, i], factors.upper[e, i, i])
        sync()
        for j in range(i + t, n, wp.block_dim()):
            if j == i:
                factors.y[e, i] = y
            else:
                factors.y[e, j] = factors.y[e, j] - m(factors.upper[e, i, j], y)
        sync()
    _subtract_square(e, t, g, n, before, factors.before, factors, system)
    for i in range(t, n, wp.block_dim()):
        for b in range((n + 3) / 4):
            j = 4 * b
            e0, e1, e2, e3 = _four_products(e, i, j, n, factors.before, factors.after)
            write_entry(system.coupling, before, g, i, j, -e0)
            if j + 1 < n:
                write_entry(system.coupling, before, g, i, j + 1, -e1)
            if j + 2 < n:
                write_entry(system.coupling, before, g, i, j + 2, -e2)
            if j + 3 < n:
                write_entry(system.coupling, before, g, i, j + 3, -e3)


@wp.kernel
def update_after(first: int, after: I2, system: ChainSystem, factors: ChainFactors):
    """Update the frames (G, L) after eliminated ones."""
    g, t = wp.tid()
    n = system.right.shape[1]
    _subtract_square(first + g, t, g, n, after, factors.after, factors, system)


@wp.kernel
def substitute(first: int, frames: I2, before: I2, after: I2, system: ChainSystem, factors: ChainFactors):
    """x of frames (G, L), from the x of their neighbours."""
    g, t = wp.tid()
    e = first + g
    n = system.right.shape[1]
    for i in range(t, n, wp.block_dim()):
        total = factors.y[e, i]
        for j in range(n):
            total -= m(factors.before[e, i, j], _vector_entry(system.x, before, g, j))
            total -= m(factors.after[e, i, j], _vector_entry(system.x, after, g, j))
        factors.y[e, i] = total
    sync()
    for r in range(n):
        i = n - 1 - r
        x = wp.cw_div(factors.y[e, i], factors.upper[e, i, i])
        sync()
        for j in range(t, i + 1, wp.block_dim()):
            if j == i:
                factors.y[e, i] = x
            else:
                factors.y[e, j] = factors.y[e, j] - m(factors.upper[e, j, i], x)
        sync()
    for i in range(t, n, wp.block_dim()):
        _write_vector_entry(system.x, frames, g, i, factors.y[e, i])
