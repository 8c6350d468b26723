"""The steps of a stage for a group of people: Levenberg-Marquardt in which nothing couples two of them.

After a vertex pass everything happens here: evaluation, damped step, retraction, acceptance, all steps of a person. A
step solves with the damping as a share of the matrix's diagonal, is bounded by the largest turn of a joint, and is
accepted where it does not raise the objective; the damping then falls, else it rises. A person rests when a step with
little damping promises to gain less than a tolerance. Damping, bound and decision are each person's own: a hard problem
cannot slow an easy one, and a group gives what its members give alone. The value never rises above that of the start,
but for rounding. Who is not finite keeps their last finite variables.
"""

import warp as wp

from skelfit.bodies.dofs import NUM_DOFS
from skelfit.fitting.backends.body_tables import Body
from skelfit.fitting.backends.retraction_tables import Balls
from skelfit.fitting.backends.variable_tables import Variables

from .betas_moments import Levers
from .betas_terms import (
    Shaping,
)
from .damped_step import Steps, damped_step
from .joint_frames import Place
from .lanes import F2, F3, I2, V, choose, exceeds, m, put, some, sync, take
from .moments import Moments
from .objective import Rules, Work, evaluate, load_objective
from .quadratic import (
    Room,
    beyond_limit,
)
from .retraction import along_valley, retract, retract_betas

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


# Columns of `State.status`.
MOVED = 0  # rad, the largest change of an angle in the last pass
VALUE = 1  # m^2, the objective
DECREASE = 2  # m^2, what one more step promises
DAMPING = 3  # of the next step
DOUBT = 4  # and 5: how far a joint with two branches is beyond its limits, rad
STATUS_SIZE = 6


@wp.struct
class State:
    """Where B people are."""

    q: F2  # (B, 46) rad
    betas: F2  # (B, K) SKEL's
    trans: F2  # (B, 3) m
    origin: F2  # (B, 46) rad, q before the last pass
    status: F2  # (B, 6)


@wp.func
def _accept(s: int, t: int, h: int, n: int, bent: int, better: V, work: Work, steps: Steps):
    """Of each lane the trial where that is better: x, and into the buffer that is not h what was evaluated there."""
    for i in range(t, n, wp.block_dim()):
        work.x[s, i] = choose(better, work.trial[s, i], work.x[s, i])
    if some(V(1.0) - better):
        two = 4 * s + 1 - h
        for r in range(t, 3, wp.block_dim()):
            work.mean[two, r] = choose(better, work.mean[two, r], work.mean[h, r])
        for i in range(t, n, wp.block_dim()):
            steps.gradient[two, i] = choose(better, steps.gradient[two, i], steps.gradient[h, i])
            for j in range(i, n):
                steps.hessian[two, i, j] = choose(better, steps.hessian[two, i, j], steps.hessian[h, i, j])
                if bent != 0:
                    steps.bend[two, i, j] = choose(better, steps.bend[two, i, j], steps.bend[h, i, j])
    sync()


@wp.func
def load_people(
    s: int,
    t: int,
    g: int,
    rows: I2,
    rules: Rules,
    state: State,
    variables: Variables,
    place: Place,
    work: Work,
):
    """Where the people of group g are, and their variables."""
    for i in range(t, NUM_DOFS, wp.block_dim()):
        work.q[s, i] = take(state.q, rows, g, i)
    for i in range(t, work.betas.shape[1], wp.block_dim()):
        work.betas[s, i] = take(state.betas, rows, g, i)
    for i in range(t, 3, wp.block_dim()):
        place.trans[s, i] = take(state.trans, rows, g, i)
    sync()
    n = variables.num_dofs
    for i in range(t, n, wp.block_dim()):
        work.x[s, i] = work.q[s, variables.dofs[i]]
    if rules.free_betas != 0:
        for i in range(t, work.betas.shape[1], wp.block_dim()):
            work.x[s, n + i] = work.betas[s, i]
    sync()


@wp.func
def _minimise(
    s: int, t: int, g: int, damping: V, rules: Rules, moments: Moments, variables: Variables, balls: Balls, body: Body,
    place: Place, room: Room, shaping: Shaping, work: Work, steps: Steps,
):  # fmt: skip
    """All steps: the buffer where people are, their value, damping, number of accepted steps, and the last promise.

    The last solution, with the least damping, is not stepped along. Evaluation and solution stand here once: they are
    what compilers take long for.
    """
    n = variables.num_dofs
    size = n + rules.free_betas * work.betas.shape[1]
    for i in range(t, size, wp.block_dim()):
        work.trial[s, i] = work.x[s, i]
    sync()
    h = 2 * s
    value = V(wp.static(float("inf")))
    accepted = V(-1.0)  # the start is no step
    promise = V()
    going = V(1.0)
    left = rules.steps + 1
    moved = int(1)
    while left >= 0:
        if moved == 1:
            two = 4 * s + 1 - h
            trial = evaluate(
                s, t, two, g, work.trial, rules, moments, variables, body, place, room, shaping, work, steps
            )
            better = m(going, V(1.0) - exceeds(trial, value + rules.noise * value))
            better = m(better, exceeds(V(wp.static(3.0e38)), trial))
            if left > rules.steps:
                better = V(1.0)
            _accept(s, t, h, size, rules.exact, better, work, steps)
            h = two
            value = choose(better, trial, value)
            accepted += better
            if left <= rules.steps:
                scaled = m(damping, choose(better, V(rules.damping_down), V(rules.damping_up)))
                scaled = wp.min(wp.max(scaled, V(rules.damping_min)), V(rules.damping_max))
                damping = choose(going, scaled, damping)
            left -= 1
        by = damping
        if left == 0:
            by = V(rules.damping_min)
        promise = damped_step(s, t, h, size, rules.exact, by, steps)
        if left == 0:
            left = -1
        else:
            going = wp.max(
                exceeds(promise, rules.tolerance * value), exceeds(damping, V(rules.damping_at_rest))
            )
            moved = int(0)
            if some(going):
                moved = int(1)
                retract(s, t, work.x, steps.step, rules.max_angle_step, balls, work.balls, work.trial)
                if rules.free_betas != 0:
                    retract_betas(s, t, work.x, steps.step, n, size - n, rules.max_beta_step, work.trial)
                sync()
            else:
                left = 0
    return h, value, damping, accepted, promise


