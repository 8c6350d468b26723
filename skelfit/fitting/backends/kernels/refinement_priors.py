"""The terms of a refinement that need no picture: the anchor's, of limits, spine, betas and depth; the betas' bound.

The objective is that of `tools.studies.naive_refinement`. Exponentials have their second derivative in place of
Gauss-Newton's.
"""

import warp as wp

from skelfit.fitting.backends.body_tables import BodyTables
from skelfit.fitting.backends.keypoint_tables import KeypointTables

from .damped_step import NewtonScratch
from .lanes import A2, V, choose, exceeds, m, sync
from .quadratic import exceeds_limit, limit_excess
from .refinement_state import ANGLES, BETAS, POINTS, VARIABLES, K, RefineRules, RefineScratch
from .rotations import Matrix, rotation_about, times

wp.set_module_options({"enable_backward": False, "max_unroll": 1})

_LARGEST_EXPONENT = 16.0


@wp.func
def exponential(a: V) -> V:
    """exp(a) to 1e-5 of itself for a within 16; beyond, that of 16 or -16."""
    largest = V(wp.static(_LARGEST_EXPONENT))
    x = wp.min(wp.max(a, -largest), largest) * wp.static(1.0 / 64.0)
    y = V(wp.static(1.0 / 120.0)) + x * wp.static(1.0 / 720.0)
    y = V(wp.static(1.0 / 6.0)) + m(x, V(wp.static(1.0 / 24.0)) + m(x, y))
    y = V(1.0) + m(x, V(1.0) + m(x, V(0.5) + m(x, y)))
    for _ in range(6):
        y = m(y, y)
    return y


@wp.func
def _joint_rotation(
    s: int, j: int, x: A2, tables: KeypointTables, body: BodyTables, scratch: RefineScratch
) -> Matrix:
    """The rotation of joint j in its frame; writes the axes of its DoFs as moved by the later ones."""
    r = Matrix()
    for i in range(3):
        r[4 * i] = V(1.0)
    first = body.first_dof[j]
    stop = body.first_dof[j + 1]
    for n in range(first, stop):
        i = first + stop - 1 - n
        for c in range(3):
            turned = tables.axes[i, 0] * r[3 * c] + tables.axes[i, 1] * r[3 * c + 1]
            scratch.turns[s, 3 * i + c] = turned + tables.axes[i, 2] * r[3 * c + 2]
        a = x[s, wp.static(ANGLES) + i]
        r = times(r, rotation_about(tables.axes[i, 0], tables.axes[i, 1], tables.axes[i, 2], a))
    return r


@wp.func
def write_label_joints(s: int, t: int, tables: KeypointTables, body: BodyTables, scratch: RefineScratch):
    """The rotations of the anchor's joints."""
    for j in range(t, 24, wp.block_dim()):
        r = _joint_rotation(s, j, scratch.label, tables, body, scratch)
        for i in range(9):
            scratch.label_joints[s, j, i] = r[i]
    sync()


@wp.func
def joint_terms(
    s: int, h: int, j: int, n: int, x: A2, rules: RefineRules, tables: KeypointTables, body: BodyTables,
    scratch: RefineScratch, newton: NewtonScratch,
):  # fmt: skip
    """Add the anchor of joint j's rotation G to the label's L: weight |G - L|^2 / 2."""
    weight = rules.anchor_pose
    if j == 0:
        weight = rules.anchor_root
    g = _joint_rotation(s, j, x, tables, body, scratch)
    total = V()
    for i in range(9):
        off = g[i] - scratch.label_joints[s, j, i]
        total += m(off, off)
    scratch.costs[s, wp.static(POINTS) + j] = (0.5 * weight) * total
    for i in range(body.first_dof[j], body.first_dof[j + 1]):
        row = wp.static(ANGLES) + i
        if row < n:
            slope = V()
            for r in range(3):
                one = (r + 1) % 3
                two = (r + 2) % 3
                for c in range(3):
                    across = m(g[3 * one + c], scratch.label_joints[s, j, 3 * two + c])
                    across -= m(g[3 * two + c], scratch.label_joints[s, j, 3 * one + c])
                    slope -= m(scratch.turns[s, 3 * i + r], across)
            newton.gradient[h, row] = newton.gradient[h, row] + weight * slope
            for o in range(i, body.first_dof[j + 1]):
                both = V()
                for r in range(3):
                    both += m(scratch.turns[s, 3 * i + r], scratch.turns[s, 3 * o + r])
                column = wp.static(ANGLES) + o
                newton.hessian[h, row, column] = newton.hessian[h, row, column] + (2.0 * weight) * both


@wp.func
def _angle_terms(
    s: int, h: int, i: int, n: int, x: A2, rules: RefineRules, tables: KeypointTables, newton: NewtonScratch
) -> V:
    """Add the limits of DoF i; returns their cost."""
    v = wp.static(ANGLES) + i
    low = tables.limits[i, 0]
    high = tables.limits[i, 1]
    excess = limit_excess(x[s, v], low, high)
    total = rules.limits * m(excess, excess)
    slope = (2.0 * rules.limits) * excess
    curvature = (2.0 * rules.limits) * exceeds_limit(excess)
    if rules.angles > 0.0 and high < 1.0e6:
        below = exponential(2.0 * (V(low) - x[s, v]))
        above = exponential(2.0 * (x[s, v] - V(high)))
        total += rules.angles * (below + above)
        slope += (2.0 * rules.angles) * (above - below)
        curvature += (4.0 * rules.angles) * (above + below)
    if v < n:
        newton.gradient[h, v] = newton.gradient[h, v] + slope
        newton.hessian[h, v, v] = newton.hessian[h, v, v] + curvature
    return total


