"""The quadratic form of moment space for a group of people: value, gradient, Gauss-Newton matrix.

Around the transforms A0 of the last vertex pass, with dA = A - A0, the objective is

    E = E0 + 2 <D0, dA> + <dA M, dA>,      slope = D0 + dA M,      E = E0 + <D0 + slope, dA>.

A DoF i of joint k is a world twist (omega, v) that acts on the subtree of k: dA_j = [omega]x A_j + [0 | v] for j below
k. With the force f_k = sum slope_j e and the torque of P_k = sum A_j slope_j^T over the subtree, the gradient is
2 (omega . torque + v . f). The Gauss-Newton matrix 2 <dA_i M, dA_j> needs, of each two subtrees, the second moments
N_kl = sum A_a M_ab A_b^T over a below k and b below l, sixteen numbers: of the points x and x' that a and b hold,
sum x x'^T (9), sum x (3), sum x' (3) and the mass.

A free translation t turns E into E + 2 t . s + W |t|^2 with s = sum_j slope_j e and the mass W of all that moves: 1 of
a stage's vertices, and that of drawn joints. What holds it, w |T + t|^2 of people who are moved by T, adds w T to s
and w to W. The minimum over t is E - |s|^2 / W at t = -s / W: the slope loses (s / W) (M e)^T, and the matrix
2 (ds / dq_i) . (ds / dq_j) / W.
"""

from typing import Any

import warp as wp

from skelfit.fitting.backends.variable_tables import Sums, Variables

from .joint_frames import Place
from .lanes import A1, A2, A3, V, exceeds, m, sync

wp.set_module_options({"enable_backward": False, "max_unroll": 1})

MOMENT_SIZE = 16


@wp.struct
class Room:
    """Of each slot S: the moments of a stage of J joints and P pairs, and what an evaluation makes of them."""

    start: A3  # (S, J, 12) A0, row by row of 3 x 4
    d: A3  # (S, J, 12) D0 of the pass
    given: A3  # (S, J, 12) D0, to which free betas add
    pairs: A3  # (S, P, 10) M: xx xy xz yy yz zz x y z 1
    energy: A1  # (S,) E0, m^2
    mean: A3  # (S, J, 4) M e, of a free translation
    a: A3  # (S, J, 12) A
    change: A3  # (S, J, 12) dA
    slope: A3  # (S, J, 12) D0 + dA M
    part: A2  # (S, J) of the value
    force: A3  # (S, J, 3) of the subtrees
    pull: A3  # (S, J, 9) P, row by row
    cells: A3  # (S, C, 16) second moments


def make_room(slots: int, joints: int, pairs: int, cells: int, device: str) -> Any:
    """Room for so many groups."""
    room = Room()
    shapes = {
        "start": (joints, 12), "d": (joints, 12), "given": (joints, 12), "pairs": (pairs, 10), "energy": (),
        "mean": (joints, 4), "a": (joints, 12), "change": (joints, 12), "slope": (joints, 12), "part": (joints,),
        "force": (joints, 3), "pull": (joints, 9), "cells": (cells, MOMENT_SIZE),
    }  # fmt: skip
    for name, shape in shapes.items():
        setattr(room, name, wp.zeros((slots, *shape), dtype=V, device=device))
    return room


@wp.func
def _place_joint(s: int, k: int, j: int, place: Place, room: Room):
    """The transform of joint j, the k-th active one, and its change."""
    for r in range(3):
        x = place.rot[s, j, 3 * r]
        y = place.rot[s, j, 3 * r + 1]
        z = place.rot[s, j, 3 * r + 2]
        shift = (
            place.pos[s, j, r]
            - m(x, place.rest[s, j, 0])
            - m(y, place.rest[s, j, 1])
            - m(z, place.rest[s, j, 2])
        )
        room.a[s, k, 4 * r] = x
        room.a[s, k, 4 * r + 1] = y
        room.a[s, k, 4 * r + 2] = z
        room.a[s, k, 4 * r + 3] = shift
    for c in range(12):
        room.change[s, k, c] = room.a[s, k, c] - room.start[s, k, c]


