"""The published way to fit SKEL, as a baseline: L-BFGS or Adam over a whole batch of people, by backpropagation.

The protocol of the SKEL aligner (Keller et al., TOG 2023) and of SKEL-CF's fitter (Li et al., 2025): stage by stage,
one optimiser for the sum of all objectives. L-BFGS has one strong-Wolfe line search, so all people take the same step
length, and a result depends on the others in the batch. All angles but the root's start from zero, as published.
Stages, residuals, betas, the root and its prior, and the measured errors are those of `Fitter`: only the optimisation
differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from skelfit.bodies.skel import SkelModel
from skelfit.fitting.baseline.naive_objective import NaiveObjective
from skelfit.fitting.baseline.naive_step import promised_decrease
from skelfit.fitting.fit_result import FitResult
from skelfit.fitting.fitter import Fitter, PairFitter
from skelfit.fitting.passes import DECREASE, VALUE, FitBatch, new_status
from skelfit.fitting.schedule import FitStage
from skelfit.fitting.terms.spine_coupling import coupled, spine_couplings

if TYPE_CHECKING:
    from skelfit.bodies.model_set import ModelSet
    from skelfit.config.fit_settings import FirstOrderConfig, FitConfig
    from skelfit.fitting.sequences.frame_index import FrameIndex

# Evaluations per iteration of L-BFGS: its line search mostly takes the first trial.
_EVALUATIONS = 1.25
_HISTORY = 100
# For sums of squared errors in m^2, torch's default tolerances would stop at once.
_TOLERANCE = 1e-14
_JUDGED = 2  # people at a time: a Jacobian has a row for each coordinate of the skin


class FirstOrderFitter(Fitter):
    """Fits SKEL to SMPL labels by a first-order method; arguments and results are those of `Fitter`."""

    def __init__(
        self, models: ModelSet, config: FitConfig, first_order: FirstOrderConfig, device: str = "cpu"
    ) -> None:
        super().__init__(models, replace(config, temporal=None), device)  # published for single frames
        self.first_order = first_order

    def fit(
        self, smpl_gender: str, pose: Tensor, betas: Tensor, transl: Tensor, frames: FrameIndex | None = None
    ) -> FitResult:
        """Fit N people as `Fitter.fit` does. Raises ValueError for frames: the baseline has no term between them."""
        if frames is not None:
            raise ValueError("frames: expected None, as the baseline fits every frame by itself")
        return super().fit(smpl_gender, pose, betas, transl)

    def make_pair(self, smpl_gender: str, skel_gender: str) -> PairFitter:
        """The fitter of labels of one SMPL gender with one SKEL gender."""
        pair = _FirstOrderPair(self.models, smpl_gender, skel_gender, self.config, self.backend)
        pair.first_order = self.first_order
        return pair

    def run_batches(self, function: Callable[[int], FitResult], starts: Sequence[int]) -> list[FitResult]:
        """The batches one after the other, each with all threads: they are few and long."""
        return [function(start) for start in starts]


class _FirstOrderPair(PairFitter):
    first_order: FirstOrderConfig

    def run(self, batch: FitBatch, between: Callable[[], None]) -> Tensor:
        """All stages of the baseline; the status has what `Fitter` judges convergence by."""
        status = new_status(batch.count, self.config.solver.damping)
        for k, stage in enumerate(self.schedule.stages):
            if k:
                between()
            elif self.first_order.start == "zero":
                batch.q.zero_()
            goal = self.goal(stage, batch)
            with torch.enable_grad():
                (x,) = minimise(goal.value, [goal.start], stage.config.steps, self.first_order)
            q, betas = goal.parts(x)
            batch.q.copy_(q)
            batch.betas.copy_(betas)
            batch.trans.copy_(goal.translation(x))
            judged = [judge(goal.take(rows), x[rows]) for rows in torch.arange(len(x)).split(_JUDGED)]
            status[:, VALUE], status[:, DECREASE] = (torch.cat(e).cpu() for e in zip(*judged, strict=True))
        return status

    def goal(self, stage: FitStage, batch: FitBatch) -> NaiveObjective:
        """The objective of a stage, from the batch's q and betas; pose correctives follow the pose."""
        config, skin, backend = self.config, stage.fine.skin, self.backend
        device, vertices = backend.device, torch.from_numpy(skin.vertices)
        skins = backend.people_of(batch.target, batch.count)[:, vertices]
        joints = None
        if self.locator and stage.config.joint_weight:
            located = backend.read(batch.located).to(device)
            joints = self.locator.targets(located, stage.fine.tree.joints, stage.config.joint_weight)
        couplings = coupled(spine_couplings(config.spine), stage.fine.tree.dofs)
        last, root = stage is self.schedule.stages[-1], config.root_prior
        return NaiveObjective(
            model=SkelModel(self.skel.asset, device).with_vertices(vertices.to(device)),
            om=backend.read(skin.skin.om)[: len(vertices)].to(device),
            target=skins.to(device),
            dofs=torch.tensor(stage.fine.tree.dofs, device=device),
            q=batch.q.clone(),
            betas=batch.betas.clone(),
            limits=self.limits.to(device),
            limit_weight=config.limit_weight,
            beta_weight=config.beta_weight if stage.free_betas else None,
            joints=joints,
            couplings=torch.tensor(couplings, dtype=torch.float32, device=device),
            free_translation=last and config.root == "free",
            turn_weight=root.turn,
            move_weight=root.move,
        )


def judge(goal: NaiveObjective, x: Tensor) -> tuple[Tensor, Tensor]:
    """The objective (B,) m^2 at variables x (B, n), and the decrease that one more step promises."""
    state = goal.evaluate(x)
    return state.value, promised_decrease(state)


def minimise(
    goal: Callable[..., Tensor], start: Sequence[Tensor], iterations: int, config: FirstOrderConfig
) -> list[Tensor]:
    """Variables, each (B, ...), at which one optimiser ends for the sum of all people's goal(*variables), (B,)."""
    variables = [v.detach().clone().requires_grad_() for v in start]
    optimiser: torch.optim.Optimizer
    if config.method == "adam":
        optimiser, calls = torch.optim.Adam(variables, lr=config.learning_rate), iterations
    else:
        calls = 1  # it iterates by itself
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
