"""A stage's naive objective: against finite differences, sums written out, and closed forms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from reference_cases import (
    BETA_WEIGHT,
    COUNT,
    JOINT_WEIGHT,
    KINDS,
    LIMIT_WEIGHT,
    MOVE_WEIGHT,
    STRIDE,
    TURN_WEIGHT,
    make,
    near,
    shoulders,
)
from torch import Tensor

from skelfit.bodies.dofs import NUM_DOFS
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.fitting.baseline.naive_objective import NaiveObjective

pytestmark = pytest.mark.soak  # half a minute of a core and more, of code that seldom changes


@pytest.fixture(params=KINDS)
def goal(request: pytest.FixtureRequest, model: SkelModel) -> NaiveObjective:
    return KINDS[request.param](model)


def differences(function: Callable[[Tensor], Tensor], x: Tensor, along: Tensor, step: float = 1e-5) -> Tensor:
    """Central differences of function(x) (B, ...) along directions (n, K): (B, ..., K)."""
    return torch.stack([(function(x + h) - function(x - h)) / (2 * step) for h in step * along.mT], -1)


def test_derivatives_are_those_of_differences(goal: NaiveObjective) -> None:
    """Along directions in which all variables move: an entry that is wrong shows in each of them."""
    x = near(goal)
    along = torch.randint(0, 2, (x.shape[1], 6)).double() * 2 - 1
    gradient, expected = goal.gradient(x) @ along, differences(goal.value, x, along)
    assert (gradient - expected).abs().max() < 1e-8 * expected.abs().max() + 1e-10
    change = differences(goal.residuals, x, along)
    matrix, hessian = goal.matrix(x), goal.hessian(x)
    expected = 2 * change.mT @ change
    assert (along.mT @ matrix @ along - expected).abs().max() < 1e-8 * expected.abs().max()
    slope = differences(goal.gradient, x, along)
    assert (hessian @ along - slope).abs().max() < 1e-7 * slope.abs().max()
    assert (hessian - hessian.mT).abs().max() < 1e-12 * slope.abs().max()
    # Otherwise the test could not tell the two apart.
    assert (hessian - matrix).abs().max() > 1e-3 * hessian.abs().max()


@pytest.mark.parametrize("angle", [0.0, 1e-6, 0.1])
def test_the_hessian_of_a_straight_spine(model: SkelModel, angle: float) -> None:
    """At the start, where the curve of a spine is 0 / 0."""
    goal = make(model)
    goal = replace(goal, q=torch.full_like(goal.q, angle), limit_weight=0.0)
    x = goal.start
    variables = torch.eye(x.shape[1], dtype=x.dtype)
    hessian, slope = goal.hessian(x), differences(goal.gradient, x, variables, 1e-4)
    assert (hessian - slope).abs().max() < 1e-6 * slope.abs().max()


@pytest.mark.parametrize(
    "goal", ["pose", "all of it", "free root, joints", "held root, betas"], indirect=True
)
def test_people_are_evaluated_as_they_are_alone(goal: NaiveObjective) -> None:
    """With every term at least once."""
    x = near(goal)
    together = vars(goal.evaluate(x, exact=True))
    n = x.shape[1]
    assert {k: tuple(v.shape) for k, v in together.items()} == {
        "value": (COUNT,), "gradient": (COUNT, n), "matrix": (COUNT, n, n), "hessian": (COUNT, n, n)
    }  # fmt: skip
    rows = torch.tensor([1])
    for name, alone in vars(goal.take(rows).evaluate(x[rows], exact=True)).items():
        torch.testing.assert_close(alone, together[name][rows], rtol=1e-10, atol=1e-13, msg=name)
    assert goal.take(rows).evaluate(x[rows]).hessian is None
    torch.testing.assert_close(goal.take(rows).start, goal.start[rows], rtol=0, atol=0)


def test_the_value_is_the_sum_of_its_terms(model: SkelModel) -> None:
    """Term by term, in a loop over people, with vertex weights."""
    goal = replace(make(model, "with_root", betas=True), joints=shoulders(make(model)))
    x = near(goal)
    for k, value in enumerate(goal.value(x).tolist()):
        q, betas = x[k, :NUM_DOFS], x[k, NUM_DOFS:]
        body = model.forward(model.shape(betas), q)
        skin = ((body.vertices[::STRIDE] - goal.target[k]).square().sum(1) * goal.om).sum()
        low, high = goal.limits.unbind(-1)
        excess = (q - q.clamp(low, high)).square().sum()
        assert goal.joints is not None
        away = (body.joints[list(goal.joints.joints)] - goal.joints.targets[k]).square().sum()
        terms = (skin, LIMIT_WEIGHT * excess, BETA_WEIGHT * betas.square().sum(), JOINT_WEIGHT * away)
        assert min(terms) > 1e-4
        assert value == pytest.approx(float(sum(terms)), rel=1e-10)


def test_a_held_objective_keeps_correctives_and_beta_slopes(model: SkelModel) -> None:
    """At the pass both objectives are equal; away from it they differ by what is held."""
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
        held_value = getattr(pose.hold().evaluate(near(pose), exact=True), name)
        torch.testing.assert_close(held_value, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("with_joints", [False, True])
def test_a_free_translation_is_the_best_one(model: SkelModel, with_joints: bool) -> None:
    goal = make(model, "with_root")
    joints = shoulders(goal) if with_joints else None
    goal = replace(goal, target=goal.target + torch.tensor([0.1, -0.2, 0.3]), joints=joints)
    x, free = near(goal), replace(goal, free_translation=True)
    best = free.translation(x)
    assert (goal.translation(x) == 0).all()
    moved = replace(
        goal,
        target=goal.target - best[:, None],
        joints=goal.joints and replace(goal.joints, targets=goal.joints.targets - best[:, None]),
    )
    torch.testing.assert_close(free.value(x), moved.value(x), rtol=1e-10, atol=0)
    assert (free.value(x) < 0.8 * goal.value(x)).all()
    assert replace(moved, free_translation=True).translation(x).abs().max() < 1e-12


def test_the_root_prior_costs_turns_and_translations(model: SkelModel) -> None:
    """A small turn costs its squared angle. A translation is the best one for its cost, and shorter than a free one."""
    goal = replace(make(model, "with_root"), limit_weight=0.0)
    goal = replace(goal, target=goal.target + torch.tensor([0.1, -0.2, 0.3]))
    turned = replace(goal, turn_weight=TURN_WEIGHT)
    angle = torch.tensor([0.01, 0.02], dtype=torch.float64)
    for axis in range(3):
        x = goal.start.index_fill(1, torch.arange(3), 0.0)
        assert torch.equal(turned.value(x), goal.value(x))
        x[:, axis] = angle
        cost = turned.value(x) - goal.value(x)
        torch.testing.assert_close(cost, TURN_WEIGHT * angle.square(), rtol=1e-4, atol=0)
    held = replace(goal, free_translation=True, move_weight=MOVE_WEIGHT)
    x = near(goal)
    best = held.translation(x)
    torch.testing.assert_close(
        best * (1 + MOVE_WEIGHT), replace(goal, free_translation=True).translation(x), rtol=1e-10, atol=0
    )

    def value(move: Tensor) -> Tensor:
        cost = MOVE_WEIGHT * move.square().sum(1)
        return replace(goal, target=goal.target - move[:, None]).value(x) + cost

    torch.testing.assert_close(held.value(x), value(best), rtol=1e-10, atol=0)
    for off in 1e-3 * torch.eye(3, dtype=torch.float64):
        assert (value(best + off) > value(best)).all() and (value(best - off) > value(best)).all()


def test_float32_is_as_near_as_its_rounding(models: ModelSet, model: SkelModel) -> None:
    """For any float type."""
    goal = make(model, betas=True).hold()
    x = near(goal)
    single_model = SkelModel(models.skel_of("male")).with_vertices(
        np.arange(0, len(model.v_template), STRIDE)
    )
    names = ("om", "target", "q", "betas", "limits")
    single = replace(goal, model=single_model, **{k: getattr(goal, k).float() for k in names}).hold()
    state, expected = single.evaluate(x.float()), goal.evaluate(x)
    assert state.value.dtype == torch.float32
    torch.testing.assert_close(state.value.double(), expected.value, rtol=1e-5, atol=0)
    for name in ("gradient", "matrix"):
        one, other = getattr(state, name).double(), getattr(expected, name)
        assert (one - other).abs().max() < 1e-5 * other.abs().max()
