"""The naive twin of a stage's objective: against finite differences, sums written out, and closed forms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from skelfit.body.dofs import DOF_JOINT, NUM_DOFS, STAGE_JOINTS, dof_limits
from skelfit.body.models import ModelSet
from skelfit.body.skel import SkelModel
from skelfit.fit.joint_targets import JointGoal
from skelfit.fit.reference import Reference

COUNT, LIMIT_WEIGHT, BETA_WEIGHT, JOINT_WEIGHT = 2, 0.02, 1e-3, 0.3
STRIDE = 25


@pytest.fixture(scope="module")
def model(models: ModelSet) -> SkelModel:
    return SkelModel(models.skel_of("male"), dtype=torch.float64)


def dofs_of(part: str) -> Tensor:
    return torch.tensor([i for i, j in enumerate(DOF_JOINT) if j in STAGE_JOINTS[part]])


def make(model: SkelModel, part: str = "all", *, betas: bool = False, **more: object) -> Reference:
    """Two people of some shape and pose, a target that is neither, unequal vertices, narrow limits."""
    source = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source, dtype=torch.float64)

    few = model.with_vertices(np.arange(0, len(model.v_template), STRIDE))
    shape, q = normal(COUNT, model.num_betas), 0.4 * normal(COUNT, NUM_DOFS)
    target = few.forward(few.shape(shape + 0.3), q + 0.1 * normal(COUNT, NUM_DOFS))
    om = 0.5 + torch.rand(len(few.v_template), generator=source, dtype=torch.float64)
    base = Reference(
        model=few,
        om=om / om.sum(),
        target=target.vertices,
        dofs=dofs_of(part),
        q=q,
        betas=shape,
        limits=torch.tensor(dof_limits()) / 6,
        limit_weight=LIMIT_WEIGHT,
        beta_weight=BETA_WEIGHT if betas else None,
    )
    return replace(base, **more)


def shoulders(goal: Reference) -> JointGoal:
    """The shoulders a little beside where they are."""
    joints = (14, 15, 19, 20)
    at = goal.model.forward(goal.model.shape(goal.betas), goal.q).joints[:, list(joints)]
    return JointGoal(joints, at + 0.03, JOINT_WEIGHT)


KINDS: dict[str, Callable[[SkelModel], Reference]] = {
    "pose": make,
    "lower body": lambda m: make(m, "lower_body"),
    "held": lambda m: make(m).hold(),
    "betas": lambda m: make(m, betas=True),
    "betas, held": lambda m: make(m, betas=True).hold(),
    "joints": lambda m: replace(make(m), joints=shoulders(make(m))),
    "all of it": lambda m: replace(make(m, betas=True), joints=shoulders(make(m))).hold(),
    "free root": lambda m: make(m, "with_root", free_translation=True).hold(),
    "free root, joints": lambda m: replace(
        make(m, "with_root", free_translation=True, betas=True), joints=shoulders(make(m))
    ),
}


@pytest.fixture(params=KINDS)
def goal(request: pytest.FixtureRequest, model: SkelModel) -> Reference:
    return KINDS[request.param](model)


def near(goal: Reference) -> Tensor:
    """Variables a little off the start, some of them beyond a limit."""
    x = goal.start
    x = x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=x.dtype)
    low, high = goal.limits[goal.dofs].unbind(-1)
    angles = x[:, : len(goal.dofs)]
    beyond = (angles > high) | (angles < low)
    assert beyond.any() and not beyond.all()
    return x


def differences(function: Callable[[Tensor], Tensor], x: Tensor, step: float = 1e-5) -> Tensor:
    """Central differences of function(x) (B, ...) along each variable: (B, ..., n)."""
    steps = step * torch.eye(x.shape[1], dtype=x.dtype)
    return torch.stack([(function(x + h) - function(x - h)) / (2 * step) for h in steps], -1)


def test_derivatives_are_those_of_differences(goal: Reference) -> None:
    x = near(goal)
    gradient = goal.gradient(x)
    expected = differences(goal.value, x)
    assert (gradient - expected).abs().max() < 1e-8 * expected.abs().max() + 1e-10
    jacobian = differences(goal.residuals, x)
    matrix, slope = goal.matrix(x), differences(goal.gradient, x)
    assert (matrix - 2 * jacobian.mT @ jacobian).abs().max() < 1e-7 * matrix.abs().max()
    hessian = goal.hessian(x)
    assert (hessian - slope).abs().max() < 1e-7 * slope.abs().max()
    assert (hessian - hessian.mT).abs().max() < 1e-12 * slope.abs().max()
    # Otherwise the two would not be told apart.
    assert (hessian - matrix).abs().max() > 1e-3 * slope.abs().max()


def test_people_are_evaluated_as_they_are_alone(goal: Reference) -> None:
    x = near(goal)
    together = vars(goal.evaluate(x, exact=True))
    n = x.shape[1]
    assert {k: tuple(v.shape) for k, v in together.items()} == {
        "value": (COUNT,), "gradient": (COUNT, n), "matrix": (COUNT, n, n), "hessian": (COUNT, n, n)
    }  # fmt: skip
    rows = torch.tensor([1])
    for name, few in vars(goal.take(rows).evaluate(x[rows], exact=True)).items():
        torch.testing.assert_close(few, together[name][rows], rtol=1e-10, atol=1e-13, msg=name)
    assert goal.take(rows).evaluate(x[rows]).hessian is None
    torch.testing.assert_close(goal.take(rows).start, goal.start[rows], rtol=0, atol=0)


def test_the_value_is_what_it_says(model: SkelModel) -> None:
    """Term by term, over a loop of people, vertices weighted, the root's limits infinite."""
    goal = replace(make(model, "with_root", betas=True), joints=shoulders(make(model)))
    x = near(goal)
    for k, value in enumerate(goal.value(x).tolist()):
        q, betas = x[k, :NUM_DOFS], x[k, NUM_DOFS:]
        body = model.forward(model.shape(betas), q)
        skin = ((body.vertices[::STRIDE] - goal.target[k]).square().sum(1) * goal.om).sum()
        low, high = goal.limits.unbind(-1)
        excess = (q - q.clamp(low, high)).square().sum()
        assert goal.joints is not None
        away = (body.joints[list(goal.joints.joints)] - goal.joints.place[k]).square().sum()
        terms = (skin, LIMIT_WEIGHT * excess, BETA_WEIGHT * betas.square().sum(), JOINT_WEIGHT * away)
        assert min(terms) > 1e-4
        assert value == pytest.approx(float(sum(terms)), rel=1e-10)


