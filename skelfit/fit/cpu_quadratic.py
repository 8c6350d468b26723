"""The quadratic form of a person's moments, on a CPU: its slopes, its gradient and its Hessian, compiled.

With x_a the posed place of a vertex as joint a holds it, a DoF i of joint k moves it by omega_i x x_a + v_i if a is
below k. So the Gauss-Newton matrix only needs, of each two subtrees, the second moments
N_kl = sum om w_a w_b [x_a; 1] [x_b; 1]^T over a below k and b below l, and those are sums up the tree of A_a M_ab A_b^T
over the pairs of joints that share vertices.
"""

from __future__ import annotations

import numpy as np

from skelfit.fit.compiled import Array, compiled
from skelfit.fit.cpu_tens import load, plus, plus3, store

MOMENT_SIZE = 16  # numbers of a second moment: sum x x'^T (9), sum x (3), sum x' (3), sum 1


@compiled
def slopes(moments: Array, pairs: Array, change: Array, slope: Array) -> float:
    """slope (J, 3, 4) holds D0 and becomes D0 + dA M; returns <D0 + slope, dA>."""
    total = 0.0
    for j in range(len(slope)):
        for r in range(3):
            for c in range(4):
                total += slope[j, r, c] * change[j, r, c]
    for p in range(len(pairs)):
        a, b, m = pairs[p, 0], pairs[p, 1], moments[p]
        times_moment(change[b], m, slope[a])
        if a != b:
            times_moment(change[a], m, slope[b])
    for j in range(len(slope)):
        for r in range(3):
            for c in range(4):
                total += slope[j, r, c] * change[j, r, c]
    return total


@compiled
def times_moment(a: Array, m: Array, out: Array) -> None:
    """out (3, 4) += a (3, 4) times the symmetric 4x4 matrix of the ten numbers m."""
    for r in range(3):
        x, y, z, w = a[r, 0], a[r, 1], a[r, 2], a[r, 3]
        out[r, 0] += x * m[0] + y * m[1] + z * m[2] + w * m[6]
        out[r, 1] += x * m[1] + y * m[3] + z * m[4] + w * m[7]
        out[r, 2] += x * m[2] + y * m[4] + z * m[5] + w * m[8]
        out[r, 3] += x * m[6] + y * m[7] + z * m[8] + w * m[9]


@compiled
def gradient_along(
    a: Array, slope: Array, above: Array, dofs: Array, owner: Array, omega: Array, v: Array,
    push: Array, pull: Array, gradient: Array,
) -> None:  # fmt: skip
    """Forces and torques on the joints, summed up the tree, along each DoF's twist.

    Fills push (J, 3), the forces, and pull (J, 3, 3), sum A slope^T over the columns, of which the torque is a part.
    """
    for j in range(len(a)):
        for r in range(3):
            push[j, r] = slope[j, r, 3]
            for s in range(3):
                x, y = a[j, r], slope[j, s]
                pull[j, r, s] = x[0] * y[0] + x[1] * y[1] + x[2] * y[2] + x[3] * y[3]
    for j in range(len(a) - 1, -1, -1):
        if above[j] >= 0:
            for r in range(3):
                push[above[j], r] += push[j, r]
                for s in range(3):
                    pull[above[j], r, s] += pull[j, r, s]
    for i in range(len(dofs)):
        total, p = 0.0, pull[owner[i]]
        for r in range(3):
            torque = p[(r + 1) % 3, (r + 2) % 3] - p[(r + 2) % 3, (r + 1) % 3]
            total += omega[dofs[i], r] * torque + v[dofs[i], r] * push[owner[i], r]
        gradient[i] = 2 * total


