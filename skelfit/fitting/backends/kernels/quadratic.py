"""The quadratic form of moment space for a group of people: value, gradient, Gauss-Newton matrix.

Around the transforms A0 of the last vertex pass, with dA = A - A0, the objective is

    E = E0 + 2 <D0, dA> + <dA M, dA>,      slope = D0 + dA M,      E = E0 + <D0 + slope, dA>.

A DoF i of joint k is a world twist (omega, v) that acts on the subtree of k: dA_j = [omega]x A_j + [0 | v] for j below
k. With the force f_k = sum slope_j e, the force moment P_k = sum A_j slope_j^T over the subtree and the torque, which
is the antisymmetric part of P_k, the gradient is 2 (omega . torque + v . f). The Gauss-Newton matrix 2 <dA_i M, dA_j>
needs, of each two subtrees, the second moments N_kl = sum A_a M_ab A_b^T over a below k and b below l. These are
sixteen numbers of the points x and x' that a and b hold: sum x x'^T (9), sum x (3), sum x' (3) and the mass.

A free translation t turns E into E + 2 t . s + W |t|^2, with s = sum_j slope_j e and the mass W: 1 for the vertices of
a stage, plus the weights of joint targets. A prior w |T + t|^2 on people moved by T adds w T to s and w to W. The
minimum over t is E - |s|^2 / W at t = -s / W: the slope loses (s / W) (M e)^T, and the matrix loses
2 (ds / dq_i) . (ds / dq_j) / W.
"""

from typing import Any

import warp as wp

from skelfit.fitting.backends.variable_tables import LevelSums, StageVariables

from .joint_frames import JointFrames
from .lanes import A1, A2, A3, V, exceeds, m, sync

wp.set_module_options({"enable_backward": False, "max_unroll": 1})

MOMENT_SIZE = 16


@wp.struct
class QuadraticForm:
    """The moments of a stage of J joints and P pairs, and the parts of an evaluation, for each of S slots."""

    start: A3  # (S, J, 12) A0, row by row of 3 x 4
    d: A3  # (S, J, 12) D0 of the pass
    d_with_betas: A3  # (S, J, 12) D0, and what free betas add to it
    pairs: A3  # (S, P, 10) M: xx xy xz yy yz zz x y z 1
    energy: A1  # (S,) E0, m^2
    mean: A3  # (S, J, 4) M e, of a free translation
    transform: A3  # (S, J, 12) A
    change: A3  # (S, J, 12) dA
    slope: A3  # (S, J, 12) D0 + dA M
    value_part: A2  # (S, J) of the value
    force: A3  # (S, J, 3) of the subtrees
    moment: A3  # (S, J, 9) P of the subtrees, row by row
    cells: A3  # (S, C, 16) second moments


def make_quadratic_form(slots: int, joints: int, pairs: int, cells: int, device: str) -> Any:
    """Scratch for so many groups."""
    form = QuadraticForm()
    shapes = {
        "start": (joints, 12), "d": (joints, 12), "d_with_betas": (joints, 12), "pairs": (pairs, 10), "energy": (),
        "mean": (joints, 4), "transform": (joints, 12), "change": (joints, 12), "slope": (joints, 12),
        "value_part": (joints,), "force": (joints, 3), "moment": (joints, 9), "cells": (cells, MOMENT_SIZE),
    }  # fmt: skip
    for name, shape in shapes.items():
        setattr(form, name, wp.zeros((slots, *shape), dtype=V, device=device))
    return form


@wp.func
def _transform_joint(s: int, k: int, j: int, joints: JointFrames, form: QuadraticForm):
    """The transform of joint j, the k-th active one, and its change."""
    for r in range(3):
        x = joints.rot[s, j, 3 * r]
        y = joints.rot[s, j, 3 * r + 1]
        z = joints.rot[s, j, 3 * r + 2]
        shift = (
            joints.pos[s, j, r]
            - m(x, joints.rest[s, j, 0])
            - m(y, joints.rest[s, j, 1])
            - m(z, joints.rest[s, j, 2])
        )
        form.transform[s, k, 4 * r] = x
        form.transform[s, k, 4 * r + 1] = y
        form.transform[s, k, 4 * r + 2] = z
        form.transform[s, k, 4 * r + 3] = shift
    for c in range(12):
        form.change[s, k, c] = form.transform[s, k, c] - form.start[s, k, c]