@wp.func
def _held_terms(
    s: int, h: int, v: int, n: int, x: A2, rules: RefineRules, scratch: RefineScratch, newton: NewtonScratch
) -> V:
    """Add what holds variable v, of the translation or a beta, to the label, to 0 or to the depth; returns its cost."""
    weight = rules.anchor_move
    if v >= wp.static(BETAS):
        weight = rules.anchor_betas
    away = x[s, v] - scratch.label[s, v]
    total = weight * m(away, away)
    slope = (2.0 * weight) * away
    curvature = 2.0 * weight
    if v >= wp.static(BETAS):
        total += rules.shape * m(x[s, v], x[s, v])
        slope += (2.0 * rules.shape) * x[s, v]
        curvature += 2.0 * rules.shape
    if v == 2:
        away = x[s, v] - scratch.depth[s]
        total += rules.depth * m(away, away)
        slope += (2.0 * rules.depth) * away
        curvature += 2.0 * rules.depth
    if v < n:
        newton.gradient[h, v] = newton.gradient[h, v] + slope
        newton.hessian[h, v, v] = newton.hessian[h, v, v] + V(curvature)
    return total


@wp.func
def _spine_terms(
    s: int, h: int, k: int, n: int, x: A2, rules: RefineRules, tables: KeypointTables, newton: NewtonScratch
) -> V:
    """Add linear form k; returns its cost."""
    first = tables.form_first[k]
    last = tables.form_first[k + 1]
    form = V()
    for a in range(first, last):
        form += tables.form_factor[a] * x[s, wp.static(ANGLES) + tables.form_dof[a]]
    for a in range(first, last):
        i = wp.static(ANGLES) + tables.form_dof[a]
        if i < n:
            factor = 2.0 * rules.spine * tables.form_factor[a]
            newton.gradient[h, i] = newton.gradient[h, i] + factor * form
            for b in range(a, last):
                j = wp.static(ANGLES) + tables.form_dof[b]
                newton.hessian[h, i, j] = newton.hessian[h, i, j] + V(factor * tables.form_factor[b])
    return rules.spine * m(form, form)


@wp.func
def small_terms(
    s: int, t: int, h: int, n: int, x: A2, rules: RefineRules, tables: KeypointTables, scratch: RefineScratch,
    newton: NewtonScratch,
) -> V:  # fmt: skip
    """Add the terms of single variables and forms, by one thread; returns the sum of all costs, in each thread."""
    if t == 0:
        total = V()
        for k in range(wp.static(POINTS + 24)):
            total += scratch.costs[s, k]
        for i in range(46):
            total += _angle_terms(s, h, i, n, x, rules, tables, newton)
        for k in range(tables.form_first.shape[0] - 1):
            total += _spine_terms(s, h, k, n, x, rules, tables, newton)
        for v in range(3):
            total += _held_terms(s, h, v, n, x, rules, scratch, newton)
        for v in range(wp.static(BETAS), wp.static(VARIABLES)):
            total += _held_terms(s, h, v, n, x, rules, scratch, newton)
        scratch.costs[s, 0] = total
    sync()
    return scratch.costs[s, 0]


@wp.func
def bound_betas(s: int, t: int, x: A2, scratch: RefineScratch):
    """Move betas of x (S, 59) that are beyond the bound to it. Sync before and after."""
    bound = scratch.beta_bound[s]
    for i in range(t, wp.static(K), wp.block_dim()):
        x[s, wp.static(BETAS) + i] = wp.min(wp.max(x[s, wp.static(BETAS) + i], -bound), bound)


@wp.func
def _is_held(s: int, i: int, scratch: RefineScratch) -> V:
    """1 where variable i is a beta that is held."""
    held = V()
    if i >= wp.static(BETAS) and i < wp.static(VARIABLES):
        held = scratch.held[s, i - wp.static(BETAS)]
    return held


@wp.func
def hold_betas(s: int, t: int, h: int, n: int, x: A2, scratch: RefineScratch, newton: NewtonScratch):
    """Take betas of x (S, 59) that stand at their bound, and would leave it downhill, out of the equations of buffer h.

    Their rows and columns keep the diagonal alone, and their gradient is 0: no step moves them.
    """
    for i in range(t, wp.static(K), wp.block_dim()):
        v = wp.static(BETAS) + i
        within = exceeds(scratch.beta_bound[s], wp.abs(x[s, v]))
        outward = exceeds(V(0.0), m(x[s, v], newton.gradient[h, v]))
        scratch.held[s, i] = choose(within, V(0.0), outward)
    sync()
    for i in range(t, n, wp.block_dim()):
        own = _is_held(s, i, scratch)
        newton.gradient[h, i] = choose(own, V(0.0), newton.gradient[h, i])
        for j in range(wp.max(i + 1, wp.static(BETAS)), n):
            either = own + _is_held(s, j, scratch)
            newton.hessian[h, i, j] = choose(either, V(0.0), newton.hessian[h, i, j])
    sync()
