"""Vertex passes and solver steps of the people of a `NaiveObjective`, by the kernels of a backend.

pass_ = KernelPass(backend, goal)      the vertex pass at goal.q and goal.betas
pass_.evaluate(x, exact=True)          as goal.hold().evaluate(x, exact=True), by kernels
pass_.steps(x, 12)                     the result of 12 steps of the solver from x
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from reference_cases import STRIDE, dofs_of
from torch import Tensor

from skelfit.bodies.dofs import NUM_DOFS, STAGE_JOINTS
from skelfit.config.fit_settings import FitConfig, StageConfig
from skelfit.fitting.backends.backend import Backend
from skelfit.fitting.backends.body_tables import body_tables
from skelfit.fitting.backends.skin_tables import stage_skin
from skelfit.fitting.baseline.naive_objective import Evaluation, NaiveObjective
from skelfit.fitting.passes import (
    DAMPING,
    DECREASE,
    VALUE,
    FitBatch,
    StageTables,
    batch_of,
    make_rules,
    make_tables,
    solve,
    vertex_pass,
)

MOVED_BEFORE = (0.03, -0.02, 0.05)  # m, people with a free root, before the vertex pass
CONFIG = FitConfig(stages=(StageConfig("all", "all", "all", 1, 1),))


def of_floats(goal: NaiveObjective) -> NaiveObjective:
    """The goal of the same people, held as at a vertex pass, with numbers that float32 represents.

    A root that is not a variable is set to zero, as kernels assume.
    """
    people = {k: getattr(goal, k).float().double() for k in ("q", "betas", "target", "om")}
    if 0 not in goal.dofs:
        people["q"][:, :3] = 0
    joints = goal.joints and replace(goal.joints, targets=goal.joints.targets.float().double())
    return replace(goal, **people, joints=joints, held=None).hold()


@dataclass(frozen=True)
class StepsTaken:
    """The result of the solver."""

    x: Tensor  # (B, n)
    value: Tensor  # (B,)
    decrease: Tensor  # (B,)
    damping: Tensor  # (B,)


class KernelPass:
    """The people of a goal after their vertex pass; vertices are every STRIDE-th of the model."""

    def __init__(self, backend: Backend, goal: NaiveObjective, config: FitConfig = CONFIG) -> None:
        self.backend, self.goal, self.config = backend, goal, config
        self.betas = goal.beta_weight is not None
        self.batch = self._batch()
        self.tables = self._tables()
        self.moments = vertex_pass(backend, self.tables, self.batch, np.arange(len(goal.q)), self.betas)

    def _batch(self) -> FitBatch:
        goal, backend = self.goal, self.backend
        target = torch.zeros(len(goal.q), len(goal.model.asset.v_template), 3)
        target[:, ::STRIDE] = goal.target.float()
        rows = torch.zeros(len(target), 0, 3) if goal.joints is None else goal.joints.targets.float()
        located = backend.array(backend.upload(rows))
        batch = batch_of(backend, target, goal.q, goal.betas, located, self.config.solver.damping)
        if goal.free_translation:  # from anywhere
            batch.trans.copy_(torch.tensor(MOVED_BEFORE).expand(len(goal.q), 3))
        return batch

    def _tables(self) -> StageTables:
        goal, backend, whole = self.goal, self.backend, self.goal.model.asset
        part = next(p for p in STAGE_JOINTS if torch.equal(dofs_of(p), goal.dofs))
        relative = np.zeros(len(whole.v_template))
        relative[::STRIDE] = goal.om
        model = type(goal.model)(whole, dtype=torch.float64)
        skin = stage_skin(model, part, "all", STRIDE, backend.block, backend.device, None, relative)
        body, joints = body_tables(model, backend.device), goal.joints.joints if goal.joints else ()
        couplings = np.zeros((0, NUM_DOFS)) if goal.couplings is None else goal.couplings.numpy()
        return make_tables(backend, body, skin, part, goal.limits.numpy(), joints, couplings)

    def rules(self, steps: int, tolerance: float = 0.0) -> Any:
        goal = self.goal
        rules = make_rules(
            self.backend, self.config, steps, tolerance, goal.joints.weight if goal.joints else 0.0
        )
        rules.limit_weight, rules.beta_weight = goal.limit_weight, goal.beta_weight or 0.0
        rules.turn_weight, rules.move_weight = goal.turn_weight, goal.move_weight
        rules.free_betas, rules.free_root = int(self.betas), int(goal.free_translation)
        return rules

    def move_to(self, x: Tensor) -> None:
        """Set the variables to x (B, n); the moments stay those of the vertex pass."""
        q, betas = self.goal.parts(x.double())
        self.batch.q.copy_(q)
        self.batch.betas.copy_(betas)

    def variables(self) -> Tensor:
        """The current variables (B, n)."""
        x = self.backend.read(self.batch.q)[:, self.goal.dofs]
        return torch.cat((x, self.backend.read(self.batch.betas)), 1) if self.betas else x

    def evaluate(self, x: Tensor, exact: bool = False) -> Evaluation:
        """Group by group without a step: the solver leaves the evaluation in its second buffer."""
        rules, n, lanes = self.rules(0), x.shape[1], self.backend.lanes
        rules.exact = int(exact)
        self.move_to(x)
        parts: list[list[Tensor]] = []
        for rows in np.array_split(np.arange(len(x)), range(lanes, len(x), lanes)):
            solve(self.backend, self.tables, self.batch, self.moments, rows, rules)
            newton = self.backend.scratch(self.backend.kernels.damped_step.make_newton_scratch, 1, n)
            arrays = (newton.gradient, newton.hessian, newton.curvature)
            parts.append([self.backend.read(a)[1].movedim(-1, 0)[: len(rows)].double() for a in arrays])
        gradient, upper, curvature = (torch.cat(part) for part in zip(*parts, strict=True))
        value = self.backend.read(self.batch.status)[:, VALUE].double()
        matrix = symmetric(upper)
        return Evaluation(value, gradient, matrix, matrix + symmetric(curvature) if exact else None)

    def steps(self, x: Tensor, count: int, rules: Any = None, damping: Tensor | None = None) -> StepsTaken:
        """`count` steps from x (B, n); damping (B,): of the first step."""
        self.move_to(x)
        first = torch.full((len(x),), self.config.solver.damping) if damping is None else damping
        self.batch.status[:, DAMPING] = first.to(self.batch.status)
        rules = self.rules(count) if rules is None else rules
        solve(self.backend, self.tables, self.batch, self.moments, np.arange(len(x)), rules)
        status = self.backend.read(self.batch.status)
        return StepsTaken(self.variables(), *(status[:, k] for k in (VALUE, DECREASE, DAMPING)))


def symmetric(upper: Tensor) -> Tensor:
    """Matrices (..., n, n) of which the upper triangle is given."""
    return upper.triu() + upper.triu(1).mT
