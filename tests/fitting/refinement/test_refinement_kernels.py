"""The kernels of a refinement against the naive objective in float64: value, gradient, matrix, steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from backends import OF_OTHERS, BackendKind
from refine_people import make_problem, with_anchor
from torch import Tensor

import skelfit.fitting.backends.keypoint_tables
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.posed_keypoints import SkelKeypoints
from skelfit.config.refine_settings import RefineConfig, RefinePhase
from skelfit.fitting.backends.backend import cpu_lanes, make_backend
from skelfit.fitting.baseline.naive_objective import Evaluation
from skelfit.fitting.refinement.keypoint_solver import ImageTargets, KeypointSolver
from skelfit.fitting.refinement.refinement_problem import RefinementProblem, variables_of
from skelfit.fitting.refinement.refiner import make_targets
from tools.studies.naive_refinement import NaiveRefinement, naive_refinement, naive_steps

PEOPLE = 2  # of each gender
# Everything has a weight in the first; the second moves the camera; the third is the usual one.
PHASES = (
    RefinePhase("every-term", 4, sigma=0.3, depth=0.3, shape=0.2, angles=0.4, anchor=0.7),
    RefinePhase("camera", 4, moves="camera", points="torso", sigma=1.0, depth=0.1),
    RefinePhase("usual", 4),
)
BOUND = 0.5
CONFIG = RefineConfig(phases=PHASES, max_abs_beta=BOUND)
KINDS = [
    BackendKind("cpu", cpu_lanes(), 1),
    pytest.param(OF_OTHERS, marks=pytest.mark.soak),
    pytest.param(BackendKind("cpu", 1, 4), marks=pytest.mark.soak),
    pytest.param(BackendKind("cuda", 1, 128), marks=pytest.mark.gpu),
]


class Case:
    """People of one gender, the kernels' solver and the naive objective."""

    def __init__(self, models: ModelSet, gender: str, kind: BackendKind) -> None:
        problem, truth = make_problem(models, 2 * PEOPLE)
        rows = (problem.female == (gender == "female")).nonzero()[:, 0]
        for betas in (problem.start.betas, truth.betas):  # all are at the bound, those in the pictures beyond
            betas[:] = BOUND * betas.sign()
        self.problem: RefinementProblem = with_anchor(problem, truth).take(rows)
        backend = make_backend(kind.device, kind.lanes, kind.threads)
        self.solver = KeypointSolver(models, gender, CONFIG, backend)
        self.body = SkelKeypoints(models, gender, dtype=torch.float64)
        self.goal: NaiveRefinement = naive_refinement(self.body, CONFIG, self.problem.to(torch.float64))
        self.x = variables_of(self.problem.start)
        self.targets = make_targets(self.problem, self.goal.unit.numpy(), self.x[:, 2], CONFIG)
        # The same people, whose focal lengths are variables, and not those of their cameras.
        self.zooming: NaiveRefinement = replace(self.goal, zooms=True)
        self.zoomed = torch.cat((self.x, torch.tensor([[0.4], [-0.3]])), 1)

    def evaluate(self, phase: RefinePhase, x: Tensor) -> Evaluation:
        """That of the kernels at x, each person in a launch of their own."""
        count, n = len(x), 6 if phase.moves == "camera" else x.shape[1]
        values, gradients, matrices = [], [], []
        for row in range(count):
            one = ImageTargets(*(a[row : row + 1] for a in vars(self.targets).values()))
            run = self.solver.start(x[row : row + 1], one)
            status = self.solver._stepped(run, phase, 0)
            newton = self.solver.scratch(1)[-1]
            read = self.solver.backend.read
            values.append(float(read(status)[0, 0]))
            gradients.append(read(newton.gradient)[1, :n, 0].double())
            upper = read(newton.hessian)[1, :n, :n, 0].double().triu()
            matrices.append(upper + upper.triu(1).mT)
        return Evaluation(torch.tensor(values).double(), torch.stack(gradients), torch.stack(matrices))


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> BackendKind:
    kind: BackendKind = request.param
    return kind


@pytest.fixture(scope="module", params=["male", "female"])
def case(request: pytest.FixtureRequest, models: ModelSet, kind: BackendKind) -> Case:
    with pytest.MonkeyPatch.context() as patch:  # all derivatives, however small
        patch.setattr(skelfit.fitting.backends.keypoint_tables, "_TOLD", 0.0)
        return Case(models, request.param, kind)


