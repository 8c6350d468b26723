"""The objective of a group of people in a pass, and its evaluation at any variables.

The value is the quadratic form of `quadratic`, with the priors of `joint_priors` in its moments; what free betas add to
it; the best translation of a free root; and two costs on angles. An angle beyond its limits costs limit_weight
(m^2 / rad^2) times the squared excess. A linear form f of the angles, m per rad, costs (f . q)^2: its gradient is
2 (f . q) f and its Hessian 2 f f^T.
"""

from typing import Any

import warp as wp

from skelfit.bodies.dofs import NUM_DOFS
from skelfit.fitting.backends.body_tables import NUM_BETAS, BodyTables
from skelfit.fitting.backends.variable_tables import StageVariables

from .betas_matrix import beta_columns, beta_speed
from .betas_moments import BetaMoments
from .betas_terms import (
    BetaTerms,
    beta_gradient,
    beta_parts,
    beta_slopes,
    beta_value,
    clear_beta_curvature,
    load_beta_moments,
)
from .damped_step import NewtonScratch
from .hessian import add_slide_curvature, curvature_column
from .joint_chain import pose
from .joint_frames import JointFrames
from .joint_priors import add_joint_targets, add_root_prior, add_translation_prior
from .lanes import A2, A3, F3, I2, L, V, m, sync
from .moments import SkinMoments
from .quadratic import (
    MOMENT_SIZE,
    QuadraticForm,
    centre,
    centre_row,
    exceeds_limit,
    forces,
    gradient_entry,
    joint_means,
    limit_excess,
    matrix_row,
    mean_residual,
    mean_speed,
    pair_moments,
    second_moments,
    slopes,
    sum_levels,
    value_of,
)
from .rest_joints import shape_joints

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.struct
class StepRules:
    """How a pass steps: the numbers of `SolverConfig` and of the stage."""

    steps: int
    exact: int  # 1: with the whole Hessian
    free_betas: int  # 1: betas are variables after the DoFs
    free_root: int  # 1: for the best translation; the vertices' weights must then sum to 1
    branch: int  # the joint with two Euler branches that is tried from another start; -1: none
    pole_point: int  # that start: see `retraction.move_along_pole`
    tolerance: float
    max_angle_step: float
    max_beta_step: float
    damping: float
    damping_min: float
    damping_max: float
    damping_up: float
    damping_down: float
    damping_at_rest: float
    noise: float  # share of the value that counts as rounding
    limit_weight: float
    beta_weight: float
    joint_weight: float
    turn_weight: float  # m^2 per rad^2 of the root's turn; above 0 only where the root is among the joints
    move_weight: float  # m^2 per m^2 of its translation
    branch_excess: float  # rad beyond a limit from which the other branches of a joint are tried


@wp.struct
class VariableScratch:
    """The N variables of a group, for each of S slots."""

    q: A2  # (S, 46)
    betas: A2  # (S, K)
    x: A2  # (S, N)
    trial: A2  # (S, N)
    balls: A2  # (S, joints)
    speeds: A3  # (S, N, 3) of the mean of the skin
    mean: A2  # (2 S, 3) m, subtracted by the best translation; two buffers as in `NewtonScratch`


@wp.func
def load_moments(s: int, t: int, g: int, pass_rows: I2, moments: SkinMoments, form: QuadraticForm):
    """Read the moments of the people of group g; pass_rows (G, L): their rows in the vertex pass."""
    scattered = pass_rows[g, 0] % wp.static(L)
    for k in range(wp.static(L)):
        scattered += wp.abs(pass_rows[g, k] - pass_rows[g, 0] - k)
    if scattered == 0:
        b = pass_rows[g, 0] / wp.static(L)
        for i in range(t, moments.start.shape[1], wp.block_dim()):
            for c in range(12):
                form.start[s, i, c] = moments.start[b, i, c]
                form.d[s, i, c] = moments.d[b, i, c]
                form.d_with_betas[s, i, c] = moments.d[b, i, c]
        for i in range(t, moments.pairs.shape[1], wp.block_dim()):
            for c in range(10):
                form.pairs[s, i, c] = moments.pairs[b, i, c]
        if t == 0:
            form.energy[s] = moments.value[b]
    else:
        for i in range(t, moments.start.shape[1], wp.block_dim()):
            for c in range(12):
                form.start[s, i, c] = _gather(moments.start, pass_rows, g, i, c)
                form.d[s, i, c] = _gather(moments.d, pass_rows, g, i, c)
                form.d_with_betas[s, i, c] = form.d[s, i, c]
        for i in range(t, moments.pairs.shape[1], wp.block_dim()):
            for c in range(10):
                form.pairs[s, i, c] = _gather(moments.pairs, pass_rows, g, i, c)
        if t == 0:
            e = V()
            for k in range(wp.static(L)):
                p = pass_rows[g, k]
                v = moments.value[p / wp.static(L)]
                e[k] = v[p % wp.static(L)]
            form.energy[s] = e
    sync()