@compiled
def second_derivatives(
    dofs: Array, owner: Array, joints: Array, turns: Array, pos: Array, omega: Array, v: Array,
    push: Array, pull: Array, bend: Array,
) -> None:  # fmt: skip
    """What the Hessian (n, n) is more than the Gauss-Newton matrix: 2 <slope, d2A / dq_i dq_j>, but for `slides`.

    A DoF i that acts from outside of j turns what j does, d2A = [omega_i]x dA_j: the entry is omega_i . t_j with
    t_j = sum dA_j x slope over j's subtree. Of one joint, i does not turn the sliding that comes with j: there v_j is
    that of the turn alone. push and pull are `gradient_along`'s.
    """
    n, t, alone = len(dofs), np.empty(3), np.empty(3)
    for j in range(n):
        p, f, w, u, at = pull[owner[j]], push[owner[j]], omega[dofs[j]], v[dofs[j]], pos[joints[owner[j]]]
        trace = p[0, 0] + p[1, 1] + p[2, 2]
        for r in range(3):
            r1, r2 = (r + 1) % 3, (r + 2) % 3
            turned = p[r, 0] * w[0] + p[r, 1] * w[1] + p[r, 2] * w[2] - trace * w[r]
            u1, u2 = at[r2] * w[r] - at[r] * w[r2], at[r] * w[r1] - at[r1] * w[r]  # pos x omega
            t[r] = turned + u[r1] * f[r2] - u[r2] * f[r1]
            alone[r] = turned + u1 * f[r2] - u2 * f[r1]
        for i in range(n):
            if turns[i, j]:
                x, y = omega[dofs[i]], alone if owner[i] == owner[j] else t
                bend[i, j] = bend[j, i] = 2 * (x[0] * y[0] + x[1] * y[1] + x[2] * y[2])
            elif not turns[j, i]:
                bend[i, j] = 0


@compiled
def add_slides(slides: Array, found: Array, owner: Array, push: Array, bend: Array) -> None:
    """Add to bend what the sliding offsets of joints bend: found[k] (3,) for slides[k] = (k, i, j), two of the DoFs."""
    for p in range(len(slides)):
        k, i, j = slides[p]
        f = push[owner[i]]
        more = 2 * (f[0] * found[k, 0] + f[1] * found[k, 1] + f[2] * found[k, 2])
        bend[i, j] += more
        if i != j:
            bend[j, i] += more


@compiled
def second_moments(
    moments: Array, pairs: Array, a: Array, above: Array, below: Array, meets: Array, second: Array
) -> None:
    """N_kl of each two subtrees into second (J, J, 16)."""
    second[:] = 0
    t = np.empty((3, 4), a.dtype)
    for p in range(len(pairs)):
        j, i, m = pairs[p, 0], pairs[p, 1], moments[p]
        t[:] = 0
        times_moment(a[j], m, t)
        one, two, b = second[j, i], second[i, j], a[i]
        for r in range(3):
            for s in range(3):
                x = t[r, 0] * b[s, 0] + t[r, 1] * b[s, 1] + t[r, 2] * b[s, 2] + t[r, 3] * b[s, 3]
                one[3 * r + s] = x
                two[3 * s + r] = x
            one[9 + r] = two[12 + r] = t[r, 3]
            other = b[r, 0] * m[6] + b[r, 1] * m[7] + b[r, 2] * m[8] + b[r, 3] * m[9]
            one[12 + r] = two[9 + r] = other
        one[15] = two[15] = m[9]
    count = len(a)
    for b in range(count - 1, -1, -1):
        if above[b] >= 0:
            for j in range(count):
                if below[j, b]:
                    _add_moment(second[j, b], second[j, above[b]])
    for j in range(count - 1, -1, -1):
        if above[j] >= 0:
            for b in range(count):
                if meets[j, b]:
                    _add_moment(second[j, b], second[above[j], b])


@compiled
def _add_moment(a: Array, into: Array) -> None:
    """into (16,) += a (16,), read before it is written, which lets the compiler make vectors of it."""
    x0, x1, x2, x3 = into[0] + a[0], into[1] + a[1], into[2] + a[2], into[3] + a[3]
    x4, x5, x6, x7 = into[4] + a[4], into[5] + a[5], into[6] + a[6], into[7] + a[7]
    y0, y1, y2, y3 = into[8] + a[8], into[9] + a[9], into[10] + a[10], into[11] + a[11]
    y4, y5, y6, y7 = into[12] + a[12], into[13] + a[13], into[14] + a[14], into[15] + a[15]
    into[0], into[1], into[2], into[3], into[4], into[5], into[6], into[7] = x0, x1, x2, x3, x4, x5, x6, x7
    into[8], into[9], into[10], into[11], into[12], into[13], into[14], into[15] = (
        y0,
        y1,
        y2,
        y3,
        y4,
        y5,
        y6,
        y7,
    )


