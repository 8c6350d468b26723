"""Refines people: who can be refined, the solver of each body, and what became of each person."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skelfit.bodies.keypoint_names import MIRRORED_KEYPOINTS
from skelfit.errors import ArgumentError
from skelfit.fitting.backends.backend import Backend, make_backend
from skelfit.fitting.parallel_batches import Each, run_batches, side_by_side
from skelfit.fitting.refinement.image_units import (
    fitted_confidence,
    image_offsets,
    shoulder_hip_length,
    torso_translation,
)
from skelfit.fitting.refinement.keypoint_solver import ImageTargets, KeypointSolver
from skelfit.fitting.refinement.refinement_problem import (
    RefinementProblem,
    RefinementResult,
    RefinementStatus,
    beta_bound,
    map_refinements,
    parameters_of,
    unrefined,
    variables_of,
)
from skelfit.fitting.refinement.tied_people import refine_chains
from skelfit.fitting.refinement.unknown_cameras import (
    at_end_of_range,
    estimated_rows,
    in_prior_cameras,
    seen_as_estimated,
)
from skelfit.fitting.sequences.tied_frames import Indices

if TYPE_CHECKING:
    from skelfit.bodies.model_set import ModelSet
    from skelfit.config.refine_settings import RefineConfig

Floats = NDArray[np.float64]
_GOOD = int(RefinementStatus.REFINED)
_POINTS = 44
_FRAMES = 4096  # of sequences, refined at a time: each takes 50 kB
_FAR = 1e6  # units; beyond, the square of a distance could be infinite in float32


@dataclass(frozen=True)
class _View:
    """How the keypoints of B people lie in their images."""

    points: Floats  # (B, 44, 3) m, in the camera frame
    offsets: Floats  # (B, 44, 2) px, of points from those given
    seen: NDArray[np.bool_]  # (B, 44)

    @property
    def distance(self) -> Floats:
        """Mean distance (B,) px of the seen keypoints; infinite if one is at the camera's plane or behind it."""
        distance = np.where(self.seen, np.linalg.norm(self.offsets, axis=2), 0.0)
        return np.asarray(distance.sum(1) / self.seen.sum(1))


