"""What the people of a group minimise in a pass, and its evaluation at any variables.

The moments of the vertex pass, and what draws joints to their places: a joint's position is linear in its skinning
transform, p = A_k [J_k; 1], so that weight |p - place|^2 just adds to M, D0 and E0. What holds a root that may turn to
the label's is of the same kind: its axes are drawn to the world's, turn_weight |G - I|^2 / 2, or about turn_weight
times the squared angle. Then the quadratic form at the variables, what free betas add to it, the best translation of a
free root, and the soft limits: an angle beyond its limits costs limit_weight (m^2 / rad^2) times the squared excess.
Linear forms f of the angles, m per rad, cost (f . q)^2: a gradient of 2 (f . q) f and a matrix of 2 f f^T, which is all
of their Hessian.
"""

from typing import Any

import warp as wp

from skelfit.bodies.dofs import NUM_DOFS
from skelfit.fitting.backends.body_tables import NUM_BETAS, Body
from skelfit.fitting.backends.variable_tables import Variables

from .betas_moments import Levers
from .betas_terms import (
    Shaping,
    beta_columns,
    beta_gradient,
    beta_parts,
    beta_speed,
    beta_value,
    lever_slopes,
    load_levers,
    no_bends_of_betas,
)
from .damped_step import Steps
from .hessian import add_slide_bends, bend_column
from .joint_chain import pose
from .joint_frames import Place
from .lanes import A2, A3, F3, I2, L, V, m, sync
from .moments import Moments
from .quadratic import (
    MOMENT_SIZE,
    Room,
    add_up,
    beyond_limit,
    centre,
    centre_row,
    forces,
    gradient_entry,
    is_beyond,
    matrix_row,
    mean_residual,
    mean_speed,
    means,
    pair_moments,
    second_moments,
    slopes,
    value_of,
)
from .rest_joints import shape_joints

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.struct
class Rules:
    """How a pass steps; from `config.SolverConfig` and its stage."""

    steps: int
    exact: int  # 1: with the whole Hessian
    free_betas: int  # 1: betas are variables after the DoFs
    free_root: int  # 1: for the best translation; the vertices' weights must then sum to 1
    branch: int  # which of the joints with two branches is tried from elsewhere in its valley; -1: none, as people are
    way: int  # from where: `chart.along_valley`
    tolerance: float
    max_angle_step: float
    max_beta_step: float
    damping: float
    damping_min: float
    damping_max: float
    damping_up: float
    damping_down: float
    damping_at_rest: float
    noise: float  # share of the value that counts as its rounding
    limit_weight: float
    beta_weight: float
    joint_weight: float
    turn_weight: float  # m^2 per rad^2 of the root's turn; above 0 only where the root is among the joints
    move_weight: float  # m^2 per m^2 of its translation
    beyond: float  # rad beyond a limit that makes a branch doubtful


@wp.struct
class Work:
    """Of each slot S, what the N variables of a group need beside `Steps`."""

    q: A2  # (S, 46)
    betas: A2  # (S, K)
    x: A2  # (S, N)
    trial: A2  # (S, N)
    balls: A2  # (S, joints)
    speeds: A3  # (S, N, 3) of the mean of the skin
    mean: A2  # (2 S, 3) m, what the best translation takes off; in two buffers as in `Steps`


@wp.func
def _load_moments(s: int, t: int, g: int, places: I2, moments: Moments, room: Room):
    """The moments of the people of group g; places (G, L): where each is among the people of the vertex pass."""
    apart = places[g, 0] % wp.static(L)
    for k in range(wp.static(L)):
        apart += wp.abs(places[g, k] - places[g, 0] - k)
    if apart == 0:
        b = places[g, 0] / wp.static(L)
        for i in range(t, moments.start.shape[1], wp.block_dim()):
            for c in range(12):
                room.start[s, i, c] = moments.start[b, i, c]
                room.d[s, i, c] = moments.d[b, i, c]
                room.given[s, i, c] = moments.d[b, i, c]
        for i in range(t, moments.pairs.shape[1], wp.block_dim()):
            for c in range(10):
                room.pairs[s, i, c] = moments.pairs[b, i, c]
        if t == 0:
            room.energy[s] = moments.value[b]
    else:
        for i in range(t, moments.start.shape[1], wp.block_dim()):
            for c in range(12):
                room.start[s, i, c] = _gather(moments.start, places, g, i, c)
                room.d[s, i, c] = _gather(moments.d, places, g, i, c)
                room.given[s, i, c] = room.d[s, i, c]
        for i in range(t, moments.pairs.shape[1], wp.block_dim()):
            for c in range(10):
                room.pairs[s, i, c] = _gather(moments.pairs, places, g, i, c)
        if t == 0:
            e = V()
            for k in range(wp.static(L)):
                p = places[g, k]
                v = moments.value[p / wp.static(L)]
                e[k] = v[p % wp.static(L)]
            room.energy[s] = e
    sync()