@wp.func
def _gather(x: A3, pass_rows: I2, g: int, i: int, c: int) -> V:
    r = V()
    for k in range(wp.static(L)):
        p = pass_rows[g, k]
        v = x[p / wp.static(L), i, c]
        r[k] = v[p % wp.static(L)]
    return r


@wp.func
def _total_mass(rules: StepRules, variables: StageVariables) -> float:
    """W of a free translation: 1 for the vertices, the joint targets, and its prior."""
    return 1.0 + rules.joint_weight * float(variables.num_targets) + rules.move_weight


@wp.func
def load_objective(
    s: int, t: int, g: int, rows: I2, pass_rows: I2, rules: StepRules, joint_targets: F3, moments: SkinMoments,
    beta_moments: BetaMoments, variables: StageVariables, body: BodyTables, joints: JointFrames,
    form: QuadraticForm, beta_terms: BetaTerms, scratch: VariableScratch,
):  # fmt: skip
    """Set up the objective of the people of group g."""
    load_moments(s, t, g, pass_rows, moments, form)
    if rules.free_betas != 0:
        # The moments belong to the betas of the vertex pass, which may have changed since.
        load_beta_moments(s, t, g, pass_rows, beta_moments, beta_terms)
        shape_joints(s, t, beta_terms.moments.betas, body, joints)
    else:
        shape_joints(s, t, scratch.betas, body, joints)
    add_joint_targets(s, t, g, rows, rules.joint_weight, joint_targets, variables, joints, form)
    add_root_prior(s, t, rules.turn_weight, form)
    if rules.free_root != 0:
        add_translation_prior(s, t, rules.move_weight, joints, form)
        joint_means(s, t, variables, form)


@wp.func
def _best_translation(
    s: int, r: int, rules: StepRules, variables: StageVariables, joints: JointFrames, form: QuadraticForm
) -> V:
    """Component r that the best translation subtracts, m."""
    residual = mean_residual(s, r, variables, form)
    residual += rules.move_weight * joints.trans[s, r]
    return (1.0 / _total_mass(rules, variables)) * residual


@wp.func
def _centre_matrix(
    s: int, t: int, h: int, rules: StepRules, variables: StageVariables, joints: JointFrames, form: QuadraticForm,
    beta_terms: BetaTerms, scratch: VariableScratch, newton: NewtonScratch,
):  # fmt: skip
    """Correct the matrix for the best translation."""
    free_betas = rules.free_betas
    n = variables.num_dofs
    for i in range(t, n, wp.block_dim()):
        for r in range(3):
            scratch.speeds[s, i, r] = mean_speed(s, i, r, variables, joints, form)
    if free_betas != 0:
        for k in range(t, scratch.betas.shape[1], wp.block_dim()):
            for r in range(3):
                scratch.speeds[s, n + k, r] = beta_speed(s, k, r, beta_terms)
    sync()
    size = n + free_betas * scratch.betas.shape[1]
    for i in range(t, size, wp.block_dim()):
        centre_row(s, h, i, size, 2.0 / _total_mass(rules, variables), scratch.speeds, newton.hessian)
    sync()


@wp.func
def _add_limits(
    t: int, s: int, h: int, weight: float, x: A2, variables: StageVariables, newton: NewtonScratch
) -> V:
    """Add the limits to gradient and matrix; returns their value, in each thread."""
    total = V()
    for i in range(variables.num_dofs):
        excess = limit_excess(x[s, i], variables.limits[i, 0], variables.limits[i, 1])
        total += weight * m(excess, excess)
        if i % wp.block_dim() == t:
            newton.gradient[h, i] = newton.gradient[h, i] + (2.0 * weight) * excess
            newton.hessian[h, i, i] = newton.hessian[h, i, i] + (2.0 * weight) * exceeds_limit(excess)
    sync()
    return total


