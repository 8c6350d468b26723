"""Refines people: who can be refined, the solver, and what became of each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from skelfit.bodies.keypoint_names import MIRRORED_KEYPOINTS
from skelfit.bodies.posed_keypoints import SkelKeypoints
from skelfit.fitting.baseline.naive_refinement import (
    NaiveRefinement,
    fitted_confidence,
    naive_refine,
    naive_refinement,
    parameters_of,
    variables_of,
)
from skelfit.fitting.refinement.refinement_problem import (
    BodyParameters,
    RefinementProblem,
    RefinementResult,
    RefinementStatus,
)

if TYPE_CHECKING:
    from skelfit.bodies.model_set import ModelSet
    from skelfit.config.refine_settings import RefineConfig

_FLOAT = torch.float64


class Refiner:
    """Refines people of both genders on one device."""

    def __init__(self, models: ModelSet, config: RefineConfig, device: str = "cpu") -> None:
        self.models, self.config, self.device = models, config, device
        self._bodies: dict[str, SkelKeypoints] = {}

    def refine(self, problem: RefinementProblem) -> RefinementResult:
        """Refine N people; see `RefinementProblem`. Nothing couples two people."""
        status = input_status(problem, self.config)
        count = len(problem)
        pair = torch.full((count, 2), torch.nan)
        objective, px, share = pair.clone(), pair.clone(), pair.clone()
        gain = torch.full((count,), torch.nan)
        angles, betas, transl = (x.clone() for x in vars(problem.start).values())
        for female in (False, True):
            rows = ((problem.female == female) & (status == RefinementStatus.REFINED)).nonzero()[:, 0]
            if len(rows) == 0:
                continue
            goal = self._goal(problem.take(rows), female)
            x = variables_of(goal.problem.start)
            status[rows] = self._start_status(goal, x)
            good = status[rows] == RefinementStatus.REFINED
            px[rows, 0], share[rows, 0] = _mean_distance(goal, x)
            rows, goal, x = rows[good], goal.take(good.nonzero()[:, 0]), x[good]
            if len(rows) == 0:
                continue
            after, decrease = naive_refine(goal, x)
            values = torch.stack((goal.value(x), goal.value(after)), 1)
            kept = ~(values[:, 1] < values[:, 0])
            after = torch.where(kept[:, None], x, after)
            status[rows[kept]] = RefinementStatus.UNCHANGED
            values[:, 1] = torch.where(kept, values[:, 0], values[:, 1])
            objective[rows], gain[rows] = values.float(), (decrease / values[:, 1]).float()
            px[rows, 1], share[rows, 1] = _mean_distance(goal, after)
            people = parameters_of(after)
            moved = rows[~kept]
            for out, new in ((angles, people.angles), (betas, people.betas), (transl, people.transl)):
                out[moved] = new[~kept].to(out)
        confidence = torch.nan_to_num(fitted_confidence(problem.keypoints2d, self.config))
        return RefinementResult(
            refined=BodyParameters(angles, betas, transl),
            status=status,
            objective=objective,
            reprojection_px=px,
            reprojection=share,
            seen=(confidence > 0).sum(1),
            gain=gain,
        )

    def _goal(self, problem: RefinementProblem, female: bool) -> NaiveRefinement:
        gender = "female" if female else "male"
        if gender not in self._bodies:
            self._bodies[gender] = SkelKeypoints(self.models, gender, self.device, _FLOAT)
        anchor = problem.anchored.to(self.device, _FLOAT)
        problem = RefinementProblem(
            problem.start.to(self.device, _FLOAT),
            problem.female,
            problem.keypoints2d.to(self.device, _FLOAT),
            problem.cam_int.to(self.device, _FLOAT),
            anchor,
        )
        return naive_refinement(self._bodies[gender], self.config, problem)

    def _start_status(self, goal: NaiveRefinement, x: Tensor) -> Tensor:
        """The status (B,) of people at their start."""
        config, keypoints = self.config.keypoints, goal.problem.keypoints2d
        seen = fitted_confidence(keypoints, self.config) > 0
        points = goal.body(goal.problem.start.angles, goal.problem.start.betas) + x[:, None, :3]
        behind = (seen & (points[..., 2] < self.config.nearest)).any(1)
        order = list(MIRRORED_KEYPOINTS)
        mirrored = torch.cat((keypoints[:, order, :2], keypoints[..., 2:]), 2)
        both = seen & seen[:, order]
        other = NaiveRefinement(
            goal.body,
            goal.config,
            goal.phase,
            RefinementProblem(goal.problem.start, goal.problem.female, mirrored, goal.problem.cam_int),
            goal.unit,
            goal.start_depth,
        )
        as_is, exchanged = (
            torch.where(both, g.pixels(x), 0.0).sum(1) / (both.sum(1) * goal.unit) for g in (goal, other)
        )
        swapped = (exchanged < config.swap_gain * as_is) & (as_is > config.swap_least)
        status = torch.where(swapped, RefinementStatus.SWAPPED, RefinementStatus.REFINED)
        return torch.where(behind, RefinementStatus.BEHIND_CAMERA, status)


def _mean_distance(goal: NaiveRefinement, x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean distance (B,) of seen keypoints in px, and in shoulder-hip lengths."""
    seen = fitted_confidence(goal.problem.keypoints2d, goal.config) > 0
    px = torch.where(seen, goal.pixels(x), 0.0).sum(1) / seen.sum(1)
    return px.float(), (px / goal.unit).float()


def input_status(problem: RefinementProblem, config: RefineConfig) -> Tensor:
    """The status (N,) int64 of people, of their numbers alone; REFINED: they can be tried."""
    keypoints, cam = problem.keypoints2d, problem.cam_int
    seen = fitted_confidence(keypoints, config) > 0
    finite = cam.isfinite().flatten(1).all(1) & keypoints[..., 2].isfinite().all(1)
    finite &= (keypoints[..., :2].isfinite().all(2) | ~seen).all(1)
    for people in (problem.start, problem.anchored):
        for x in vars(people).values():
            finite &= x.isfinite().all(1)
    status = torch.full((len(problem),), int(RefinementStatus.REFINED))
    status[seen.sum(1) < config.keypoints.min_points] = RefinementStatus.FEW_KEYPOINTS
    status[~(cam[:, [0, 1], [0, 1]] > 0).all(1)] = RefinementStatus.NO_CAMERA
    status[~finite] = RefinementStatus.NOT_FINITE
    return status