@compiled
def normal_matrix(
    second: Array, dofs: Array, owner: Array, meets: Array, omega: Array, v: Array, hessian: Array
) -> None:
    """The Gauss-Newton matrix (n, n) from the second moments and the twists."""
    n = len(dofs)
    for i in range(n):
        k = owner[i]
        w0, w1, w2 = omega[dofs[i], 0], omega[dofs[i], 1], omega[dofs[i], 2]
        v0, v1, v2 = v[dofs[i], 0], v[dofs[i], 1], v[dofs[i], 2]
        last = -1
        g0 = g1 = g2 = f0 = f1 = f2 = 0.0
        for j in range(i, n):
            other = owner[j]
            if not meets[k, other]:
                hessian[i, j] = hessian[j, i] = 0
                continue
            if other != last:  # of all DoFs of a joint
                x, last = second[k, other], other
                trace = x[0] + x[4] + x[8]
                g0 = trace * w0 - (x[0] * w0 + x[1] * w1 + x[2] * w2) + x[13] * v2 - x[14] * v1
                g1 = trace * w1 - (x[3] * w0 + x[4] * w1 + x[5] * w2) + x[14] * v0 - x[12] * v2
                g2 = trace * w2 - (x[6] * w0 + x[7] * w1 + x[8] * w2) + x[12] * v1 - x[13] * v0
                f0 = w1 * x[11] - w2 * x[10] + x[15] * v0
                f1 = w2 * x[9] - w0 * x[11] + x[15] * v1
                f2 = w0 * x[10] - w1 * x[9] + x[15] * v2
            u, t = omega[dofs[j]], v[dofs[j]]
            entry = 2 * (u[0] * g0 + u[1] * g1 + u[2] * g2 + t[0] * f0 + t[1] * f1 + t[2] * f2)
            hessian[i, j] = hessian[j, i] = entry


@compiled
def add_wrenches(
    moments: Array, pairs: Array, a: Array, omega: Array, v: Array, torque: Array, force: Array
) -> None:
    """Add to torque and force (J, 3, K) what dA M is on each joint, for K motions dA = [omega]x A + [0 | v].

    omega and v (J, 3, K); a (J, 3, 4). <dA M, dA'> is then the sum over joints of torque . omega' + force . v'.
    """
    t, x = np.empty((3, 4)), np.empty((3, 3))
    for p in range(len(pairs)):
        j, i, m, b = pairs[p, 0], pairs[p, 1], moments[p], a[pairs[p, 1]]
        t[:] = 0
        times_moment(a[j], m, t)
        for r in range(3):
            for s in range(3):
                x[r, s] = t[r, 0] * b[s, 0] + t[r, 1] * b[s, 1] + t[r, 2] * b[s, 2] + t[r, 3] * b[s, 3]
        y0 = b[0, 0] * m[6] + b[0, 1] * m[7] + b[0, 2] * m[8] + b[0, 3] * m[9]
        y1 = b[1, 0] * m[6] + b[1, 1] * m[7] + b[1, 2] * m[8] + b[1, 3] * m[9]
        y2 = b[2, 0] * m[6] + b[2, 1] * m[7] + b[2, 2] * m[8] + b[2, 3] * m[9]
        _add_wrench(x.T, t[0, 3], t[1, 3], t[2, 3], y0, y1, y2, m[9], omega[i], v[i], torque[j], force[j])
        if i != j:
            _add_wrench(x, y0, y1, y2, t[0, 3], t[1, 3], t[2, 3], m[9], omega[j], v[j], torque[i], force[i])


@compiled
def _add_wrench(
    x: Array, a0: float, a1: float, a2: float, b0: float, b1: float, b2: float, mass: float,
    omega: Array, v: Array, torque: Array, force: Array,
) -> None:  # fmt: skip
    """sum a x (omega x b + v) to the torque, sum omega x b + v to the force; x (3, 3) is sum b a^T."""
    x00, x01, x02, x10, x11 = x[0, 0], x[0, 1], x[0, 2], x[1, 0], x[1, 1]
    x12, x20, x21, x22 = x[1, 2], x[2, 0], x[2, 1], x[2, 2]
    store(plus3(plus(plus(load(torque[0]), a1, v[2]), -a2, v[1]), x11 + x22, -x01, -x02, omega), torque[0])
    store(plus3(plus(plus(load(torque[1]), a2, v[0]), -a0, v[2]), -x10, x00 + x22, -x12, omega), torque[1])
    store(plus3(plus(plus(load(torque[2]), a0, v[1]), -a1, v[0]), -x20, -x21, x00 + x11, omega), torque[2])
    store(plus(plus(plus(load(force[0]), b2, omega[1]), -b1, omega[2]), mass, v[0]), force[0])
    store(plus(plus(plus(load(force[1]), b0, omega[2]), -b2, omega[0]), mass, v[1]), force[1])
    store(plus(plus(plus(load(force[2]), b1, omega[0]), -b0, omega[1]), mass, v[2]), force[2])
