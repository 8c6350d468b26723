"""The published way to fit SKEL, as a baseline: L-BFGS, or Adam, over a whole batch of people by backpropagation.

The protocol of the SKEL aligner (Keller et al., TOG 2023) and of SKEL-CF's fitter (Li et al., 2025): stage by stage,
one optimiser for the sum of all people's objectives, and in L-BFGS one strong-Wolfe line search, so that one person's
step is everybody's and a person's result depends on the others in the batch. All angles but the root's start from
zero, as published. Stages, residuals, betas, the frozen root and the measured errors are those of `Fitter`, so that
the two differ in the optimisation alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from skelfit.body.skel import SkelModel, SkelShape
from skelfit.fit import objective
from skelfit.fit.fitter import Fitter, PairFitter
from skelfit.fit.joint_targets import JointGoal, with_joints
from skelfit.fit.moments import People, moments
from skelfit.fit.plans import Plan
from skelfit.fit.progress import Progress, Stage
from skelfit.fit.results import FitResult
from skelfit.fit.solver import levenberg_marquardt

if TYPE_CHECKING:
    from skelfit.body.models import ModelSet
    from skelfit.config import FirstOrderConfig, FitConfig

# Evaluations per iteration of L-BFGS: its line search mostly takes the first trial.
_EVALUATIONS = 1.25
_HISTORY = 100
# The sum of squared errors is in m^2, where torch's own tolerances would stop at once.
_TOLERANCE = 1e-14


class FirstOrderFitter(Fitter):
    """Fits SKEL to SMPL labels by a first-order method; takes and gives what `Fitter` does."""

    def __init__(
        self, models: ModelSet, config: FitConfig, first_order: FirstOrderConfig, device: str = "cpu"
    ) -> None:
        super().__init__(models, config, device)
        self.first_order = first_order

    def make_pair(self, smpl_gender: str, skel_gender: str) -> PairFitter:
        """What fits labels of one SMPL gender with one SKEL gender."""
        pair = _FirstOrderPair(self.models, smpl_gender, skel_gender, self.config, self.device)
        pair.first_order = self.first_order
        return pair

    def company(self, rows: Tensor) -> Tensor:
        """Nobody twice: a batch shares one optimiser, and its cost is that of its people."""
        return rows

    def run_batches(self, function: Callable[[int], FitResult], starts: Sequence[int]) -> list[FitResult]:
        """The batches one after the other, all threads on one: they are few, and long."""
        return [function(start) for start in starts]


class _FirstOrderPair(PairFitter):
    first_order: FirstOrderConfig

    def run_stage(self, stage: Stage, people: People, q: Tensor) -> Progress:
        """One stage of the baseline; who has converged is judged as `Fitter` judges it."""
        config, plan = self.config, stage.plans[-1]
        if self.first_order.start == "zero" and stage is self.stages[0]:
            q = torch.zeros_like(q)
        refine_betas = stage.config.refine_betas and self.smpl.gender != self.skel.gender
        with torch.enable_grad():
            wanted = self.joint_goal(stage, plan, people)
            goal = stage_objective(plan, self.skel, people, q, self.limits, config.limit_weight, wanted)
            x, betas = q[:, plan.dofs], people.betas
            if refine_betas:

                def with_betas(x: Tensor, betas: Tensor) -> Tensor:
                    return goal(x, self.skel.shape(betas)) + config.beta_weight * betas.square().sum(-1)

                x, betas = minimise(with_betas, [x, betas], stage.config.steps, self.first_order)
                people = People(betas, self.skel.frames(betas), people.target)
            else:
                shape = self.skel.shape(betas)
                (x,) = minimise(lambda x: goal(x, shape), [x], stage.config.steps, self.first_order)
        q = q.index_copy(1, plan.dofs, x)
        state = moments(plan, self.skel, people, q)
        state = with_joints(state, plan, people.frames, wanted)
        weight = config.limit_weight
        found = objective.stage_objective(plan, self.skel, people, q, state, self.limits, weight)
        solution = levenberg_marquardt(found, x, 0, config.max_angle_step, stage.move)
        return replace(
            Progress.at(people, q, config.solver.damping), value=solution.value, decrease=solution.decrease
        )


def stage_objective(
    plan: Plan,
    model: SkelModel,
    people: People,
    q: Tensor,
    limits: Tensor,
    limit_weight: float,
    wanted: JointGoal | None = None,
) -> Callable[[Tensor, SkelShape], Tensor]:
    """A stage's objective (B,) m^2 of its active DoFs (B, n) and the people's shape; for autograd.

    The other DoFs are held at q (B, 46). Mean squared vertex error of the stage's vertices, pose correctives
    included, the soft joint limits of `skelfit.fit.objective.PoseObjective`, and where joints are wanted.
    """
    low, high = limits[plan.dofs].unbind(-1)
    chosen = plan.vertices
    om = torch.cat([block.om for block in plan.blocks])
    target = people.target[chosen].permute(2, 0, 1)

    def evaluate(x: Tensor, shape: SkelShape) -> Tensor:
        posed = model.forward(shape, q.index_copy(1, plan.dofs, x))
        excess = torch.relu(x - high) + torch.relu(low - x)
        value = (posed.vertices[:, chosen] - target).square().sum(-1) @ om
        value = value + limit_weight * excess.square().sum(-1)
        return value if wanted is None else value + wanted.cost(posed.joints)

    return evaluate


def minimise(
    goal: Callable[..., Tensor], start: Sequence[Tensor], iterations: int, config: FirstOrderConfig
) -> list[Tensor]:
    """The variables, each (B, ...), that one optimiser finds for the sum of all people's goal(*variables), (B,)."""
    variables = [v.detach().clone().requires_grad_() for v in start]
    optimiser: torch.optim.Optimizer
    if config.method == "adam":
        optimiser, calls = torch.optim.Adam(variables, lr=config.learning_rate), iterations
    else:
        calls = 1  # which iterates by itself
        optimiser = torch.optim.LBFGS(
            variables,
            lr=config.learning_rate,
            max_iter=iterations,
            max_eval=round(_EVALUATIONS * iterations),
            tolerance_grad=_TOLERANCE,
            tolerance_change=_TOLERANCE,
            history_size=_HISTORY,
            line_search_fn="strong_wolfe",
        )

    def closure() -> Tensor:
        optimiser.zero_grad()
        total = goal(*variables).sum()
        total.backward()
        return total

    for _ in range(calls):
        optimiser.step(closure)
    return [v.detach() for v in variables]
