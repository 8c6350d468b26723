"""From SMPL parameters to SKEL parameters: target, warm start, stages, errors.

A person is fitted in the canonical frame, with the global orientation and translation taken off: the root is frozen,
so it cannot influence the fit, and taking it off makes that exact. The root's own SKEL angles and translation are
put back at the end in closed form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial, reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from skelfit.body.ball import nearest_turn
from skelfit.body.dofs import NUM_DOFS, ROOT_DOFS, dof_limits, limits_middle
from skelfit.body.kinematics import Frames
from skelfit.body.lazy import roma
from skelfit.body.skel import SkelModel
from skelfit.body.smpl import SmplModel
from skelfit.fit.chart import joint_move, shaped_move
from skelfit.fit.joint_targets import JointGoal, make_goal, make_locator, with_joints
from skelfit.fit.moments import People, errors, moments, shaped_moments
from skelfit.fit.objective import shaped_objective, stage_objective
from skelfit.fit.other_starts import other_starts
from skelfit.fit.plans import Plan, make_plan
from skelfit.fit.progress import Progress, Stage
from skelfit.fit.regions import vertex_weights
from skelfit.fit.results import FitResult, better, map_results
from skelfit.fit.second_chance import retry_failed
from skelfit.fit.shape import rest_distance, rest_form
from skelfit.fit.solver import (
    Objective,
    Solution,
    levenberg_marquardt,
    whole_lanes,
)
from skelfit.fit.targets import make_target_plan, smpl_targets
from skelfit.fit.twins import other_branch, shoulder_columns
from skelfit.fit.warm_start import beta_map, body_angles, root_angles, root_translation

if TYPE_CHECKING:
    from skelfit.body.models import ModelSet
    from skelfit.config import FitConfig

# People per solver call.
_CPU_BATCH, _GPU_BATCH = 512, 16384
# (vertices, people) of a tile of the vertex pass: on a CPU it has to stay in the cache of one core.
_CPU_TILE, _GPU_TILE = (128, 128), (1024, 4096)
# PVE after the stages before the last is measured on every 8th vertex: it informs, it decides nothing.
PROGRESS_STRIDE = 8


class Fitter:
    """Fits SKEL to SMPL labels on one device. Tables are made at the first use of a pair of genders, then kept."""

    def __init__(self, models: ModelSet, config: FitConfig, device: str = "cpu") -> None:
        self.models, self.config, self.device = models, config, torch.device(device)
        self._pairs: dict[str, tuple[PairFitter, ...]] = {}

    def fit(self, smpl_gender: str, pose: Tensor, betas: Tensor, transl: Tensor) -> FitResult:
        """Fit N people: pose (N, 24, 3) rad axis-angle, betas (N, 10), transl (N, 3) m, as SMPL takes them.

        A gendered SMPL label is fitted with the SKEL of its gender, a neutral one with the configured gender; `best`
        fits both and takes, person by person, what `better` says.
        """
        if len(pose) == 0:  # the shapes of one person's result, without the person
            one = self.fit(
                smpl_gender, torch.zeros(1, 24, 3), torch.zeros(1, betas.shape[1]), torch.zeros(1, 3)
            )
            return map_results(lambda x: x[:0], one)
        pairs, size = self.prepare(smpl_gender), batch_size(self.config, self.device)

        def fit_from(start: int) -> FitResult:
            count = min(size, len(pose) - start)
            rows = self.company(torch.arange(start, start + count))
            labels = [x[rows].to(self.device, torch.float32) for x in (pose, betas, transl)]
            found = reduce(better, (pair.fit(*labels) for pair in pairs))
            return map_results(lambda x: x[:count], found)

        parts = self.run_batches(fit_from, range(0, len(pose), size))
        return map_results(lambda *x: torch.cat(x).cpu(), *parts)

    def compile(self) -> None:
        """Fit a made-up person: whatever a CPU has to compile is then on disk, for all processes."""
        self.fit("neutral", torch.zeros(1, 24, 3), torch.zeros(1, 10), torch.zeros(1, 3))

    def prepare(self, smpl_gender: str) -> tuple[PairFitter, ...]:
        """The tables for labels of a gender, one for each SKEL that is tried; made at the first call.

        By one thread: how a matrix product rounds may depend on how many share it, and people's answers with it.
        """
        pairs = self._pairs.get(smpl_gender)
        if pairs is None:
            genders, threads = self.config.skel_genders(smpl_gender), torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                pairs = self._pairs[smpl_gender] = tuple(self.make_pair(smpl_gender, g) for g in genders)
            finally:
                torch.set_num_threads(threads)
        return pairs

    def make_pair(self, smpl_gender: str, skel_gender: str) -> PairFitter:
        """What fits labels of one SMPL gender with one SKEL gender; another method of fitting overrides this."""
        return PairFitter(self.models, smpl_gender, skel_gender, self.config, self.device)

    def company(self, rows: Tensor) -> Tensor:
        """Whom to fit together so that each of the rows (K,) gets what they would get in any batch: they come first."""
        return whole_lanes(rows)

    def run_batches(self, function: Callable[[int], FitResult], starts: Sequence[int]) -> list[FitResult]:
        """The batches that start at these rows; on a CPU as many at once as torch has threads, each on one.

        Batches have nothing in common, so that threads over batches lose less than threads within one, and what a
        batch gives does not depend on how many there are.
        """
        if self.device.type != "cpu":
            return [function(start) for start in starts]
        threads = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                return list(pool.map(function, starts))
        finally:
            torch.set_num_threads(threads)  # of threads to come: this one's own never changed


def batch_size(config: FitConfig, device: torch.device) -> int:
    """People per solver call: enough to keep the device busy, few enough for a CPU's caches."""
    return config.batch or (_CPU_BATCH if device.type == "cpu" else _GPU_BATCH)


