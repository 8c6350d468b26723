"""People whose camera is not known: their place before the prior's camera, their focal length, and their statuses."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from refine_people import SIZE, camera_points, make_problem
from torch import Tensor

from skelfit.bodies.model_set import ModelSet
from skelfit.config.refine_settings import FocalConfig, RefineConfig
from skelfit.errors import ArgumentError
from skelfit.fitting.backends.backend import make_backend
from skelfit.fitting.refinement.keypoint_solver import ImageTargets, KeypointSolver
from skelfit.fitting.refinement.refinement_problem import (
    BodyParameters,
    RefinementProblem,
    RefinementResult,
    RefinementStatus,
)
from skelfit.fitting.refinement.refiner import Refiner
from skelfit.fitting.refinement.unknown_cameras import place_people, prior_cameras
from tools.studies.first_order_refinement import FirstOrderRefiner

PEOPLE, FOCAL = 12, 200.0  # px; near people, so that perspective tells something
CENTRE = FOCAL / math.hypot(SIZE, SIZE)
FREE = FocalConfig(centre=CENTRE, weight=1e-4)


def near_people(models: ModelSet, noise: float = 0.0) -> tuple[RefinementProblem, BodyParameters]:
    """People at 2 m with labels that are right but for their places, which nothing tells, and no camera."""
    problem, truth = make_problem(models, PEOPLE)
    truth = replace(truth, transl=truth.transl * torch.tensor([0.5, 0.5, 0.5]))
    camera = torch.tensor([[FOCAL, 0, SIZE / 2], [0, FOCAL, SIZE / 2], [0, 0, 1]])
    image = camera_points(models, truth, problem.female).float() @ camera.mT
    seen = torch.ones(PEOPLE, 44, 1)
    off = noise * torch.randn((PEOPLE, 44, 2), generator=torch.Generator().manual_seed(5))
    given = torch.cat((image[..., :2] / image[..., 2:] + off, seen), 2)
    start = replace(truth, transl=torch.full((PEOPLE, 3), 7.0))
    size = torch.full((PEOPLE, 2), SIZE)
    return RefinementProblem(start, problem.female, given, torch.zeros(PEOPLE, 3, 3), image_size=size), truth


def settings(**changes: float) -> RefineConfig:
    return RefineConfig(focal=replace(FREE, **changes))


def same(one: RefinementResult, other: RefinementResult, rows: Tensor | slice = slice(None)) -> bool:
    pairs = [(one.refined.angles, other.refined.angles), (one.refined.transl, other.refined.transl)]
    pairs += [(one.cam_int, other.cam_int), (one.objective, other.objective)]
    return all(torch.equal(a[rows], b[rows]) for a, b in pairs)


@pytest.fixture(scope="module")
def case(models: ModelSet) -> tuple[RefinementProblem, BodyParameters]:
    return near_people(models)


def test_people_are_placed_where_they_are_seen(
    models: ModelSet, case: tuple[RefinementProblem, BodyParameters]
) -> None:
    problem, truth = case
    points = camera_points(models, truth, problem.female).numpy()
    body = points - truth.transl.double().numpy()[:, None]
    assert problem.image_size is not None
    cam = prior_cameras(problem.image_size.double(), FREE).numpy()
    given = problem.keypoints2d.double().numpy()
    ones = np.ones((PEOPLE, 44))
    np.testing.assert_allclose(place_people(body, given, ones, cam), truth.transl, atol=1e-4)
    rng = np.random.default_rng(0)
    outliers = given.copy()
    for person in outliers:  # every fifth keypoint stands anywhere
        person[rng.permutation(44)[:9], :2] = rng.uniform(0, SIZE, (9, 2))
    np.testing.assert_allclose(place_people(body, outliers, ones, cam), truth.transl, atol=0.02)
    given[0, :, :2] = 100.0  # all in one pixel
    unseen = ones.copy()
    unseen[1] = 0
    where = place_people(body, given, unseen, cam)
    assert np.isnan(where[:2]).all() and np.isfinite(where[2:]).all()


@pytest.mark.parametrize("off", [0.7, 1.4])
def test_the_focal_length_is_found_where_perspective_tells_it(
    models: ModelSet, case: tuple[RefinementProblem, BodyParameters], off: float
) -> None:
    problem, truth = case
    result = Refiner(models, settings(centre=off * CENTRE)).refine(problem)
    assert (result.status == RefinementStatus.REFINED).all()
    assert torch.allclose(result.prior_focal, torch.tensor(off * FOCAL))
    focal = result.cam_int[:, 0, 0]
    assert (focal / FOCAL).log().abs().max() < 0.1 and (focal / FOCAL).log().abs().mean() < 0.04
    assert (result.refined.transl[:, 2] / truth.transl[:, 2]).log().abs().mean() < 0.05
    assert torch.equal(focal, result.cam_int[:, 1, 1])
    assert (result.cam_int[:, :2, 2] == SIZE / 2).all() and (result.cam_int[:, 2, 2] == 1).all()
    assert result.reprojection_px[:, 1].mean() < 0.3 * result.reprojection_px[:, 0].mean()
    image = camera_points(models, result.refined, problem.female) @ result.cam_int.double().mT
    measured = (image[..., :2] / image[..., 2:] - problem.keypoints2d[..., :2]).norm(dim=-1)
    seen = [k for k in range(44) if k not in (37, 38)]
    torch.testing.assert_close(
        measured[:, seen].mean(1).float(), result.reprojection_px[:, 1], atol=0.01, rtol=0.0
    )


def test_a_heavy_prior_decides(models: ModelSet, case: tuple[RefinementProblem, BodyParameters]) -> None:
    problem, truth = case
    result = Refiner(models, settings(centre=1.4 * CENTRE, weight=1e4)).refine(problem)
    assert (result.status == RefinementStatus.REFINED).all()
    assert (result.cam_int[:, 0, 0] / (1.4 * FOCAL)).log().abs().max() < 1e-3
    assert ((result.refined.transl[:, 2] / truth.transl[:, 2]).log() > 0.2).all(), (
        "depth follows the focal length"
    )


def test_whoever_rests_where_they_are_placed_gets_the_camera_of_the_prior(
    models: ModelSet, case: tuple[RefinementProblem, BodyParameters]
) -> None:
    few = case[0].take(torch.arange(2))
    result = Refiner(models, replace(settings(), tolerance=1e3)).refine(few)
    assert torch.equal(result.objective[:, 0], result.objective[:, 1]), "no step is worth it"
    assert (result.status == RefinementStatus.REFINED).all()
    assert torch.allclose(result.cam_int[:, 0, 0], torch.tensor(FOCAL))
    assert torch.equal(result.refined.transl, result.begin)


def test_known_cameras_keep_their_bits_and_nothing_depends_on_company(
    models: ModelSet, case: tuple[RefinementProblem, BodyParameters]
) -> None:
    problem, _ = case
    known, _ = make_problem(models, PEOPLE)
    with_size = replace(known, image_size=torch.full((PEOPLE, 2), SIZE))
    refiner = Refiner(models, settings(), backend=replace(make_backend(), batch_size=5))
    alone = refiner.refine(known)
    assert same(refiner.refine(with_size), alone) and torch.equal(alone.cam_int, known.cam_int)
    assert alone.prior_focal.isnan().all()
    unknown = refiner.refine(problem)
    rows = torch.arange(PEOPLE) % 3 > 0
    chosen = rows[:, None]
    both = RefinementProblem(
        BodyParameters(
            *(
                torch.where(chosen, a, b)
                for a, b in zip(vars(problem.start).values(), vars(known.start).values(), strict=True)
            )
        ),
        problem.female,
        torch.where(chosen[..., None], problem.keypoints2d, known.keypoints2d),
        torch.where(chosen[..., None], problem.cam_int, known.cam_int),
        image_size=problem.image_size,
    )
    mixed = refiner.refine(both)
    assert same(mixed, unknown, rows) and same(mixed, alone, ~rows)
    order = torch.randperm(PEOPLE, generator=torch.Generator().manual_seed(1))
    shuffled = refiner.refine(both.take(order))
    assert torch.equal(shuffled.refined.transl, mixed.refined.transl[order])
    assert torch.equal(shuffled.cam_int, mixed.cam_int[order])


def test_hostile_cameras_are_statuses(
    models: ModelSet, case: tuple[RefinementProblem, BodyParameters]
) -> None:
    problem, _ = case
    problem = problem.take(torch.arange(8))
    assert problem.image_size is not None
    size, cam = problem.image_size.clone(), problem.cam_int.clone()
    keypoints = problem.keypoints2d.clone()
    size[0], size[1, 0], size[2] = 0.0, torch.nan, -SIZE
    cam[3, 0, 2] = SIZE / 2  # a principal point, and focal lengths of 0
    cam[4, 0, 0] = torch.nan
    keypoints[5, :, :2] = 100.0  # all in one pixel
    keypoints[6, 7:, 2] = 0.0  # seven are seen: too few
    changed = replace(problem, image_size=size, cam_int=cam, keypoints2d=keypoints)
    result = Refiner(models, settings()).refine(changed)
    names = [RefinementStatus(number).name.lower() for number in result.status.tolist()]
    assert names == [*["no_camera"] * 4, "not_finite", "behind_camera", "few_keypoints", "refined"]
    for name, x in vars(changed.start).items():
        assert torch.equal(getattr(result.refined, name)[:7], x[:7]), name
    assert torch.equal(result.cam_int[:7].nan_to_num(-7.0), cam[:7].nan_to_num(-7.0))
    assert not torch.equal(result.refined.transl[7], changed.start.transl[7])
    none = Refiner(models, settings()).refine(replace(problem, image_size=None))
    assert (none.status == RefinementStatus.NO_CAMERA).all()
    with pytest.raises(ArgumentError, match=r"image_size.*\(8, 2\)"):
        Refiner(models, settings()).refine(replace(problem, image_size=torch.ones(8, 3)))


def test_a_focal_length_at_the_end_of_its_range_is_not_believed(models: ModelSet) -> None:
    """Without a prior noise may ask for any; beyond the range nothing is believed, and numbers stay as they were."""
    problem, _ = near_people(models, noise=3.0)
    free = Refiner(models, settings(weight=0.0)).refine(problem)
    assert free.objective.isfinite().all() and set(free.status.tolist()) <= {
        0,
        int(RefinementStatus.UNLIKELY_FOCAL),
    }
    ends: list[Tensor] = []

    class Watched(Refiner):
        def solve(
            self, solver: KeypointSolver, x: Tensor, targets: ImageTargets, problem: RefinementProblem
        ) -> tuple[Tensor, Tensor]:
            x, value = super().solve(solver, x, targets, problem)
            ends.append(x[:, -1])
            return x, value

    narrow = Watched(models, settings(weight=0.0, centre=2 * CENTRE, range=1.2)).refine(problem)
    assert torch.cat(ends).abs().max() < math.log(1.2) + 1e-6
    held = narrow.status == RefinementStatus.UNLIKELY_FOCAL
    assert held.sum() >= PEOPLE // 2
    assert torch.equal(narrow.refined.transl[held], problem.start.transl[held])
    assert (narrow.cam_int[held] == 0).all() and narrow.prior_focal.isfinite().all()


def test_first_order_moves_the_same_focal_length(
    models: ModelSet, case: tuple[RefinementProblem, BodyParameters]
) -> None:
    few = case[0].take(torch.tensor([0, 2, 4]))
    config = settings(centre=1.4 * CENTRE)
    result = Refiner(models, config).refine(few)
    twin = FirstOrderRefiner(models, config, iterations=25, batch=3, dtype=torch.float64).refine(few)
    assert torch.equal(twin.objective[:, 0], result.objective[:, 0])
    assert (twin.objective[:, 1] < 0.5 * twin.objective[:, 0]).all()
    assert result.objective[:, 1].mean() <= 1.001 * twin.objective[:, 1].mean()
    assert (twin.cam_int[:, 0, 0] < 1.35 * FOCAL).all()
