"""To be dropped with `objective` and `moments`: what the reference says is what the fit's objectives said before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from skelfit.body.dofs import NUM_DOFS, dof_limits
from skelfit.body.models import ModelSet
from skelfit.body.skel import SkelModel
from skelfit.fit.chart import shaped_move, torch_move
from skelfit.fit.free_root import centred
from skelfit.fit.joint_targets import make_goal, make_locator, with_joints
from skelfit.fit.moments import People, moments, shaped_moments
from skelfit.fit.objective import PoseObjective, ShapedObjective, to_quadratic
from skelfit.fit.plans import Plan, make_plan
from skelfit.fit.reference import Reference
from skelfit.fit.reference_solver import joint_move, levenberg_marquardt
from skelfit.fit.solver import levenberg_marquardt as old_levenberg_marquardt

LIMITS = torch.tensor(dof_limits()) / 6
COUNT, LIMIT_WEIGHT, BETA_WEIGHT = 2, 0.02, 1e-3


@pytest.fixture(scope="module")
def model(models: ModelSet) -> SkelModel:
    return SkelModel(models.skel_of("male"), dtype=torch.float64)


def case(model: SkelModel, part: str) -> tuple[Plan, People, Tensor, Reference]:
    betas = torch.randn(COUNT, 10, dtype=torch.float64)
    q = 0.4 * torch.randn(COUNT, NUM_DOFS, dtype=torch.float64)
    if part != "with_root":
        q[:, :3] = 0
    target = model.forward(model.shape(betas + 0.3), q + 0.1 * torch.randn_like(q)).vertices
    people = People(betas, model.frames(betas), target.permute(1, 2, 0).contiguous())
    plan = make_plan(model, part, "all", 30, (512, 32), None, 0.2 + np.arange(6890) % 5)
    om = torch.cat([b.om for b in plan.blocks])
    few = model.with_vertices(plan.vertices)
    reference = Reference(few, om, target[:, plan.vertices], plan.dofs, q, betas, LIMITS, LIMIT_WEIGHT)
    return plan, people, q, reference


def check(reference: Reference, x: Tensor, found: object, tolerance: float) -> None:
    expected = reference.evaluate(x, exact=getattr(found, "bend", None) is not None)
    pairs = [
        (found.value, expected.value),
        (found.gradient, expected.gradient),
        (found.hessian, expected.matrix),
    ]
    if found.bend is not None:
        pairs.append((found.hessian + found.bend, expected.hessian))
    for one, other in pairs:
        assert (one - other).abs().max() < tolerance * other.abs().max()


@pytest.mark.parametrize("part", ["all", "lower_body", "upper_body"])
def test_pose(model: SkelModel, part: str) -> None:
    plan, people, q, reference = case(model, part)
    joints = make_goal(make_locator(model, LIMITS), plan, people.target + 0.05, 0.3)
    state = to_quadratic(plan, with_joints(moments(plan, model, people, q), plan, people.frames, joints))
    x = reference.start + 0.05 * torch.randn_like(reference.start)
    found = PoseObjective(plan, model, people.frames, q, state, LIMITS, LIMIT_WEIGHT, exact=True)(x)
    check(replace(reference.hold(), joints=joints), x, found, 1e-9)


def test_betas(model: SkelModel) -> None:
    plan, people, q, reference = case(model, "all")
    reference = replace(reference, beta_weight=BETA_WEIGHT).hold()
    state, levers = shaped_moments(plan, model, people, q)
    goal = ShapedObjective(
        plan, model, people.betas, q, to_quadratic(plan, state), levers, LIMITS, LIMIT_WEIGHT, BETA_WEIGHT
    )
    x = reference.start + 0.05 * torch.randn_like(reference.start)
    check(reference, x, goal(x), 1e-9)


def test_free_root(model: SkelModel) -> None:
    plan, people, q, reference = case(model, "with_root")
    reference = replace(reference, free_translation=True).hold()
    state = centred(to_quadratic(plan, moments(plan, model, people, q)))
    x = reference.start + 0.05 * torch.randn_like(reference.start)
    # The weights are float32: those of a vertex sum to 1 within 1e-7.
    check(reference, x, PoseObjective(plan, model, people.frames, q, state, LIMITS, LIMIT_WEIGHT)(x), 1e-6)


@pytest.mark.parametrize("betas", [False, True])
def test_solver(model: SkelModel, betas: bool) -> None:
    """A dozen steps, the same decisions: the same answers, dampings and promises."""
    plan, people, q, reference = case(model, "all")
    limits = LIMITS.numpy()
    move = torch_move(plan.joints, plan.dofs.tolist(), "cpu", torch.float64, limits)
    if betas:
        reference = replace(reference, beta_weight=BETA_WEIGHT)
        state, levers = shaped_moments(plan, model, people, q)
        goal = ShapedObjective(
            plan, model, people.betas, q, to_quadratic(plan, state), levers, LIMITS, LIMIT_WEIGHT, BETA_WEIGHT
        )
        move = shaped_move(move, len(plan.dofs), 2.0)
    else:
        state = to_quadratic(plan, moments(plan, model, people, q))
        goal = PoseObjective(plan, model, people.frames, q, state, LIMITS, LIMIT_WEIGHT, exact=True)
    reference = reference.hold()
    start = reference.start
    expected = old_levenberg_marquardt(goal, start, 12, 0.4, move, 1e-6)
    found = levenberg_marquardt(
        lambda x: reference.evaluate(x, exact=not betas), start, 12, joint_move(plan.dofs, limits, 0.4), 1e-6
    )
    assert (found.x - start).abs().max() > 0.1
    for name, one in vars(expected).items():
        torch.testing.assert_close(getattr(found, name), one, rtol=1e-5, atol=1e-7, msg=name)
