"""The steps of a phase of a refinement for a group of people: Levenberg-Marquardt, each person on their own.

The rules are those of `levenberg_marquardt`: damping, bounds and acceptance are per person, a person rests when a step
with little damping predicts a decrease below a tolerance, and a value that is not finite is never accepted. Betas have
a bound: steps end there, and a beta that stands there and would go beyond has no part in the next step.
"""

import warp as wp

from skelfit.fitting.backends.body_tables import BodyTables
from skelfit.fitting.backends.keypoint_tables import KeypointTables
from skelfit.fitting.backends.retraction_tables import BallTables

from .betas_twists import BetaTwists
from .damped_step import NewtonScratch, damped_step, next_damping
from .joint_chain import pose
from .joint_frames import JointFrames
from .keypoint_columns import KeypointScratch, place_keypoints
from .lanes import F1, F2, F3, I2, L, V, any_positive, choose, exceeds, gather, m, scatter, sync
from .refinement_priors import bound_betas, hold_betas, write_label_joints
from .refinement_state import BETAS, CAMERA, FOCAL, POINTS, VARIABLES, K, RefineRules, RefineScratch
from .refinement_terms import evaluate_refinement
from .rest_joints import shape_joints
from .retraction import retract, retract_betas

wp.set_module_options({"enable_backward": False, "max_unroll": 1})

VALUE, DECREASE, ACCEPTED = 0, 1, 2  # columns of a status


@wp.struct
class RefinePeople:
    """B people on the device."""

    x: F2  # (B, 59) translation, angles, betas
    label: F2  # (B, 59) the anchor
    label_points: F3  # (B, 44, 3) m, the anchor's keypoints without translation
    given: F3  # (B, 44, 3) keypoints in units, and confidences: 0 for those that do not count
    camera: F2  # (B, 6) the first two rows of the intrinsics, in units
    depth: F1  # (B,) m, of the start
    beta_bound: F1  # (B,) no beta goes beyond it
    focal: F1  # (B,) log of the focal length over that of the camera
    zooms: int  # 1: it is a variable
    status: F2  # (B, 3)


