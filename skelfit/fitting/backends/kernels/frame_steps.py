"""A step of frames that are tied to each other: the equations of each frame alone, and the move along the solution.

Between `evaluate_frames` and `move_frames`, `temporal_terms` adds the ties and `cyclic_reduction` solves.
"""

# Warp reads annotations when it compiles, so that they cannot be postponed in the files of kernels.
import warp as wp

from skelfit.fitting.backends.body_tables import BodyTables
from skelfit.fitting.backends.retraction_tables import BallTables
from skelfit.fitting.backends.variable_tables import StageVariables

from .betas_moments import BetaMoments
from .betas_terms import BetaTerms
from .cyclic_reduction import ChainSystem
from .damped_step import NewtonScratch
from .joint_frames import JointFrames
from .lanes import A2, F2, F3, I2, L, V, gather, scatter, sync
from .levenberg_marquardt import FitState, load_people
from .moments import SkinMoments
from .objective import StepRules, VariableScratch, evaluate, load_objective
from .quadratic import QuadraticForm
from .retraction import retract
from .temporal_terms import SequenceTerms, write_promise

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.kernel
def evaluate_frames(
    rows: I2, pass_rows: I2, slots: int, rules: StepRules, state: FitState, joint_targets: F3, moments: SkinMoments,
    beta_moments: BetaMoments, variables: StageVariables, body: BodyTables, joints: JointFrames,
    form: QuadraticForm, beta_terms: BetaTerms, scratch: VariableScratch, newton: NewtonScratch,
    sequences: SequenceTerms, system: ChainSystem,
):  # fmt: skip
    """Value, gradient and matrix of frames of rows (G, L), each alone; pass_rows: as in `solve`."""
    g, t = wp.tid()
    s = g % slots
    load_people(s, t, g, rows, rules, state, variables, joints, scratch)
    load_objective(
        s, t, g, rows, pass_rows, rules, joint_targets, moments, beta_moments, variables, body, joints, form,
        beta_terms, scratch
    )  # fmt: skip
    value = evaluate(
        s, t, 2 * s, g, scratch.x, rules, moments, variables, body, joints, form, beta_terms, scratch, newton
    )  # fmt: skip
    if t == 0:
        scatter(sequences.value, rows, g, 0, value)
    if rules.free_root != 0:
        for r in range(t, 3, wp.block_dim()):
            scatter(state.trans, rows, g, r, joints.trans[s, r] - scratch.mean[2 * s, r])
    n = variables.num_dofs + rules.free_betas * scratch.betas.shape[1]
    for i in range(t, n, wp.block_dim()):
        scatter(sequences.gradient, rows, g, i, newton.gradient[2 * s, i])
        for j in range(i, n):
            e = newton.hessian[2 * s, i, j]
            for k in range(wp.static(L)):
                system.matrix[rows[g, k], i, j] = e[k]


@wp.struct
class FrameScratch:
    """The variables of a move, for each of S slots."""

    x: A2  # (S, n)
    step: A2  # (S, n)
    balls: A2  # (S, joints)


def make_frame_scratch(slots: int, n: int, balls: int, device: str) -> FrameScratch:
    """Scratch for so many groups at a time."""
    scratch = FrameScratch()
    for name, size in (("x", n), ("step", n), ("balls", balls)):
        setattr(scratch, name, wp.zeros((slots, size), dtype=V, device=device))
    return scratch


@wp.kernel
def move_frames(
    frames: I2, slots: int, max_step: float, variables: StageVariables, balls: BallTables, sequences: SequenceTerms,
    system: ChainSystem, q: F2, scratch: FrameScratch,
):  # fmt: skip
    """Move frames (G, L) along the solution, and write what it promises."""
    g, t = wp.tid()
    s = g % slots
    n = variables.num_dofs
    for i in range(t, n, wp.block_dim()):
        scratch.x[s, i] = gather(q, frames, g, variables.dofs[i])
        scratch.step[s, i] = gather(system.x, frames, g, i)
    sync()
    if t == 0:
        write_promise(g, frames, sequences, system)
    retract(s, t, scratch.x, scratch.step, max_step, balls, scratch.balls, scratch.x)
    sync()
    for i in range(t, n, wp.block_dim()):
        scatter(q, frames, g, variables.dofs[i], scratch.x[s, i])