@wp.func
def times_moment(s: int, p: int, room: Room, x: V, y: V, z: V, w: V):
    """[x y z w] times the symmetric 4 x 4 matrix of pair p."""
    xx = room.pairs[s, p, 0]
    xy = room.pairs[s, p, 1]
    xz = room.pairs[s, p, 2]
    yy = room.pairs[s, p, 3]
    yz = room.pairs[s, p, 4]
    zz = room.pairs[s, p, 5]
    mx = room.pairs[s, p, 6]
    my = room.pairs[s, p, 7]
    mz = room.pairs[s, p, 8]
    return (
        m(x, xx) + m(y, xy) + m(z, xz) + m(w, mx),
        m(x, xy) + m(y, yy) + m(z, yz) + m(w, my),
        m(x, xz) + m(y, yz) + m(z, zz) + m(w, mz),
        m(x, mx) + m(y, my) + m(z, mz) + m(w, room.pairs[s, p, 9]),
    )


@wp.func
def _slope_of_joint(s: int, k: int, variables: Variables, room: Room):
    """The slope of joint k, and its part of the value."""
    part = V()
    for r in range(3):
        a = room.given[s, k, 4 * r]
        b = room.given[s, k, 4 * r + 1]
        c = room.given[s, k, 4 * r + 2]
        d = room.given[s, k, 4 * r + 3]
        da = a
        db = b
        dc = c
        dd = d
        for n in range(variables.near.first[k], variables.near.first[k + 1]):
            code = variables.near.values[n]
            p = code / 2
            other = variables.pairs[p, 1 - code % 2]
            x, y, z, w = times_moment(
                s, p, room,
                room.change[s, other, 4 * r], room.change[s, other, 4 * r + 1],
                room.change[s, other, 4 * r + 2], room.change[s, other, 4 * r + 3],
            )  # fmt: skip
            a += x
            b += y
            c += z
            d += w
        part += m(room.change[s, k, 4 * r], a + da) + m(room.change[s, k, 4 * r + 1], b + db)
        part += m(room.change[s, k, 4 * r + 2], c + dc) + m(room.change[s, k, 4 * r + 3], d + dd)
        room.slope[s, k, 4 * r] = a
        room.slope[s, k, 4 * r + 1] = b
        room.slope[s, k, 4 * r + 2] = c
        room.slope[s, k, 4 * r + 3] = d
    room.part[s, k] = part


@wp.func
def slopes(s: int, t: int, variables: Variables, place: Place, room: Room):
    """The transforms, their changes and slopes, for D0 as `room.given` has it; `place` is posed."""
    for k in range(t, variables.num_joints, wp.block_dim()):
        _place_joint(s, k, variables.joints[k], place, room)
    sync()
    for k in range(t, variables.num_joints, wp.block_dim()):
        _slope_of_joint(s, k, variables, room)
    sync()


@wp.func
def value_of(s: int, variables: Variables, room: Room) -> V:
    """E without the limits; the same in each thread."""
    total = room.energy[s]
    for k in range(variables.num_joints):
        total += room.part[s, k]
    return total


@wp.func
def mean_residual(s: int, r: int, variables: Variables, room: Room) -> V:
    """s_r, the sum of the slopes' translations: of a free translation, what it would take off."""
    total = V()
    for k in range(variables.num_joints):
        total += room.slope[s, k, 4 * r + 3]
    return total


@wp.func
def centre(s: int, t: int, x: V, y: V, z: V, variables: Variables, room: Room):
    """Slopes for the best translation: less (s / W) (M e)^T; x, y, z is s / W."""
    for k in range(t, variables.num_joints, wp.block_dim()):
        for c in range(4):
            mean = room.mean[s, k, c]
            room.slope[s, k, c] = room.slope[s, k, c] - m(x, mean)
            room.slope[s, k, 4 + c] = room.slope[s, k, 4 + c] - m(y, mean)
            room.slope[s, k, 8 + c] = room.slope[s, k, 8 + c] - m(z, mean)
    sync()


@wp.func
def means(s: int, t: int, variables: Variables, room: Room):
    """M e of each joint, from the pairs."""
    for k in range(t, variables.num_joints, wp.block_dim()):
        x = V()
        y = V()
        z = V()
        w = V()
        for n in range(variables.near.first[k], variables.near.first[k + 1]):
            p = variables.near.values[n] / 2
            x += room.pairs[s, p, 6]
            y += room.pairs[s, p, 7]
            z += room.pairs[s, p, 8]
            w += room.pairs[s, p, 9]
        room.mean[s, k, 0] = x
        room.mean[s, k, 1] = y
        room.mean[s, k, 2] = z
        room.mean[s, k, 3] = w
    sync()


