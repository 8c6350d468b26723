"""A step of frames that are tied to each other: what each frame is alone, and where the solution of all leads it.

Between `evaluate_frames` and `move_frames`, `ties` adds what ties them, and `tridiagonal` solves.
"""

# Warp reads annotations when it compiles, so that they cannot be postponed in the files of kernels.
import warp as wp

from skelfit.fitting.backends.body_tables import Body
from skelfit.fitting.backends.retraction_tables import Balls
from skelfit.fitting.backends.variable_tables import Variables

from .betas_moments import Levers
from .betas_terms import Shaping
from .cyclic_reduction import System
from .damped_step import Steps
from .joint_frames import Place
from .lanes import A2, F2, F3, I2, L, V, m, put, sync, take
from .levenberg_marquardt import State, load_people
from .moments import Moments
from .objective import Rules, Work, evaluate, load_objective
from .quadratic import Room
from .retraction import retract
from .temporal_terms import Sequences

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.kernel
def evaluate_frames(
    rows: I2, places: I2, slots: int, rules: Rules, state: State, located: F3, moments: Moments, levers: Levers,
    variables: Variables, body: Body, place: Place, room: Room, shaping: Shaping, work: Work, steps: Steps,
    sequences: Sequences, system: System,
):  # fmt: skip
    """Value, gradient and matrix of frames of rows (G, L), each alone; places: as `solve` has them."""
    g, t = wp.tid()
    s = g % slots
    load_people(s, t, g, rows, rules, state, variables, place, work)
    load_objective(
        s, t, g, rows, places, rules, located, moments, levers, variables, body, place, room, shaping, work
    )  # fmt: skip
    found = evaluate(
        s, t, 2 * s, g, work.x, rules, moments, variables, body, place, room, shaping, work, steps
    )  # fmt: skip
    if t == 0:
        put(sequences.value, rows, g, 0, found)
    if rules.free_root != 0:
        for r in range(t, 3, wp.block_dim()):
            put(state.trans, rows, g, r, place.trans[s, r] - work.mean[2 * s, r])
    n = variables.num_dofs + rules.free_betas * work.betas.shape[1]
    for i in range(t, n, wp.block_dim()):
        put(sequences.gradient, rows, g, i, steps.gradient[2 * s, i])
        for j in range(i, n):
            e = steps.hessian[2 * s, i, j]
            for k in range(wp.static(L)):
                system.matrix[rows[g, k], i, j] = e[k]


@wp.struct
class Moving:
    """Scratch of each slot s."""

    x: A2  # (S, n)
    step: A2  # (S, n)
    balls: A2  # (S, joints)


def make_moving(slots: int, n: int, balls: int, device: str) -> Moving:
    """Room for so many groups at a time."""
    moving = Moving()
    for name, size in (("x", n), ("step", n), ("balls", balls)):
        setattr(moving, name, wp.zeros((slots, size), dtype=V, device=device))
    return moving


@wp.kernel
def move_frames(
    frames: I2, slots: int, max_step: float, variables: Variables, balls: Balls, sequences: Sequences, system: System,
    q: F2, moving: Moving,
):  # fmt: skip
    """Where the solution leads frames (G, L), and each one's part of what it promises, in sum -g . d - d . H d / 2.

    With H + C the damped matrix of all frames, that is (d . C d - g . d) / 2.
    """
    g, t = wp.tid()
    s = g % slots
    n = variables.num_dofs
    for i in range(t, n, wp.block_dim()):
        moving.x[s, i] = take(q, frames, g, variables.dofs[i])
        moving.step[s, i] = take(system.x, frames, g, i)
    sync()
    if t == 0:
        total = V()
        for i in range(n):
            d = moving.step[s, i]
            pull = m(take(sequences.added, frames, g, i), d) - take(sequences.gradient, frames, g, i)
            total += m(d, pull)
        for k in range(wp.static(L)):
            sequences.promise[frames[g, k]] = 0.5 * total[k]
    retract(s, t, moving.x, moving.step, max_step, balls, moving.balls, moving.x)
    sync()
    for i in range(t, n, wp.block_dim()):
        put(q, frames, g, variables.dofs[i], moving.x[s, i])
