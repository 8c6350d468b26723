"""The steps of a fit of SMPL's pose for a group of people: Levenberg-Marquardt over 24 ball joints and a translation.

The objective is that of moment space, with the best translation of each evaluation, and a prior: w |R - S|^2 / 2 for
each joint but the root, with R its local rotation and S that of the start. With the unit quaternion (v, c) of R S^T the
prior is 4 w |v|^2, its gradient along a step is 4 w c v, and its Gauss-Newton matrix 2 w (I - v v^T). Damping, bound,
acceptance and rest are those of `levenberg_marquardt`. A step is a rotation vector of each joint (`smpl_joints`).
"""

import warp as wp

from skelfit.bodies.smpl import NUM_SMPL_JOINTS
from skelfit.fitting.backends.smpl_tree import SmplTree
from skelfit.fitting.backends.variable_tables import StageVariables

from .damped_step import NewtonScratch, damped_step, next_damping
from .joint_frames import JointFrames
from .lanes import A2, A3, F2, I2, V, any_positive, choose, exceeds, gather, m, scatter, square_root, sync
from .levenberg_marquardt import DAMPING, DECREASE, MOVED, VALUE, keep_refused
from .moments import SkinMoments
from .objective import StepRules, load_moments
from .posing import write_transforms
from .quadratic import (
    QuadraticForm,
    centre,
    centre_row,
    forces,
    gradient_entry,
    joint_means,
    matrix_row,
    mean_residual,
    mean_speed,
    second_moments,
    slopes,
    value_of,
)
from .rotations import compose, from_rotation_vector, normalized, quaternion_at
from .skinning import SkinInputs
from .smpl_joints import NUM_SMPL_DOFS, pose_smpl, shape_smpl, smpl_twists, write_smpl_coefficients

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.struct
class SmplState:
    """The variables of B people."""

    start: F2  # (B, 96) quaternions of the joints, relative to their parents, that the prior holds to
    rotations: F2  # (B, 96) the same, now
    betas: F2  # (B, 10)
    trans: F2  # (B, 3) m
    status: F2  # (B, 4): MOVED, VALUE, DECREASE and DAMPING


@wp.struct
class SmplScratch:
    """The variables of a group, for each of S slots."""

    betas: A2  # (S, 10)
    start: A3  # (S, 24, 4)
    first: A3  # (S, 24, 4) before the pass
    rotations: A3  # (S, 24, 4)
    trial: A3  # (S, 24, 4)
    turned: A2  # (S, 24) of each joint: the square of a turn, or its prior
    speeds: A3  # (S, 72, 3) of the mean of the skin
    mean: A2  # (2 S, 3) m, subtracted by the best translation; two buffers as in `NewtonScratch`


def make_smpl_scratch(slots: int, device: str) -> SmplScratch:
    """Scratch for so many groups."""
    scratch = SmplScratch()
    scratch.mean = wp.zeros((2 * slots, 3), dtype=V, device=device)
    joints = NUM_SMPL_JOINTS
    for name, shape in (
        ("betas", (10,)), ("start", (joints, 4)), ("first", (joints, 4)), ("rotations", (joints, 4)),
        ("trial", (joints, 4)), ("turned", (joints,)), ("speeds", (NUM_SMPL_DOFS, 3)),
    ):  # fmt: skip
        setattr(scratch, name, wp.zeros((slots, *shape), dtype=V, device=device))
    return scratch


@wp.func
def _load(
    s: int, t: int, g: int, rows: I2, state: SmplState, tree: SmplTree, joints: JointFrames,
    scratch: SmplScratch,
):  # fmt: skip
    """Read the variables of the people of group g, and make their joints at rest."""
    for i in range(t, scratch.betas.shape[1], wp.block_dim()):
        scratch.betas[s, i] = gather(state.betas, rows, g, i)
    for i in range(t, 3, wp.block_dim()):
        joints.trans[s, i] = gather(state.trans, rows, g, i)
    for j in range(t, wp.static(NUM_SMPL_JOINTS), wp.block_dim()):
        for i in range(4):
            q = gather(state.rotations, rows, g, 4 * j + i)
            scratch.start[s, j, i] = gather(state.start, rows, g, 4 * j + i)
            scratch.first[s, j, i] = q
            scratch.rotations[s, j, i] = q
            scratch.trial[s, j, i] = q
    sync()
    shape_smpl(s, t, scratch.betas, tree, joints)


