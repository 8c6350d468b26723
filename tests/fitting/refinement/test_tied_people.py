"""Frames of sequences refined as one problem: against the naive objective in float64, alone, and with bad frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from backends import OF_OTHERS, BackendKind
from refine_people import camera_points, make_problem
from torch import Tensor

from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.posed_keypoints import SkelKeypoints
from skelfit.config.refine_settings import RefineConfig, TiesConfig
from skelfit.fitting.backends.backend import cpu_lanes, make_backend
from skelfit.fitting.parallel_batches import side_by_side
from skelfit.fitting.refinement.refinement_problem import (
    BodyParameters,
    RefinementProblem,
    RefinementResult,
    RefinementStatus,
    parameters_of,
    variables_of,
)
from skelfit.fitting.refinement.refiner import Refiner, make_targets
from skelfit.fitting.refinement.tied_people import TiedPeople
from skelfit.fitting.sequences.frame_index import FrameIndex
from skelfit.fitting.terms.temporal_smoothness import make_frame_ties
from tools.studies.naive_refinement import NaiveSequence, naive_refinement

RATE = 30.0  # Hz
FRAMES, SHORT = 11, 5  # of the two sequences
CONFIG = RefineConfig(ties=TiesConfig(weight=0.01, move=2.0, jump=1e3))
KINDS = [
    BackendKind("cpu", cpu_lanes(), 1),
    pytest.param(OF_OTHERS, marks=pytest.mark.soak),
    pytest.param(BackendKind("cpu", 1, 4), marks=pytest.mark.soak),
    pytest.param(BackendKind("cuda", 1, 128), marks=pytest.mark.gpu),
]


def make_sequence(models: ModelSet, frames: int, seed: int) -> tuple[RefinementProblem, BodyParameters]:
    """A person who moves from one pose to another, with labels that drift, and keypoints with noise."""
    ends, truth = make_problem(models, 4, seed=seed)
    source = torch.Generator().manual_seed(seed)
    share = torch.linspace(0.0, 1.0, frames)[:, None]
    one, other = truth.take(torch.tensor([0])), truth.take(torch.tensor([2]))  # both are male
    share = 0.3 * share
    people = BodyParameters(
        one.angles + share * (other.angles - one.angles),
        one.betas.expand(frames, -1).contiguous(),
        one.transl + share * (other.transl - one.transl),
    )
    drift = 0.15 * torch.sin(
        4 * share + 6 * torch.rand(1, 46, generator=source)
    )  # rad, of the label's angles
    female, camera = torch.zeros(frames, dtype=torch.bool), ends.cam_int[:1].expand(frames, 3, 3).clone()
    image = camera_points(models, people, female).float() @ camera[0].mT
    image = image[..., :2] / image[..., 2:] + 2.0 * torch.randn(frames, 44, 2, generator=source)
    start = BodyParameters(people.angles + drift, people.betas + 0.2, people.transl + 0.05)
    time = FrameIndex(np.zeros(frames, np.int64), np.arange(frames) / RATE)
    keypoints = torch.cat((image, torch.ones(frames, 44, 1)), 2)
    return RefinementProblem(start, female, keypoints, camera, frames=time), people


def joined(*problems: RefinementProblem) -> RefinementProblem:
    """The people of all problems; each is a sequence of its own."""
    start = BodyParameters(
        *(torch.cat(x) for x in zip(*(vars(p.start).values() for p in problems), strict=True))
    )
    lengths = [len(p) for p in problems]
    number = np.repeat(np.arange(len(problems)), lengths)
    time = np.concatenate([p.frames.time for p in problems if p.frames is not None])
    return RefinementProblem(
        start,
        torch.cat([p.female for p in problems]),
        torch.cat([p.keypoints2d for p in problems]),
        torch.cat([p.cam_int for p in problems]),
        frames=FrameIndex(number, time),
    )


def jitter(people: BodyParameters) -> float:
    """Mean second difference of the angles, rad."""
    return float(np.diff(people.angles.double().numpy(), n=2, axis=0).__abs__().mean())


def assert_same(one: RefinementResult, other: RefinementResult, but: str = "") -> None:
    for name, a in {**vars(one), **vars(one.refined)}.items():
        if isinstance(a, Tensor) and name != but:
            b = getattr(other.refined if hasattr(other.refined, name) else other, name)
            assert torch.equal(a.nan_to_num(-7.0), b.nan_to_num(-7.0)), name


@pytest.fixture(scope="module")
def refiner(models: ModelSet) -> Refiner:
    return Refiner(models, CONFIG, backend=replace(make_backend(), batch_size=5))


@pytest.fixture(scope="module")
def problem(models: ModelSet) -> RefinementProblem:
    return joined(make_sequence(models, FRAMES, 3)[0], make_sequence(models, SHORT, 4)[0])


@pytest.fixture(scope="module")
def result(refiner: Refiner, problem: RefinementProblem) -> RefinementResult:
    return refiner.refine(problem)


def naive(models: ModelSet, problem: RefinementProblem, gap: float = 1 / RATE) -> NaiveSequence:
    body = SkelKeypoints(models, "male", dtype=torch.float64)
    goal = naive_refinement(body, CONFIG, problem.to(torch.float64))
    assert problem.frames is not None
    spans = torch.from_numpy(np.diff(problem.frames.time))
    return NaiveSequence(goal, CONFIG.ties.weight / spans**2)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_equations_are_those_of_the_naive_objective(models: ModelSet, kind: BackendKind) -> None:
    problem, _ = make_sequence(models, FRAMES, 3)
    problem = problem.take(torch.tensor([0, 1, 2, 4, 7]))  # with gaps
    oracle = naive(models, problem)
    refiner = Refiner(models, CONFIG, backend=make_backend(kind.device, kind.lanes, kind.threads))
    solver = refiner._solver("male")
    source = torch.Generator().manual_seed(1)
    x = variables_of(problem.start)
    x = x + 0.1 * torch.randn(x.shape, generator=source)
    targets = make_targets(problem, oracle.goal.unit.numpy(), x[:, 2], CONFIG)
    targets = replace(targets, depth=problem.start.transl[:, 2])
    assert problem.frames is not None
    chain, time = np.arange(len(x)), problem.frames.time
    with side_by_side(refiner.backend) as each:
        people = TiedPeople(solver, solver.start(x, targets), each)
        people.set_ties(make_frame_ties([chain], time, np.full(len(x), CONFIG.ties.weight)))
        chains = people.chains([chain])
        value = people.evaluate(chains).double()
        gradient = refiner.backend.read(people.sequences.gradient).double()
        coupling = refiner.backend.read(people.system.coupling).double()
    moving = x.double().requires_grad_()
    total = oracle.value(moving)
    expected = float(total.detach())
    assert float(value[:, :2].sum()) == pytest.approx(expected, rel=1e-5)
    assert float(value[:, [0, 2]].sum()) == pytest.approx(expected, rel=1e-5)
    assert value[:, 1:].sum() > 0.2 * expected  # the ties count
    (slope,) = torch.autograd.grad(total, moving)
    slope = torch.cat((slope[:, 3:49], slope[:, :3]), 1)
    off = (gradient - slope).abs().amax() / slope.abs().amax()
    assert off < 2e-5
    # Of translations the Hessian across two frames is exact.
    weight = oracle.weight * CONFIG.ties.move
    for k in range(3):
        torch.testing.assert_close(coupling[:-1, 46 + k, 46 + k], -2 * weight, rtol=1e-5, atol=0.0)


def test_sequences_end_at_a_minimum_of_the_naive_objective(
    models: ModelSet, result: RefinementResult
) -> None:
    problem, _ = make_sequence(models, FRAMES, 3)
    oracle, rows = naive(models, problem), torch.arange(FRAMES)
    assert (result.status == RefinementStatus.REFINED).all()
    end = variables_of(result.refined.take(rows)).double()
    least = oracle.value(end)
    moving = end.clone().requires_grad_()
    (slope,) = torch.autograd.grad(oracle.value(moving), moving)
    # Along the slope of poses and translations nothing is left to gain.
    pose = slope[:, :49]
    best = min(
        float(oracle.value(torch.cat((end[:, :49] - share * pose, end[:, 49:]), 1)))
        for share in (1e-3, 3e-3, 1e-2, 3e-2)
    )
    assert float(least) - best < 2e-4 * float(least)
    assert float(least) < float(oracle.value(variables_of(problem.start).double()))


def test_ties_take_jitter_away_and_keep_the_error(
    models: ModelSet, problem: RefinementProblem, result: RefinementResult
) -> None:
    alone = Refiner(models, replace(CONFIG, ties=TiesConfig(weight=0.0))).refine(problem)
    _, truth = make_sequence(models, FRAMES, 3)
    rows = torch.arange(FRAMES)

    def error(people: BodyParameters) -> float:
        points = [camera_points(models, p, torch.zeros(FRAMES, dtype=torch.bool)) for p in (people, truth)]
        points = [p - p[:, 39:40] for p in points]
        return float((points[0] - points[1]).norm(dim=-1).mean())

    single, tied = alone.refined.take(rows), result.refined.take(rows)
    print(jitter(single), jitter(tied), jitter(truth), error(single), error(tied))
    assert jitter(tied) < 0.35 * jitter(single)
    assert error(tied) < error(single)
    assert (tied.betas == tied.betas[0]).all() and (result.refined.betas[-1] != tied.betas[0]).any()
    assert not (single.betas == single.betas[0]).all()


def test_a_sequence_has_the_same_bits_in_any_company(
    models: ModelSet, refiner: Refiner, problem: RefinementProblem, result: RefinementResult
) -> None:
    order = torch.cat((torch.arange(FRAMES, FRAMES + SHORT), torch.arange(FRAMES)))
    for rows in (order, torch.arange(FRAMES), torch.arange(FRAMES, FRAMES + SHORT)):
        again = Refiner(models, CONFIG).refine(problem.take(rows))
        for name in ("angles", "betas", "transl"):
            assert torch.equal(getattr(again.refined, name), getattr(result.refined, name)[rows]), name
        assert torch.equal(again.objective, result.objective[rows])


def test_frames_without_company_have_the_bits_of_single_people(
    models: ModelSet, refiner: Refiner, problem: RefinementProblem
) -> None:
    single = refiner.refine(replace(problem, frames=None))
    alone = FrameIndex(np.arange(len(problem)), np.zeros(len(problem)))  # sequences of one frame
    assert_same(refiner.refine(replace(problem, frames=alone)), single)
    none = FrameIndex(np.full(len(problem), -1), np.zeros(len(problem)))
    assert_same(refiner.refine(replace(problem, frames=none)), single)
    untied = Refiner(models, replace(CONFIG, ties=TiesConfig(weight=0.0)))
    assert_same(untied.refine(problem), single)
    assert (single.chain == -1).all()


def test_frames_that_cannot_be_refined_are_left_out(refiner: Refiner, problem: RefinementProblem) -> None:
    keypoints = problem.keypoints2d.clone()
    keypoints[3, :, 2] = 0.0
    keypoints[5, :, 0] = torch.nan
    broken = refiner.refine(replace(problem, keypoints2d=keypoints))
    assert broken.status[3] == RefinementStatus.FEW_KEYPOINTS
    assert broken.status[5] == RefinementStatus.NOT_FINITE
    for row in (3, 5):
        for name, x in vars(problem.start).items():
            assert torch.equal(getattr(broken.refined, name)[row], x[row])
    kept = torch.tensor([k for k in range(len(problem)) if k not in (3, 5)])
    assert (broken.status[kept] == RefinementStatus.REFINED).all()
    assert broken.chain[3] == broken.chain[5] == -1 and broken.chain[4] == 0
    # The others are as if these frames were missing: their neighbours are tied across the gap.
    missing = refiner.refine(problem.take(kept))
    assert torch.equal(missing.refined.angles, broken.refined.angles[kept])


def test_a_gap_in_time_weakens_the_tie(refiner: Refiner, problem: RefinementProblem) -> None:
    assert problem.frames is not None
    slow = FrameIndex(problem.frames.sequence, 1000.0 * problem.frames.time)
    far, single = (refiner.refine(replace(problem, frames=frames)) for frames in (slow, None))
    rows = torch.arange(FRAMES)
    assert jitter(far.refined.take(rows)) > 0.8 * jitter(single.refined.take(rows))


def test_labels_that_jump_break_the_tie(models: ModelSet, problem: RefinementProblem) -> None:
    """A wrong label in the middle must not pull its neighbours along."""
    careful = replace(CONFIG, ties=replace(CONFIG.ties, jump=3.0))
    angles = problem.start.angles.clone()
    angles[5, 3:] += 0.4 * torch.randn(43, generator=torch.Generator().manual_seed(0))
    wrong = replace(problem, start=BodyParameters(angles, problem.start.betas, problem.start.transl))
    rows = torch.tensor([3, 4, 6, 7])
    good, drawn, kept = (
        Refiner(models, config).refine(p).refined.angles[rows]
        for config, p in ((careful, problem), (CONFIG, wrong), (careful, wrong))
    )
    assert (kept - good).abs().mean() < 0.5 * (drawn - good).abs().mean()
    assert parameters_of(variables_of(problem.start)).angles.shape == problem.start.angles.shape
