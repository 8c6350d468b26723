"""Betas as variables beside the pose: the body at rest, its twists and the evaluation, against float64."""

from typing import Any

import lane_kernels
import numpy as np
import pytest
import torch
import warp as wp
from lane_kernels import LANES, OTHERS
from sample_kernels import beta_moments_kernel, evaluation_kernel
from shaped_people import ShapedPeople, lanes_of, people_of
from torch import Tensor

from skelfit.bodies.axis_rotations import cross_matrix
from skelfit.bodies.dofs import DOF_JOINT
from skelfit.bodies.model_set import ModelSet
from skelfit.fitting.backends.body_tables import body_tables
from skelfit.fitting.backends.kernels import kernels_for
from skelfit.fitting.backends.variable_tables import make_variables

lane_kernels.prepare()
COUNT, BETA_WEIGHT = 16, 1e-3
# A shape takes 20 s of a core to compile.
SHAPES = [(LANES, 1), pytest.param(1, 4, marks=pytest.mark.soak), OTHERS]
NO_LIMITS, NO_FORMS = np.array([[-np.inf, np.inf]] * 46), np.zeros((0, 46))


class KernelEvaluation:
    """The kernel's evaluation at x (B, n + 10)."""

    def __init__(self, people: ShapedPeople, x: Tensor, lanes: int, threads: int = 1) -> None:
        of, groups, num_joints = kernels_for(lanes), len(x) // lanes, len(people.tree.joints)
        variables, size = make_variables(people.tree, NO_LIMITS, (), NO_FORMS, "cpu"), x.shape[1]
        joints, beta_terms = (
            of.joint_frames.make_joint_frames(groups, "cpu"),
            of.betas_terms.make_beta_terms(groups, num_joints, "cpu"),
        )
        form = of.quadratic.make_quadratic_form(
            groups, num_joints, len(people.tree.pairs), variables.num_cells, "cpu"
        )
        beta_moments = of.betas_terms.make_beta_moments(groups, num_joints, "cpu")
        beta_moments.betas = lanes_of(people.betas, lanes)
        for name, moment in people.moments().items():
            setattr(
                beta_moments if name in ("cross", "products", "residual") else form,
                name,
                lanes_of(moment, lanes),
            )
        beta_terms.moments = beta_moments
        scratch, newton = (
            of.objective.make_variable_scratch(groups, size, 1, "cpu"),
            of.damped_step.make_newton_scratch(groups, size, "cpu"),
        )
        scratch.q = lanes_of(people.q, lanes)
        rules = of.objective.StepRules()
        rules.free_betas, rules.free_root, rules.beta_weight = 1, int(people.free_root), BETA_WEIGHT
        value = wp.zeros(groups, dtype=of.lanes.V, device="cpu")
        inputs = [
            lanes_of(x, lanes), rules, of.moments.SkinMoments(), variables, body_tables(people.model, "cpu"),
            joints, form, beta_terms, scratch, newton, value,
        ]  # fmt: skip
        wp.launch_tiled(
            evaluation_kernel(lanes), dim=[groups], inputs=inputs, block_dim=threads, device="cpu"
        )
        self.joints, self.twists, self.value = joints, people_of(beta_terms.twists.twist), people_of(value)
        self.gradient, self.hessian = people_of(newton.gradient[::2]), people_of(newton.hessian[::2])


@pytest.fixture(scope="module", params=["all", "with_root"])
def people(models: ModelSet, request: pytest.FixtureRequest) -> ShapedPeople:
    return ShapedPeople(models, request.param, COUNT)


def away(people: ShapedPeople) -> Tensor:
    """Variables at a distance from those of the vertex pass."""
    generator = torch.Generator().manual_seed(1)
    return people.x + 0.1 * torch.randn(people.x.shape, dtype=people.x.dtype, generator=generator)


def jacobian(people: ShapedPeople, x: Tensor) -> Tensor:
    """(B, 3 V, n + 10) of the residuals."""
    shift = torch.zeros(x.shape[1], dtype=x.dtype)

    def speed(along: Tensor) -> Tensor:
        return torch.func.jvp(lambda by: people.residuals(x + by), (shift,), (along,))[1]

    rows = [torch.func.vmap(speed)(part) for part in torch.eye(len(shift), dtype=x.dtype).split(8)]
    return torch.cat(rows).permute(1, 2, 0)


@pytest.fixture(scope="module")
def speed(people: ShapedPeople) -> Tensor:
    return jacobian(people, away(people))