@wp.func
def times_moment(s: int, p: int, form: QuadraticForm, x: V, y: V, z: V, w: V):
    """[x y z w] times the symmetric 4 x 4 matrix of pair p."""
    xx = form.pairs[s, p, 0]
    xy = form.pairs[s, p, 1]
    xz = form.pairs[s, p, 2]
    yy = form.pairs[s, p, 3]
    yz = form.pairs[s, p, 4]
    zz = form.pairs[s, p, 5]
    mx = form.pairs[s, p, 6]
    my = form.pairs[s, p, 7]
    mz = form.pairs[s, p, 8]
    return (
        m(x, xx) + m(y, xy) + m(z, xz) + m(w, mx),
        m(x, xy) + m(y, yy) + m(z, yz) + m(w, my),
        m(x, xz) + m(y, yz) + m(z, zz) + m(w, mz),
        m(x, mx) + m(y, my) + m(z, mz) + m(w, form.pairs[s, p, 9]),
    )


@wp.func
def _slope_of_joint(s: int, k: int, variables: StageVariables, form: QuadraticForm):
    """The slope of joint k, and its part of the value."""
    part = V()
    for r in range(3):
        a = form.d_with_betas[s, k, 4 * r]
        b = form.d_with_betas[s, k, 4 * r + 1]
        c = form.d_with_betas[s, k, 4 * r + 2]
        d = form.d_with_betas[s, k, 4 * r + 3]
        da = a
        db = b
        dc = c
        dd = d
        for n in range(variables.near.first[k], variables.near.first[k + 1]):
            code = variables.near.indices[n]
            p = code / 2
            other = variables.pairs[p, 1 - code % 2]
            x, y, z, w = times_moment(
                s, p, form,
                form.change[s, other, 4 * r], form.change[s, other, 4 * r + 1],
                form.change[s, other, 4 * r + 2], form.change[s, other, 4 * r + 3],
            )  # fmt: skip
            a += x
            b += y
            c += z
            d += w
        part += m(form.change[s, k, 4 * r], a + da) + m(form.change[s, k, 4 * r + 1], b + db)
        part += m(form.change[s, k, 4 * r + 2], c + dc) + m(form.change[s, k, 4 * r + 3], d + dd)
        form.slope[s, k, 4 * r] = a
        form.slope[s, k, 4 * r + 1] = b
        form.slope[s, k, 4 * r + 2] = c
        form.slope[s, k, 4 * r + 3] = d
    form.value_part[s, k] = part


@wp.func
def slopes(s: int, t: int, variables: StageVariables, joints: JointFrames, form: QuadraticForm):
    """The transforms, their changes and slopes, for D0 in `form.d_with_betas`; `joints` are posed."""
    for k in range(t, variables.num_joints, wp.block_dim()):
        _transform_joint(s, k, variables.joints[k], joints, form)
    sync()
    for k in range(t, variables.num_joints, wp.block_dim()):
        _slope_of_joint(s, k, variables, form)
    sync()


@wp.func
def value_of(s: int, variables: StageVariables, form: QuadraticForm) -> V:
    """E without the limits; the same in each thread."""
    total = form.energy[s]
    for k in range(variables.num_joints):
        total += form.value_part[s, k]
    return total


@wp.func
def mean_residual(s: int, r: int, variables: StageVariables, form: QuadraticForm) -> V:
    """s_r, the sum of the translations of the slopes."""
    total = V()
    for k in range(variables.num_joints):
        total += form.slope[s, k, 4 * r + 3]
    return total


@wp.func
def centre(s: int, t: int, x: V, y: V, z: V, variables: StageVariables, form: QuadraticForm):
    """Slopes for the best translation: less (s / W) (M e)^T; x, y, z is s / W."""
    for k in range(t, variables.num_joints, wp.block_dim()):
        for c in range(4):
            mean = form.mean[s, k, c]
            form.slope[s, k, c] = form.slope[s, k, c] - m(x, mean)
            form.slope[s, k, 4 + c] = form.slope[s, k, 4 + c] - m(y, mean)
            form.slope[s, k, 8 + c] = form.slope[s, k, 8 + c] - m(z, mean)
    sync()


@wp.func
def joint_means(s: int, t: int, variables: StageVariables, form: QuadraticForm):
    """M e of each joint, from the pairs."""
    for k in range(t, variables.num_joints, wp.block_dim()):
        x = V()
        y = V()
        z = V()
        w = V()
        for n in range(variables.near.first[k], variables.near.first[k + 1]):
            p = variables.near.indices[n] / 2
            x += form.pairs[s, p, 6]
            y += form.pairs[s, p, 7]
            z += form.pairs[s, p, 8]
            w += form.pairs[s, p, 9]
        form.mean[s, k, 0] = x
        form.mean[s, k, 1] = y
        form.mean[s, k, 2] = z
        form.mean[s, k, 3] = w
    sync()


