"""People of a refinement who are frames of a sequence: the equations of each alone, and the step of all of them.

The ties need the angles first: here the order of variables is angles (46), translation (3), betas (10). The equations
have the first n of these; betas that they leave out are held. Between `evaluate_frames` and `move_frames`,
`temporal_terms` ties the rotations, `tie_translations` the translations, and `cyclic_reduction` solves.

Of two consecutive frames f and g whose translations are d away from their labels', the tie costs w |d_g - d_f|^2, with
w = move * weight / dt^2.
"""

# Warp reads annotations when it compiles, so that they cannot be postponed in the files of kernels.
import warp as wp

from skelfit.fitting.backends.body_tables import BodyTables
from skelfit.fitting.backends.keypoint_tables import KeypointTables
from skelfit.fitting.backends.retraction_tables import BallTables

from .betas_twists import BetaTwists
from .cyclic_reduction import ChainSystem, entry, write_entry
from .damped_step import NewtonScratch
from .joint_frames import JointFrames
from .keypoint_columns import KeypointScratch
from .lanes import I2, L, V, gather, m, scatter, sync
from .refinement_priors import write_label_joints
from .refinement_solver import RefinePeople, load_people, write_trial
from .refinement_state import ANGLES, BETAS, VARIABLES, RefineRules, RefineScratch
from .refinement_terms import evaluate_refinement
from .temporal_terms import SequenceTerms, write_promise

wp.set_module_options({"enable_backward": False, "max_unroll": 1})

_DOFS = BETAS - ANGLES


@wp.func
def _place(i: int) -> int:
    """The place of variable i among the equations."""
    place = int(i)
    if i < wp.static(ANGLES):
        place = i + wp.static(_DOFS)
    elif i < wp.static(BETAS):
        place = i - wp.static(ANGLES)
    return place


@wp.kernel
def evaluate_frames(
    rows: I2, slots: int, rules: RefineRules, people: RefinePeople, tables: KeypointTables, body: BodyTables,
    joints: JointFrames, twists: BetaTwists, keypoints: KeypointScratch, scratch: RefineScratch,
    newton: NewtonScratch, sequences: SequenceTerms, system: ChainSystem,
):  # fmt: skip
    """Value, gradient and matrix of people of rows (G, L), each alone, where they are."""
    g, t = wp.tid()
    s = g % slots
    load_people(s, t, g, rows, people, scratch)
    write_label_joints(s, t, tables, body, scratch)
    value = evaluate_refinement(
        s, t, 2 * s, wp.static(VARIABLES), scratch.trial, rules, tables, body, joints, twists, keypoints, scratch,
        newton
    )  # fmt: skip
    if t == 0:
        scatter(sequences.value, rows, g, 0, value)
    n = system.right.shape[1]
    for a in range(t, wp.static(VARIABLES), wp.block_dim()):
        i = _place(a)
        if i < n:
            scatter(sequences.gradient, rows, g, i, newton.gradient[2 * s, a])
        for b in range(a, wp.static(VARIABLES)):
            j = _place(b)
            if i < n and j < n:
                e = newton.hessian[2 * s, a, b]
                for k in range(wp.static(L)):
                    system.matrix[rows[g, k], wp.min(i, j), wp.max(i, j)] = e[k]


@wp.kernel
def tie_translations(
    rows: I2, before: I2, after: I2, move: float, people: RefinePeople, sequences: SequenceTerms, system: ChainSystem
):  # fmt: skip
    """Add the ties of translations to the equations of rows (G, L); before, after (G, L): neighbours, -1: none."""
    g, t = wp.tid()
    if t == 0:
        before_weight = move * gather(sequences.weight, rows, g, 0)
        after_weight = move * gather(sequences.weight, rows, g, 1)
        before_value = V()
        after_value = V()
        for r in range(3):
            i = wp.static(_DOFS) + r
            own = gather(people.x, rows, g, r) - gather(people.label, rows, g, r)
            from_before = V()
            to_after = V()
            for k in range(wp.static(L)):
                b = before[g, k]
                if b >= 0:
                    from_before[k] = own[k] - (people.x[b, r] - people.label[b, r])
                a = after[g, k]
                if a >= 0:
                    to_after[k] = own[k] - (people.x[a, r] - people.label[a, r])
            before_value += m(before_weight, m(from_before, from_before))
            after_value += m(after_weight, m(to_after, to_after))
            force = 2.0 * (m(before_weight, from_before) + m(after_weight, to_after))
            scatter(sequences.gradient, rows, g, i, gather(sequences.gradient, rows, g, i) + force)
            diagonal = entry(system.matrix, rows, g, i, i) + 2.0 * (before_weight + after_weight)
            write_entry(system.matrix, rows, g, i, i, diagonal)
            write_entry(system.coupling, rows, g, i, i, -2.0 * after_weight)
        scatter(sequences.value, rows, g, 1, gather(sequences.value, rows, g, 1) + before_value)
        scatter(sequences.value, rows, g, 2, gather(sequences.value, rows, g, 2) + after_value)


@wp.kernel
def move_frames(
    rows: I2, slots: int, rules: RefineRules, people: RefinePeople, balls: BallTables, scratch: RefineScratch,
    newton: NewtonScratch, sequences: SequenceTerms, system: ChainSystem,
):  # fmt: skip
    """Move people of rows (G, L) along the solution, and write what it promises."""
    g, t = wp.tid()
    s = g % slots
    n = system.right.shape[1]
    for i in range(t, wp.static(VARIABLES), wp.block_dim()):
        scratch.x[s, i] = gather(people.x, rows, g, i)
        step = V()
        if _place(i) < n:
            step = gather(system.x, rows, g, _place(i))
        newton.step[s, i] = step
    if t == 0:
        write_promise(g, rows, sequences, system)
    sync()
    write_trial(s, t, wp.static(VARIABLES), rules, balls, scratch, newton)
    for i in range(t, wp.static(VARIABLES), wp.block_dim()):
        scatter(people.x, rows, g, i, scratch.trial[s, i])