@wp.func
def add_up(t: int, s: int, size: int, sums: Sums, x: A3):
    """Each place of x (S, N, size) adds its sources, level by level."""
    for level in range(sums.levels):
        for n in range(sums.first[level] + t, sums.first[level + 1], wp.block_dim()):
            k = sums.place[n]
            for c in range(size):
                total = x[s, k, c]
                for i in range(sums.sources.first[n], sums.sources.first[n + 1]):
                    total += x[s, sums.sources.values[i], c]
                x[s, k, c] = total
        sync()


@wp.func
def forces(s: int, t: int, variables: Variables, room: Room):
    """Forces and pulls of the slopes on the subtrees."""
    for k in range(t, variables.num_joints, wp.block_dim()):
        for r in range(3):
            room.force[s, k, r] = room.slope[s, k, 4 * r + 3]
            for c in range(3):
                total = m(room.a[s, k, 4 * r], room.slope[s, k, 4 * c])
                total += m(room.a[s, k, 4 * r + 1], room.slope[s, k, 4 * c + 1])
                total += m(room.a[s, k, 4 * r + 2], room.slope[s, k, 4 * c + 2])
                total += m(room.a[s, k, 4 * r + 3], room.slope[s, k, 4 * c + 3])
                room.pull[s, k, 3 * r + c] = total
    sync()
    add_up(t, s, 3, variables.up, room.force)
    add_up(t, s, 9, variables.up, room.pull)


@wp.func
def gradient_entry(s: int, i: int, variables: Variables, place: Place, room: Room) -> V:
    """The gradient along DoF i."""
    k = variables.owner[i]
    d = variables.dofs[i]
    e = m(place.omega[s, d, 0], room.pull[s, k, 5] - room.pull[s, k, 7])
    e += m(place.omega[s, d, 1], room.pull[s, k, 6] - room.pull[s, k, 2])
    e += m(place.omega[s, d, 2], room.pull[s, k, 1] - room.pull[s, k, 3])
    for r in range(3):
        e += m(place.v[s, d, r], room.force[s, k, r])
    return 2.0 * e


@wp.func
def _pair_moment(s: int, p: int, variables: Variables, room: Room):
    """The second moments of the two joints of a pair, into the cells of both orders."""
    j = variables.pairs[p, 0]
    i = variables.pairs[p, 1]
    one = variables.pair_cells[p, 0]
    two = variables.pair_cells[p, 1]
    mass = room.pairs[s, p, 9]
    for r in range(3):
        x, y, z, w = times_moment(
            s,
            p,
            room,
            room.a[s, j, 4 * r],
            room.a[s, j, 4 * r + 1],
            room.a[s, j, 4 * r + 2],
            room.a[s, j, 4 * r + 3],
        )
        other = m(room.a[s, i, 4 * r], room.pairs[s, p, 6]) + m(room.a[s, i, 4 * r + 1], room.pairs[s, p, 7])
        other += m(room.a[s, i, 4 * r + 2], room.pairs[s, p, 8]) + m(room.a[s, i, 4 * r + 3], mass)
        for c in range(3):
            e = m(x, room.a[s, i, 4 * c]) + m(y, room.a[s, i, 4 * c + 1])
            e += m(z, room.a[s, i, 4 * c + 2]) + m(w, room.a[s, i, 4 * c + 3])
            if one >= 0:
                room.cells[s, one, 3 * r + c] = e
            if two >= 0:
                room.cells[s, two, 3 * c + r] = e
        if one >= 0:
            room.cells[s, one, 9 + r] = w
            room.cells[s, one, 12 + r] = other
        if two >= 0:
            room.cells[s, two, 9 + r] = other
            room.cells[s, two, 12 + r] = w
    if one >= 0:
        room.cells[s, one, 15] = mass
    if two >= 0:
        room.cells[s, two, 15] = mass


@wp.func
def pair_moments(s: int, t: int, variables: Variables, room: Room):
    """Cells of pairs of joints; the others are zero. What is left for `second_moments` is to add them up."""
    for p in range(t, variables.num_pairs, wp.block_dim()):
        _pair_moment(s, p, variables, room)
    for n in range(t, variables.empty.shape[0], wp.block_dim()):
        for c in range(16):
            room.cells[s, variables.empty[n], c] = V()
    sync()


