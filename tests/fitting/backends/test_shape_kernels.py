"""Betas in the lane kernels: the body at rest and its twists, and betas as variables beside the pose."""

from functools import lru_cache
from typing import Any

import lane_kernels
import numpy as np
import pytest
import torch
import warp as wp
from lane_kernels import SHAPES
from shaped_people import People, lanes_of, people_of
from torch import Tensor

from skelfit.bodies.axis_rotations import cross_matrix
from skelfit.bodies.dofs import DOF_JOINT
from skelfit.bodies.model_set import ModelSet
from skelfit.fitting.backends.body_tables import Body, body_tables
from skelfit.fitting.backends.kernels import kernels_for
from skelfit.fitting.backends.variable_tables import Variables, make_variables

lane_kernels.prepare()
COUNT, BETA_WEIGHT = 16, 1e-3
NO_LIMITS, NO_FORMS = np.array([[-np.inf, np.inf]] * 46), np.zeros((0, 46))


@lru_cache
def evaluator(lanes: int) -> Any:
    """The kernel that evaluates people, with so many lanes a group."""
    of = kernels_for(lanes)
    A1, A2, take_means, evaluate = of.lanes.A1, of.lanes.A2, of.quadratic.means, of.objective.evaluate
    Rules, Moments, Work, Steps = of.objective.Rules, of.moments.Moments, of.objective.Work, of.step.Steps
    Place, Room, Shaping = of.place.Place, of.quadratic.Room, of.betas.Shaping

    @wp.kernel(module="unique", enable_backward=False)
    def evaluate_all(
        x: A2, rules: Rules, moments: Moments, variables: Variables, body: Body, place: Place, room: Room,
        shaping: Shaping, work: Work, steps: Steps, value: A1,
    ):  # fmt: skip
        g, t = wp.tid()
        take_means(g, t, variables, room)
        found = evaluate(
            g, t, 2 * g, g, x, rules, moments, variables, body, place, room, shaping, work, steps
        )
        if t == 0:
            value[g] = found

    return evaluate_all


class Found:
    """What the kernel finds at x (B, n + 10)."""

    def __init__(self, people: People, x: Tensor, lanes: int, threads: int = 1) -> None:
        of, groups, joints = kernels_for(lanes), len(x) // lanes, len(people.tree.joints)
        variables, size = make_variables(people.tree, NO_LIMITS, (), NO_FORMS, "cpu"), x.shape[1]
        place, shaping = of.place.make_place(groups, "cpu"), of.betas.make_shaping(groups, joints, "cpu")
        room = of.quadratic.make_room(groups, joints, len(people.tree.pairs), variables.num_cells, "cpu")
        levers = of.betas.make_levers(groups, joints, "cpu")
        levers.betas = lanes_of(people.betas, lanes)
        for name, moment in people.moments().items():
            setattr(levers if name in ("lever", "products", "pull") else room, name, lanes_of(moment, lanes))
        shaping.levers = levers
        work, steps = (
            of.objective.make_work(groups, size, 1, "cpu"),
            of.step.make_steps(groups, size, "cpu"),
        )
        work.q = lanes_of(people.q, lanes)
        rules = of.objective.Rules()
        rules.free_betas, rules.free_root, rules.beta_weight = 1, int(people.free_root), BETA_WEIGHT
        value = wp.zeros(groups, dtype=of.lanes.V, device="cpu")
        inputs = [
            lanes_of(x, lanes), rules, of.solve.Moments(), variables, body_tables(people.model, "cpu"), place, room,
            shaping, work, steps, value,
        ]  # fmt: skip
        wp.launch_tiled(evaluator(lanes), dim=[groups], inputs=inputs, block_dim=threads, device="cpu")
        self.place, self.twists, self.value = place, people_of(shaping.sway.twists), people_of(value)
        self.gradient, self.hessian = people_of(steps.gradient[::2]), people_of(steps.hessian[::2])


@pytest.fixture(scope="module", params=["all", "with_root"])
def people(models: ModelSet, request: pytest.FixtureRequest) -> People:
    return People(models, request.param, COUNT)


def away(people: People) -> Tensor:
    """Variables some way off those of the vertex pass."""
    source = torch.Generator().manual_seed(1)
    return people.x + 0.1 * torch.randn(people.x.shape, dtype=people.x.dtype, generator=source)


def jacobian(people: People, x: Tensor) -> Tensor:
    """(B, 3 V, n + 10) of the residuals."""
    shift = torch.zeros(x.shape[1], dtype=x.dtype)

    def speed(along: Tensor) -> Tensor:
        return torch.func.jvp(lambda by: people.residuals(x + by), (shift,), (along,))[1]

    rows = [torch.func.vmap(speed)(some) for some in torch.eye(len(shift), dtype=x.dtype).split(8)]
    return torch.cat(rows).permute(1, 2, 0)


