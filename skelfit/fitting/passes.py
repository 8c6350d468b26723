"""A pass of the fit: the vertex pass of a stage, and the solver's steps from its moments."""

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
    from skelfit.config.fit_settings import FitConfig, PassConfig, SolverConfig

Rows = NDArray[np.int64]

# Columns of a status, as `kernels/levenberg_marquardt.py` writes them. From EXCESS on: a column for each shoulder.
MOVED, VALUE, DECREASE, DAMPING, EXCESS = range(5)
_STATUS = 6
_POLE_POINTS = 3  # points of the valley of an Euler pole, as `kernels/retraction.py` has them
_FLOAT_EPS = float(torch.finfo(torch.float32).eps)


@dataclass(frozen=True)
class FitBatch:
    """B people on a device, in the canonical frame (global_orient and transl taken off)."""

    count: int
    target: Any  # (blocks of L people, V, 3) lane vectors, m
    located: Any  # (B, R, 3) m, targets of joints
    q: Tensor  # (B, 46) rad
    betas: Tensor  # (B, K) SKEL's
    trans: Tensor  # (B, 3) m, in the frame of the target
    origin: Tensor  # (B, 46) rad, before the last pass
    status: Tensor  # (B, 6)


@dataclass(frozen=True)
class StageTables:
    """The tables of a stage's passes over one choice of vertices; all people share them."""

    skin: SkinPlan
    tree: JointTree
    variables: Any
    balls: Any
    branches: Any  # (2, 3) variables of the shoulders, whose limits lie at their Euler poles
    num_branches: int
    body: Any


@dataclass(frozen=True)
class PassMoments:
    """The moments of a vertex pass, from which the solver steps."""

    rows: Rows  # of the people, group by group
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
) -> StageTables:
    """The tables of a stage that moves the DoFs of a body part; limits, located, couplings: see `make_variables`."""
    tree = make_tree(part, skin.pairs)
    shoulders = ([dof_index(f"shoulder_{side}_{axis}") for axis in "xyz"] for side in "rl")
    branches = [[tree.dofs.index(i) for i in joint] for joint in shoulders if set(joint) <= set(tree.dofs)]
    return StageTables(
        skin=skin,
        tree=tree,
        variables=make_variables(tree, limits, located, couplings, backend.device),
        balls=make_balls(tree.joints, tree.dofs, backend.device, limits),
        branches=backend.ints(np.array(branches).reshape(-1, 3)),
        num_branches=len(branches),
        body=body,
    )


def whole_groups(rows: Rows, lanes: int) -> Rows:
    """Rows (K,) as groups (G, L); the last person is repeated to fill the last group."""
    short = -len(rows) % lanes
    return np.concatenate((rows, np.repeat(rows[-1:], short))).reshape(-1, lanes)


def solver_rules(
    backend: Backend, solver: SolverConfig, steps: int, tolerance: float, max_angle_step: float
) -> Any:
    """Rules of the solver without priors and limits: steps of the angles, with the model of the Hessian, root fixed."""
    rules = backend.kernels.objective.StepRules()
    rules.steps, rules.exact, rules.free_betas, rules.free_root = steps, 0, 0, 0
    rules.branch, rules.pole_point = -1, 0
    rules.tolerance = tolerance
    rules.max_angle_step, rules.max_beta_step = max_angle_step, solver.max_beta_step
    for name in ("damping", "damping_min", "damping_max", "damping_up", "damping_down", "damping_at_rest"):
        setattr(rules, name, getattr(solver, name))
    rules.noise = solver.noise * _FLOAT_EPS
    rules.turn_weight, rules.move_weight = 0.0, 0.0
    return rules


def make_rules(backend: Backend, config: FitConfig, steps: int, tolerance: float, joint_weight: float) -> Any:
    """`solver_rules` with the limits and priors of a config, for callers to change."""
    rules = solver_rules(backend, config.solver, steps, tolerance, config.max_angle_step)
    rules.joint_weight = joint_weight
    rules.limit_weight, rules.beta_weight = config.limit_weight, config.beta_weight
    rules.branch_excess = config.branches.beyond
    return rules


