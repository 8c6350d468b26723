"""Betas as variables beside the pose: both forms against autograd, and against each other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from skelfit.body.dofs import NUM_DOFS, dof_limits
from skelfit.body.models import ModelSet
from skelfit.body.skel import SkelModel, skinning_transforms
from skelfit.fit import moments as moments_module
from skelfit.fit import torch_tiles
from skelfit.fit.cpu_shape import shape_tables
from skelfit.fit.moments import People, shaped_moments
from skelfit.fit.objective import ShapedObjective, shaped_objective, to_quadratic, transform_speeds
from skelfit.fit.plans import Plan, make_plan
from skelfit.fit.solver import Evaluation

COUNT, LIMIT_WEIGHT, BETA_WEIGHT = 3, 1e-3, 1e-3
FORMS = ("compiled", "torch")


class Case:
    """Three people of some shape and pose, and a target that is neither."""

    def __init__(self, models: ModelSet) -> None:
        torch.manual_seed(0)
        self.model = SkelModel(models.skel_of("male"), dtype=torch.float64)
        self.betas = torch.randn(COUNT, 10, dtype=torch.float64)
        self.q = 0.5 * torch.randn(COUNT, NUM_DOFS, dtype=torch.float64)
        self.q[:, :3] = 0
        skin = self.model.forward(self.model.shape(self.betas + 0.3), self.q + 0.05).vertices
        self.people = People(self.betas, self.model.frames(self.betas), skin.permute(1, 2, 0).contiguous())
        self.plan: Plan = make_plan(self.model, "all", "all", 5, (512, 2))
        self.limits = torch.tensor(dof_limits(), dtype=torch.float64)
        self.n = len(self.plan.dofs)

    @property
    def x(self) -> Tensor:
        return torch.cat((self.q[:, self.plan.dofs], self.betas), 1)

    def objective(self, form: str) -> object:
        with pytest.MonkeyPatch.context() as patch:
            if form == "torch":
                patch.setattr(moments_module, "cpu_tiles", torch_tiles)
            state, levers = shaped_moments(self.plan, self.model, self.people, self.q)
        rest = (levers, self.limits, LIMIT_WEIGHT, BETA_WEIGHT)
        if form == "compiled":
            return shaped_objective(self.plan, self.model, self.people, self.q, state, *rest)
        fixed = to_quadratic(self.plan, state)
        return ShapedObjective(self.plan, self.model, self.betas, self.q, fixed, *rest)

    def transforms(self, x: Tensor) -> Tensor:
        frames = self.model.frames(x[:, self.n :])
        q = self.q.index_copy(1, self.plan.dofs, x[:, : self.n])
        return skinning_transforms(self.model.joints(frames, q), frames.joints)

    def residuals(self, x: Tensor) -> Tensor:
        """Of the model that the objective is of: correctives held, shape vectors turned as at the pass. (B, 3 V)."""
        model, at, chosen = self.model, self.transforms(self.x), self.plan.vertices
        rest = model.v_template + torch.einsum("vck,bk->bvc", model.shapedirs, self.betas)
        rest = rest + model.correctives(model.joints(self.people.frames, self.q).local_rot)
        blended = torch.einsum("vj,bjrc->bvrc", model.weights, self.transforms(x))
        posed = (blended[..., :3] @ rest[..., None])[..., 0] + blended[..., 3]
        turned = torch.einsum("vj,bjrc,vck->bvrk", model.weights, at[..., :3], model.shapedirs)
        moved = posed + (turned @ (x[:, self.n :] - self.betas)[:, None, :, None])[..., 0]
        return (moved - self.people.target.permute(2, 0, 1))[:, chosen].flatten(1) / len(chosen) ** 0.5

    def value(self, x: Tensor) -> Tensor:
        low, high = self.limits[self.plan.dofs].unbind(-1)
        angles, betas = x[:, : self.n], x[:, self.n :]
        excess = torch.relu(angles - high) + torch.relu(low - angles)
        priors = LIMIT_WEIGHT * excess.square().sum(1) + BETA_WEIGHT * betas.square().sum(1)
        return self.residuals(x).square().sum(1) + priors


@pytest.fixture(scope="module")
def case(models: ModelSet) -> Case:
    return Case(models)


def evaluate(case: Case, form: str, x: Tensor) -> Evaluation:
    objective = case.objective(form)
    assert callable(objective)
    found = objective(x)
    assert isinstance(found, Evaluation)
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("away", [0.0, 0.1])
def test_value_and_gradient_are_those_of_the_skin(case: Case, form: str, away: float) -> None:
    x = case.x + away * torch.randn(
        case.x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    moving = x.clone().requires_grad_()
    expected = case.value(moving)
    (gradient,) = torch.autograd.grad(expected.sum(), moving)
    found = evaluate(case, form, x)
    torch.testing.assert_close(found.value, expected.detach(), rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(found.gradient, gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_matrix_is_gauss_newtons(case: Case, form: str) -> None:
    shift = torch.zeros(case.x.shape[1], dtype=torch.float64)
    speed = torch.func.vmap(lambda d: torch.func.jvp(lambda t: case.residuals(case.x + t), (shift,), (d,))[1])
    jacobian = torch.cat([speed(d) for d in torch.eye(len(shift)).double().split(8)]).permute(1, 2, 0)
    expected = 2 * jacobian.mT @ jacobian
    low, high = case.limits[case.plan.dofs].unbind(-1)
    beyond = (case.x[:, : case.n] > high) | (case.x[:, : case.n] < low)
    assert beyond.any()
    priors = torch.cat((LIMIT_WEIGHT * beyond, torch.full((COUNT, 10), BETA_WEIGHT)), 1)
    expected = expected + torch.diag_embed(2 * priors.double())
    torch.testing.assert_close(evaluate(case, form, case.x).hessian, expected, rtol=1e-8, atol=1e-10)


def test_both_forms_agree_on_some_of_the_people(models: ModelSet) -> None:
    case = Case(models)
    rows, x = torch.tensor([2, 0]), case.x + 0.02
    found = [case.objective(form).take(rows)(x[rows]) for form in FORMS]  # type: ignore[attr-defined]
    for name in ("value", "gradient", "hessian"):
        one, other = (getattr(f, name) for f in found)
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_transform_speeds_are_those_of_differences(case: Case) -> None:
    step = 1e-6
    _, speeds = transform_speeds(case.plan, case.model, case.betas, case.q)
    for k in (0, 3, 9):
        along = torch.zeros_like(case.betas)
        along[:, k] = step
        ends = [transform_speeds(case.plan, case.model, case.betas + s * along, case.q)[0] for s in (1, -1)]
        torch.testing.assert_close(speeds[:, k], (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-8)


def test_tables_give_the_frames_of_the_model(case: Case) -> None:
    """A bone that is missing from the tables would stand still."""
    tables = shape_tables(case.model)
    free = case.model.rig.free.numpy()
    assert (tables.bones[free, 0] >= 0).all() and (tables.bones[~free] < 0).all()