@pytest.mark.parametrize("lanes", [1, 8, 16])
def test_evaluation_is_that_of_the_skin(people: People, lanes: int) -> None:
    x = away(people)
    found = Found(people, x, lanes)
    off, speed = people.residuals(x), jacobian(people, x)
    betas = torch.cat((torch.zeros_like(x[:, : people.n]), x[:, people.n :]), 1)
    value = off.square().sum(1) + BETA_WEIGHT * betas.square().sum(1)
    gradient = 2 * (speed.mT @ off[..., None])[..., 0] + 2 * BETA_WEIGHT * betas
    prior = torch.zeros(x.shape[1], dtype=x.dtype)
    prior[people.n :] = 2 * BETA_WEIGHT
    hessian = 2 * speed.mT @ speed + torch.diag(prior)
    errors = (
        ((found.value - value) / value).abs().max(),
        ((found.gradient - gradient).abs().amax(1) / gradient.abs().amax(1)).max(),
        ((found.hessian.triu() - hessian.triu()).abs().amax((1, 2)) / hessian.amax((1, 2))).max(),
    )
    assert errors[0] < 1e-5
    assert errors[1] < 1e-4
    assert errors[2] < 1e-5


def test_answers_depend_neither_on_threads_nor_on_company(people: People) -> None:
    """The same bits; in the second call others share a person's group."""
    x, order = away(people), torch.randperm(COUNT, generator=torch.Generator().manual_seed(2))
    first = Found(people, x, 8)
    for lanes, threads in SHAPES:
        again = Found(people, x, lanes, threads)
        moved = Found(people.take(order), x[order], lanes, threads)
        for name in ("value", "gradient", "hessian"):
            expected = getattr(first, name)
            assert torch.equal(getattr(again, name), expected)
            assert torch.equal(getattr(moved, name), expected[order])


def test_body_at_rest_is_the_models(people: People) -> None:
    x = away(people)
    found, frames = Found(people, x, 8), people.model.frames(x[:, people.n :])
    axes = frames.frame[:, list(DOF_JOINT)] @ people.model.rig.axes[..., None]
    thorax = torch.stack((frames.thorax_width, frames.thorax_height), 1)
    for name, expected in (
        ("rest", frames.joints), ("offsets", frames.offsets), ("axes", axes[..., 0]), ("spine", frames.spine_length),
        ("thorax", thorax),
    ):  # fmt: skip
        torch.testing.assert_close(people_of(getattr(found.place, name)), expected, rtol=0, atol=3e-7)


def test_twists_are_those_of_differences(people: People) -> None:
    x, step = away(people), 1e-6
    found, at = Found(people, x, 8), people.transforms(x)
    turn, v = found.twists.unflatten(2, (2, 3, 10)).unbind(2)
    for k in range(10):
        along = torch.zeros_like(x)
        along[:, people.n + k] = step
        speed = (people.transforms(x + along) - people.transforms(x - along)) / (2 * step)
        expected = cross_matrix(turn[..., k]) @ at
        expected[..., 3] += v[..., k]
        torch.testing.assert_close(expected, speed, rtol=0, atol=1e-7)


@pytest.mark.parametrize("lanes", [1, 8])
def test_levers_are_found_where_the_pass_put_them(lanes: int) -> None:
    of, source = kernels_for(lanes), torch.Generator().manual_seed(3)
    Levers, Shaping, I2, load_levers = of.levers.Levers, of.betas.Shaping, of.lanes.I2, of.betas.load_levers

    @wp.kernel(module="unique", enable_backward=False)
    def load(places: I2, given: Levers, shaping: Shaping):
        g, t = wp.tid()
        load_levers(g, t, g, places, given, shaping)

    places = torch.randperm(COUNT, generator=source)
    given, shaping = Levers(), of.betas.make_shaping(COUNT // lanes, 3, "cpu")
    numbers = {
        "betas": torch.randn(COUNT, 10, generator=source),
        "lever": torch.randn(COUNT, 3, 12, 10, generator=source),
        "products": torch.randn(COUNT, 10, 10, generator=source),
        "pull": torch.randn(COUNT, 10, generator=source),
    }
    for name, x in numbers.items():
        setattr(given, name, lanes_of(x, lanes))
    rows = wp.array(places.numpy().astype(np.int32).reshape(-1, lanes), dtype=int, device="cpu")
    wp.launch_tiled(load, dim=[COUNT // lanes], inputs=[rows, given, shaping], block_dim=4, device="cpu")
    for name, x in numbers.items():
        assert torch.equal(people_of(getattr(shaping.levers, name)).float(), x[places])