def new_status(count: int, damping: float) -> Tensor:
    """The status (B, 6) of people before their first step."""
    status = torch.zeros(count, _STATUS)
    status[:, DECREASE], status[:, DAMPING] = torch.inf, damping
    return status


def converged(status: Tensor, config: PassConfig) -> Tensor:
    """Who has converged, (B,): the next step promises less than, by default, 0.5 % of the objective or 10 um (RMS)."""
    return status[:, DECREASE] < config.converged_gain * status[:, VALUE] + config.converged_floor


def batch_of(
    backend: Backend, meshes: Tensor, q: Tensor, betas: Tensor, located: Any, damping: float
) -> FitBatch:
    """A batch that starts at q (B, 46) and betas (B, K) towards meshes (B, V, 3) m."""
    rows = torch.from_numpy(whole_groups(np.arange(len(meshes)), backend.lanes).reshape(-1))
    target = backend.lanes_from(meshes[rows])
    return new_batch(backend, target, located, backend.upload(q), backend.upload(betas), damping)


def new_batch(
    backend: Backend, target: Any, located: Any, q: Tensor, betas: Tensor, damping: float
) -> FitBatch:
    """A batch before its first step; all on the device."""
    status = backend.upload(new_status(len(q), damping))
    return FitBatch(len(q), target, located, q, betas, torch.zeros_like(q[:, :3]), q.clone(), status)


def skinned(backend: Backend, skin: SkinPlan, target: Any, rows: Rows) -> Any:
    """The inputs of a vertex pass of groups of rows (G, L)."""
    people = backend.kernels.skinning.SkinInputs()
    people.coefficients = backend.lanes_of(len(rows), skin.skin.basis.shape[1])
    people.transforms = backend.lanes_of(len(rows), 24, 12)
    people.target, people.rows = target, backend.ints(rows)
    return people


def posing_of(backend: Backend, parts: int, body: Any, batch: FitBatch) -> Any:
    """Poses and shapes of a batch, with scratch memory for the joints of some chunks (parts)."""
    posing = backend.scratch(backend.kernels.posing.make_pose_inputs, parts)
    posing.q, posing.betas = backend.array(batch.q), backend.array(batch.betas)
    posing.trans, posing.body = backend.array(batch.trans), body
    return posing


def state_of(backend: Backend, batch: FitBatch) -> Any:
    """The batch as the state that kernels step; not a copy."""
    state = backend.kernels.levenberg_marquardt.FitState()
    for name in ("q", "betas", "trans", "origin", "status"):
        setattr(state, name, backend.array(getattr(batch, name)))
    return state


