"""The steps of a stage for a group of people: Levenberg-Marquardt, each person on their own.

After a vertex pass everything happens here: evaluation, damped step, retraction, acceptance, all steps of a person.
A step is damped by a share of the matrix's diagonal and bounded by the largest turn of a joint. It is accepted unless
it raises the objective; the damping then falls, else it rises. A person rests when a step with little damping predicts
a decrease below a tolerance. Damping, bound and decision are per person: a hard problem does not slow an easy one, and
results do not depend on the batch. The value never rises above that of the start, but for rounding. A person whose
value is not finite keeps their last finite variables.
"""

import warp as wp

from skelfit.bodies.dofs import NUM_DOFS
from skelfit.fitting.backends.body_tables import BodyTables
from skelfit.fitting.backends.retraction_tables import BallTables
from skelfit.fitting.backends.variable_tables import StageVariables

from .betas_moments import BetaMoments
from .betas_terms import BetaTerms
from .damped_step import NewtonScratch, damped_step, next_damping
from .joint_frames import JointFrames
from .lanes import A2, F2, F3, I2, V, any_positive, choose, exceeds, gather, m, scatter, sync
from .moments import SkinMoments
from .objective import StepRules, VariableScratch, evaluate, load_objective
from .quadratic import (
    QuadraticForm,
    limit_excess,
)
from .retraction import move_along_pole, retract, retract_betas

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


# Columns of `State.status`.
MOVED = 0  # rad, the largest change of an angle in the last pass
VALUE = 1  # m^2, the objective
DECREASE = 2  # m^2, predicted for one more step
DAMPING = 3  # of the next step
DOUBT = 4  # and 5: rad, how far each joint with two Euler branches is beyond its limits


@wp.struct
class FitState:
    """The variables of B people."""

    q: F2  # (B, 46) rad
    betas: F2  # (B, K) SKEL's
    trans: F2  # (B, 3) m
    origin: F2  # (B, 46) rad, q before the last pass
    status: F2  # (B, 6)


@wp.func
def keep_refused(
    s: int, t: int, h: int, n: int, full_hessian: int, better: V, mean: A2, newton: NewtonScratch,
):  # fmt: skip
    """Copy the evaluation of buffer h to the other buffer, in the lanes where the trial is not better."""
    if any_positive(V(1.0) - better):
        other = 4 * s + 1 - h
        for r in range(t, 3, wp.block_dim()):
            mean[other, r] = choose(better, mean[other, r], mean[h, r])
        for i in range(t, n, wp.block_dim()):
            newton.gradient[other, i] = choose(better, newton.gradient[other, i], newton.gradient[h, i])
            for j in range(i, n):
                newton.hessian[other, i, j] = choose(
                    better, newton.hessian[other, i, j], newton.hessian[h, i, j]
                )
                if full_hessian != 0:
                    newton.curvature[other, i, j] = choose(
                        better, newton.curvature[other, i, j], newton.curvature[h, i, j]
                    )
    sync()


@wp.func
def load_people(
    s: int, t: int, g: int, rows: I2, rules: StepRules, state: FitState, variables: StageVariables,
    joints: JointFrames, scratch: VariableScratch,
):  # fmt: skip
    """Read the variables of the people of group g."""
    for i in range(t, NUM_DOFS, wp.block_dim()):
        scratch.q[s, i] = gather(state.q, rows, g, i)
    for i in range(t, scratch.betas.shape[1], wp.block_dim()):
        scratch.betas[s, i] = gather(state.betas, rows, g, i)
    for i in range(t, 3, wp.block_dim()):
        joints.trans[s, i] = gather(state.trans, rows, g, i)
    sync()
    n = variables.num_dofs
    for i in range(t, n, wp.block_dim()):
        scratch.x[s, i] = scratch.q[s, variables.dofs[i]]
    if rules.free_betas != 0:
        for i in range(t, scratch.betas.shape[1], wp.block_dim()):
            scratch.x[s, n + i] = scratch.betas[s, i]
    sync()


@wp.func
def _minimise(
    s: int, t: int, g: int, damping: V, rules: StepRules, moments: SkinMoments, variables: StageVariables,
    balls: BallTables, body: BodyTables, joints: JointFrames, form: QuadraticForm, beta_terms: BetaTerms,
    scratch: VariableScratch, newton: NewtonScratch,
):  # fmt: skip
    """All steps. Returns the buffer of the accepted evaluations, value, damping, accepted steps, predicted decrease.

    The last solution has the least damping and only predicts. Evaluation and solution appear once in this loop: their
    code takes compilers longest.
    """
    n = variables.num_dofs
    size = n + rules.free_betas * scratch.betas.shape[1]
    for i in range(t, size, wp.block_dim()):
        scratch.trial[s, i] = scratch.x[s, i]
    sync()
    h = 2 * s
    value = V(wp.static(float("inf")))
    accepted = V(-1.0)  # the start is no step
    predicted = V()
    going = V(1.0)
    steps_left = rules.steps + 1
    moved = int(1)
    while steps_left >= 0:
        if moved == 1:
            other = 4 * s + 1 - h
            trial = evaluate(
                s, t, other, g, scratch.trial, rules, moments, variables, body, joints, form, beta_terms,
                scratch, newton,
            )  # fmt: skip
            better = m(going, V(1.0) - exceeds(trial, value + rules.noise * value))
            better = m(better, exceeds(V(wp.static(3.0e38)), trial))
            if steps_left > rules.steps:
                better = V(1.0)
            for i in range(t, size, wp.block_dim()):
                scratch.x[s, i] = choose(better, scratch.trial[s, i], scratch.x[s, i])
            keep_refused(s, t, h, size, rules.exact, better, scratch.mean, newton)
            h = other
            value = choose(better, trial, value)
            accepted += better
            if steps_left <= rules.steps:
                damping = next_damping(damping, going, better, rules)
            steps_left -= 1
        step_damping = damping
        if steps_left == 0:
            step_damping = V(rules.damping_min)
        predicted = damped_step(s, t, h, size, rules.exact, step_damping, newton)
        if steps_left == 0:
            steps_left = -1
        else:
            going = wp.max(
                exceeds(predicted, rules.tolerance * value), exceeds(damping, V(rules.damping_at_rest))
            )
            moved = int(0)
            if any_positive(going):
                moved = int(1)
                retract(
                    s, t, scratch.x, newton.step, rules.max_angle_step, balls, scratch.balls, scratch.trial
                )
                if rules.free_betas != 0:
                    retract_betas(
                        s, t, scratch.x, newton.step, n, size - n, rules.max_beta_step, scratch.trial
                    )
                sync()
            else:
                steps_left = 0
    return h, value, damping, accepted, predicted


