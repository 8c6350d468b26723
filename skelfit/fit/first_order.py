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

from skelfit.fit.fitter import Fitter, PairFitter
from skelfit.fit.progress import Progress, Stage
from skelfit.fit.reference import Reference
from skelfit.fit.reference_solver import promised_decrease
from skelfit.fit.results import FitResult

if TYPE_CHECKING:
    from skelfit.body.models import ModelSet
    from skelfit.config import FirstOrderConfig, FitConfig
    from skelfit.fit.moments import People

# Evaluations per iteration of L-BFGS: its line search mostly takes the first trial.
_EVALUATIONS = 1.25
_HISTORY = 100
# The sum of squared errors is in m^2, where torch's own tolerances would stop at once.
_TOLERANCE = 1e-14
# People whose matrices are made at a time: a Jacobian has a row for each coordinate of the skin.
_JUDGED = 2


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
        if self.first_order.start == "zero" and stage is self.stages[0]:
            q = torch.zeros_like(q)
        goal = self.goal(stage, people, q)
        with torch.enable_grad():
            (x,) = minimise(goal.value, [goal.start], stage.config.steps, self.first_order)
        q, betas = goal.parts(x)
        people = replace(people, betas=betas, frames=self.skel.frames(betas))
        judged = [judge(goal.take(rows), x[rows]) for rows in torch.arange(len(x)).split(_JUDGED)]
        value, decrease = (torch.cat(each) for each in zip(*judged, strict=True))
        at = Progress.at(people, q, self.config.solver.damping)
        return replace(at, value=value, decrease=decrease)

    def goal(self, stage: Stage, people: People, q: Tensor) -> Reference:
        """What a stage minimises, from q (B, 46): pose correctives follow the pose."""
        config, plan = self.config, stage.plans[-1]
        refine_betas = stage.config.refine_betas and self.smpl.gender != self.skel.gender
        return Reference(
            model=self.skel.with_vertices(plan.vertices),
            om=torch.cat([block.om for block in plan.blocks]),
            target=people.target[plan.vertices].permute(2, 0, 1),
            dofs=plan.dofs,
            q=q,
            betas=people.betas,
            limits=self.limits,
            limit_weight=config.limit_weight,
            beta_weight=config.beta_weight if refine_betas else None,
            joints=self.joint_goal(stage, plan, people),
        )


def judge(goal: Reference, x: Tensor) -> tuple[Tensor, Tensor]:
    """The objective (B,) m^2 at variables x (B, n), and by how much one step more would lower it."""
    found = goal.evaluate(x)
    return found.value, promised_decrease(found)


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