class PairFitter:
    """Fits labels of one SMPL gender with one SKEL gender; holds the tables of both."""

    def __init__(
        self, models: ModelSet, smpl_gender: str, skel_gender: str, config: FitConfig, device: torch.device
    ) -> None:
        self.config = config
        self.smpl = SmplModel(models.smpl_of(smpl_gender), device)
        self.skel = SkelModel(models.skel_of(skel_gender), device)
        self.beta_offset, self.beta_matrix = beta_map(self.smpl, self.skel)
        self.rest_form = rest_form(self.smpl, self.skel)
        self.dof_limits = dof_limits(config.limits)
        self.limits = torch.tensor(self.dof_limits, device=device, dtype=torch.float32)
        tile = _CPU_TILE if device.type == "cpu" else _GPU_TILE
        self.targets = make_target_plan(self.smpl, tile)
        self.middle = torch.tensor(limits_middle(self.dof_limits), device=device, dtype=torch.float32)
        self.locator = None
        if any(stage.joint_weight > 0 for stage in config.stages):
            self.locator = make_locator(self.skel, self.limits, config=config.locator)
        relative = vertex_weights(self.skel.asset, config.vertex_weights)
        self.stages = []
        for stage in config.stages:
            fine = make_plan(self.skel, stage.dofs, stage.vertices, stage.stride, tile, None, relative)
            coarse = fine
            if stage.refreshes > 1 and stage.coarse_stride not in (None, stage.stride):
                coarse = make_plan(
                    self.skel, stage.dofs, stage.vertices, stage.coarse_stride, tile, None, relative
                )
            move = joint_move(fine.joints, fine.dofs.tolist(), device, torch.float32, self.dof_limits)
            plans = (coarse,) * (stage.refreshes - 1) + (fine,)
            shoulders = shoulder_columns(fine.dofs.tolist())
            self.stages.append(Stage(stage, plans, move, config.limit_weight, shoulders))
        # For those who need longer: passes over all vertices, their betas held, so that being late changes the pose
        # alone. For those whom that does not help: some coarse passes without the limits first.
        last = self.stages[-1]
        held = replace(
            last.config, steps=config.restarts.steps, extra_refreshes=0, late_refreshes=0, refine_betas=False
        )
        self.again = replace(last, config=held, plans=last.plans[-1:])
        self.free = replace(self.again, plans=last.plans[:1], limit_weight=0.0)
        self.progress = make_plan(self.skel, "all", "all", PROGRESS_STRIDE, tile)
        self.whole = make_plan(self.skel, "all", "all", 1, tile, models.keypoints44)

    @torch.no_grad()
    def fit(self, pose: Tensor, betas: Tensor, transl: Tensor) -> FitResult:
        """Fit one batch; arguments as `Fitter.fit` takes them, on the device."""
        skel_betas = self.beta_offset + (betas[:, None] * self.beta_matrix).sum(-1)
        frames = self.skel.frames(skel_betas)
        local_rot = roma.rotvec_to_rotmat(pose)
        still = local_rot.clone()
        still[:, 0] = torch.eye(3, dtype=still.dtype, device=still.device)
        people = People(skel_betas, frames, smpl_targets(self.targets, still, betas))

        at, stage_pve = self.solve(people, self.start(frames, local_rot))
        people, q = at.people, at.q
        q = nearest_turn(q, self.middle)
        found = errors(self.whole, self.skel, people, q)
        stage_pve.append(found.pve)

        rot = local_rot[:, 0]
        frames = people.frames
        smpl_root, skel_root = self.smpl.root_joint(betas), frames.joints[:, 0]
        trans = root_translation(transl, rot, smpl_root, skel_root)

        def place(points: Tensor) -> Tensor:
            """From the canonical frame to the label's: turned about SKEL's root, then moved."""
            return (points - skel_root[:, None]) @ rot.mT + (skel_root + trans)[:, None]

        joints = self.skel.joints(frames, q).pos
        objective = found.mean_square + self._priors(q, people.betas)
        if goal := self.joint_goal(self.stages[-1], self.stages[-1].plans[-1], people):
            objective = objective + goal.cost(joints)
        rest = [rest_distance(self.rest_form, betas, b) for b in (skel_betas, people.betas)]
        q[:, list(ROOT_DOFS)] = root_angles(frames.frame[:, 0], rot)
        finite = q.isfinite().all(1) & trans.isfinite().all(1) & found.max_vertex.isfinite()
        return FitResult(
            poses=q,
            betas=people.betas,
            trans=trans,
            converged=finite & at.converged(self.config.passes),
            gain=at.decrease / at.value,
            finite=finite,
            pve_mm=1000 * found.pve,
            max_vertex_mm=1000 * found.max_vertex,
            stage_pve_mm=1000 * torch.stack(stage_pve, 1),
            objective=objective,
            female=torch.full_like(finite, self.skel.gender == "female"),
            betas_mm=1000 * torch.stack(rest, 1),
            joints=place(joints),
            keypoints3d=None if found.points is None else place(found.points),
        )

    def _priors(self, q: Tensor, betas: Tensor) -> Tensor:
        """What the objective adds to the mean squared vertex error, (B,) m^2."""
        low, high = self.limits.unbind(-1)
        excess = torch.relu(q - high) + torch.relu(low - q)
        priors = self.config.limit_weight * excess.square().sum(1)
        if self.smpl.gender != self.skel.gender:
            priors = priors + self.config.beta_weight * betas.square().sum(1)
        return priors

    def start(self, frames: Frames, local_rot: Tensor) -> Tensor:
        """Where people's angles (B, 46) start, from SMPL's local rotations (B, 24, 3, 3); root at zero."""
        return body_angles(frames.frame, local_rot, self.dof_limits)

    def solve(self, people: People, q: Tensor) -> tuple[Progress, list[Tensor]]:
        """All stages from q (B, 46), then whatever those need who have not converged; only they pay.

        Returns where people are, and the PVE (B,) m after each stage but the last, on some vertices.
        """
        at, pve = Progress.at(people, q, self.config.solver.damping), []
        for k, stage in enumerate(self.stages):
            at = self.run_stage(stage, at.people, at.q)
            if k + 1 < len(self.stages):
                pve.append(errors(self.progress, self.skel, at.people, at.q).pve)
        for _ in range(self.config.retries):
            late = whole_lanes((~at.converged(self.config.passes)).nonzero()[:, 0])
            if len(late) == 0:
                break
            at = at.put(late, self.run_stage(self.again, at.people.take(late), at.q[late]))
        if self.config.retries and not at.converged(self.config.passes).all():
            at = self._second_chance(at)
        return at, pve

    def _second_chance(self, first: Progress) -> Progress:
        """Those who have not converged, from other starts. An answer that converges is taken if it is no worse."""
        config = self.config

        def score(at: Progress, rows: Tensor | slice) -> Tensor:
            # Below zero where converged: that is what is wanted, and of two of a kind the lower value.
            good = at.converged(config.passes) & (at.value <= config.restarts.no_worse * first.value[rows])
            return at.value - good.to(at.value.dtype)

        def answer(at: Progress) -> Tensor:
            return torch.cat((at.q, at.value[:, None], at.decrease[:, None]), 1)

        def attempt(rows: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            lanes = whole_lanes(torch.arange(len(rows), device=rows.device))
            at = self.run_stage(self.free, first.people.take(rows[lanes]), x[lanes, :NUM_DOFS])
            for _ in range(config.restarts.passes):
                at = self.run_stage(self.again, at.people, at.q)
            at = at.take(torch.arange(len(rows), device=rows.device))
            return answer(at), score(at, rows)

        hopeless = ~answer(first).isfinite().all(1)
        start = torch.where(hopeless, -torch.inf, score(first, slice(None)))
        found = retry_failed(attempt, answer(first), start, 0.0, other_starts(config.restarts))
        return replace(
            first, q=found.x[:, :NUM_DOFS], value=found.x[:, NUM_DOFS], decrease=found.x[:, NUM_DOFS + 1]
        )

    def run_stage(self, stage: Stage, people: People, q: Tensor) -> Progress:
        """One stage: its steps shared out over its vertex passes.

        Those whom the coarse passes still move get more of them before the last pass: only they pay. So the last one
        starts where the coarse vertices have their minimum, wherever a person came from. With late refreshes, all but
        the first passes use the whole Hessian, which finds the floor of a valley (from afar it misleads), shoulders are
        tried from both their Euler branches, and those still on their way get more of the last pass.
        """
        total, passes = stage.config.steps, len(stage.plans)
        steps = [total * (k + 1) // passes - total * k // passes for k in range(passes)]
        at, thresholds = Progress.at(people, q, self.config.solver.damping), self.config.passes
        betas_free = stage.config.refine_betas and self.smpl.gender != self.skel.gender
        for plan, few in zip(stage.plans[:-1], steps[:-1], strict=True):
            at = self.run_pass(stage, plan, few, at, betas_free)
        exact = stage.config.late_refreshes > 0
        for _ in range(stage.config.extra_refreshes):
            on_their_way = (at.moved > thresholds.moving) | (at.decrease > thresholds.gaining * at.value)
            rows = whole_lanes(on_their_way.nonzero()[:, 0])
            if len(rows) == 0:
                break
            further = self.run_pass(stage, stage.plans[0], steps[0], at.take(rows), betas_free, exact)
            at = at.put(rows, further)
        # Ten betas are known from few vertices: the last pass is about the pose, if it is not the only one.
        last = stage.plans[-1]
        at = self.run_pass(stage, last, steps[-1], at, betas_free and passes == 1, exact, twins=exact)
        for _ in range(stage.config.late_refreshes):
            late = (at.moved > thresholds.late_moving) | (at.decrease > thresholds.late_gaining * at.value)
            rows = whole_lanes(late.nonzero()[:, 0])
            if len(rows) == 0:
                break
            at = at.put(rows, self.run_pass(stage, last, steps[-1], at.take(rows), False, exact))
        return at

    def run_pass(
        self,
        stage: Stage,
        plan: Plan,
        steps: int,
        at: Progress,
        betas_free: bool,
        exact: bool = False,
        twins: bool = False,
    ) -> Progress:
        """A vertex pass and some steps, of the angles alone or of angles and betas together.

        exact: of the angles alone, with the whole Hessian; twins: and shoulders from their other Euler branch too.
        """
        config, people, q, tolerance = self.config, at.people, at.q, stage.config.tolerance
        x, wanted = q[:, plan.dofs], self.joint_goal(stage, plan, people)
        if betas_free:
            state, levers = shaped_moments(plan, self.skel, people, q)
            state = with_joints(state, plan, people.frames, wanted)
            goal = shaped_objective(
                plan, self.skel, people, q, state, levers, self.limits, stage.limit_weight, config.beta_weight
            )
            start = torch.cat((x, people.betas), 1)
            move = shaped_move(stage.move, len(plan.dofs), config.solver.max_beta_step)
        else:
            state = with_joints(moments(plan, self.skel, people, q), plan, people.frames, wanted)
            goal = stage_objective(plan, self.skel, people, q, state, self.limits, stage.limit_weight, exact)
            start, move = x, stage.move

        solve = partial(levenberg_marquardt, config=config.solver)

        def again(goal: Objective, start: Tensor) -> Solution:
            return solve(goal, start, config.branches.steps, config.max_angle_step, move, tolerance)

        found = solve(goal, start, steps, config.max_angle_step, move, tolerance, at.damping)
        for columns in stage.shoulders if twins else ():
            found = other_branch(
                goal, found, columns, self.limits[plan.dofs[columns]], config.branches.beyond, again
            )
        angles, betas = found.x[:, : x.shape[1]], found.x[:, x.shape[1] :]
        if betas_free:
            people = People(betas, self.skel.frames(betas), people.target)
        return Progress(
            people=people,
            q=q.index_copy(1, plan.dofs, angles),
            # A new pass is a new chance, but for those whose steps were all refused: they would be refused again.
            damping=torch.where(
                found.accepted > 0, found.damping.clamp(max=config.solver.damping), found.damping
            ),
            moved=(angles - x).abs().amax(1),
            value=found.value,
            decrease=found.decrease,
        )

    def joint_goal(self, stage: Stage, plan: Plan, people: People) -> JointGoal | None:
        """Where a stage wants people's joints, if anywhere."""
        weight = stage.config.joint_weight
        return make_goal(self.locator, plan, people.target, weight) if self.locator and weight else None
