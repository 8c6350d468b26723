"""The published way to refine, as a baseline: L-BFGS over a whole batch of people, by backpropagation.

The protocol of HSMR's SKELify (Xia et al., CVPR 2025): phase by phase, one optimiser with a strong-Wolfe line search
for the sum of all objectives. So all people of a batch take the same step length. Objective, phases, statuses and
measures are those of `Refiner`: only the optimisation differs. Angles are moved as plain numbers. Betas beyond their
bound count as if they were there. Swapped sides are not looked for: that would take the same time again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from skelfit.bodies.posed_keypoints import SkelKeypoints
from skelfit.config.fit_settings import FirstOrderConfig
from skelfit.fitting.baseline.first_order import minimise
from skelfit.fitting.refinement.keypoint_solver import ImageTargets, KeypointSolver
from skelfit.fitting.refinement.refinement_problem import VARIABLES, RefinementProblem, RefinementResult
from skelfit.fitting.refinement.refiner import Refiner
from tools.studies.naive_refinement import NaiveRefinement, naive_refinement

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from skelfit.bodies.model_set import ModelSet
    from skelfit.config.refine_settings import RefineConfig


class FirstOrderRefiner(Refiner):
    """Refines people by L-BFGS; arguments and results are those of `Refiner`."""

    def __init__(
        self,
        models: ModelSet,
        config: RefineConfig,
        iterations: int,
        batch: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """iterations: of L-BFGS in each phase; batch: people of one optimiser."""
        super().__init__(models, replace(config, keypoints=replace(config.keypoints, swap_gain=0.0)))
        self.backend = replace(self.backend, batch_size=batch)
        self.iterations, self.dtype = iterations, dtype
        self._bodies: dict[str, SkelKeypoints] = {}

    def run_batches(
        self, function: Callable[[int], RefinementResult], numbers: Sequence[int]
    ) -> list[RefinementResult]:
        """The batches one after the other, each with all threads: they are few and long."""
        return [function(number) for number in numbers]

    def solve(
        self, solver: KeypointSolver, x: Tensor, targets: ImageTargets, problem: RefinementProblem
    ) -> tuple[Tensor, Tensor]:
        """All phases from x (B, 59 or 60): variables and status, which the kernels measure where it ends."""
        goal, before = self._goal(x, problem), solver.judge(x, targets)
        moved = x.to(self.dtype)
        for phase in self.config.phases:
            moved = self._minimise(goal.of(phase), moved)
        x = moved.float()
        return x, torch.cat((before[:, :1], solver.judge(x, targets)), 1)

    def _minimise(self, goal: NaiveRefinement, x: Tensor) -> Tensor:
        count = goal.count
        held = x[:, count:]

        def value(moving: Tensor) -> Tensor:
            return goal.value(goal.bounded(torch.cat((moving, held), 1)))

        with torch.enable_grad():
            (moving,) = minimise(value, [x[:, :count]], self.iterations, FirstOrderConfig())
        return goal.bounded(torch.cat((moving, held), 1))

    def _goal(self, x: Tensor, problem: RefinementProblem) -> NaiveRefinement:
        gender = "female" if bool(problem.female[0]) else "male"
        if gender not in self._bodies:
            self._bodies[gender] = SkelKeypoints(self.models, gender, dtype=self.dtype)
        goal = naive_refinement(self._bodies[gender], self.config, problem.to(self.dtype))
        return replace(goal, start_depth=x[:, 2].to(self.dtype), zooms=x.shape[1] > VARIABLES)
