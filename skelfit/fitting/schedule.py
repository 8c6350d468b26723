"""The schedule of a fit: stages and their passes, and what people get who need longer.

A stage's steps are shared out over its vertex passes. People that the coarse passes still move get more of them before
the last pass: only they pay. So the last one starts where the coarse vertices have their minimum, wherever a person
came from. With late refreshes, all but the first passes use the whole Hessian, which finds the floor of a valley (from
afar it misleads), shoulders are tried at three places of the valley of their Euler pole, and those still on their way
get more of the last pass. Who has not converged then gets passes over all vertices, betas held, so that being late
changes the pose alone; and where that does not help, other starts, beginning with coarse passes without the joint
limits.
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
    Batch,
    Moments,
    Rows,
    Tables,
    converged,
    make_rules,
    make_tables,
    new_status,
    run_pass,
    vertex_pass,
)
from skelfit.fitting.start.restarts import other_starts
from skelfit.fitting.start.retry import retry_failed
from skelfit.fitting.terms.spine_coupling import spine_couplings

if TYPE_CHECKING:
    from skelfit.config.fit_settings import FitConfig, StageConfig

ROOT = 0  # of SKEL's joints
_PLACE = NUM_DOFS + 3  # numbers that say where a person is: angles and translation
# The tables of some vertices for the DoFs of a body part: (DoFs, vertices, stride).
MakeSkin = Callable[[str, str, int], SkinPlan]


@dataclass(frozen=True)
class Stage:
    """A stage of the fit and its tables."""

    config: StageConfig
    coarse: Tables  # of its vertex passes but the last
    fine: Tables
    limit_weight: float  # m^2 per rad^2 beyond a joint limit
    free_betas: bool


@dataclass(frozen=True)
class Schedule:
    """All stages of a fit, for one pair of bodies."""

    backend: Backend
    config: FitConfig
    stages: tuple[Stage, ...]

    @property
    def last_joints(self) -> tuple[int, ...]:
        """The joints that the last stage moves."""
        return self.stages[-1].fine.tree.joints

    @property
    def frees_betas(self) -> bool:
        """Whether betas are variables of some stage."""
        return any(stage.free_betas for stage in self.stages)

    def with_betas_held(self) -> Schedule:
        """The same stages with betas that stay as they are."""
        return replace(self, stages=tuple(replace(stage, free_betas=False) for stage in self.stages))

    def converged(self, status: Tensor) -> Tensor:
        """Who has."""
        return converged(status, self.config.passes)

    def run(
        self, batch: Batch, between: Callable[[], None], keep: Callable[[Moments], None] | None = None
    ) -> Tensor:
        """All stages, then whatever those need who have not converged; between stages a call. Returns the status.

        keep: is given what passes over all vertices of the last stage find, whoever takes part in them; the last ones
        that saw a person are of its `origin`.
        """
        for k, stage in enumerate(self.stages):
            if k:
                between()
            found = self._run_stage(stage, batch)
        status = self.backend.read(batch.status)
        late = _rows(~self.converged(status))
        if self.config.retries and len(late):
            status = self._run_longer(batch, late)
            if keep is not None:  # they have moved on, maybe back from another start
                found.append(vertex_pass(self.backend, self.stages[-1].fine, batch, late, False))
                index = torch.from_numpy(late).to(batch.q.device)
                batch.origin[index] = batch.q[index]
        if keep is not None:
            for moments in found:
                keep(moments)
        return status

    def rules(self, stage: Stage, steps: int, free_betas: bool, exact: bool) -> Any:
        """How a pass of a stage steps; exact: with the whole Hessian of the DoFs; of free betas, its model."""
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

    def _run_stage(self, stage: Stage, batch: Batch) -> list[Moments]:
        """Returns what the passes over the fine vertices found."""
        config, thresholds = stage.config, self.config.passes
        total, passes = config.steps, config.refreshes
        steps = [total * (k + 1) // passes - total * k // passes for k in range(passes)]
        everybody = np.arange(batch.count)
        batch.status.copy_(new_status(batch.count, self.config.solver.damping))
        for few in steps[:-1]:
            run_pass(
                self.backend, stage.coarse, batch, everybody, self.rules(stage, few, stage.free_betas, False)
            )
        exact = config.late_refreshes > 0
        tries = self.config.branches.steps if exact else 0
        for k in range(config.extra_refreshes):
            rows = self._unsettled(batch, thresholds.moving, thresholds.gaining)
            if len(rows) == 0:
                break
            rules = self.rules(stage, steps[0], stage.free_betas, exact)
            # Betas follow the valley of a shoulder, so that it is chosen before they are held.
            choosing = stage.free_betas and k == self.config.branches.choosing
            run_pass(self.backend, stage.coarse, batch, rows, rules, tries if choosing else 0)
        # Ten betas are known from few vertices: the last pass is about the pose, if it is not the only one.
        rules = self.rules(stage, steps[-1], stage.free_betas and passes == 1, exact)
        found = [run_pass(self.backend, stage.fine, batch, everybody, rules, tries)]
        for _ in range(config.late_refreshes):
            rows = self._unsettled(batch, thresholds.late_moving, thresholds.late_gaining)
            if len(rows) == 0:
                break
            rules = self.rules(stage, steps[-1], False, exact)
            found.append(run_pass(self.backend, stage.fine, batch, rows, rules))
        return found

    def _run_longer(self, batch: Batch, late: Rows) -> Tensor:
        """What those get who have not converged; returns the status of all."""
        again = self._again()
        for _ in range(self.config.retries):
            self._run_again(again, batch, late)
            status = self.backend.read(batch.status)
            late = _rows(~self.converged(status))
            if len(late) == 0:
                return status
        return self._second_chance(again, batch, status)

    def _unsettled(self, batch: Batch, moving: float, gaining: float) -> Rows:
        """People that the last pass moved, or that a step would still help."""
        status = self.backend.read(batch.status)
        return _rows((status[:, MOVED] > moving) | (status[:, DECREASE] > gaining * status[:, VALUE]))

    def _again(self) -> Stage:
        """The last stage for those who need longer: one pass over all vertices, betas held."""
        last = self.stages[-1]
        config = replace(last.config, steps=self.config.restarts.steps)
        return replace(last, config=config, free_betas=False)

    def _run_again(self, again: Stage, batch: Batch, rows: Rows) -> None:
        self._restart(batch, rows)
        run_pass(self.backend, again.fine, batch, rows, self.rules(again, again.config.steps, False, False))

    def _restart(self, batch: Batch, rows: Rows) -> None:
        """Damping as at the start, for some people."""
        index = torch.from_numpy(rows).to(batch.status.device)
        batch.status[index, DAMPING] = self.config.solver.damping

    def _second_chance(self, again: Stage, batch: Batch, first: Tensor) -> Tensor:
        """Those who have not converged, from other starts. An answer that converges is taken if it is no worse.

        A start depends on nothing but the person, and each is tried on those who still fail by then.
        """
        backend, config = self.backend, self.config
        limit = config.restarts.no_worse * first[:, VALUE]
        unlimited = replace(again, limit_weight=0.0)

        def score(status: Tensor, rows: Tensor | slice) -> Tensor:
            # Below zero where converged: that is what is wanted, and of two of a kind the lower value.
            good = self.converged(status) & (status[:, VALUE] <= limit[rows])
            return status[:, VALUE] - good.to(status.dtype)

        def put(x: Tensor, index: Tensor) -> None:
            batch.q[index] = x[:, :NUM_DOFS].to(batch.q.device)
            batch.trans[index] = x[:, NUM_DOFS:_PLACE].to(batch.q.device)

        def attempt(rows: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            few, index = rows.numpy(), rows.to(batch.q.device)
            put(x, index)
            self._restart(batch, few)
            rules = self.rules(unlimited, again.config.steps, False, False)
            run_pass(backend, again.coarse, batch, few, rules)
            for _ in range(config.restarts.passes):
                self._run_again(again, batch, few)
            found = backend.read(torch.cat((batch.q, batch.trans, batch.status), 1))[rows]
            return found, score(found[:, _PLACE:], rows)

        answers = torch.cat((*backend.read_all(batch.q, batch.trans), first), 1)
        sought = answers[:, [*range(_PLACE), _PLACE + VALUE, _PLACE + DECREASE]]
        hopeless = ~sought.isfinite().all(1)
        start = torch.where(hopeless, -torch.inf, score(first, slice(None)))
        best = retry_failed(attempt, answers, start, 0.0, other_starts(config.restarts)).x
        put(best, torch.arange(len(best), device=batch.q.device))
        return best[:, _PLACE:]


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
    """The tables of all stages; limits (46, 2) rad; located: joints drawn to places; free_betas: where a stage says.

    The last stage moves the root too, where that is not frozen.
    """
    couplings = spine_couplings(config.spine)

    def tables(part: str, stage: StageConfig, stride: int) -> Tables:
        skin = make_skin(part, stage.vertices, stride)
        return make_tables(backend, body, skin, part, limits, located, couplings)

    stages = []
    for stage in config.stages:
        moves_root = config.root != "frozen" and stage is config.stages[-1]
        part = "with_root" if moves_root else stage.dofs
        fine = coarse = tables(part, stage, stage.stride)
        if stage.refreshes > 1 and stage.coarse_stride not in (None, stage.stride):
            coarse = tables(part, stage, int(stage.coarse_stride or stage.stride))
        free = stage.refine_betas and free_betas
        stages.append(Stage(stage, coarse, fine, config.limit_weight, free))
    return Schedule(backend, config, tuple(stages))