def chunks(backend: Backend, groups: int) -> int:
    """The number of chunks of so many groups."""
    return -(-groups // backend.chunk)


def vertex_pass(
    backend: Backend, tables: StageTables, batch: FitBatch, rows: Rows, free_betas: bool
) -> PassMoments:
    """The moments of people (rows, (K,)), with those of their betas if these are free."""
    k, groups = backend.kernels, whole_groups(rows, backend.lanes)
    count, joints, pairs = len(groups), len(tables.tree.joints), len(tables.tree.pairs)
    people = skinned(backend, tables.skin, batch.target, groups)
    parts = chunks(backend, count)
    posing = posing_of(backend, parts, tables.body, batch)
    scratch = backend.scratch(
        k.skinning.make_skin_scratch, parts, backend.block, NUM_BETAS if free_betas else 0
    )
    moments, beta_moments = k.moments.SkinMoments(), k.betas_moments.BetaMoments()
    moments.start, moments.d = (backend.lanes_of(count, joints, 12) for _ in range(2))
    moments.pairs, moments.value = backend.lanes_of(count, pairs, 10), backend.lanes_of(count)
    free = count if free_betas else 0
    beta_moments.betas = backend.lanes_of(free, NUM_BETAS)
    beta_moments.cross = backend.lanes_of(free, joints, 12, NUM_BETAS)
    beta_moments.products = backend.lanes_of(free, NUM_BETAS, NUM_BETAS)
    beta_moments.residual = backend.lanes_of(free, NUM_BETAS)
    inputs = [tables.skin.skin, people, posing, backend.chunk, scratch, moments]
    if free_betas:
        backend.launch(k.betas_moments.shaped_moments, parts, [*inputs, beta_moments])
    else:
        backend.launch(k.moments.moments, parts, inputs)
    return PassMoments(groups.reshape(-1), moments, beta_moments)


def solve(
    backend: Backend, tables: StageTables, batch: FitBatch, moments: PassMoments, positions: Rows, rules: Any
) -> None:
    """Steps of the people at positions (K,) of a vertex pass; their q, betas and status change."""
    indices = whole_groups(positions, backend.lanes)
    groups, slots = len(indices), backend.slots(len(indices))
    backend.launch(
        backend.kernels.levenberg_marquardt.solve,
        groups,
        [
            backend.ints(moments.rows[indices]), backend.ints(indices), slots, rules, state_of(backend, batch),
            batch.located, moments.moments, moments.beta_moments, tables.variables, tables.balls, tables.branches,
            tables.body, *solver_scratch(backend, tables, groups, bool(rules.free_betas)),
        ],
    )  # fmt: skip


def solver_scratch(backend: Backend, tables: StageTables, groups: int, free_betas: bool) -> list[Any]:
    """Scratch memory of the kernels that evaluate so many groups of people."""
    k, joints, pairs = backend.kernels, len(tables.tree.joints), len(tables.tree.pairs)
    variables = len(tables.tree.dofs) + (NUM_BETAS if free_betas else 0)
    return [
        backend.scratch(k.joint_frames.make_joint_frames, groups),
        backend.scratch(k.quadratic.make_quadratic_form, groups, joints, pairs, tables.variables.num_cells),
        backend.scratch(k.betas_terms.make_beta_terms, groups if free_betas else 0, joints),
        backend.scratch(k.objective.make_variable_scratch, groups, variables, tables.balls.index.shape[0]),
        backend.scratch(k.damped_step.make_newton_scratch, groups, variables),
    ]


def run_pass(
    backend: Backend, tables: StageTables, batch: FitBatch, rows: Rows, rules: Any, branch_steps: int = 0
) -> PassMoments:
    """A vertex pass and the steps of rules for people (rows, (K,)); returns the moments.

    branch_steps: the steps of more attempts, from the same moments, of people with a shoulder beyond its limits. Two
    triples of Euler angles give one rotation, and they meet at a pole, where the limits lie. There a shoulder has a
    minimum at either end of the valley that both triples share and one in its middle, with walls between them: the
    start decides which one a descent reaches. So all three points are tried in turn, and the lowest value is kept.
    """
    moments = vertex_pass(backend, tables, batch, rows, bool(rules.free_betas))
    solve(backend, tables, batch, moments, np.arange(len(rows)), rules)
    if not branch_steps or not tables.num_branches:
        return moments
    status = backend.read(batch.status)[torch.from_numpy(rows)].numpy()
    for branch in range(tables.num_branches):
        positions = np.flatnonzero(status[:, EXCESS + branch] > rules.branch_excess)
        for point in range(_POLE_POINTS if len(positions) else 0):
            branch_rules = _rules_from(backend, rules, branch, point, branch_steps)
            solve(backend, tables, batch, moments, positions, branch_rules)
    return moments


def _rules_from(backend: Backend, rules: Any, branch: int, point: int, steps: int) -> Any:
    """The same rules, but from another point of a shoulder's valley."""
    other = backend.kernels.objective.StepRules()
    for name in backend.kernels.objective.StepRules.vars:
        setattr(other, name, getattr(rules, name))
    other.branch, other.pole_point, other.steps = branch, point, steps
    return other
