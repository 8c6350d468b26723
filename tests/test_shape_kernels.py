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

from skelfit.body.axes import cross_matrix
from skelfit.body.dofs import DOF_JOINT
from skelfit.body.models import ModelSet
from skelfit.fit.body_tables import Body, body_tables
from skelfit.fit.kernels import kernels_for
from skelfit.fit.variables import Variables, make_variables

lane_kernels.prepare()
COUNT, BETA_WEIGHT, NO_LIMITS = 16, 1e-3, np.array([[-np.inf, np.inf]] * 46)


@lru_cache
def evaluator(lanes: int) -> Any:
    """The kernel that evaluates people, with so many lanes a group."""
    of = kernels_for(lanes)
    A1, A2, A3, V, sync = of.lanes.A1, of.lanes.A2, of.lanes.A3, of.lanes.V, of.lanes.sync
    Place, Room, Shaping = of.place.Place, of.quadratic.Room, of.betas.Shaping
    shape_joints, pose = of.shape.shape_joints, of.chain.pose
    slopes, centre, forces, means = (
        of.quadratic.slopes,
        of.quadratic.centre,
        of.quadratic.forces,
        of.quadratic.means,
    )
    mean_residual, mean_speed, centre_row = (
        of.quadratic.mean_residual, of.quadratic.mean_speed, of.quadratic.centre_row
    )  # fmt: skip
    pair_moments, add_up, value_of = of.quadratic.pair_moments, of.quadratic.add_up, of.quadratic.value_of
    gradient_entry, matrix_row = of.quadratic.gradient_entry, of.quadratic.matrix_row
    lever_slopes, beta_parts, beta_columns = of.betas.lever_slopes, of.betas.beta_parts, of.betas.beta_columns
    beta_value, beta_gradient, beta_speed = of.betas.beta_value, of.betas.beta_gradient, of.betas.beta_speed

    @wp.kernel(module="unique", enable_backward=False)
    def evaluate(
        q: A2, betas: A2, weight: float, free_root: int, body: Body, variables: Variables,
        place: Place, room: Room, shaping: Shaping, speeds: A3, value: A1, gradient: A2, hessian: A3,
    ):  # fmt: skip
        g, t = wp.tid()
        n = variables.num_dofs
        shape_joints(g, t, betas, body, place)
        pose(g, t, q, body, place)
        lever_slopes(g, t, betas, body, variables, place, room, shaping)
        slopes(g, t, variables, place, room)
        found = value_of(g, variables, room) + beta_value(g, betas, weight, shaping)
        x = V()
        y = V()
        z = V()
        if free_root != 0:
            means(g, t, variables, room)
            x = mean_residual(g, 0, variables, room)
            y = mean_residual(g, 1, variables, room)
            z = mean_residual(g, 2, variables, room)
            found -= wp.cw_mul(x, x) + wp.cw_mul(y, y) + wp.cw_mul(z, z)
            sync()
            centre(g, t, x, y, z, variables, room)
        forces(g, t, variables, room)
        beta_parts(g, t, x, y, z, variables, room, shaping)
        pair_moments(g, t, variables, room)
        beta_columns(g, t, g, weight, variables, place, room, shaping, hessian)
        add_up(t, g, 16, variables.cell_sums, room.cells)
        for i in range(t, n, wp.block_dim()):
            gradient[g, i] = gradient_entry(g, i, variables, place, room)
            matrix_row(g, g, i, variables, place, room, hessian)
        for k in range(t, betas.shape[1], wp.block_dim()):
            gradient[g, n + k] = beta_gradient(g, k, betas, weight, variables, shaping)
        if t == 0:
            value[g] = found
        if free_root != 0:
            for i in range(t, n + betas.shape[1], wp.block_dim()):
                for r in range(3):
                    if i < n:
                        speeds[g, i, r] = mean_speed(g, i, r, variables, place, room)
                    else:
                        speeds[g, i, r] = beta_speed(g, i - n, r, shaping)
            sync()
            for i in range(t, n + betas.shape[1], wp.block_dim()):
                centre_row(g, g, i, n + betas.shape[1], speeds, hessian)

    return evaluate


class Found:
    """What the kernel finds at x (B, n + 10)."""

    def __init__(self, people: People, x: Tensor, lanes: int, threads: int = 1) -> None:
        of, groups, joints = kernels_for(lanes), len(x) // lanes, len(people.tree.joints)
        variables = make_variables(people.tree, NO_LIMITS, (), "cpu")
        self.place = of.place.make_place(groups, "cpu")
        room = of.quadratic.make_room(groups, joints, len(people.tree.pairs), variables.num_cells, "cpu")
        shaping = of.betas.make_shaping(groups, joints, "cpu")
        self.sway, levers = shaping.sway, of.betas.make_levers(groups, joints, "cpu")
        levers.betas = lanes_of(people.betas, lanes)
        for name, moment in people.moments().items():
            setattr(levers if name in ("lever", "products", "pull") else room, name, lanes_of(moment, lanes))
        shaping.levers = levers
        size = x.shape[1]
        self.value, self.gradient, self.hessian, speeds = (
            wp.zeros((groups, *shape), dtype=of.lanes.V, device="cpu")
            for shape in ((), (size,), (size, size), (size, 3))
        )
        inputs = [
            lanes_of(people.pose_of(x), lanes), lanes_of(x[:, people.n :], lanes), BETA_WEIGHT, int(people.free_root),
            body_tables(people.model, "cpu"), variables, self.place, room, shaping, speeds,
            self.value, self.gradient, self.hessian,
        ]  # fmt: skip
        wp.launch_tiled(evaluator(lanes), dim=[groups], inputs=inputs, block_dim=threads, device="cpu")


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
        ((people_of(found.value) - value) / value).abs().max(),
        ((people_of(found.gradient) - gradient).abs().amax(1) / gradient.abs().amax(1)).max(),
        ((people_of(found.hessian).triu() - hessian.triu()).abs().amax((1, 2)) / hessian.amax((1, 2))).max(),
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
            expected = people_of(getattr(first, name))
            assert torch.equal(people_of(getattr(again, name)), expected)
            assert torch.equal(people_of(getattr(moved, name)), expected[order])


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
    turn, v = people_of(found.sway.twists).unflatten(2, (2, 3, 10)).unbind(2)
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