class Refiner:
    """Refines people of both genders on one device. A body's tables are made once, at its first use."""

    def __init__(
        self, models: ModelSet, config: RefineConfig, device: str = "cpu", backend: Backend | None = None
    ) -> None:
        """backend: None for that of the device."""
        self.models, self.config = models, config
        self.backend = backend or make_backend(device)
        self._solvers: dict[str, KeypointSolver] = {}

    def refine(self, problem: RefinementProblem) -> RefinementResult:
        """Refine N people. A person's result has the same bits in any batch: nothing couples two of them, but for the
        frames of a sequence, which are refined as one problem after each has been refined by itself.

        People who cannot be refined keep their parameters, and their status says why. Raises ArgumentError for tensors
        of other shapes than `RefinementProblem` names.
        """
        check_shapes(problem)
        problem = problem.on_host()
        result = unrefined(problem, input_status(problem, self.config))
        size = self.backend.batch_size
        unknown = estimated_rows(problem)
        for female, estimated in product((False, True), repeat=2):
            of_kind = (problem.female == female) & (unknown == estimated)
            rows = (of_kind & (result.status == _GOOD)).nonzero()[:, 0]
            if len(rows) == 0:
                continue
            solver = self._solver("female" if female else "male")
            batches = rows.split(size)

            def refined(
                k: int, solver: KeypointSolver = solver, batches: Sequence[Tensor] = batches
            ) -> RefinementResult:
                return self._refine_batch(solver, problem.take(batches[k]))

            parts = self.run_batches(refined, range(len(batches)))
            whole = map_refinements(lambda *x: torch.cat(x), *parts)
            result = map_refinements(
                lambda all_, some, rows=rows: all_.index_copy(0, rows, some.to(all_)), result, whole
            )
        chains = tied_chains(problem, result.status) if self.config.ties.weight > 0 else []
        with side_by_side(self.backend) as each:
            for some in _portions(chains, problem.female):
                rows = torch.from_numpy(np.concatenate(some))
                single = map_refinements(lambda x, rows=rows: x[rows], result)
                ends = np.cumsum([len(chain) for chain in some])[:-1]
                numbers = np.split(np.arange(len(rows)), ends)
                tied = self._refine_chains(problem.take(rows), single, numbers, each)
                result = map_refinements(
                    lambda all_, new, rows=rows: all_.index_copy(0, rows, new.to(all_)), result, tied
                )
        return result

    def run_batches(
        self, function: Callable[[int], RefinementResult], numbers: Sequence[int]
    ) -> list[RefinementResult]:
        """Call the function for the batches; another way of solving overrides this."""
        return run_batches(self.backend, function, numbers)

    def solve(
        self, solver: KeypointSolver, x: Tensor, targets: ImageTargets, problem: RefinementProblem
    ) -> tuple[Tensor, Tensor]:
        """As `KeypointSolver.solve`; another way of solving overrides this."""
        return solver.solve(x, targets)

    def _solver(self, gender: str) -> KeypointSolver:
        if gender not in self._solvers:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)  # the rounding of a matrix product may depend on their number
            try:
                self._solvers[gender] = KeypointSolver(self.models, gender, self.config, self.backend)
            finally:
                torch.set_num_threads(threads)
        return self._solvers[gender]

    def _refine_batch(self, solver: KeypointSolver, given: RefinementProblem) -> RefinementResult:
        """Refine people of one body, whose numbers are finite; all of them have a camera, or none."""
        config, problem = self.config, given
        result = unrefined(given, torch.full((len(given),), _GOOD))
        x = variables_of(given.start).to("cpu", torch.float32)
        keypoints = solver.keypoints(x)
        if estimated := bool(estimated_rows(given).any()):
            problem = in_prior_cameras(given, keypoints, config)
            x = torch.cat((problem.start.transl.float(), x[:, 3:], torch.zeros(len(x), 1)), 1)
        unit = _units(problem, keypoints, config)
        view = _view(problem, keypoints, x, config)
        status = _start_status(view, unit, config)
        if config.start == "torso":
            x = torch.cat((torso_translation(problem, keypoints, x, config), x[:, 3:]), 1)
        rows = torch.from_numpy(np.flatnonzero(status == _GOOD))
        moved, value = x.clone(), torch.full((len(x), 4), torch.nan)
        if len(rows):
            targets = make_targets(problem.take(rows), unit[rows.numpy()], x[rows, 2], config)
            moved[rows], value[rows] = self.solve(solver, x[rows], targets, problem.take(rows))
        swapped = torch.zeros(len(x), dtype=torch.bool)
        if len(rows) and config.keypoints.swap_gain:
            swapped[rows] = self._swapped(solver, x[rows], targets, value[rows, 1])
        status[swapped.numpy()] = RefinementStatus.SWAPPED
        lower = value[:, 1] <= value[:, 0] if estimated else value[:, 1] < value[:, 0]
        better = (moved != x).any(1) | estimated  # a person without a camera is better off with one
        better &= moved.isfinite().all(1) & value[:, 1].isfinite() & (lower | (config.start == "torso"))
        better &= ~swapped
        unlikely = better & at_end_of_range(moved, config.focal)
        better &= ~unlikely
        kept = ~better.numpy()
        status[unlikely.numpy()] = RefinementStatus.UNLIKELY_FOCAL
        status[(status == _GOOD) & kept] = RefinementStatus.UNCHANGED
        value[kept, 1] = value[kept, 0]
        after = view.distance.copy()
        seen_as, camera = seen_as_estimated(moved, problem.cam_int)
        if len(changed := np.flatnonzero(better.numpy())):
            few = torch.from_numpy(changed)
            end = replace(problem, cam_int=camera).take(few)
            after[changed] = _view(end, solver.keypoints(seen_as[few]), seen_as[few], config).distance
        px = np.stack((view.distance, after), 1)
        chosen = better[:, None]
        new, old = parameters_of(seen_as), given.start
        return RefinementResult(
            refined=type(old)(
                *(
                    torch.where(chosen, b.to(a), a)
                    for a, b in zip(vars(old).values(), vars(new).values(), strict=True)
                )
            ),
            status=torch.from_numpy(status),
            objective=value[:, :2],
            reprojection_px=torch.from_numpy(px).float(),
            reprojection=torch.from_numpy(px / unit[:, None]).float(),
            seen=result.seen + torch.from_numpy(view.seen.sum(1)),
            gain=value[:, 2] / value[:, 1],
            prior_focal=problem.cam_int[:, 0, 0].float() if estimated else result.prior_focal,
            cam_int=torch.where(chosen[..., None], camera.to(given.cam_int), given.cam_int),
            begin=problem.start.transl,
            chain=result.chain,
        )

    def _refine_chains(
        self, problem: RefinementProblem, single: RefinementResult, chains: Sequence[Indices], each: Each
    ) -> RefinementResult:
        """Refine frames of one body that were refined singly; chains: their numbers, of each sequence."""
        config, solver = self.config, self._solver("female" if bool(problem.female[0]) else "male")
        start = variables_of(problem.start).float()
        keypoints = solver.keypoints(start)
        unit = _units(problem, keypoints, config)
        if config.start == "torso":
            start = torch.cat((torso_translation(problem, keypoints, start, config), start[:, 3:]), 1)
        targets = make_targets(problem, unit, start[:, 2], config)
        assert problem.frames is not None
        ended, frames = variables_of(single.refined).float(), problem.frames
        tied = refine_chains(solver, start, ended, targets, chains, frames.time, each)
        chosen = tied.x.isfinite().all(1)
        for chain, lower in zip(chains, tied.lower, strict=True):
            chosen[chain] = bool(chosen[chain].all()) and bool(lower or config.start == "torso")
        px = single.reprojection_px.clone()
        distance = _view(problem, solver.keypoints(tied.x), tied.x, config).distance
        px[:, 1] = torch.where(chosen, torch.from_numpy(distance).float(), px[:, 0])
        old, new = problem.start, parameters_of(tied.x)
        pairs = zip(vars(old).values(), vars(new).values(), strict=True)
        refined = type(old)(*(torch.where(chosen[:, None], b.to(a), a) for a, b in pairs))
        good, unchanged = _GOOD, int(RefinementStatus.UNCHANGED)
        before = tied.objective[:, :1].expand(-1, 2)
        return replace(
            single,
            refined=refined,
            status=torch.where(chosen, good, unchanged),
            objective=torch.where(chosen[:, None], tied.objective, before),
            reprojection_px=px,
            reprojection=(px.double() / torch.from_numpy(unit)[:, None]).float(),
            gain=tied.gain,
            chain=torch.from_numpy(frames.sequence.copy()),
        )

    def _swapped(self, solver: KeypointSolver, x: Tensor, targets: ImageTargets, value: Tensor) -> Tensor:
        """Whose keypoints (B,) a body near the label explains better with left and right exchanged.

        value (B,): the objective where the refinement against the keypoints as they are given ends.
        """
        given = targets.given[:, list(MIRRORED_KEYPOINTS)]
        _, exchanged = solver.solve(x, replace(targets, given=given))
        return exchanged[:, 1] < self.config.keypoints.swap_gain * value