@wp.kernel
def pose_smpl_people(
    rows: I2, state: SmplState, tree: SmplTree, joints: JointFrames, scratch: SmplScratch, people: SkinInputs,
):  # fmt: skip
    """Coefficients and transforms of the people of rows (G, L), for a vertex pass."""
    g, t = wp.tid()
    s = g % scratch.betas.shape[0]
    _load(s, t, g, rows, state, tree, joints, scratch)
    pose_smpl(s, t, scratch.rotations, tree, joints)
    write_transforms(g, s, t, joints, people.transforms)
    write_smpl_coefficients(g, s, t, scratch.betas, scratch.rotations, people.coefficients)
    sync()


@wp.func
def _add_prior(s: int, t: int, h: int, weight: float, scratch: SmplScratch, newton: NewtonScratch) -> V:
    """Add the prior to gradient and matrix; returns its value, in each thread."""
    for j in range(1 + t, wp.static(NUM_SMPL_JOINTS), wp.block_dim()):
        back = quaternion_at(scratch.start, s, j)
        for i in range(3):
            back[i] = -back[i]
        q = compose(quaternion_at(scratch.trial, s, j), back)
        scratch.turned[s, j] = (4.0 * weight) * (m(q[0], q[0]) + m(q[1], q[1]) + m(q[2], q[2]))
        for a in range(3):
            k = 3 * j + a
            newton.gradient[h, k] = newton.gradient[h, k] + (4.0 * weight) * m(q[3], q[a])
            newton.hessian[h, k, k] = newton.hessian[h, k, k] + V(2.0 * weight)
            for b in range(a, 3):
                e = newton.hessian[h, k, 3 * j + b]
                newton.hessian[h, k, 3 * j + b] = e - (2.0 * weight) * m(q[a], q[b])
    sync()
    total = V()
    for j in range(1, wp.static(NUM_SMPL_JOINTS)):
        total += scratch.turned[s, j]
    sync()
    return total


@wp.func
def _evaluate(
    s: int, t: int, h: int, weight: float, variables: StageVariables, tree: SmplTree, joints: JointFrames,
    form: QuadraticForm, scratch: SmplScratch, newton: NewtonScratch,
) -> V:  # fmt: skip
    """The value at the trial; gradient and matrix into buffer h of newton."""
    pose_smpl(s, t, scratch.trial, tree, joints)
    smpl_twists(s, t, tree, joints)
    slopes(s, t, variables, joints, form)
    value = value_of(s, variables, form)
    a = mean_residual(s, 0, variables, form)
    c = mean_residual(s, 1, variables, form)
    d = mean_residual(s, 2, variables, form)
    value -= m(a, a) + m(c, c) + m(d, d)
    sync()
    if t == 0:
        scratch.mean[h, 0] = a
        scratch.mean[h, 1] = c
        scratch.mean[h, 2] = d
    centre(s, t, a, c, d, variables, form)
    forces(s, t, variables, form)
    second_moments(s, t, variables, form)
    for i in range(t, wp.static(NUM_SMPL_DOFS), wp.block_dim()):
        newton.gradient[h, i] = gradient_entry(s, i, variables, joints, form)
        matrix_row(s, h, i, variables, joints, form, newton.hessian)
        for r in range(3):
            scratch.speeds[s, i, r] = mean_speed(s, i, r, variables, joints, form)
    sync()
    for i in range(t, wp.static(NUM_SMPL_DOFS), wp.block_dim()):
        centre_row(s, h, i, wp.static(NUM_SMPL_DOFS), 2.0, scratch.speeds, newton.hessian)
    sync()
    return value + _add_prior(s, t, h, weight, scratch, newton)


@wp.func
def _retract(s: int, t: int, max_step: float, step: A2, scratch: SmplScratch):
    """The trial: a step from the rotations, scaled so that no joint turns by more than max_step rad."""
    for j in range(t, wp.static(NUM_SMPL_JOINTS), wp.block_dim()):
        x = step[s, 3 * j]
        y = step[s, 3 * j + 1]
        z = step[s, 3 * j + 2]
        scratch.turned[s, j] = m(x, x) + m(y, y) + m(z, z)
    sync()
    longest = V(max_step)
    for j in range(wp.static(NUM_SMPL_JOINTS)):
        longest = wp.max(longest, square_root(scratch.turned[s, j]))
    share = wp.cw_div(V(max_step), longest)
    for j in range(t, wp.static(NUM_SMPL_JOINTS), wp.block_dim()):
        turn = from_rotation_vector(
            m(share, step[s, 3 * j]), m(share, step[s, 3 * j + 1]), m(share, step[s, 3 * j + 2])
        )
        q = normalized(compose(turn, quaternion_at(scratch.rotations, s, j)))
        for i in range(4):
            scratch.trial[s, j, i] = q[i]
    sync()