@pytest.mark.parametrize("lanes, threads", SHAPES)
def test_evaluation_agrees_with_the_skin(
    people: ShapedPeople, speed: Tensor, lanes: int, threads: int
) -> None:
    x = away(people)
    evaluation, off = KernelEvaluation(people, x, lanes, threads), people.residuals(x)
    betas = torch.cat((torch.zeros_like(x[:, : people.n]), x[:, people.n :]), 1)
    value = off.square().sum(1) + BETA_WEIGHT * betas.square().sum(1)
    gradient = 2 * (speed.mT @ off[..., None])[..., 0] + 2 * BETA_WEIGHT * betas
    prior = torch.zeros(x.shape[1], dtype=x.dtype)
    prior[people.n :] = 2 * BETA_WEIGHT
    hessian = 2 * speed.mT @ speed + torch.diag(prior)
    errors = (
        ((evaluation.value - value) / value).abs().max(),
        ((evaluation.gradient - gradient).abs().amax(1) / gradient.abs().amax(1)).max(),
        ((evaluation.hessian.triu() - hessian.triu()).abs().amax((1, 2)) / hessian.amax((1, 2))).max(),
    )
    assert errors[0] < 1e-5
    assert errors[1] < 1e-4
    assert errors[2] < 1e-5


@pytest.mark.parametrize("lanes, threads", SHAPES)
def test_bits_depend_neither_on_batch_nor_threads(people: ShapedPeople, lanes: int, threads: int) -> None:
    """In the second call other people share a group."""
    x, order = away(people), torch.randperm(COUNT, generator=torch.Generator().manual_seed(2))
    first = KernelEvaluation(people, x, LANES)
    again = KernelEvaluation(people, x, lanes, threads)
    moved = KernelEvaluation(people.take(order), x[order], lanes, threads)
    for name in ("value", "gradient", "hessian"):
        expected = getattr(first, name)
        assert torch.equal(getattr(again, name), expected)
        assert torch.equal(getattr(moved, name), expected[order])


def test_body_at_rest_agrees_with_the_model(people: ShapedPeople) -> None:
    x = away(people)
    evaluation, frames = KernelEvaluation(people, x, LANES), people.model.frames(x[:, people.n :])
    axes = frames.frame[:, list(DOF_JOINT)] @ people.model.rig.axes[..., None]
    thorax = torch.stack((frames.thorax_width, frames.thorax_height), 1)
    for name, expected in (
        ("rest", frames.joints), ("offsets", frames.offsets), ("axes", axes[..., 0]), ("spine", frames.spine_length),
        ("thorax", thorax),
    ):  # fmt: skip
        torch.testing.assert_close(people_of(getattr(evaluation.joints, name)), expected, rtol=0, atol=3e-7)


def test_twists_agree_with_finite_differences(people: ShapedPeople) -> None:
    x, step = away(people), 1e-6
    evaluation, at = KernelEvaluation(people, x, LANES), people.transforms(x)
    turn, v = evaluation.twists.unflatten(2, (2, 3, 10)).unbind(2)
    for k in range(10):
        along = torch.zeros_like(x)
        along[:, people.n + k] = step
        speed = (people.transforms(x + along) - people.transforms(x - along)) / (2 * step)
        expected = cross_matrix(turn[..., k]) @ at
        expected[..., 3] += v[..., k]
        torch.testing.assert_close(expected, speed, rtol=0, atol=1e-7)


@pytest.mark.parametrize("lanes, threads", [(LANES, 1), (1, 4)])
def test_moments_of_betas_are_read_from_the_rows_of_the_pass(lanes: int, threads: int) -> None:
    of, generator = kernels_for(lanes), torch.Generator().manual_seed(3)
    pass_rows = torch.randperm(COUNT, generator=generator)
    source, beta_terms = (
        of.betas_moments.BetaMoments(),
        of.betas_terms.make_beta_terms(COUNT // lanes, 3, "cpu"),
    )
    numbers = {
        "betas": torch.randn(COUNT, 10, generator=generator),
        "cross": torch.randn(COUNT, 3, 12, 10, generator=generator),
        "products": torch.randn(COUNT, 10, 10, generator=generator),
        "residual": torch.randn(COUNT, 10, generator=generator),
    }
    for name, x in numbers.items():
        setattr(source, name, lanes_of(x, lanes))
    rows: Any = wp.array(pass_rows.numpy().astype(np.int32).reshape(-1, lanes), dtype=int, device="cpu")
    wp.launch_tiled(
        beta_moments_kernel(lanes),
        dim=[COUNT // lanes],
        inputs=[rows, source, beta_terms],
        block_dim=threads,
        device="cpu",
    )
    for name, x in numbers.items():
        assert torch.equal(people_of(getattr(beta_terms.moments, name)).float(), x[pass_rows])