@wp.kernel
def place(
    rows: I2, slots: int, x: F2, points: F3, tables: KeypointTables, body: BodyTables, joints: JointFrames,
    keypoints: KeypointScratch, scratch: RefineScratch,
):  # fmt: skip
    """Keypoints (B, 44, 3) m, without translation, of x (B, 59), of rows (G, L)."""
    g, t = wp.tid()
    s = g % slots
    for i in range(t, 46, wp.block_dim()):
        scratch.angles[s, i] = gather(x, rows, g, 3 + i)
    for i in range(t, wp.static(K), wp.block_dim()):
        scratch.betas[s, i] = gather(x, rows, g, wp.static(BETAS) + i)
    for i in range(t, 3, wp.block_dim()):
        joints.trans[s, i] = V()
    sync()
    shape_joints(s, t, scratch.betas, body, joints)
    pose(s, t, scratch.angles, body, joints)
    place_keypoints(s, t, scratch.betas, tables, body, joints, keypoints)
    for i in range(t, wp.static(3 * POINTS), wp.block_dim()):
        for lane in range(wp.static(L)):
            points[rows[g, lane], i // 3, i % 3] = keypoints.points[s, i // 3, i % 3][lane]


@wp.func
def load_people(s: int, t: int, g: int, rows: I2, people: RefinePeople, scratch: RefineScratch):
    """Read the people of group g; the trial is where they are."""
    for i in range(t, wp.static(VARIABLES), wp.block_dim()):
        scratch.x[s, i] = gather(people.x, rows, g, i)
        scratch.trial[s, i] = gather(people.x, rows, g, i)
        scratch.label[s, i] = gather(people.label, rows, g, i)
    for i in range(t, 6, wp.block_dim()):
        scratch.camera[s, i] = gather(people.camera, rows, g, i)
    for i in range(t, wp.static(3 * POINTS), wp.block_dim()):
        a = V()
        b = V()
        for lane in range(wp.static(L)):
            a[lane] = people.given[rows[g, lane], i // 3, i % 3]
            b[lane] = people.label_points[rows[g, lane], i // 3, i % 3]
        scratch.given[s, i // 3, i % 3] = a
        scratch.label_points[s, i // 3, i % 3] = b
    if t == 0:
        a = V()
        b = V()
        c = V()
        for lane in range(wp.static(L)):
            a[lane] = people.depth[rows[g, lane]]
            b[lane] = people.focal[rows[g, lane]]
            c[lane] = people.beta_bound[rows[g, lane]]
        scratch.depth[s] = a
        scratch.beta_bound[s] = c
        for i in range(2):
            scratch.focal[s, i] = b
    sync()


@wp.func
def _take(s: int, t: int, h: int, n: int, better: V, scratch: RefineScratch, newton: NewtonScratch):
    """Take the trial in the lanes where it is better; else copy the evaluation of buffer h to the other buffer."""
    for i in range(t, wp.static(VARIABLES), wp.block_dim()):
        scratch.x[s, i] = choose(better, scratch.trial[s, i], scratch.x[s, i])
    if t == 0:
        scratch.focal[s, 0] = choose(better, scratch.focal[s, 1], scratch.focal[s, 0])
    if any_positive(V(1.0) - better):
        other = 4 * s + 1 - h
        for i in range(t, n, wp.block_dim()):
            newton.gradient[other, i] = choose(better, newton.gradient[other, i], newton.gradient[h, i])
            for j in range(i, n):
                newton.hessian[other, i, j] = choose(
                    better, newton.hessian[other, i, j], newton.hessian[h, i, j]
                )
    sync()


@wp.func
def write_trial(
    s: int,
    t: int,
    n: int,
    rules: RefineRules,
    balls: BallTables,
    scratch: RefineScratch,
    newton: NewtonScratch,
):
    """Write the trial: x after the step."""
    for i in range(t, wp.static(VARIABLES), wp.block_dim()):
        scratch.trial[s, i] = scratch.x[s, i]
    sync()
    retract(s, t, scratch.x, newton.step, rules.max_angle_step, balls, scratch.balls, scratch.trial)
    retract_betas(s, t, scratch.x, newton.step, 0, 3, rules.max_move_step, scratch.trial)
    if n > wp.static(CAMERA):
        retract_betas(
            s, t, scratch.x, newton.step, wp.static(BETAS), wp.static(K), rules.max_beta_step, scratch.trial
        )
        sync()
        bound_betas(s, t, scratch.trial, scratch)
    if t == 0 and n > wp.static(FOCAL):
        largest = V(rules.max_focal)
        moved = scratch.focal[s, 0] + newton.step[s, wp.static(FOCAL)]
        scratch.focal[s, 1] = wp.min(wp.max(moved, -largest), largest)
    sync()


@wp.kernel
def refine(
    rows: I2, slots: int, rules: RefineRules, people: RefinePeople, tables: KeypointTables, balls: BallTables,
    body: BodyTables, joints: JointFrames, twists: BetaTwists, keypoints: KeypointScratch,
    scratch: RefineScratch, newton: NewtonScratch,
):  # fmt: skip
    """Steps of the people of rows (G, L); balls: the joints that the phase moves, among the variables.

    Without steps the status says value and predicted decrease where they are.
    """
    g, t = wp.tid()
    s = g % slots
    n = wp.static(VARIABLES) + people.zooms
    if rules.camera != 0:
        n = int(wp.static(CAMERA))
    load_people(s, t, g, rows, people, scratch)
    write_label_joints(s, t, tables, body, scratch)
    h = 2 * s
    value = V(wp.static(float("inf")))
    damping = V(rules.damping)
    accepted = V(-1.0)  # the start is no step
    predicted = V()
    going = V(1.0)
    steps_left = rules.steps + 1
    moved = int(1)
    while steps_left >= 0:
        if moved == 1:
            other = 4 * s + 1 - h
            trial = evaluate_refinement(
                s, t, other, n, scratch.trial, rules, tables, body, joints, twists, keypoints, scratch, newton
            )
            if n > wp.static(CAMERA):
                hold_betas(s, t, other, n, scratch.trial, scratch, newton)
            better = m(going, V(1.0) - exceeds(trial, value + rules.noise * value))
            better = m(better, exceeds(V(wp.static(3.0e38)), trial))
            if steps_left > rules.steps:
                better = V(1.0)
            _take(s, t, h, n, better, scratch, newton)
            h = other
            value = choose(better, trial, value)
            accepted += better
            if steps_left <= rules.steps:
                damping = next_damping(damping, going, better, rules)
            steps_left -= 1
        step_damping = damping
        if steps_left == 0:
            step_damping = V(rules.damping_min)
        predicted = damped_step(s, t, h, n, 0, step_damping, newton)
        if steps_left == 0:
            steps_left = -1
        else:
            going = m(
                going,
                wp.max(
                    exceeds(predicted, rules.tolerance * value), exceeds(damping, V(rules.damping_at_rest))
                ),
            )
            moved = int(0)
            if any_positive(going):
                moved = int(1)
                write_trial(s, t, n, rules, balls, scratch, newton)
            else:
                steps_left = 0
    for i in range(t, wp.static(VARIABLES), wp.block_dim()):
        scatter(people.x, rows, g, i, scratch.x[s, i])
    if t == 0:
        for lane in range(wp.static(L)):
            people.focal[rows[g, lane]] = scratch.focal[s, 0][lane]
        scatter(people.status, rows, g, wp.static(VALUE), value)
        scatter(people.status, rows, g, wp.static(DECREASE), predicted)
        scatter(people.status, rows, g, wp.static(ACCEPTED), accepted)