@wp.func
def _gather(x: A3, places: I2, g: int, i: int, c: int) -> V:
    r = V()
    for k in range(wp.static(L)):
        p = places[g, k]
        v = x[p / wp.static(L), i, c]
        r[k] = v[p % wp.static(L)]
    return r


@wp.func
def _draw_joint(
    s: int,
    n: int,
    g: int,
    rows: I2,
    weight: float,
    located: F3,
    variables: Variables,
    place: Place,
    room: Room,
):
    """Add weight |p - place|^2 of a joint, whose position is A_k [rest; 1], to the moments; returns its E0."""
    k = variables.located[n, 0]
    pair = variables.located[n, 1]
    j = variables.joints[k]
    x = place.rest[s, j, 0]
    y = place.rest[s, j, 1]
    z = place.rest[s, j, 2]
    room.pairs[s, pair, 0] = room.pairs[s, pair, 0] + weight * m(x, x)
    room.pairs[s, pair, 1] = room.pairs[s, pair, 1] + weight * m(x, y)
    room.pairs[s, pair, 2] = room.pairs[s, pair, 2] + weight * m(x, z)
    room.pairs[s, pair, 3] = room.pairs[s, pair, 3] + weight * m(y, y)
    room.pairs[s, pair, 4] = room.pairs[s, pair, 4] + weight * m(y, z)
    room.pairs[s, pair, 5] = room.pairs[s, pair, 5] + weight * m(z, z)
    room.pairs[s, pair, 6] = room.pairs[s, pair, 6] + weight * x
    room.pairs[s, pair, 7] = room.pairs[s, pair, 7] + weight * y
    room.pairs[s, pair, 8] = room.pairs[s, pair, 8] + weight * z
    room.pairs[s, pair, 9] = room.pairs[s, pair, 9] + V(weight)
    total = V()
    for r in range(3):
        goal = V()
        for lane in range(wp.static(L)):
            goal[lane] = located[rows[g, lane], variables.located[n, 2], r]
        off = (
            m(room.start[s, k, 4 * r], x)
            + m(room.start[s, k, 4 * r + 1], y)
            + m(room.start[s, k, 4 * r + 2], z)
        )
        off += room.start[s, k, 4 * r + 3] - goal
        room.d[s, k, 4 * r] = room.d[s, k, 4 * r] + weight * m(off, x)
        room.d[s, k, 4 * r + 1] = room.d[s, k, 4 * r + 1] + weight * m(off, y)
        room.d[s, k, 4 * r + 2] = room.d[s, k, 4 * r + 2] + weight * m(off, z)
        room.d[s, k, 4 * r + 3] = room.d[s, k, 4 * r + 3] + weight * off
        total += weight * m(off, off)
        for c in range(4):
            room.given[s, k, 4 * r + c] = room.d[s, k, 4 * r + c]
    return total


@wp.func
def _draw_joints(
    s: int,
    t: int,
    g: int,
    rows: I2,
    weight: float,
    located: F3,
    variables: Variables,
    place: Place,
    room: Room,
):
    """Add what draws joints to their places; by one thread, as they are few."""
    if t == 0 and weight > 0.0:
        for n in range(variables.num_located):
            room.energy[s] = room.energy[s] + _draw_joint(
                s, n, g, rows, weight, located, variables, place, room
            )
    sync()