@wp.kernel
def solve(
    rows: I2, pass_rows: I2, slots: int, rules: StepRules, state: FitState, joint_targets: F3, moments: SkinMoments,
    beta_moments: BetaMoments, variables: StageVariables, balls: BallTables, branches: I2, body: BodyTables,
    joints: JointFrames, form: QuadraticForm, beta_terms: BetaTerms, scratch: VariableScratch,
    newton: NewtonScratch,
):  # fmt: skip
    """Steps of the people of rows (G, L), from the moments of a vertex pass; pass_rows (G, L): their rows in the pass.

    With `rules.branch`, people whose ball joint is beyond its limits start from another point along its Euler pole, and
    keep the result only if their value falls. branches (2, 3): the variables of the joints with two Euler branches.
    """
    g, t = wp.tid()
    s = g % slots
    before = gather(state.status, rows, g, wp.static(VALUE))
    damping = gather(state.status, rows, g, wp.static(DAMPING))
    selected = V(1.0)
    if rules.branch >= 0:
        selected = exceeds(
            gather(state.status, rows, g, wp.static(DOUBT) + rules.branch), V(rules.branch_excess)
        )
        damping = V(rules.damping)
    if any_positive(selected):
        load_people(s, t, g, rows, rules, state, variables, joints, scratch)
        if rules.branch >= 0 and t == 0:
            move_along_pole(
                s, branches[rules.branch, 0], branches[rules.branch, 1], branches[rules.branch, 2],
                rules.pole_point, variables.limits, selected, scratch.x,
            )  # fmt: skip
        load_objective(
            s, t, g, rows, pass_rows, rules, joint_targets, moments, beta_moments, variables, body, joints,
            form, beta_terms, scratch,
        )  # fmt: skip
        h, value, damping, accepted, predicted = _minimise(
            s, t, g, damping, rules, moments, variables, balls, body, joints, form, beta_terms, scratch, newton,
        )  # fmt: skip
        if rules.branch >= 0:
            selected = m(selected, exceeds(before, value))
        if rules.free_root != 0:
            for r in range(t, 3, wp.block_dim()):
                moved = joints.trans[s, r] - scratch.mean[h, r]
                scatter(state.trans, rows, g, r, choose(selected, moved, gather(state.trans, rows, g, r)))
        _store(s, t, g, variables.num_dofs, rows, rules, selected, state, variables, branches, scratch)
        if t == 0:
            # A new pass starts with little damping, but not after steps that were all refused.
            damping = choose(accepted, wp.min(damping, V(rules.damping)), damping)
            scatter(
                state.status, rows, g, wp.static(DAMPING),
                choose(selected, damping, gather(state.status, rows, g, wp.static(DAMPING))),
            )  # fmt: skip
            scatter(state.status, rows, g, wp.static(VALUE), choose(selected, value, before))
            scatter(
                state.status, rows, g, wp.static(DECREASE),
                choose(selected, predicted, gather(state.status, rows, g, wp.static(DECREASE))),
            )  # fmt: skip


@wp.func
def _store(
    s: int, t: int, g: int, n: int, rows: I2, rules: StepRules, selected: V, state: FitState,
    variables: StageVariables, branches: I2, scratch: VariableScratch,
):  # fmt: skip
    """Write the variables of the selected lanes, how far they moved in this pass, and the excess of each branch."""
    for i in range(t, n, wp.block_dim()):
        d = variables.dofs[i]
        old = gather(state.q, rows, g, d)
        if rules.branch < 0:
            scatter(state.origin, rows, g, d, old)
        scatter(state.q, rows, g, d, choose(selected, scratch.x[s, i], old))
    if rules.free_betas != 0:
        for i in range(t, scratch.betas.shape[1], wp.block_dim()):
            scatter(
                state.betas, rows, g, i, choose(selected, scratch.x[s, n + i], gather(state.betas, rows, g, i)),
            )  # fmt: skip
    sync()
    if t == 0:
        moved = V()
        for i in range(n):
            d = variables.dofs[i]
            moved = wp.max(moved, wp.abs(gather(state.q, rows, g, d) - gather(state.origin, rows, g, d)))
        scatter(state.status, rows, g, wp.static(MOVED), moved)
        for joint in range(branches.shape[0]):
            doubt = V()
            for r in range(3):
                i = branches[joint, r]
                x = gather(state.q, rows, g, variables.dofs[i])
                excess = limit_excess(x, variables.limits[i, 0], variables.limits[i, 1])
                doubt = wp.max(doubt, wp.abs(excess))
            scatter(state.status, rows, g, wp.static(DOUBT) + joint, doubt)