@wp.kernel
def solve(
    rows: I2, places: I2, slots: int, rules: Rules, state: State, located: F3, moments: Moments, levers: Levers,
    variables: Variables, balls: Balls, branches: I2, body: Body, place: Place, room: Room,
    shaping: Shaping, work: Work, steps: Steps,
):  # fmt: skip
    """Some steps of the people of rows (G, L), from the moments of a vertex pass, in which places (G, L) finds them.

    With a branch, from elsewhere in the valley of one ball joint's pole, those who are beyond its limits alone, and
    only those who end lower are changed. branches (2, 3): the variables of the joints that have two.
    """
    g, t = wp.tid()
    s = g % slots
    before = take(state.status, rows, g, wp.static(VALUE))
    damping = take(state.status, rows, g, wp.static(DAMPING))
    tried = V(1.0)
    if rules.branch >= 0:
        tried = exceeds(take(state.status, rows, g, wp.static(DOUBT) + rules.branch), V(rules.beyond))
        damping = V(rules.damping)
    if some(tried):
        load_people(s, t, g, rows, rules, state, variables, place, work)
        if rules.branch >= 0 and t == 0:
            along_valley(
                s, branches[rules.branch, 0], branches[rules.branch, 1], branches[rules.branch, 2],
                rules.way, variables.limits, tried, work.x,
            )  # fmt: skip
        load_objective(
            s,
            t,
            g,
            rows,
            places,
            rules,
            located,
            moments,
            levers,
            variables,
            body,
            place,
            room,
            shaping,
            work,
        )
        h, value, damping, accepted, promise = _minimise(
            s, t, g, damping, rules, moments, variables, balls, body, place, room, shaping, work, steps
        )
        if rules.branch >= 0:
            tried = m(tried, exceeds(before, value))
        if rules.free_root != 0:
            for r in range(t, 3, wp.block_dim()):
                moved = place.trans[s, r] - work.mean[h, r]
                put(state.trans, rows, g, r, choose(tried, moved, take(state.trans, rows, g, r)))
        _store(s, t, g, variables.num_dofs, rows, rules, tried, state, variables, branches, work)
        if t == 0:
            # A new pass is a new chance, but for those whose steps were all refused: they would be again.
            damping = choose(accepted, wp.min(damping, V(rules.damping)), damping)
            put(
                state.status,
                rows,
                g,
                wp.static(DAMPING),
                choose(tried, damping, take(state.status, rows, g, wp.static(DAMPING))),
            )
            put(state.status, rows, g, wp.static(VALUE), choose(tried, value, before))
            put(
                state.status,
                rows,
                g,
                wp.static(DECREASE),
                choose(tried, promise, take(state.status, rows, g, wp.static(DECREASE))),
            )


@wp.func
def _store(
    s: int, t: int, g: int, n: int, rows: I2, rules: Rules, tried: V, state: State, variables: Variables, branches: I2,
    work: Work,
):  # fmt: skip
    """Write the variables of those lanes that are tried, how far they moved in this pass, and their doubts."""
    for i in range(t, n, wp.block_dim()):
        d = variables.dofs[i]
        old = take(state.q, rows, g, d)
        if rules.branch < 0:
            put(state.origin, rows, g, d, old)
        put(state.q, rows, g, d, choose(tried, work.x[s, i], old))
    if rules.free_betas != 0:
        for i in range(t, work.betas.shape[1], wp.block_dim()):
            put(state.betas, rows, g, i, choose(tried, work.x[s, n + i], take(state.betas, rows, g, i)))
    sync()
    if t == 0:
        moved = V()
        for i in range(n):
            d = variables.dofs[i]
            moved = wp.max(moved, wp.abs(take(state.q, rows, g, d) - take(state.origin, rows, g, d)))
        put(state.status, rows, g, wp.static(MOVED), moved)
        for joint in range(branches.shape[0]):
            doubt = V()
            for r in range(3):
                i = branches[joint, r]
                x = take(state.q, rows, g, variables.dofs[i])
                excess = beyond_limit(x, variables.limits[i, 0], variables.limits[i, 1])
                doubt = wp.max(doubt, wp.abs(excess))
            put(state.status, rows, g, wp.static(DOUBT) + joint, doubt)