@wp.func
def _hold_root(s: int, t: int, weight: float, room: Room):
    """Draw the axes of the root, the first joint, to the world's: they have a direction, but no place and no mass."""
    if t == 0 and weight > 0.0:
        half = 0.5 * weight
        total = V()
        for r in range(3):
            for c in range(3):
                off = room.start[s, 0, 4 * r + c] - V(wp.where(r == c, 1.0, 0.0))
                room.d[s, 0, 4 * r + c] = room.d[s, 0, 4 * r + c] + half * off
                room.given[s, 0, 4 * r + c] = room.d[s, 0, 4 * r + c]
                total += half * m(off, off)
        # The first pair is that of the first joint with itself.
        room.pairs[s, 0, 0] = room.pairs[s, 0, 0] + V(half)
        room.pairs[s, 0, 3] = room.pairs[s, 0, 3] + V(half)
        room.pairs[s, 0, 5] = room.pairs[s, 0, 5] + V(half)
        room.energy[s] = room.energy[s] + total
    sync()


@wp.func
def _mass(rules: Rules, variables: Variables) -> float:
    """What a free translation is weighed with: the vertices' 1, drawn joints, and what holds it."""
    return 1.0 + rules.joint_weight * float(variables.num_located) + rules.move_weight


@wp.func
def _hold_translation(s: int, t: int, weight: float, place: Place, room: Room):
    """What it costs to be where people are moved to."""
    if t == 0:
        total = m(place.trans[s, 0], place.trans[s, 0])
        total += m(place.trans[s, 1], place.trans[s, 1])
        total += m(place.trans[s, 2], place.trans[s, 2])
        room.energy[s] = room.energy[s] + weight * total
    sync()


@wp.func
def load_objective(
    s: int, t: int, g: int, rows: I2, places: I2, rules: Rules, located: F3, moments: Moments, levers: Levers,
    variables: Variables, body: Body, place: Place, room: Room, shaping: Shaping, work: Work,
):  # fmt: skip
    """What the people of group g minimise."""
    _load_moments(s, t, g, places, moments, room)
    if rules.free_betas != 0:
        # People may have moved since the vertex pass; what it holds of their shape is that of its betas.
        load_levers(s, t, g, places, levers, shaping)
        shape_joints(s, t, shaping.levers.betas, body, place)
    else:
        shape_joints(s, t, work.betas, body, place)
    _draw_joints(s, t, g, rows, rules.joint_weight, located, variables, place, room)
    _hold_root(s, t, rules.turn_weight, room)
    if rules.free_root != 0:
        _hold_translation(s, t, rules.move_weight, place, room)
        means(s, t, variables, room)


@wp.func
def _best_move(s: int, r: int, rules: Rules, variables: Variables, place: Place, room: Room) -> V:
    """Component r of what the best translation takes off, m."""
    pull = mean_residual(s, r, variables, room)
    pull += rules.move_weight * place.trans[s, r]
    return (1.0 / _mass(rules, variables)) * pull


@wp.func
def _centre_all(
    s: int, t: int, h: int, rules: Rules, variables: Variables, place: Place, room: Room, shaping: Shaping,
    work: Work, steps: Steps,
):  # fmt: skip
    """The matrix for the best translation."""
    free_betas = rules.free_betas
    n = variables.num_dofs
    for i in range(t, n, wp.block_dim()):
        for r in range(3):
            work.speeds[s, i, r] = mean_speed(s, i, r, variables, place, room)
    if free_betas != 0:
        for k in range(t, work.betas.shape[1], wp.block_dim()):
            for r in range(3):
                work.speeds[s, n + k, r] = beta_speed(s, k, r, shaping)
    sync()
    size = n + free_betas * work.betas.shape[1]
    for i in range(t, size, wp.block_dim()):
        centre_row(s, h, i, size, 2.0 / _mass(rules, variables), work.speeds, steps.hessian)
    sync()


@wp.func
def _add_limits(t: int, s: int, h: int, weight: float, x: A2, variables: Variables, steps: Steps) -> V:
    """Add the limits to gradient and matrix; returns what they add to the value, in each thread."""
    total = V()
    for i in range(variables.num_dofs):
        excess = beyond_limit(x[s, i], variables.limits[i, 0], variables.limits[i, 1])
        total += weight * m(excess, excess)
        if i % wp.block_dim() == t:
            steps.gradient[h, i] = steps.gradient[h, i] + (2.0 * weight) * excess
            steps.hessian[h, i, i] = steps.hessian[h, i, i] + (2.0 * weight) * is_beyond(excess)
    sync()
    return total


