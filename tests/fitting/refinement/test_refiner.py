"""Refined people: better than before, the same bits in any company, and a status for people who cannot be refined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from refine_people import camera_points, make_problem
from torch import Tensor

from skelfit.bodies.keypoint_names import MIRRORED_KEYPOINTS
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.posed_keypoints import SkelKeypoints
from skelfit.config.fit_settings import FirstOrderConfig
from skelfit.config.refine_settings import RefineConfig, published_config, published_loop_config
from skelfit.errors import ArgumentError
from skelfit.fitting.backends.backend import make_backend
from skelfit.fitting.refinement.refinement_problem import (
    BodyParameters,
    RefinementProblem,
    RefinementResult,
    RefinementStatus,
    variables_of,
)
from skelfit.fitting.refinement.refiner import Refiner, make_targets
from tools.studies import first_order_refinement
from tools.studies.first_order_refinement import FirstOrderRefiner
from tools.studies.naive_refinement import naive_refinement

PEOPLE = 24
Case = tuple[Refiner, RefinementProblem, BodyParameters, RefinementResult]


@pytest.fixture(scope="module")
def case(models: ModelSet) -> Case:
    refiner = Refiner(models, RefineConfig(), backend=replace(make_backend(), batch_size=5))
    problem, truth = make_problem(models, PEOPLE)
    return refiner, problem, truth, refiner.refine(problem)


def assert_same(one: RefinementResult, other: RefinementResult) -> None:
    for name, a in {**vars(one), **vars(one.refined)}.items():
        if isinstance(a, Tensor):
            b = getattr(other.refined if hasattr(other.refined, name) else other, name)
            assert torch.equal(a.nan_to_num(-7.0), b.nan_to_num(-7.0)), name


def error(models: ModelSet, people: BodyParameters, truth: BodyParameters, female: Tensor) -> Tensor:
    """Mean distance (N,) m of the keypoints beside the pelvis."""
    points = [camera_points(models, p, female) for p in (people, truth)]
    one, other = (p - p[:, 39:40] for p in points)
    return (one - other).norm(dim=-1).mean(1)


def test_people_come_nearer_to_their_pictures_and_to_the_truth(models: ModelSet, case: Case) -> None:
    _, problem, truth, result = case
    assert (result.status == RefinementStatus.REFINED).all()
    assert (result.objective[:, 1] < result.objective[:, 0]).all()
    assert (result.reprojection_px[:, 1] < result.reprojection_px[:, 0]).all()
    assert result.reprojection_px[:, 1].mean() < 0.4 * result.reprojection_px[:, 0].mean()
    before, after = (
        error(models, people, truth, problem.female) for people in (problem.start, result.refined)
    )
    assert after.mean() < 0.6 * before.mean()
    assert result.gain.max() < 1e-3
    torch.testing.assert_close(
        result.reprojection[:, 0] / result.reprojection[:, 1],
        result.reprojection_px[:, 0] / result.reprojection_px[:, 1],
    )


def test_a_person_has_the_same_bits_in_any_company(models: ModelSet, case: Case) -> None:
    """In another order, in batches of another size, alone, beside people who cannot be refined, by two threads."""
    refiner, problem, _, result = case
    order = torch.randperm(PEOPLE)
    whole = Refiner(models, RefineConfig(), backend=make_backend())
    broken = problem.keypoints2d.clone()
    broken[::3] = torch.nan
    others = replace(problem, keypoints2d=broken)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            assert_same(whole.refine(problem), result)
            shuffled = refiner.refine(problem.take(order))
            assert torch.equal(shuffled.refined.angles, result.refined.angles[order])
            assert torch.equal(shuffled.objective, result.objective[order])
    finally:
        torch.set_num_threads(threads)
    alone = refiner.refine(problem.take(torch.tensor([7])))
    assert torch.equal(alone.refined.angles[0], result.refined.angles[7])
    beside = refiner.refine(others)
    rows = torch.arange(PEOPLE) % 3 > 0
    assert (beside.status[~rows] == RefinementStatus.NOT_FINITE).all()
    for name in ("angles", "betas", "transl"):
        assert torch.equal(getattr(beside.refined, name)[rows], getattr(result.refined, name)[rows])


def hostile(problem: RefinementProblem) -> list[tuple[RefinementStatus, RefinementProblem]]:
    """One person each."""
    one = problem.take(torch.tensor([0]))
    keypoints, truth = one.keypoints2d.clone(), one.start
    keypoints[..., 2] = 1.0

    def given(changed: Tensor) -> RefinementProblem:
        return replace(one, keypoints2d=changed)

    nan, unsure, three, swapped = (keypoints.clone() for _ in range(4))
    nan[0, 4, 1] = torch.nan
    unsure[..., 2] = 0.1
    three[:, 3:, 2] = 0.0
    swapped[..., :2] = swapped[:, list(MIRRORED_KEYPOINTS), :2]
    behind = BodyParameters(truth.angles, truth.betas, truth.transl * torch.tensor([1.0, 1.0, -1.0]))
    infinite = BodyParameters(truth.angles, truth.betas * torch.inf, truth.transl)
    return [
        (RefinementStatus.NOT_FINITE, given(nan)),
        (RefinementStatus.NOT_FINITE, replace(given(keypoints), start=infinite)),
        (RefinementStatus.FEW_KEYPOINTS, given(unsure)),
        (RefinementStatus.FEW_KEYPOINTS, given(three)),
        (RefinementStatus.SWAPPED, given(swapped)),
        (RefinementStatus.BEHIND_CAMERA, replace(given(keypoints), start=behind)),
        (RefinementStatus.NO_CAMERA, replace(given(keypoints), cam_int=torch.zeros_like(one.cam_int))),
    ]


def test_whoever_cannot_be_refined_keeps_their_bits(case: Case) -> None:
    refiner, problem, truth, _ = case
    for status, one in hostile(replace(problem, start=truth)):
        result = refiner.refine(one)
        assert int(result.status[0]) == status, status.name
        for name, x in vars(one.start).items():
            assert torch.equal(getattr(result.refined, name).nan_to_num(-7.0), x.nan_to_num(-7.0)), name
        if status == RefinementStatus.SWAPPED:  # which only the end of a refinement tells
            assert torch.equal(result.objective[:, 0], result.objective[:, 1])
            assert torch.equal(result.reprojection[:, 0], result.reprojection[:, 1])
        else:
            assert result.objective.isnan().all()


def test_swapped_sides_are_found_on_shaken_labels(models: ModelSet, case: Case) -> None:
    refiner, problem, _, _ = case
    exchanged = replace(problem, keypoints2d=problem.keypoints2d[:, list(MIRRORED_KEYPOINTS)])
    result = refiner.refine(exchanged)
    found = result.status == RefinementStatus.SWAPPED
    assert found.sum() >= 0.9 * PEOPLE
    assert torch.equal(result.refined.angles[found], problem.start.angles[found])
    keypoints = replace(refiner.config.keypoints, swap_gain=0.0)
    unasked = Refiner(models, replace(refiner.config, keypoints=keypoints)).refine(exchanged)
    assert (unasked.status == RefinementStatus.REFINED).all()
    keypoints = replace(keypoints, swap_gain=0.01)  # exchanged ones would have to be a hundred times better
    doubtful = Refiner(models, replace(refiner.config, keypoints=keypoints)).refine(
        exchanged.take(torch.arange(4))
    )
    assert (doubtful.status == RefinementStatus.REFINED).all()


def test_no_step_raises_the_objective(models: ModelSet, case: Case) -> None:
    """Step by step from labels so bad that many full steps would."""
    refiner = case[0]
    problem, _ = make_problem(models, PEOPLE, shake=1.0)
    rows = (~problem.female).nonzero()[:, 0]
    problem = problem.take(rows)
    solver, x = refiner._solver("male"), variables_of(problem.start)
    targets = make_targets(problem, np.full(len(rows), 40.0), x[:, 2], refiner.config)
    run = solver.start(x, targets)
    read, phase, refused = solver.backend.read, refiner.config.phases[-1], 0
    value = read(solver._stepped(run, phase, 0))[:, 0]
    for _ in range(8):
        status = read(solver._stepped(run, phase, 1))
        assert (status[:, 0] <= value * 1.0001).all()
        refused += int((status[:, 2] == 0).sum())
        value = status[:, 0]
    assert refused > 0


def test_unseen_keypoints_may_be_anything(case: Case) -> None:
    """NaN, infinite or huge where the confidence says that it was not seen; so may the two that are not fitted."""
    refiner, problem, _, result = case
    keypoints = problem.keypoints2d.clone()
    unseen = keypoints[..., 2] < 0.3
    unseen[:, 37:39] = True
    keypoints[..., 0] = torch.where(unseen, torch.nan, keypoints[..., 0])
    keypoints[..., 1] = torch.where(unseen, 1e30, keypoints[..., 1])
    assert_same(refiner.refine(replace(problem, keypoints2d=keypoints)), result)


def test_a_keypoint_at_the_end_of_the_world_is_an_outlier(case: Case) -> None:
    refiner, problem, _, result = case
    keypoints = problem.keypoints2d.clone()
    keypoints[:, 0] = torch.tensor([1e30, -1e30, 1.0])
    far = refiner.refine(replace(problem, keypoints2d=keypoints))
    assert (far.status == RefinementStatus.REFINED).all() and far.objective.isfinite().all()
    assert (far.refined.angles - result.refined.angles).abs().median() < 0.05


def test_nobody_in_nobody_out(case: Case) -> None:
    refiner, problem, _, _ = case
    result = refiner.refine(problem.take(torch.zeros(0, dtype=torch.int64)))
    assert result.status.shape == (0,) and result.objective.shape == (0, 2)


def test_other_shapes_are_refused(case: Case) -> None:
    refiner, problem, _, _ = case
    with pytest.raises(ArgumentError, match=r"keypoints2d.*\(24, 44, 3\).*\(24, 43, 3\)"):
        refiner.refine(replace(problem, keypoints2d=problem.keypoints2d[:, :43]))
    short = BodyParameters(problem.start.angles[:, :45], problem.start.betas, problem.start.transl)
    with pytest.raises(ArgumentError, match="anchor.angles"):
        refiner.refine(replace(problem, anchor=short))


def test_the_anchor_holds(models: ModelSet, case: Case) -> None:
    """The heavier, the nearer to the label; and an anchor elsewhere draws there."""
    _, problem, truth, result = case
    heavy = RefineConfig(anchor=replace(RefineConfig().anchor, pose=100.0, root=100.0, skin=100.0))
    held = Refiner(models, heavy).refine(problem)
    far, near = ((r.refined.angles - problem.start.angles).abs().mean() for r in (result, held))
    assert near < 0.7 * far  # what is left is the root's, and Euler angles of the same rotations
    drawn = Refiner(models, heavy).refine(replace(problem, anchor=truth))
    assert (
        error(models, drawn.refined, truth, problem.female).mean()
        < 0.3 * error(models, held.refined, truth, problem.female).mean()
    )


@pytest.mark.parametrize("config", [published_config(), published_loop_config()], ids=["full", "loop"])
def test_the_published_phases_run(models: ModelSet, case: Case, config: RefineConfig) -> None:
    _, problem, _, _ = case
    result = Refiner(models, config).refine(problem)
    assert (result.status == RefinementStatus.REFINED).all()
    assert result.reprojection_px[:, 1].mean() < result.reprojection_px[:, 0].mean()


def test_betas_end_within_their_bound_and_where_it_is_best(models: ModelSet, case: Case) -> None:
    """Of people with large betas, whose labels do not have them, and do not hold them."""
    config = replace(case[0].config, anchor=replace(case[0].config.anchor, betas=1e-5, skin=0.01))
    refiner = Refiner(models, config)
    problem, _ = make_problem(models, PEOPLE, betas=3.0, label_betas=0.5)
    result = refiner.refine(problem)
    labels, betas = problem.start.betas.abs().amax(1), result.refined.betas
    assert (result.status == RefinementStatus.REFINED).all()
    assert (betas.abs().amax(1) <= labels.clamp(min=2.0)).all()
    assert (betas.abs() == 2.0).any(1).sum() > PEOPLE // 2
    free = Refiner(models, replace(config, max_abs_beta=0.0)).refine(problem)
    assert (free.refined.betas.abs().amax(1) > 2.1).sum() > PEOPLE // 2
    assert (result.objective[:, 1] < result.objective[:, 0]).all()
    few = problem.take((~problem.female).nonzero()[:, 0])
    body = SkelKeypoints(models, "male", dtype=torch.float64)
    goal = naive_refinement(body, config, few.to(torch.float64))
    x = variables_of(result.refined)[~problem.female].double().requires_grad_()
    (slope,) = torch.autograd.grad(goal.value(x).sum(), x)
    betas, slope = x.detach()[:, 49:], slope[:, 49:]
    at_bound = betas.abs() == 2.0
    assert (slope[at_bound] * betas[at_bound] < 0).all(), "each would leave the bound downhill"
    assert slope[~at_bound].abs().median() < 0.02 * slope[at_bound].abs().median()
    assert result.gain.max() < 2e-3


def test_the_twin_has_the_same_bound(models: ModelSet, case: Case) -> None:
    """Someone who is at the bound already, and would leave it."""
    problem, truth = make_problem(models, 1, betas=3.0)
    problem.start.betas[:] = 2.0 * truth.betas.sign()
    config = RefineConfig(phases=case[0].config.phases[-1:])
    twin = FirstOrderRefiner(models, config, iterations=2, batch=1).refine(problem)
    betas = twin.refined.betas.abs()
    assert (betas == 2.0).any() and (betas < 2.0).any() and (betas <= 2.0).all()
    assert (twin.objective[:, 1] < twin.objective[:, 0]).all()


def test_the_twin_counts_betas_beyond_their_bound_as_if_they_were_there(
    models: ModelSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line search may look further than the bound: it finds nothing there."""
    found: list[Tensor] = []

    def minimise(
        value: Callable[[Tensor], Tensor], start: list[Tensor], iterations: int, config: FirstOrderConfig
    ) -> list[Tensor]:
        for size in (1.5, 2.0, 3.0):
            found.append(value(torch.cat((start[0][:, :49], torch.full((1, 10), size)), 1)))
        return start

    monkeypatch.setattr(first_order_refinement, "minimise", minimise)
    problem, _ = make_problem(models, 1, label_betas=0.0)
    problem.start.betas[:] = 0.0
    config = RefineConfig(phases=RefineConfig().phases[-1:])
    FirstOrderRefiner(models, config, iterations=1, batch=1).refine(problem)
    within, at_bound, beyond = found
    assert torch.equal(beyond, at_bound) and not torch.equal(within, at_bound)