@wp.func
def second_moments(s: int, t: int, variables: Variables, room: Room):
    """All cells."""
    pair_moments(s, t, variables, room)
    add_up(t, s, 16, variables.cell_sums, room.cells)


@wp.func
def matrix_row(s: int, h: int, i: int, variables: Variables, place: Place, room: Room, hessian: A3):
    """Row i of the Gauss-Newton matrix, from the diagonal on, into hessian[h]."""
    k = variables.owner[i]
    d = variables.dofs[i]
    w0 = place.omega[s, d, 0]
    w1 = place.omega[s, d, 1]
    w2 = place.omega[s, d, 2]
    v0 = place.v[s, d, 0]
    v1 = place.v[s, d, 1]
    v2 = place.v[s, d, 2]
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
        if other != last:  # of all DoFs of a joint
            last = other
            cell = variables.cells[k, other]
            if cell >= 0:
                x3 = room.cells[s, cell, 12]
                x4 = room.cells[s, cell, 13]
                x5 = room.cells[s, cell, 14]
                c9 = room.cells[s, cell, 9]
                c10 = room.cells[s, cell, 10]
                c11 = room.cells[s, cell, 11]
                mass = room.cells[s, cell, 15]
                trace = room.cells[s, cell, 0] + room.cells[s, cell, 4] + room.cells[s, cell, 8]
                h0 = m(trace, w0) - m(room.cells[s, cell, 0], w0) - m(room.cells[s, cell, 1], w1)
                h0 += m(x4, v2) - m(x5, v1) - m(room.cells[s, cell, 2], w2)
                h1 = m(trace, w1) - m(room.cells[s, cell, 3], w0) - m(room.cells[s, cell, 4], w1)
                h1 += m(x5, v0) - m(x3, v2) - m(room.cells[s, cell, 5], w2)
                h2 = m(trace, w2) - m(room.cells[s, cell, 6], w0) - m(room.cells[s, cell, 7], w1)
                h2 += m(x3, v1) - m(x4, v0) - m(room.cells[s, cell, 8], w2)
                f0 = m(w1, c11) - m(w2, c10) + m(mass, v0)
                f1 = m(w2, c9) - m(w0, c11) + m(mass, v1)
                f2 = m(w0, c10) - m(w1, c9) + m(mass, v2)
        e = V()
        if cell >= 0:
            dj = variables.dofs[j]
            e = m(place.omega[s, dj, 0], h0) + m(place.omega[s, dj, 1], h1) + m(place.omega[s, dj, 2], h2)
            e += m(place.v[s, dj, 0], f0) + m(place.v[s, dj, 1], f1) + m(place.v[s, dj, 2], f2)
        hessian[h, i, j] = 2.0 * e


@wp.func
def mean_speed(s: int, i: int, r: int, variables: Variables, place: Place, room: Room) -> V:
    """ds_r / dq_i: how DoF i moves the mean of the skin; the root is the first active joint."""
    cell = variables.cells[0, variables.owner[i]]
    d = variables.dofs[i]
    r1 = (r + 1) % 3
    r2 = (r + 2) % 3
    e = m(place.omega[s, d, r1], room.cells[s, cell, 12 + r2]) - m(
        place.omega[s, d, r2], room.cells[s, cell, 12 + r1]
    )
    return e + m(place.v[s, d, r], room.cells[s, cell, 15])


@wp.func
def centre_row(s: int, h: int, i: int, n: int, share: float, speeds: A3, hessian: A3):
    """Row i of hessian[h] for the best translation: less share speed_i . speed_j, of 2 / W; speeds (S, n, 3)."""
    for j in range(i, n):
        e = m(speeds[s, i, 0], speeds[s, j, 0]) + m(speeds[s, i, 1], speeds[s, j, 1])
        hessian[h, i, j] = hessian[h, i, j] - share * (e + m(speeds[s, i, 2], speeds[s, j, 2]))


@wp.func
def beyond_limit(x: V, low: float, high: float) -> V:
    """How far an angle is beyond its limits, rad, with its sign."""
    return wp.max(x - V(high), V(0.0)) - wp.max(V(low) - x, V(0.0))


@wp.func
def is_beyond(excess: V) -> V:
    """1 where it is, else 0."""
    return exceeds(wp.abs(excess), V(0.0))
