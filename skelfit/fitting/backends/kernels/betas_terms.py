"""Betas as variables beside the DoFs: what they add to value, gradient and Gauss-Newton matrix of `quadratic`.

Beta k moves a vertex by f_k, its shape vector turned by its blended transform, and by what it changes of the
transforms, dA_k u. With d the betas' change since the vertex pass, the residual is r + dA u + sum d_k f_k, and its
squares need the levers L_k = sum om f_k u^T, the products sum om f_k f_l and the pulls sum om f_k r.

- To the pose, the betas' change is another slope: D0 + sum d_k L_k.
- On a twist, as which a beta or a DoF changes a joint's transform, a lever does what a wrench does: a torque
  sum A x L and a force L e. So does dA_k M, whose wrench on joint a is, of the second moments of the pairs of joints,
  sum over b of x x (omega x x' + v) and omega x x' + v. What all that is on a beta's twists gives the matrix of two
  betas, and what it is on a DoF's, once summed up the tree, that of a DoF and a beta.
"""

from typing import Any

import warp as wp

from skelfit.fitting.backends.body_tables import NUM_BETAS, Body
from skelfit.fitting.backends.variable_tables import Variables

from .betas_moments import Levers
from .betas_twists import Sway, make_sway, shape_speeds, shape_twists
from .joint_frames import Place
from .lanes import A2, A3, I2, L, V, m, sync
from .quadratic import Room

wp.set_module_options({"enable_backward": False, "max_unroll": 1})

K: int = NUM_BETAS


@wp.struct
class Shaping:
    """Of each slot, what an evaluation makes of the levers."""

    levers: Levers  # of the slot's group
    sway: Sway
    push: A2  # (S, K) pull + products d
    turning: A3  # (S, J, 3) the slopes' torques
    part: A3  # (S, J, K) of half the gradient
    wrenches: A3  # (S, J, 6 K) torque and force of each beta; K c + k is component c of beta k
    square: A3  # (S, K, K) of half the matrix


def make_levers(slots: int, joints: int, device: str) -> Any:
    """Levers of so many groups."""
    levers = Levers()
    for name, shape in (("betas", (K,)), ("lever", (joints, 12, K)), ("products", (K, K)), ("pull", (K,))):
        setattr(levers, name, wp.zeros((slots, *shape), dtype=V, device=device))
    return levers


def make_shaping(slots: int, joints: int, device: str) -> Any:
    """Room for so many groups."""
    shaping = Shaping()
    for name, shape in (
        ("push", (K,)), ("turning", (joints, 3)), ("part", (joints, K)),
        ("wrenches", (joints, 6 * K)), ("square", (K, K)),
    ):  # fmt: skip
        setattr(shaping, name, wp.zeros((slots, *shape), dtype=V, device=device))
    shaping.levers, shaping.sway = make_levers(slots, joints, device), make_sway(slots, device)
    return shaping