def test_a_larger_beta_of_the_label_may_stay(models: ModelSet, case: Case) -> None:
    """The bound is that of the label: its betas neither grow nor have to shrink."""
    refiner, problem, _, _ = case
    betas = problem.start.betas.clone()
    betas[:, 0] = 3.5
    result = refiner.refine(replace(problem, start=replace(problem.start, betas=betas)))
    largest = result.refined.betas.abs().amax(1)
    assert (largest <= 3.5).all() and (largest > 2.0).any()


def test_the_torso_gives_the_depth(models: ModelSet, case: Case) -> None:
    """People whose labels stand twice as far away."""
    _, problem, truth, _ = case
    keypoints = problem.keypoints2d.clone()
    keypoints[..., 2] = 1.0
    far = BodyParameters(truth.angles, truth.betas, truth.transl * 1.8)
    problem = replace(problem, start=far, keypoints2d=keypoints, anchor=truth)
    result = Refiner(models, replace(RefineConfig(), start="torso")).refine(problem)
    assert (result.refined.transl - truth.transl).norm(dim=1).median() < 0.3


def test_first_order_ends_no_lower(models: ModelSet, case: Case) -> None:
    refiner, problem, _, result = case
    few = problem.take(torch.tensor([0, 2, 4, 6]))
    config = refiner.config
    twin = FirstOrderRefiner(models, config, iterations=5, batch=4, dtype=torch.float64).refine(few)
    assert (twin.status == RefinementStatus.REFINED).all()
    assert torch.equal(twin.objective[:, 0], result.objective[[0, 2, 4, 6], 0])
    assert (twin.objective[:, 1] < 0.9 * twin.objective[:, 0]).all()
    assert result.objective[[0, 2, 4, 6], 1].mean() <= twin.objective[:, 1].mean() * 1.001