def tied_chains(problem: RefinementProblem, status: Tensor) -> list[Indices]:
    """The people who are refined as one problem: of each sequence and body the frames that could be refined, if there
    are two. The others are left out, and their neighbours are tied across them; status (N,) after single refinements.
    """
    if problem.frames is None:
        return []
    tried = (status == _GOOD) | (status == int(RefinementStatus.UNCHANGED))
    known, female = (tried & ~estimated_rows(problem)).numpy(), problem.female.numpy()
    chains = [
        rows[known[rows] & (female[rows] == of)]
        for rows in problem.frames.sequences()
        for of in (False, True)
    ]
    return [chain for chain in chains if len(chain) > 1]


def _portions(chains: Sequence[Indices], female: Tensor) -> Iterator[list[Indices]]:
    """Chains of one body that are refined at a time: few enough for the memory."""
    for of in (False, True):
        portion: list[Indices] = []
        for chain in chains:
            if bool(female[chain[0]]) != of:
                continue
            if portion and sum(map(len, portion)) + len(chain) > _FRAMES:
                yield portion
                portion = []
            portion.append(chain)
        if portion:
            yield portion


def _units(problem: RefinementProblem, keypoints: Floats, config: RefineConfig) -> Floats:
    """The shoulder-hip length (B,) px at the depth of the start."""
    depth = problem.start.transl[:, 2].double().numpy().clip(config.nearest)
    unit: Floats = problem.cam_int[:, 0, 0].double().numpy() * shoulder_hip_length(keypoints) / depth
    return unit