@wp.func
def _minimise(
    s: int, t: int, damping: V, rules: StepRules, variables: StageVariables, tree: SmplTree,
    joints: JointFrames, form: QuadraticForm, scratch: SmplScratch, newton: NewtonScratch,
):  # fmt: skip
    """All steps. Returns the buffer of the accepted evaluations, value, damping, accepted steps, predicted decrease.

    The last solution has the least damping and only predicts, as in `levenberg_marquardt`.
    """
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
            trial = _evaluate(s, t, other, rules.turn_weight, variables, tree, joints, form, scratch, newton)
            better = m(going, V(1.0) - exceeds(trial, value + rules.noise * value))
            better = m(better, exceeds(V(wp.static(3.0e38)), trial))
            if steps_left > rules.steps:
                better = V(1.0)
            for j in range(t, wp.static(NUM_SMPL_JOINTS), wp.block_dim()):
                for i in range(4):
                    scratch.rotations[s, j, i] = choose(
                        better, scratch.trial[s, j, i], scratch.rotations[s, j, i]
                    )
            keep_refused(s, t, h, wp.static(NUM_SMPL_DOFS), 0, better, scratch.mean, newton)
            h = other
            value = choose(better, trial, value)
            accepted += better
            if steps_left <= rules.steps:
                damping = next_damping(damping, going, better, rules)
            steps_left -= 1
        step_damping = damping
        if steps_left == 0:
            step_damping = V(rules.damping_min)
        predicted = damped_step(s, t, h, wp.static(NUM_SMPL_DOFS), 0, step_damping, newton)
        if steps_left == 0:
            steps_left = -1
        else:
            going = wp.max(
                exceeds(predicted, rules.tolerance * value), exceeds(damping, V(rules.damping_at_rest))
            )
            moved = int(0)
            if any_positive(going):
                moved = int(1)
                _retract(s, t, rules.max_angle_step, newton.step, scratch)
            else:
                steps_left = 0
    return h, value, damping, accepted, predicted


@wp.kernel
def solve_smpl(
    rows: I2, pass_rows: I2, slots: int, rules: StepRules, state: SmplState, moments: SkinMoments,
    variables: StageVariables, tree: SmplTree, joints: JointFrames, form: QuadraticForm, scratch: SmplScratch,
    newton: NewtonScratch,
):  # fmt: skip
    """Steps of the people of rows (G, L), from the moments of a vertex pass; pass_rows (G, L): their rows in it."""
    g, t = wp.tid()
    s = g % slots
    damping = gather(state.status, rows, g, wp.static(DAMPING))
    _load(s, t, g, rows, state, tree, joints, scratch)
    load_moments(s, t, g, pass_rows, moments, form)
    joint_means(s, t, variables, form)
    h, value, damping, accepted, predicted = _minimise(
        s, t, damping, rules, variables, tree, joints, form, scratch, newton
    )
    for r in range(t, 3, wp.block_dim()):
        scatter(state.trans, rows, g, r, joints.trans[s, r] - scratch.mean[h, r])
    for j in range(t, wp.static(NUM_SMPL_JOINTS), wp.block_dim()):
        back = quaternion_at(scratch.first, s, j)
        for i in range(3):
            back[i] = -back[i]
        turn = compose(back, quaternion_at(scratch.rotations, s, j))
        scratch.turned[s, j] = m(turn[0], turn[0]) + m(turn[1], turn[1]) + m(turn[2], turn[2])
        for i in range(4):
            scatter(state.rotations, rows, g, 4 * j + i, scratch.rotations[s, j, i])
    sync()
    if t == 0:
        largest = V()
        for j in range(wp.static(NUM_SMPL_JOINTS)):
            largest = wp.max(largest, scratch.turned[s, j])
        scatter(state.status, rows, g, wp.static(MOVED), 2.0 * square_root(largest))
        # A new pass starts with little damping, but not after steps that were all refused.
        damping = choose(accepted, wp.min(damping, V(rules.damping)), damping)
        scatter(state.status, rows, g, wp.static(DAMPING), damping)
        scatter(state.status, rows, g, wp.static(VALUE), value)
        scatter(state.status, rows, g, wp.static(DECREASE), predicted)