@wp.func
def load_levers(s: int, t: int, g: int, places: I2, found: Levers, shaping: Shaping):
    """Into slot s the levers of the people of group g; places (G, L): where each is among those of the vertex pass."""
    levers = shaping.levers
    joints = found.lever.shape[1]
    for i in range(t, joints * wp.static(12 * K), wp.block_dim()):
        j = i // wp.static(12 * K)
        c = (i // wp.static(K)) % 12
        k = i % wp.static(K)
        x = V()
        for lane in range(wp.static(L)):
            p = places[g, lane]
            v = found.lever[p / wp.static(L), j, c, k]
            x[lane] = v[p % wp.static(L)]
        levers.lever[s, j, c, k] = x
    for i in range(t, wp.static((K + 2) * K), wp.block_dim()):
        row = i // wp.static(K)
        k = i % wp.static(K)
        x = V()
        for lane in range(wp.static(L)):
            p = places[g, lane]
            v = found.pull[p / wp.static(L), k]
            if row == 1:
                v = found.betas[p / wp.static(L), k]
            if row >= 2:
                v = found.products[p / wp.static(L), row - 2, k]
            x[lane] = v[p % wp.static(L)]
        if row == 0:
            levers.pull[s, k] = x
        elif row == 1:
            levers.betas[s, k] = x
        else:
            levers.products[s, row - 2, k] = x
    sync()


@wp.func
def lever_slopes(
    s: int, t: int, betas: A2, body: Body, variables: Variables, place: Place, room: Room, shaping: Shaping
):  # fmt: skip
    """What the betas (S, K) make of D0, for `quadratic.slopes`, and how they move the joints; `place` is posed."""
    levers = shaping.levers
    sway = shaping.sway
    shape_speeds(s, t, body, place, sway)
    shape_twists(s, t, body, place, sway)
    for i in range(t, variables.num_joints * 12, wp.block_dim()):
        _lever_slope(s, i // 12, i % 12, betas, levers, room, shaping)
    for k in range(t, wp.static(K), wp.block_dim()):
        _push(s, k, betas, levers, shaping)
    sync()


@wp.func
def beta_parts(s: int, t: int, x: V, y: V, z: V, variables: Variables, room: Room, shaping: Shaping):
    """What `beta_gradient` adds up, from the slopes and the betas' twists; x, y, z: `mean_residual`, or 0."""
    levers = shaping.levers
    sway = shaping.sway
    for i in range(t, variables.num_joints * 3, wp.block_dim()):
        _turning(s, i // 3, i % 3, room, shaping)
    sync()
    for i in range(t, variables.num_joints * wp.static(K), wp.block_dim()):
        j = i // wp.static(K)
        k = i % wp.static(K)
        part = _beta_part(s, j, k, variables.joints[j], levers, sway, room, shaping)
        part -= m(x, levers.lever[s, j, 3, k]) + m(y, levers.lever[s, j, 7, k])
        shaping.part[s, j, k] = part - m(z, levers.lever[s, j, 11, k])
    sync()


@wp.func
def beta_value(s: int, betas: A2, weight: float, shaping: Shaping) -> V:
    """What the betas add to `quadratic.value_of`; a squared beta costs weight, m^2. The same in each thread."""
    levers = shaping.levers
    total = V()
    for k in range(wp.static(K)):
        beta = betas[s, k]
        total += m(beta - levers.betas[s, k], levers.pull[s, k] + shaping.push[s, k]) + weight * m(beta, beta)
    return total


@wp.func
def beta_gradient(s: int, k: int, betas: A2, weight: float, variables: Variables, shaping: Shaping) -> V:
    """The gradient along beta k."""
    total = shaping.push[s, k] + weight * betas[s, k]
    for j in range(variables.num_joints):
        total += shaping.part[s, j, k]
    return 2.0 * total


@wp.func
def beta_columns(
    s: int, t: int, h: int, weight: float, variables: Variables, place: Place, room: Room, shaping: Shaping,
    hessian: A3,
):  # fmt: skip
    """The columns of betas, to the diagonal, in buffer h of hessian (H, n + K, n + K).

    Between `quadratic.pair_moments` and the adding up of the cells.
    """
    levers = shaping.levers
    sway = shaping.sway
    share = wp.min(wp.block_dim(), wp.static(K))  # threads that share a joint, or a DoF
    for i in range(t, variables.num_joints * share, wp.block_dim()):
        _lever_wrench(s, i // share, i % share, share, levers, room, shaping)
    sync()
    for i in range(t, wp.static(K * K), wp.block_dim()):
        k = i // wp.static(K)
        o = i % wp.static(K)
        if k <= o:
            shaping.square[s, k, o] = levers.products[s, k, o] + _on_twist(s, o, k, variables, sway, shaping)
    sync()
    for i in range(t, variables.num_joints * share, wp.block_dim()):
        _add_wrench(s, i // share, i % share, share, variables, sway, room, shaping)
    sync()
    n = variables.num_dofs
    for i in range(t, wp.static(K * K), wp.block_dim()):
        k = i // wp.static(K)
        o = i % wp.static(K)
        if k <= o:
            e = shaping.square[s, k, o] + _on_twist(s, k, o, variables, sway, shaping)
            hessian[h, n + k, n + o] = 2.0 * e + V(wp.where(k == o, 2.0 * weight, 0.0))
    sync()
    _add_up_wrenches(s, t, variables, shaping)
    sync()
    for i in range(t, n * share, wp.block_dim()):
        _meet(s, h, i // share, i % share, share, variables, place, shaping, hessian)
    sync()


@wp.func
def no_bends_of_betas(t: int, h: int, n: int, bend: A3):
    """Zero is what the Hessian is taken to be more than the matrix, in the columns of betas after n DoFs.

    A frame follows the direction of its bone, which bends most for two betas together: the entries of a DoF and a beta
    without those of two betas lead astray.
    """
    for i in range(t, n + wp.static(K), wp.block_dim()):
        for k in range(wp.static(K)):
            if i <= n + k:
                bend[h, i, n + k] = V()


@wp.func
def _lever_slope(s: int, j: int, c: int, betas: A2, levers: Levers, room: Room, shaping: Shaping):
    x = V()
    for k in range(wp.static(K)):
        x += m(betas[s, k] - levers.betas[s, k], levers.lever[s, j, c, k])
    room.given[s, j, c] = room.d[s, j, c] + x


@wp.func
def _push(s: int, k: int, betas: A2, levers: Levers, shaping: Shaping):
    x = levers.pull[s, k]
    for o in range(wp.static(K)):
        x += m(betas[s, o] - levers.betas[s, o], levers.products[s, k, o])
    shaping.push[s, k] = x


@wp.func
def _turning(s: int, j: int, r: int, room: Room, shaping: Shaping):
    """Component r of sum A x slope over the columns of joint j."""
    a = 4 * ((r + 1) % 3)
    b = 4 * ((r + 2) % 3)
    x = V()
    for c in range(4):
        x += m(room.a[s, j, a + c], room.slope[s, j, b + c]) - m(room.a[s, j, b + c], room.slope[s, j, a + c])
    shaping.turning[s, j, r] = x


@wp.func
def _beta_part(
    s: int, j: int, k: int, joint: int, levers: Levers, sway: Sway, room: Room, shaping: Shaping
) -> V:  # fmt: skip
    """What joint j, SKEL's `joint`, adds to half the gradient along beta k: <L_k, dA> + <slope, dA_k>."""
    x = V()
    for c in range(12):
        x += m(room.change[s, j, c], levers.lever[s, j, c, k])
    for r in range(3):
        x += m(shaping.turning[s, j, r], sway.twists[s, joint, wp.static(K) * r + k])
        x += m(room.slope[s, j, 4 * r + 3], sway.twists[s, joint, wp.static(K) * (3 + r) + k])
    return x


@wp.func
def _lever_wrench(
    s: int, j: int, first: int, step: int, levers: Levers, room: Room, shaping: Shaping
):  # fmt: skip
    """What the levers are on joint j; for the betas from first on, in steps."""
    for r in range(3):
        a = 4 * ((r + 1) % 3)
        b = 4 * ((r + 2) % 3)
        a0 = room.a[s, j, a]
        a1 = room.a[s, j, a + 1]
        a2 = room.a[s, j, a + 2]
        a3 = room.a[s, j, a + 3]
        b0 = room.a[s, j, b]
        b1 = room.a[s, j, b + 1]
        b2 = room.a[s, j, b + 2]
        b3 = room.a[s, j, b + 3]
        for k in range(first, wp.static(K), step):
            x = m(a0, levers.lever[s, j, b, k]) + m(a1, levers.lever[s, j, b + 1, k])
            x += m(a2, levers.lever[s, j, b + 2, k]) + m(a3, levers.lever[s, j, b + 3, k])
            x -= m(b0, levers.lever[s, j, a, k]) + m(b1, levers.lever[s, j, a + 1, k])
            x -= m(b2, levers.lever[s, j, a + 2, k]) + m(b3, levers.lever[s, j, a + 3, k])
            shaping.wrenches[s, j, wp.static(K) * r + k] = x
            shaping.wrenches[s, j, wp.static(K) * (3 + r) + k] = levers.lever[s, j, 4 * r + 3, k]


@wp.func
def _on_twist(s: int, k: int, o: int, variables: Variables, sway: Sway, shaping: Shaping) -> V:
    """What the wrenches of beta k do on the twists of beta o."""
    x = V()
    y = V()
    for j in range(variables.num_joints):
        joint = variables.joints[j]
        for c in range(3):
            x += m(shaping.wrenches[s, j, wp.static(K) * c + k], sway.twists[s, joint, wp.static(K) * c + o])
            y += m(
                shaping.wrenches[s, j, wp.static(K) * (3 + c) + k],
                sway.twists[s, joint, wp.static(K) * (3 + c) + o],
            )
    return x + y


@wp.func
def _add_wrench(
    s: int, j: int, first: int, step: int, variables: Variables, sway: Sway, room: Room, shaping: Shaping
):  # fmt: skip
    """Add what dA_k M is on joint j, from the cells of its pairs; for the betas from first on, in steps."""
    for n in range(variables.near.first[j], variables.near.first[j + 1]):
        code = variables.near.values[n]
        second = code % 2  # of the pair, whose cell is then read as its transpose
        p = code / 2
        other = variables.joints[variables.pairs[p, 1 - second]]
        _add_neighbour(s, j, other, variables.pair_cells[p, 0], second, first, step, sway, room, shaping)


@wp.func
def _add_neighbour(
    s: int, j: int, other: int, cell: int, second: int, first: int, step: int, sway: Sway, room: Room,
    shaping: Shaping,
):  # fmt: skip
    row = 1 + 2 * second
    column = 3 - 2 * second
    x01 = room.cells[s, cell, column]
    x02 = room.cells[s, cell, 2 * column]
    x10 = room.cells[s, cell, row]
    x12 = room.cells[s, cell, row + 2 * column]
    x20 = room.cells[s, cell, 2 * row]
    x21 = room.cells[s, cell, 2 * row + column]
    x00 = room.cells[s, cell, 4] + room.cells[s, cell, 8]
    x11 = room.cells[s, cell, 0] + room.cells[s, cell, 8]
    x22 = room.cells[s, cell, 0] + room.cells[s, cell, 4]
    a0 = room.cells[s, cell, 9 + 3 * second]
    a1 = room.cells[s, cell, 10 + 3 * second]
    a2 = room.cells[s, cell, 11 + 3 * second]
    b0 = room.cells[s, cell, 12 - 3 * second]
    b1 = room.cells[s, cell, 13 - 3 * second]
    b2 = room.cells[s, cell, 14 - 3 * second]
    mass = room.cells[s, cell, 15]
    for k in range(first, wp.static(K), step):
        w0 = sway.twists[s, other, k]
        w1 = sway.twists[s, other, wp.static(K) + k]
        w2 = sway.twists[s, other, wp.static(2 * K) + k]
        v0 = sway.twists[s, other, wp.static(3 * K) + k]
        v1 = sway.twists[s, other, wp.static(4 * K) + k]
        v2 = sway.twists[s, other, wp.static(5 * K) + k]
        t0 = m(x00, w0) - m(x01, w1) - m(x02, w2) + m(a1, v2) - m(a2, v1)
        t1 = m(x11, w1) - m(x10, w0) - m(x12, w2) + m(a2, v0) - m(a0, v2)
        t2 = m(x22, w2) - m(x20, w0) - m(x21, w1) + m(a0, v1) - m(a1, v0)
        f0 = m(w1, b2) - m(w2, b1) + m(mass, v0)
        f1 = m(w2, b0) - m(w0, b2) + m(mass, v1)
        f2 = m(w0, b1) - m(w1, b0) + m(mass, v2)
        shaping.wrenches[s, j, k] = shaping.wrenches[s, j, k] + t0
        shaping.wrenches[s, j, wp.static(K) + k] = shaping.wrenches[s, j, wp.static(K) + k] + t1
        shaping.wrenches[s, j, wp.static(2 * K) + k] = shaping.wrenches[s, j, wp.static(2 * K) + k] + t2
        shaping.wrenches[s, j, wp.static(3 * K) + k] = shaping.wrenches[s, j, wp.static(3 * K) + k] + f0
        shaping.wrenches[s, j, wp.static(4 * K) + k] = shaping.wrenches[s, j, wp.static(4 * K) + k] + f1
        shaping.wrenches[s, j, wp.static(5 * K) + k] = shaping.wrenches[s, j, wp.static(5 * K) + k] + f2


@wp.func
def beta_speed(s: int, k: int, r: int, shaping: Shaping) -> V:
    """How beta k moves the mean of the skin, of `mean_residual`; the root is the first active joint."""
    return shaping.wrenches[s, 0, wp.static(K) * (3 + r) + k]


@wp.func
def _add_up_wrenches(s: int, t: int, variables: Variables, shaping: Shaping):
    """The wrenches on each joint become those on its subtree; a thread has some of their numbers, up the whole tree."""
    for n in range(variables.up.first[variables.up.levels]):
        j = variables.up.place[n]
        for i in range(variables.up.sources.first[n], variables.up.sources.first[n + 1]):
            below = variables.up.sources.values[i]
            for c in range(t, wp.static(6 * K), wp.block_dim()):
                shaping.wrenches[s, j, c] = shaping.wrenches[s, j, c] + shaping.wrenches[s, below, c]


@wp.func
def _meet(
    s: int, h: int, i: int, first: int, step: int, variables: Variables, place: Place, shaping: Shaping,
    hessian: A3,
):  # fmt: skip
    """The entries of DoF i and the betas from first on, in steps."""
    j = variables.owner[i]
    d = variables.dofs[i]
    w0 = place.omega[s, d, 0]
    w1 = place.omega[s, d, 1]
    w2 = place.omega[s, d, 2]
    v0 = place.v[s, d, 0]
    v1 = place.v[s, d, 1]
    v2 = place.v[s, d, 2]
    for k in range(first, wp.static(K), step):
        x = m(w0, shaping.wrenches[s, j, k]) + m(w1, shaping.wrenches[s, j, wp.static(K) + k])
        x += m(w2, shaping.wrenches[s, j, wp.static(2 * K) + k]) + m(
            v0, shaping.wrenches[s, j, wp.static(3 * K) + k]
        )
        x += m(v1, shaping.wrenches[s, j, wp.static(4 * K) + k]) + m(
            v2, shaping.wrenches[s, j, wp.static(5 * K) + k]
        )
        hessian[h, i, variables.num_dofs + k] = 2.0 * x