def make_targets(
    problem: RefinementProblem, unit: Floats, depth: Tensor, config: RefineConfig
) -> ImageTargets:
    """What kernels need of B people who can be refined; depth (B,) m, of the start."""
    given = problem.keypoints2d.double().numpy()
    confidence = fitted_confidence(given[..., 2], config)
    scaled = np.where((confidence > 0)[..., None], given[..., :2] / unit[:, None, None], 0.0)
    scaled = scaled.clip(-_FAR, _FAR)
    camera = (problem.cam_int[:, :2].double().numpy() / unit[:, None, None]).reshape(-1, 6)
    return ImageTargets(
        label=variables_of(problem.anchored).to("cpu", torch.float32),
        given=torch.from_numpy(np.concatenate((scaled, confidence[..., None]), 2)).float(),
        camera=torch.from_numpy(camera).float(),
        depth=depth.float(),
        beta_bound=beta_bound(problem, config.max_abs_beta).float(),
    )


def _view(problem: RefinementProblem, keypoints: Floats, x: Tensor, config: RefineConfig) -> _View:
    given = problem.keypoints2d.double().numpy()
    points = keypoints + x[:, None, :3].double().numpy()
    offsets = image_offsets(points, problem.cam_int.double().numpy(), given[..., :2])
    return _View(points, offsets, fitted_confidence(given[..., 2], config) > 0)


def _start_status(view: _View, unit: Floats, config: RefineConfig) -> NDArray[np.int64]:
    """The status (B,) of people at their start."""
    status = np.full(len(unit), _GOOD, np.int64)
    near = (view.seen & (view.points[..., 2] < config.nearest)).any(1)
    status[near | ~np.isfinite(unit) | ~(unit > 0)] = RefinementStatus.BEHIND_CAMERA
    return status


def input_status(problem: RefinementProblem, config: RefineConfig) -> Tensor:
    """The status (N,) int64 of people, from their numbers alone; REFINED: they can be tried."""
    keypoints, cam = problem.keypoints2d, problem.cam_int
    seen = torch.from_numpy(fitted_confidence(keypoints[..., 2].double().numpy(), config) > 0)
    finite = cam.isfinite().flatten(1).all(1) & keypoints[..., 2].isfinite().all(1)
    finite &= (keypoints[..., :2].isfinite().all(2) | ~seen).all(1)
    for people in (problem.start, problem.anchored):
        for x in vars(people).values():
            # what is finite in 64 bits may be infinite in 32
            finite &= x.float().isfinite().all(1)
    status = torch.full((len(problem),), _GOOD)
    status[seen.sum(1) < config.keypoints.min_points] = int(RefinementStatus.FEW_KEYPOINTS)
    status[~(cam[:, [0, 1], [0, 1]] > 0).all(1) & ~estimated_rows(problem)] = int(RefinementStatus.NO_CAMERA)
    status[~finite] = int(RefinementStatus.NOT_FINITE)
    return status


def check_shapes(problem: RefinementProblem) -> None:
    """Raise ArgumentError for a tensor of another shape than the problem names."""
    count = len(problem.female)
    expected = {"female": (count,), "keypoints2d": (count, _POINTS, 3), "cam_int": (count, 3, 3)}
    if problem.image_size is not None:
        expected["image_size"] = (count, 2)
    tensors = {name: getattr(problem, name) for name in expected}
    for of in ("start", "anchor"):
        if (people := getattr(problem, of)) is not None:
            for name, size in (("angles", 46), ("betas", 10), ("transl", 3)):
                expected[f"{of}.{name}"] = (count, size)
                tensors[f"{of}.{name}"] = getattr(people, name)
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            raise ArgumentError(name, f"shape {shape}", f"shape {tuple(tensors[name].shape)}")
