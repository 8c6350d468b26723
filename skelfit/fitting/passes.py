"""A pass of the fit: the vertex pass of a stage for some people, and the solver's steps from its moments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skelfit.bodies.dofs import dof_index
from skelfit.fitting.backends.backend import Backend
from skelfit.fitting.backends.body_tables import NUM_BETAS
from skelfit.fitting.backends.retraction_tables import make_balls
from skelfit.fitting.backends.skin_tables import SkinPlan
from skelfit.fitting.backends.variable_tables import JointTree, make_tree, make_variables

if TYPE_CHECKING:
    from skelfit.config.fit_settings import FitConfig, PassConfig

Rows = NDArray[np.int64]

# Columns of a status, as `kernels/solve.py` has them.
MOVED, VALUE, DECREASE, DAMPING, DOUBT = range(5)
_STATUS = 6
_WAYS = 3  # of `kernels/chart.along_valley`
_FLOAT_EPS = float(torch.finfo(torch.float32).eps)


@dataclass(frozen=True)
class Batch:
    """B people on a device, in the canonical frame (global orientation and translation taken off)."""

    count: int
    target: Any  # (blocks of L people, V, 3) lane vectors, m
    located: Any  # (B, R, 3) m, where joints are drawn to
    q: Tensor  # (B, 46) rad
    betas: Tensor  # (B, K) SKEL's
    trans: Tensor  # (B, 3) m, in the frame of the target
    origin: Tensor  # (B, 46) rad, before the last pass
    status: Tensor  # (B, 6)


@dataclass(frozen=True)
class Tables:
    """What the passes of a stage against one choice of vertices share for all people."""

    skin: SkinPlan
    tree: JointTree
    variables: Any
    balls: Any
    branches: Any  # (2, 3) variables of the shoulders, whose limits lie at their Euler poles
    num_branches: int
    body: Any


@dataclass(frozen=True)
class Moments:
    """What a vertex pass found, for the tries after the steps that follow."""

    rows: Rows  # people, group by group
    moments: Any
    beta_moments: Any


def make_tables(
    backend: Backend,
    body: Any,
    skin: SkinPlan,
    part: str,
    limits: NDArray[Any],
    located: tuple[int, ...],
    couplings: NDArray[Any],
) -> Tables:
    """The tables of a stage that moves the DoFs of a body part; limits, located and couplings: as `make_variables`."""
    tree = make_tree(part, skin.pairs)
    shoulders = ([dof_index(f"shoulder_{side}_{axis}") for axis in "xyz"] for side in "rl")
    branches = [[tree.dofs.index(i) for i in joint] for joint in shoulders if set(joint) <= set(tree.dofs)]
    return Tables(
        skin=skin,
        tree=tree,
        variables=make_variables(tree, limits, located, couplings, backend.device),
        balls=make_balls(tree.joints, tree.dofs, backend.device, limits),
        branches=backend.ints(np.array(branches).reshape(-1, 3)),
        num_branches=len(branches),
        body=body,
    )


def whole_groups(rows: Rows, lanes: int) -> Rows:
    """Rows (K,) as groups (G, L): the last person again until the last group is whole."""
    short = -len(rows) % lanes
    return np.concatenate((rows, np.repeat(rows[-1:], short))).reshape(-1, lanes)


def make_rules(backend: Backend, config: FitConfig, steps: int, tolerance: float, joint_weight: float) -> Any:
    """How the solver steps: of the angles alone, with the model of the Hessian, no root held; to be changed."""
    rules, solver = backend.kernels.objective.StepRules(), config.solver
    rules.steps, rules.exact, rules.free_betas, rules.free_root = steps, 0, 0, 0
    rules.branch, rules.pole_point = -1, 0
    rules.tolerance, rules.joint_weight = tolerance, joint_weight
    rules.max_angle_step, rules.max_beta_step = config.max_angle_step, solver.max_beta_step
    rules.damping, rules.damping_min, rules.damping_max = (
        solver.damping,
        solver.damping_min,
        solver.damping_max,
    )
    rules.damping_up, rules.damping_down = solver.damping_up, solver.damping_down
    rules.damping_at_rest, rules.noise = solver.damping_at_rest, solver.noise * _FLOAT_EPS
    rules.limit_weight, rules.beta_weight = config.limit_weight, config.beta_weight
    rules.turn_weight, rules.move_weight = 0.0, 0.0
    rules.branch_excess = config.branches.beyond
    return rules


def new_status(count: int, damping: float) -> Tensor:
    """Of people who have not started, (B, 6)."""
    status = torch.zeros(count, _STATUS)
    status[:, DECREASE], status[:, DAMPING] = torch.inf, damping
    return status


def converged(status: Tensor, config: PassConfig) -> Tensor:
    """Whose next step would gain next to nothing: by default 0.5 % of the objective, or 10 um of skin (RMS)."""
    return status[:, DECREASE] < config.converged_gain * status[:, VALUE] + config.converged_floor


def batch_of(
    backend: Backend, meshes: Tensor, q: Tensor, betas: Tensor, located: Any, damping: float
) -> Batch:
    """People who start at q (B, 46) and betas (B, K) towards meshes (B, V, 3) m."""
    rows = torch.from_numpy(whole_groups(np.arange(len(meshes)), backend.lanes).reshape(-1))
    there = backend.put(q)
    return Batch(
        count=len(meshes),
        target=backend.lanes_from(meshes[rows]),
        located=located,
        q=there,
        betas=backend.put(betas),
        trans=torch.zeros_like(there[:, :3]),
        origin=there.clone(),
        status=backend.put(new_status(len(meshes), damping)),
    )


def skinned(backend: Backend, skin: SkinPlan, target: Any, rows: Rows) -> Any:
    """What a vertex pass reads of people, groups of rows (G, L)."""
    people = backend.kernels.skinning.SkinInputs()
    people.coefficients = backend.lanes_of(len(rows), skin.skin.basis.shape[1])
    people.transforms = backend.lanes_of(len(rows), 24, 12)
    people.target, people.rows = target, backend.ints(rows)
    return people


def posing_of(backend: Backend, parts: int, body: Any, batch: Batch) -> Any:
    """Where people are, and room for the joints of so many chunks."""
    posing = backend.room(backend.kernels.posing.make_pose_inputs, parts)
    posing.q, posing.betas = backend.array(batch.q), backend.array(batch.betas)
    posing.trans, posing.body = backend.array(batch.trans), body
    return posing


def state_of(backend: Backend, batch: Batch) -> Any:
    """Where people are, for the kernels that step; not a copy."""
    state = backend.kernels.levenberg_marquardt.FitState()
    for name in ("q", "betas", "trans", "origin", "status"):
        setattr(state, name, backend.array(getattr(batch, name)))
    return state


def chunks(backend: Backend, groups: int) -> int:
    """How many chunks so many groups are."""
    return -(-groups // backend.chunk)


def vertex_pass(backend: Backend, tables: Tables, batch: Batch, rows: Rows, betas_free: bool) -> Moments:
    """The moments of the people of rows (K,), and the levers of their betas where these are free."""
    k, groups = backend.kernels, whole_groups(rows, backend.lanes)
    count, joints, pairs = len(groups), len(tables.tree.joints), len(tables.tree.pairs)
    people = skinned(backend, tables.skin, batch.target, groups)
    parts = chunks(backend, count)
    posing = posing_of(backend, parts, tables.body, batch)
    free = NUM_BETAS if betas_free else 0
    room = backend.room(k.skinning.make_skin_scratch, parts, backend.block, free)
    moments, beta_moments = k.moments.SkinMoments(), k.betas_moments.BetaMoments()
    moments.start, moments.d = (backend.lanes_of(count, joints, 12) for _ in range(2))
    moments.pairs, moments.value = backend.lanes_of(count, pairs, 10), backend.lanes_of(count)
    beta_moments.betas = backend.lanes_of(count if free else 0, NUM_BETAS)
    beta_moments.cross = backend.lanes_of(count if free else 0, joints, 12, NUM_BETAS)
    beta_moments.products = backend.lanes_of(count if free else 0, NUM_BETAS, NUM_BETAS)
    beta_moments.residual = backend.lanes_of(count if free else 0, NUM_BETAS)
    inputs = [tables.skin.skin, people, posing, backend.chunk, room, moments]
    if betas_free:
        backend.launch(k.betas_moments.shaped_moments, parts, [*inputs, beta_moments])
    else:
        backend.launch(k.moments.moments, parts, inputs)
    return Moments(groups.reshape(-1), moments, beta_moments)


def solve(backend: Backend, tables: Tables, batch: Batch, found: Moments, places: Rows, rules: Any) -> None:
    """Steps of those people of a vertex pass who stand at places (K,) in it; their q, betas and status change."""
    k = backend.kernels
    where = whole_groups(places, backend.lanes)
    groups, slots = len(where), backend.slots(len(where))
    joints, pairs = len(tables.tree.joints), len(tables.tree.pairs)
    variables = len(tables.tree.dofs) + (NUM_BETAS if rules.free_betas else 0)
    backend.launch(
        k.levenberg_marquardt.solve,
        groups,
        [
            backend.ints(found.rows[where]), backend.ints(where), slots, rules, state_of(backend, batch),
            batch.located, found.moments, found.beta_moments, tables.variables, tables.balls, tables.branches,
            tables.body,
            backend.room(k.joint_frames.make_joint_frames, groups),
            backend.room(k.quadratic.make_quadratic_form, groups, joints, pairs, tables.variables.num_cells),
            backend.room(k.betas_terms.make_beta_terms, groups if rules.free_betas else 0, joints),
            backend.room(k.objective.make_variable_scratch, groups, variables, tables.balls.index.shape[0]),
            backend.room(k.damped_step.make_newton_scratch, groups, variables),
        ],
    )  # fmt: skip


def run_pass(
    backend: Backend, tables: Tables, batch: Batch, rows: Rows, rules: Any, tries: int = 0
) -> Moments:
    """A vertex pass and the steps of rules for people of rows (K,); returns what the former found.

    tries: steps that people whose shoulders end beyond their limits are followed for from elsewhere, of the same
    moments. Two triples of a ball joint's angles mean one rotation, and the limits lie where the two meet: there a
    shoulder has a minimum at either end of the valley that they share and one in its middle, with walls between them,
    and the start decides which is found. All three are tried, in turn, and the lowest is kept.
    """
    found = vertex_pass(backend, tables, batch, rows, bool(rules.free_betas))
    solve(backend, tables, batch, found, np.arange(len(rows)), rules)
    if not tries or not tables.num_branches:
        return found
    status = backend.read(batch.status)[torch.from_numpy(rows)].numpy()
    for branch in range(tables.num_branches):
        places = np.flatnonzero(status[:, DOUBT + branch] > rules.branch_excess)
        for way in range(_WAYS if len(places) else 0):
            solve(backend, tables, batch, found, places, _elsewhere(backend, rules, branch, way, tries))
    return found


def _elsewhere(backend: Backend, rules: Any, branch: int, way: int, steps: int) -> Any:
    other = backend.kernels.objective.StepRules()
    for name in backend.kernels.objective.StepRules.vars:
        setattr(other, name, getattr(rules, name))
    other.branch, other.pole_point, other.steps = branch, way, steps
    return other
