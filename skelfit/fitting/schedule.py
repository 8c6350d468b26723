"""The schedule of a fit: stages and their passes, and more passes for people who need them.

1. A stage divides its steps among its vertex passes. All but the last are over coarse vertices. People who still move
   get extra coarse passes, so that the last pass starts at the coarse vertices' minimum.
2. With late refreshes, all but the first passes use the whole Hessian, which leads to the floor of a valley but
   misleads far from it. Shoulders are tried at three points of the valley of their Euler pole. People who still move
   get more of the last pass.
3. People who have not converged get passes over all vertices. Betas are held, so that lateness changes the pose alone.
4. People who still have not converged get restarts, which begin with a coarse pass without the joint limits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skelfit.bodies.dofs import NUM_DOFS
from skelfit.fitting.backends.backend import Backend
from skelfit.fitting.backends.skin_tables import SkinPlan
from skelfit.fitting.passes import (
    DAMPING,
    DECREASE,
    MOVED,
    VALUE,
    FitBatch,
    PassMoments,
    Rows,
    StageTables,
    converged,
    make_rules,
    make_tables,
    new_status,
    run_pass,
    vertex_pass,
)
from skelfit.fitting.start.restarts import retry_failed, skel_restarts
from skelfit.fitting.terms.spine_coupling import spine_couplings

if TYPE_CHECKING:
    from skelfit.config.fit_settings import FitConfig, StageConfig

ROOT = 0  # of SKEL's joints
_ANSWER = NUM_DOFS + 3  # numbers of an answer: angles and translation, then the status
# (body part of the DoFs, body part of the vertices, stride) -> the tables of those vertices
MakeSkin = Callable[[str, str, int], SkinPlan]


@dataclass(frozen=True)
class FitStage:
    """A stage of the fit and its tables."""

    config: StageConfig
    coarse: StageTables  # of all vertex passes but the last
    fine: StageTables
    limit_weight: float  # m^2 per rad^2 beyond a joint limit
    free_betas: bool


@dataclass(frozen=True)
class Schedule:
    """All stages of a fit, for one pair of bodies."""

    backend: Backend
    config: FitConfig
    stages: tuple[FitStage, ...]

    @property
    def last_joints(self) -> tuple[int, ...]:
        """The joints that the last stage moves."""
        return self.stages[-1].fine.tree.joints

    @property
    def frees_betas(self) -> bool:
        """Whether betas are variables of any stage."""
        return any(stage.free_betas for stage in self.stages)

    def with_betas_held(self) -> Schedule:
        """The same stages with fixed betas."""
        return replace(self, stages=tuple(replace(stage, free_betas=False) for stage in self.stages))

    def converged(self, status: Tensor) -> Tensor:
        """Who has converged, (B,), of a status (B, 6)."""
        return converged(status, self.config.passes)

    def run(
        self, batch: FitBatch, between: Callable[[], None], keep: Callable[[PassMoments], None] | None = None
    ) -> Tensor:
        """All stages, with a call between them, then more passes for people who have not converged; returns the status.

        keep: is called with the moments of each pass over the fine vertices of the last stage. The last moments of a
        person are those at its `origin`.
        """
        for k, stage in enumerate(self.stages):
            if k:
                between()
            moments = self._run_stage(stage, batch)
        status = self.backend.read(batch.status)
        late = _rows(~self.converged(status))
        if self.config.retries and len(late):
            status = self._run_longer(batch, late)
            if keep is not None:  # they have moved since
                moments.append(vertex_pass(self.backend, self.stages[-1].fine, batch, late, False))
                index = torch.from_numpy(late).to(batch.q.device)
                batch.origin[index] = batch.q[index]
        if keep is not None:
            for one in moments:
                keep(one)
        return status

    def rules(self, stage: FitStage, steps: int, free_betas: bool, exact: bool) -> Any:
        """The solver's rules of a pass; exact: with the whole Hessian of the DoFs, and the model of that of betas."""
        rules = make_rules(
            self.backend, self.config, steps, stage.config.tolerance, stage.config.joint_weight
        )
        rules.limit_weight = stage.limit_weight
        if ROOT in stage.fine.tree.joints:
            rules.turn_weight = self.config.root_prior.turn
            if self.config.root == "free":
                rules.free_root, rules.move_weight = 1, self.config.root_prior.move
        rules.free_betas, rules.exact = int(free_betas), int(exact)
        return rules

    def _run_stage(self, stage: FitStage, batch: FitBatch) -> list[PassMoments]:
        """Returns the moments of the passes over the fine vertices."""
        config, thresholds = stage.config, self.config.passes
        total, passes = config.steps, config.refreshes
        steps = [total * (k + 1) // passes - total * k // passes for k in range(passes)]
        all_rows = np.arange(batch.count)
        batch.status.copy_(new_status(batch.count, self.config.solver.damping))
        for count in steps[:-1]:
            rules = self.rules(stage, count, stage.free_betas, False)
            run_pass(self.backend, stage.coarse, batch, all_rows, rules)
        exact = config.late_refreshes > 0
        branch_steps = self.config.branches.steps if exact else 0
        for k in range(config.extra_refreshes):
            rows = self._unsettled(batch, thresholds.moving, thresholds.gaining)
            if len(rows) == 0:
                break
            rules = self.rules(stage, steps[0], stage.free_betas, exact)
            # Betas depend on the valley of a shoulder, so it is chosen before they are fixed.
            choosing = stage.free_betas and k == self.config.branches.choosing
            run_pass(self.backend, stage.coarse, batch, rows, rules, branch_steps if choosing else 0)
        # Coarse vertices determine ten betas well enough: the last pass moves the pose alone, if there are others.
        rules = self.rules(stage, steps[-1], stage.free_betas and passes == 1, exact)
        moments = [run_pass(self.backend, stage.fine, batch, all_rows, rules, branch_steps)]
        for _ in range(config.late_refreshes):
            rows = self._unsettled(batch, thresholds.late_moving, thresholds.late_gaining)
            if len(rows) == 0:
                break
            rules = self.rules(stage, steps[-1], False, exact)
            moments.append(run_pass(self.backend, stage.fine, batch, rows, rules))
        return moments

    def _run_longer(self, batch: FitBatch, late: Rows) -> Tensor:
        """More passes, then restarts, for people who have not converged; returns the status of all."""
        stage = self._retry_stage()
        for _ in range(self.config.retries):
            self._retry(stage, batch, late)
            status = self.backend.read(batch.status)
            late = _rows(~self.converged(status))
            if len(late) == 0:
                return status
        return self._run_restarts(stage, batch, status)

    def _unsettled(self, batch: FitBatch, moving: float, gaining: float) -> Rows:
        """Rows of people that the last pass moved, or that one more step would help."""
        status = self.backend.read(batch.status)
        return _rows((status[:, MOVED] > moving) | (status[:, DECREASE] > gaining * status[:, VALUE]))

    def _retry_stage(self) -> FitStage:
        """The last stage as one pass over all vertices, with fixed betas."""
        last = self.stages[-1]
        config = replace(last.config, steps=self.config.restarts.steps)
        return replace(last, config=config, free_betas=False)

    def _retry(self, stage: FitStage, batch: FitBatch, rows: Rows) -> None:
        self._reset_damping(batch, rows)
        run_pass(self.backend, stage.fine, batch, rows, self.rules(stage, stage.config.steps, False, False))

    def _reset_damping(self, batch: FitBatch, rows: Rows) -> None:
        index = torch.from_numpy(rows).to(batch.status.device)
        batch.status[index, DAMPING] = self.config.solver.damping

    def _run_restarts(self, stage: FitStage, batch: FitBatch, first: Tensor) -> Tensor:
        """Restarts of people who have not converged; first (B, 6) is the status so far. Returns the status.

        A converged answer is taken if its objective is no worse than `no_worse` times the first one.
        """
        backend, config = self.backend, self.config
        limit = config.restarts.no_worse * first[:, VALUE]
        unlimited = replace(stage, limit_weight=0.0)

        def score(status: Tensor, rows: Tensor | slice) -> Tensor:
            # Below zero for converged answers: they win, and among equals the lower value does.
            good = self.converged(status) & (status[:, VALUE] <= limit[rows])
            return status[:, VALUE] - good.to(status.dtype)

        def write(x: Tensor, index: Tensor) -> None:
            batch.q[index] = x[:, :NUM_DOFS].to(batch.q.device)
            batch.trans[index] = x[:, NUM_DOFS:_ANSWER].to(batch.q.device)

        def attempt(rows: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            write(x, rows.to(batch.q.device))
            self._reset_damping(batch, rows.numpy())
            rules = self.rules(unlimited, stage.config.steps, False, False)
            run_pass(backend, stage.coarse, batch, rows.numpy(), rules)
            for _ in range(config.restarts.passes):
                self._retry(stage, batch, rows.numpy())
            answers = backend.read(torch.cat((batch.q, batch.trans, batch.status), 1))[rows]
            return answers, score(answers[:, _ANSWER:], rows)

        answers = torch.cat((*backend.read_all(batch.q, batch.trans), first), 1)
        needed = answers[:, [*range(_ANSWER), _ANSWER + VALUE, _ANSWER + DECREASE]]
        finite = needed.isfinite().all(1)
        scores = torch.where(
            finite, score(first, slice(None)), -torch.inf
        )  # no restart for what is not finite
        best = retry_failed(attempt, answers, scores, 0.0, skel_restarts(config.restarts)).x
        write(best, torch.arange(len(best), device=batch.q.device))
        return best[:, _ANSWER:]


def _rows(chosen: Tensor) -> NDArray[np.int64]:
    return np.flatnonzero(chosen.numpy())


def make_schedule(
    backend: Backend,
    config: FitConfig,
    body: Any,
    make_skin: MakeSkin,
    limits: NDArray[Any],
    located: tuple[int, ...],
    free_betas: bool,
) -> Schedule:
    """The tables of all stages; limits (46, 2) rad; located: SKEL joints with targets.

    free_betas: betas are variables of the stages that refine them. The last stage moves the root unless it is frozen.
    """
    couplings = spine_couplings(config.spine)

    def tables(part: str, stage: StageConfig, stride: int) -> StageTables:
        skin = make_skin(part, stage.vertices, stride)
        return make_tables(backend, body, skin, part, limits, located, couplings)

    stages = []
    for stage in config.stages:
        moves_root = config.root != "frozen" and stage is config.stages[-1]
        part = "with_root" if moves_root else stage.dofs
        fine = coarse = tables(part, stage, stage.stride)
        if stage.refreshes > 1 and stage.coarse_stride not in (None, stage.stride):
            coarse = tables(part, stage, int(stage.coarse_stride or stage.stride))
        stages.append(FitStage(stage, coarse, fine, config.limit_weight, stage.refine_betas and free_betas))
    return Schedule(backend, config, tuple(stages))