def test_what_is_held_is_that_of_the_pass(model: SkelModel) -> None:
    """At the pass both objectives are one; away from it only what is held differs: correctives, and turned betas."""
    free = make(model, betas=True)
    held, x, n = free.hold(), free.start, len(free.dofs)
    torch.testing.assert_close(held.value(x), free.value(x), rtol=1e-10, atol=0)
    assert (held.gradient(x) - free.gradient(x))[:, :n].abs().max() > 1e-5
    assert ((held.value(near(free)) - free.value(near(free))).abs() > 1e-9).all()

    stiff = model.with_vertices(np.arange(0, len(model.v_template), STRIDE))
    stiff.posedirs = torch.zeros_like(stiff.posedirs)
    free = replace(free, model=stiff)
    torch.testing.assert_close(free.hold().gradient(x), free.gradient(x), rtol=1e-9, atol=1e-12)
    assert ((free.hold().value(near(free)) - free.value(near(free))).abs() > 1e-9).all()
    pose = replace(free, beta_weight=None)
    for name, expected in vars(pose.evaluate(near(pose), exact=True)).items():
        found = getattr(pose.hold().evaluate(near(pose), exact=True), name)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("with_joints", [False, True])
def test_a_free_translation_is_the_best_one(model: SkelModel, with_joints: bool) -> None:
    goal = make(model, "with_root")
    joints = shoulders(goal) if with_joints else None
    goal = replace(goal, target=goal.target + torch.tensor([0.1, -0.2, 0.3]), joints=joints)
    x = near(goal)
    best = goal.translation(x)
    moved = replace(
        goal,
        target=goal.target - best[:, None],
        joints=goal.joints and replace(goal.joints, place=goal.joints.place - best[:, None]),
    )
    free = replace(goal, free_translation=True)
    torch.testing.assert_close(free.value(x), moved.value(x), rtol=1e-10, atol=0)
    assert (free.value(x) < 0.8 * goal.value(x)).all()
    assert moved.translation(x).abs().max() < 1e-12


def test_float32_is_as_near_as_its_rounding(models: ModelSet, model: SkelModel) -> None:
    """Any float type: kernels' inputs may be judged as they are."""
    goal = make(model, betas=True).hold()
    x = near(goal)
    few = SkelModel(models.skel_of("male")).with_vertices(np.arange(0, len(model.v_template), STRIDE))
    names = ("om", "target", "q", "betas", "limits")
    single = replace(goal, model=few, **{k: getattr(goal, k).float() for k in names}).hold()
    found, expected = single.evaluate(x.float()), goal.evaluate(x)
    assert found.value.dtype == torch.float32
    torch.testing.assert_close(found.value.double(), expected.value, rtol=1e-5, atol=0)
    for name in ("gradient", "matrix"):
        one, other = getattr(found, name).double(), getattr(expected, name)
        assert (one - other).abs().max() < 1e-5 * other.abs().max()