def test_keypoints_are_those_of_the_skin(case: Case) -> None:
    start = case.problem.start.to(torch.float64)
    expected = case.body(start.angles, start.betas).numpy()
    np.testing.assert_allclose(case.solver.keypoints(case.x), expected, atol=2e-6)


@pytest.mark.parametrize("zooms", [False, True], ids=["given", "zooms"])
@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.name)
def test_an_evaluation(case: Case, phase: RefinePhase, zooms: bool) -> None:
    goal, x = (case.zooming, case.zoomed) if zooms else (case.goal, case.x)
    goal = goal.of(phase)
    whole = goal.evaluate(x.double())
    expected = goal.free(x.double(), whole)
    if phase.name == "usual":  # some betas are held at their bound, and others are not
        held = (expected.gradient != whole.gradient)[:, 49:59]
        assert held.any() and not held.all()
    actual = case.evaluate(phase, x)
    torch.testing.assert_close(actual.value, expected.value, rtol=1e-5, atol=0.0)
    scale = expected.matrix.diagonal(dim1=-2, dim2=-1)
    assert_within(actual.gradient, expected.gradient, 2e-5 * (scale * expected.value[:, None]).sqrt())
    largest = (scale[:, None] * scale[:, :, None]).sqrt()
    assert_within(actual.matrix, expected.matrix, 1e-5 * largest + 1e-6)


def assert_within(actual: Tensor, expected: Tensor, allowed: Tensor) -> None:
    off = (actual - expected).abs() / allowed.clamp(min=1e-7)
    assert off.max() <= 1, f"{float(off.max()):.3g} of what is allowed, at {int(off.argmax())}"


def test_the_gradient_is_that_of_the_value(case: Case) -> None:
    """The naive gradient holds weights; the value's own derivative does not."""
    goal = case.zooming.of(PHASES[0])
    x = case.zoomed.double().requires_grad_()
    (slope,) = torch.autograd.grad(goal.value(x).sum(), x)
    torch.testing.assert_close(goal.evaluate(x.detach()).gradient, slope, rtol=1e-6, atol=1e-7)


def test_a_zoom_is_a_longer_focal_length_further_away(case: Case) -> None:
    """With intrinsics and depth in place of the variable, keypoints are seen where they were."""
    x = case.zoomed.double()
    zoom = x[:, 59].exp()
    problem = case.goal.problem
    camera = problem.cam_int.clone()
    camera[:, :2, :2] *= zoom[:, None, None]
    there = x[:, :59].clone()
    there[:, 2] *= zoom
    other = replace(case.goal, problem=replace(problem, cam_int=camera))
    torch.testing.assert_close(case.zooming.pixels(x), other.pixels(there))
    assert (case.goal.pixels(x[:, :59]) - other.pixels(there)).abs().max() > 0.5  # px


@pytest.mark.parametrize("zooms", [False, True], ids=["given", "zooms"])
@pytest.mark.parametrize("phase", PHASES[1:], ids=lambda phase: phase.name)
def test_steps_end_where_naive_ones_do(case: Case, phase: RefinePhase, zooms: bool) -> None:
    goal, start = (case.zooming, case.zoomed) if zooms else (case.goal, case.x)
    run = case.solver.start(start, case.targets)
    status = case.solver.backend.read(case.solver._stepped(run, phase, phase.steps))
    moved = case.solver.backend.read(run.x)
    x, value, _ = naive_steps(goal.of(phase), start.double())
    torch.testing.assert_close(status[:, 0].double(), value, rtol=1e-3, atol=1e-5)
    assert (moved[:, :3] - x[:, :3]).abs().max() < 0.01
    if phase.moves == "camera":
        assert torch.equal(moved[:, 6:], start[:, 6:]) and not torch.equal(moved[:, :6], start[:, :6])
    elif zooms:
        assert (moved[:, 59] - start[:, 59]).abs().min() > 0.05
        torch.testing.assert_close(moved[:, 59].double(), x[:, 59], rtol=0.0, atol=2e-3)
    torch.testing.assert_close(moved.double(), x, rtol=0.0, atol=0.05)


def test_small_derivatives_of_correctives_hardly_count(models: ModelSet, case: Case) -> None:
    told = Case(models, case.body.gender, BackendKind("cpu", cpu_lanes(), 1))
    assert len(told.solver.tables.spun) < len(case.solver.tables.spun)
    one, other = (c.evaluate(PHASES[2], c.x) for c in (told, case))
    assert torch.equal(one.value, other.value)
    assert (one.gradient - other.gradient).abs().max() < 1e-3 * other.gradient.abs().max()