@wp.func
def sum_levels(t: int, s: int, size: int, sums: LevelSums, x: A3):
    """Each target in x (S, N, size) adds its sources, level by level."""
    for level in range(sums.levels):
        for n in range(sums.first[level] + t, sums.first[level + 1], wp.block_dim()):
            k = sums.target[n]
            for c in range(size):
                total = x[s, k, c]
                for i in range(sums.sources.first[n], sums.sources.first[n + 1]):
                    total += x[s, sums.sources.indices[i], c]
                x[s, k, c] = total
        sync()


@wp.func
def forces(s: int, t: int, variables: StageVariables, form: QuadraticForm):
    """Forces and force moments of the slopes on the subtrees."""
    for k in range(t, variables.num_joints, wp.block_dim()):
        for r in range(3):
            form.force[s, k, r] = form.slope[s, k, 4 * r + 3]
            for c in range(3):
                total = m(form.transform[s, k, 4 * r], form.slope[s, k, 4 * c])
                total += m(form.transform[s, k, 4 * r + 1], form.slope[s, k, 4 * c + 1])
                total += m(form.transform[s, k, 4 * r + 2], form.slope[s, k, 4 * c + 2])
                total += m(form.transform[s, k, 4 * r + 3], form.slope[s, k, 4 * c + 3])
                form.moment[s, k, 3 * r + c] = total
    sync()
    sum_levels(t, s, 3, variables.up, form.force)
    sum_levels(t, s, 9, variables.up, form.moment)


@wp.func
def gradient_entry(s: int, i: int, variables: StageVariables, joints: JointFrames, form: QuadraticForm) -> V:
    """The gradient along DoF i."""
    k = variables.owner[i]
    d = variables.dofs[i]
    e = m(joints.omega[s, d, 0], form.moment[s, k, 5] - form.moment[s, k, 7])
    e += m(joints.omega[s, d, 1], form.moment[s, k, 6] - form.moment[s, k, 2])
    e += m(joints.omega[s, d, 2], form.moment[s, k, 1] - form.moment[s, k, 3])
    for r in range(3):
        e += m(joints.v[s, d, r], form.force[s, k, r])
    return 2.0 * e


@wp.func
def _pair_moment(s: int, p: int, variables: StageVariables, form: QuadraticForm):
    """The second moments of the two joints of a pair, into the cells of both orders."""
    j = variables.pairs[p, 0]
    i = variables.pairs[p, 1]
    cell = variables.pair_cells[p, 0]
    swapped = variables.pair_cells[p, 1]
    mass = form.pairs[s, p, 9]
    for r in range(3):
        x, y, z, w = times_moment(
            s, p, form, form.transform[s, j, 4 * r], form.transform[s, j, 4 * r + 1],
            form.transform[s, j, 4 * r + 2], form.transform[s, j, 4 * r + 3],
        )  # fmt: skip
        other = m(form.transform[s, i, 4 * r], form.pairs[s, p, 6]) + m(
            form.transform[s, i, 4 * r + 1], form.pairs[s, p, 7]
        )
        other += m(form.transform[s, i, 4 * r + 2], form.pairs[s, p, 8]) + m(
            form.transform[s, i, 4 * r + 3], mass
        )
        for c in range(3):
            e = m(x, form.transform[s, i, 4 * c]) + m(y, form.transform[s, i, 4 * c + 1])
            e += m(z, form.transform[s, i, 4 * c + 2]) + m(w, form.transform[s, i, 4 * c + 3])
            if cell >= 0:
                form.cells[s, cell, 3 * r + c] = e
            if swapped >= 0:
                form.cells[s, swapped, 3 * c + r] = e
        if cell >= 0:
            form.cells[s, cell, 9 + r] = w
            form.cells[s, cell, 12 + r] = other
        if swapped >= 0:
            form.cells[s, swapped, 9 + r] = other
            form.cells[s, swapped, 12 + r] = w
    if cell >= 0:
        form.cells[s, cell, 15] = mass
    if swapped >= 0:
        form.cells[s, swapped, 15] = mass


@wp.func
def pair_moments(s: int, t: int, variables: StageVariables, form: QuadraticForm):
    """Cells of pairs of joints, before they are summed up the tree; the other cells are zero."""
    for p in range(t, variables.num_pairs, wp.block_dim()):
        _pair_moment(s, p, variables, form)
    for n in range(t, variables.empty.shape[0], wp.block_dim()):
        for c in range(16):
            form.cells[s, variables.empty[n], c] = V()
    sync()