@wp.func
def _add_couplings(t: int, s: int, h: int, x: A2, variables: StageVariables, newton: NewtonScratch) -> V:
    """Add the linear forms to gradient and matrix, by one thread, as they are few; returns their value."""
    total = V()
    for k in range(variables.num_couplings):
        first = variables.couplings.first[k]
        last = variables.couplings.first[k + 1]
        form = V()
        for n in range(first, last):
            form += variables.factors[n] * x[s, variables.couplings.indices[n]]
        total += m(form, form)
        if t == 0:
            for n in range(first, last):
                i = variables.couplings.indices[n]
                factor = 2.0 * variables.factors[n]
                newton.gradient[h, i] = newton.gradient[h, i] + factor * form
                for o in range(n, last):
                    j = variables.couplings.indices[o]
                    newton.hessian[h, i, j] = newton.hessian[h, i, j] + V(factor * variables.factors[o])
    sync()
    return total


@wp.func
def evaluate(
    s: int, t: int, h: int, g: int, x: A2, rules: StepRules, moments: SkinMoments, variables: StageVariables,
    body: BodyTables, joints: JointFrames, form: QuadraticForm, beta_terms: BetaTerms, scratch: VariableScratch,
    newton: NewtonScratch,
) -> V:  # fmt: skip
    """The value at x (S, N); gradient, matrix and second-order part into buffer h of newton."""
    n = variables.num_dofs
    for i in range(t, n, wp.block_dim()):
        scratch.q[s, variables.dofs[i]] = x[s, i]
    if rules.free_betas != 0:
        for i in range(t, scratch.betas.shape[1], wp.block_dim()):
            scratch.betas[s, i] = x[s, n + i]
        sync()
        shape_joints(s, t, scratch.betas, body, joints)
    sync()
    pose(s, t, scratch.q, body, joints)
    if rules.free_betas != 0:
        beta_slopes(s, t, scratch.betas, body, variables, joints, form, beta_terms)
    slopes(s, t, variables, joints, form)
    value = value_of(s, variables, form)
    if rules.free_betas != 0:
        value += beta_value(s, scratch.betas, rules.beta_weight, beta_terms)
    a = V()
    c = V()
    d = V()
    if rules.free_root != 0:
        a = _best_translation(s, 0, rules, variables, joints, form)
        c = _best_translation(s, 1, rules, variables, joints, form)
        d = _best_translation(s, 2, rules, variables, joints, form)
        value -= _total_mass(rules, variables) * (m(a, a) + m(c, c) + m(d, d))
        sync()
        if t == 0:
            scratch.mean[h, 0] = a
            scratch.mean[h, 1] = c
            scratch.mean[h, 2] = d
        centre(s, t, a, c, d, variables, form)
    forces(s, t, variables, form)
    if rules.free_betas != 0:
        beta_parts(s, t, a, c, d, variables, form, beta_terms)
        pair_moments(s, t, variables, form)
        beta_columns(s, t, h, rules.beta_weight, variables, joints, form, beta_terms, newton.hessian)
        sum_levels(t, s, MOMENT_SIZE, variables.cell_sums, form.cells)
        for k in range(t, scratch.betas.shape[1], wp.block_dim()):
            newton.gradient[h, n + k] = beta_gradient(
                s, k, scratch.betas, rules.beta_weight, variables, beta_terms
            )
    else:
        second_moments(s, t, variables, form)
    for i in range(t, n, wp.block_dim()):
        newton.gradient[h, i] = gradient_entry(s, i, variables, joints, form)
        matrix_row(s, h, i, variables, joints, form, newton.hessian)
    if rules.exact != 0:
        for j in range(t, n, wp.block_dim()):
            curvature_column(s, h, j, variables, joints, form, newton.curvature)
    sync()
    if rules.exact != 0 and t == 0:
        add_slide_curvature(s, h, scratch.q, variables, body, joints, form, newton.curvature)
    if rules.exact != 0 and rules.free_betas != 0:
        clear_beta_curvature(t, h, n, newton.curvature)
    if rules.free_root != 0:
        _centre_matrix(s, t, h, rules, variables, joints, form, beta_terms, scratch, newton)
    value += _add_limits(t, s, h, rules.limit_weight, x, variables, newton)
    return value + _add_couplings(t, s, h, x, variables, newton)


def make_variable_scratch(slots: int, variables: int, balls: int, device: str) -> Any:
    """Scratch for so many groups."""
    scratch = VariableScratch()
    scratch.mean = wp.zeros((2 * slots, 3), dtype=V, device=device)
    for name, shape in (
        ("q", (NUM_DOFS,)), ("betas", (NUM_BETAS,)), ("x", (variables,)), ("trial", (variables,)),
        ("balls", (balls,)), ("speeds", (variables, 3)),
    ):  # fmt: skip
        setattr(scratch, name, wp.zeros((slots, *shape), dtype=V, device=device))
    return scratch