@wp.func
def _add_couplings(t: int, s: int, h: int, x: A2, variables: Variables, steps: Steps) -> V:
    """Add the linear forms to gradient and matrix, by one thread, as they are few; returns their value."""
    total = V()
    for k in range(variables.num_coupled):
        first = variables.coupled.first[k]
        last = variables.coupled.first[k + 1]
        form = V()
        for n in range(first, last):
            form += variables.factors[n] * x[s, variables.coupled.values[n]]
        total += m(form, form)
        if t == 0:
            for n in range(first, last):
                i = variables.coupled.values[n]
                factor = 2.0 * variables.factors[n]
                steps.gradient[h, i] = steps.gradient[h, i] + factor * form
                for o in range(n, last):
                    j = variables.coupled.values[o]
                    steps.hessian[h, i, j] = steps.hessian[h, i, j] + V(factor * variables.factors[o])
    sync()
    return total


@wp.func
def evaluate(
    s: int, t: int, h: int, g: int, x: A2, rules: Rules, moments: Moments, variables: Variables, body: Body,
    place: Place, room: Room, shaping: Shaping, work: Work, steps: Steps,
) -> V:  # fmt: skip
    """The value at x (S, N); gradient, matrix and bend into buffer h of steps."""
    n = variables.num_dofs
    for i in range(t, n, wp.block_dim()):
        work.q[s, variables.dofs[i]] = x[s, i]
    if rules.free_betas != 0:
        for i in range(t, work.betas.shape[1], wp.block_dim()):
            work.betas[s, i] = x[s, n + i]
        sync()
        shape_joints(s, t, work.betas, body, place)
    sync()
    pose(s, t, work.q, body, place)
    if rules.free_betas != 0:
        lever_slopes(s, t, work.betas, body, variables, place, room, shaping)
    slopes(s, t, variables, place, room)
    value = value_of(s, variables, room)
    if rules.free_betas != 0:
        value += beta_value(s, work.betas, rules.beta_weight, shaping)
    a = V()
    c = V()
    d = V()
    if rules.free_root != 0:
        a = _best_move(s, 0, rules, variables, place, room)
        c = _best_move(s, 1, rules, variables, place, room)
        d = _best_move(s, 2, rules, variables, place, room)
        value -= _mass(rules, variables) * (m(a, a) + m(c, c) + m(d, d))
        sync()
        if t == 0:
            work.mean[h, 0] = a
            work.mean[h, 1] = c
            work.mean[h, 2] = d
        centre(s, t, a, c, d, variables, room)
    forces(s, t, variables, room)
    if rules.free_betas != 0:
        beta_parts(s, t, a, c, d, variables, room, shaping)
        pair_moments(s, t, variables, room)
        beta_columns(s, t, h, rules.beta_weight, variables, place, room, shaping, steps.hessian)
        add_up(t, s, MOMENT_SIZE, variables.cell_sums, room.cells)
        for k in range(t, work.betas.shape[1], wp.block_dim()):
            steps.gradient[h, n + k] = beta_gradient(s, k, work.betas, rules.beta_weight, variables, shaping)
    else:
        second_moments(s, t, variables, room)
    for i in range(t, n, wp.block_dim()):
        steps.gradient[h, i] = gradient_entry(s, i, variables, place, room)
        matrix_row(s, h, i, variables, place, room, steps.hessian)
    if rules.exact != 0:
        for j in range(t, n, wp.block_dim()):
            bend_column(s, h, j, variables, place, room, steps.bend)
    sync()
    if rules.exact != 0 and t == 0:
        add_slide_bends(s, h, work.q, variables, body, place, room, steps.bend)
    if rules.exact != 0 and rules.free_betas != 0:
        no_bends_of_betas(t, h, n, steps.bend)
    if rules.free_root != 0:
        _centre_all(s, t, h, rules, variables, place, room, shaping, work, steps)
    value += _add_limits(t, s, h, rules.limit_weight, x, variables, steps)
    return value + _add_couplings(t, s, h, x, variables, steps)


def make_work(slots: int, variables: int, balls: int, device: str) -> Any:
    """Room for so many groups."""
    work = Work()
    work.mean = wp.zeros((2 * slots, 3), dtype=V, device=device)
    for name, shape in (
        ("q", (NUM_DOFS,)), ("betas", (NUM_BETAS,)), ("x", (variables,)), ("trial", (variables,)),
        ("balls", (balls,)), ("speeds", (variables, 3)),
    ):  # fmt: skip
        setattr(work, name, wp.zeros((slots, *shape), dtype=V, device=device))
    return work