@wp.func
def second_moments(s: int, t: int, variables: StageVariables, form: QuadraticForm):
    """All cells."""
    pair_moments(s, t, variables, form)
    sum_levels(t, s, 16, variables.cell_sums, form.cells)


@wp.func
def matrix_row(
    s: int, h: int, i: int, variables: StageVariables, joints: JointFrames, form: QuadraticForm, hessian: A3
):
    """Row i of the Gauss-Newton matrix, from the diagonal on, into hessian[h]."""
    k = variables.owner[i]
    d = variables.dofs[i]
    w0 = joints.omega[s, d, 0]
    w1 = joints.omega[s, d, 1]
    w2 = joints.omega[s, d, 2]
    v0 = joints.v[s, d, 0]
    v1 = joints.v[s, d, 1]
    v2 = joints.v[s, d, 2]
    last = int(-1)
    cell = int(-1)
    h0 = V()
    h1 = V()
    h2 = V()
    f0 = V()
    f1 = V()
    f2 = V()
    for j in range(i, variables.num_dofs):
        other = variables.owner[j]
        if other != last:  # the DoFs of a joint share this
            last = other
            cell = variables.cells[k, other]
            if cell >= 0:
                x3 = form.cells[s, cell, 12]
                x4 = form.cells[s, cell, 13]
                x5 = form.cells[s, cell, 14]
                c9 = form.cells[s, cell, 9]
                c10 = form.cells[s, cell, 10]
                c11 = form.cells[s, cell, 11]
                mass = form.cells[s, cell, 15]
                trace = form.cells[s, cell, 0] + form.cells[s, cell, 4] + form.cells[s, cell, 8]
                h0 = m(trace, w0) - m(form.cells[s, cell, 0], w0) - m(form.cells[s, cell, 1], w1)
                h0 += m(x4, v2) - m(x5, v1) - m(form.cells[s, cell, 2], w2)
                h1 = m(trace, w1) - m(form.cells[s, cell, 3], w0) - m(form.cells[s, cell, 4], w1)
                h1 += m(x5, v0) - m(x3, v2) - m(form.cells[s, cell, 5], w2)
                h2 = m(trace, w2) - m(form.cells[s, cell, 6], w0) - m(form.cells[s, cell, 7], w1)
                h2 += m(x3, v1) - m(x4, v0) - m(form.cells[s, cell, 8], w2)
                f0 = m(w1, c11) - m(w2, c10) + m(mass, v0)
                f1 = m(w2, c9) - m(w0, c11) + m(mass, v1)
                f2 = m(w0, c10) - m(w1, c9) + m(mass, v2)
        e = V()
        if cell >= 0:
            dj = variables.dofs[j]
            e = m(joints.omega[s, dj, 0], h0) + m(joints.omega[s, dj, 1], h1) + m(joints.omega[s, dj, 2], h2)
            e += m(joints.v[s, dj, 0], f0) + m(joints.v[s, dj, 1], f1) + m(joints.v[s, dj, 2], f2)
        hessian[h, i, j] = 2.0 * e


@wp.func
def mean_speed(
    s: int, i: int, r: int, variables: StageVariables, joints: JointFrames, form: QuadraticForm
) -> V:
    """ds_r / dq_i; the root is the first active joint."""
    cell = variables.cells[0, variables.owner[i]]
    d = variables.dofs[i]
    r1 = (r + 1) % 3
    r2 = (r + 2) % 3
    e = m(joints.omega[s, d, r1], form.cells[s, cell, 12 + r2]) - m(
        joints.omega[s, d, r2], form.cells[s, cell, 12 + r1]
    )
    return e + m(joints.v[s, d, r], form.cells[s, cell, 15])


@wp.func
def centre_row(s: int, h: int, i: int, n: int, share: float, speeds: A3, hessian: A3):
    """Row i of hessian[h] for the best translation: less share speed_i . speed_j, of 2 / W; speeds (S, n, 3)."""
    for j in range(i, n):
        e = m(speeds[s, i, 0], speeds[s, j, 0]) + m(speeds[s, i, 1], speeds[s, j, 1])
        hessian[h, i, j] = hessian[h, i, j] - share * (e + m(speeds[s, i, 2], speeds[s, j, 2]))


@wp.func
def limit_excess(x: V, low: float, high: float) -> V:
    """The excess of an angle over its limits, rad, with its sign."""
    return wp.max(x - V(high), V(0.0)) - wp.max(V(low) - x, V(0.0))


@wp.func
def exceeds_limit(excess: V) -> V:
    """1 where it is, else 0."""
    return exceeds(wp.abs(excess), V(0.0))
