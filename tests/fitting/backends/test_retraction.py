"""The retraction kernels against float64 torch functions, also at Euler poles."""

from math import pi
from typing import Any

import lane_kernels
import numpy as np
import pytest
import torch
import warp as wp
from lane_kernels import LANES, OTHERS, SHAPES
from naive_solver import joint_move
from sample_kernels import pole_kernel, retraction_kernel
from scipy.spatial.transform import Rotation

from skelfit.bodies.ball_joints import angles_to_rotation, ball_joints
from skelfit.bodies.dofs import dof_limits, dofs_of_joint, limits_middle
from skelfit.bodies.lazy_roma import roma
from skelfit.fitting.backends.kernels import kernels_for
from skelfit.fitting.backends.retraction_tables import make_balls

lane_kernels.prepare()
JOINTS = list(range(1, 24))
DOFS = [i for j in JOINTS for i in dofs_of_joint(j)]
BALL = tuple(j for j in JOINTS if len(dofs_of_joint(j)) == 3)
COLUMNS = [[DOFS.index(i) for i in dofs_of_joint(j)] for j in BALL]
BETAS, MAX_STEP, MAX_BETA_STEP = 10, 0.4, 2.0


def move(
    x: np.ndarray, step: np.ndarray, lanes: int = LANES, threads: int = 1, longest: float = MAX_STEP
) -> np.ndarray:
    """The kernel's retraction of x (B, 43 or 53) by a step."""
    balls, rows = make_balls(JOINTS, DOFS, "cpu"), lane_kernels.rows_of(len(x), lanes)
    groups, columns = len(rows), x.shape[1]
    vector = kernels_for(lanes).lanes.V
    scratch, at, by = (
        wp.zeros((groups, n), dtype=vector, device="cpu") for n in (len(BALL), columns, columns)
    )
    out = wp.zeros(x.shape, dtype=float, device="cpu")
    arrays: list[Any] = [wp.array(a, dtype=float, device="cpu") for a in (x, step)]
    inputs = [*arrays, rows, balls, columns - len(DOFS), longest, scratch, at, by, out]
    wp.launch_tiled(retraction_kernel(lanes), dim=[groups], inputs=inputs, block_dim=threads, device="cpu")
    return out.numpy()


def reference(x: np.ndarray, step: np.ndarray, longest: float = MAX_STEP) -> np.ndarray:
    """The same by torch, in doubles."""
    move = joint_move(torch.tensor(DOFS), dof_limits(), longest, MAX_BETA_STEP)
    moved = move(torch.from_numpy(x).double(), torch.from_numpy(step).double())
    return moved.numpy()


def people(count: int, seed: int, size: float = 0.3, betas: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Angles anywhere in a turn about the limits' middle, betas, and steps of them."""
    rng = np.random.default_rng(seed)
    middle = limits_middle()[DOFS]
    x = np.concatenate(
        (middle + rng.uniform(-pi, pi, (count, len(DOFS))), rng.normal(0, 1, (count, betas))), 1
    )
    step = rng.normal(0, 1, x.shape) * size * 10.0 ** rng.uniform(-3, 0, (count, 1))
    step[:, len(DOFS) :] *= 10
    return x.astype(np.float32), step.astype(np.float32)


def at_poles(x: np.ndarray, seed: int, off: float) -> np.ndarray:
    """The same people with the middle angles of all ball joints up to `off` rad from a pole."""
    rng = np.random.default_rng(seed)
    x = x.copy()
    for _, k, _ in COLUMNS:
        x[:, k] = rng.choice([-pi / 2, pi / 2], len(x)) + rng.uniform(-off, off, len(x))
    return x


def rotations(x: np.ndarray) -> torch.Tensor:
    """Of all ball joints, (B, k, 3, 3)."""
    ball = ball_joints(BALL, "cpu", torch.float64)
    return angles_to_rotation(ball, torch.from_numpy(x).double()[:, COLUMNS])


def turned_apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The largest angle between the ball joints' rotations of two sets of people, rad."""
    return roma.rotmat_geodesic_distance(rotations(a), rotations(b)).numpy()


def gap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The difference of angles or betas, modulo whole turns, elementwise."""
    distance = np.abs(a.astype(np.float64) - b)
    return np.minimum(distance, np.abs(distance - 2 * pi))


@pytest.mark.parametrize("betas", [0, BETAS])
def test_angles_agree_with_float64(betas: int) -> None:
    x, step = people(500, 1, betas=betas)
    moved, expected = move(x, step), reference(x, step)
    # If both Euler triples are equally near to the limits, either is right; that is rare.
    other_triple = (gap(moved, expected) > 1e-3).any(1)
    assert other_triple.mean() < 0.01
    cosine = np.abs(np.cos(expected[:, [k for _, k, _ in COLUMNS]])).min(1)
    assert (gap(moved, expected).max(1) < 4e-6 / cosine)[~other_triple].all()
    assert turned_apart(moved, expected).max() < 2e-6


def test_a_small_step_is_not_lost_in_rounding() -> None:
    _, step = people(500, 2)
    low, high = dof_limits()[DOFS].T
    x = np.random.default_rng(3).uniform(low, high, step.shape).astype(np.float32)
    step *= 1e-3 / np.abs(step).max(1, keepdims=True)
    assert np.abs(move(x, step) - reference(x, step)).max() < 1e-6


@pytest.mark.parametrize("off", [0.0, 1e-6, 1e-4, 1e-2])
@pytest.mark.parametrize("size", [1e-3, 0.3])
def test_steps_at_poles_agree_with_float64(off: float, size: float) -> None:
    x, step = people(500, 3, size)
    x = at_poles(x, 4, off)
    moved, expected = move(x, step), reference(x, step)
    assert turned_apart(moved, expected).max() < 4e-6
    assert np.isfinite(moved).all()


@pytest.mark.parametrize("far", [0.0, 0.05])
def test_a_pole_keeps_the_first_angle(far: float) -> None:
    """Steps that end at a pole, from a distance of `far`; there the first and third angles turn about one axis."""
    rng = np.random.default_rng(5)
    x = at_poles(people(200, 5)[0], 6, far)
    step = np.zeros_like(x)
    for hand, (a, b, c) in zip(
        ball_joints(BALL, "cpu", torch.float64).handedness.flatten(), COLUMNS, strict=True
    ):
        middle = float(hand) * x[:, b].astype(np.float64)
        # exp(t) Ry(b) = Rz(c') Ry(pole), and t of the step in turn.
        pole = np.sign(middle) * pi / 2
        turn = np.stack((rng.uniform(-0.1, 0.1, 200) * (far > 0), pole - middle), 1)
        t = Rotation.from_euler("ZY", turn).as_rotvec()
        first = t[:, 0] / np.cos(middle)
        step[:, [a, b, c]] = np.stack((first, t[:, 1], t[:, 2] + first * np.sin(middle)), 1) * float(hand)
    moved = move(x, step)
    assert turned_apart(moved, reference(x, step)).max() < 4e-6
    distance = gap(moved, x)
    for a, _, _ in COLUMNS:  # the same triple, or the other one, half a turn away
        assert np.minimum(distance[:, a], np.abs(distance[:, a] - pi)).max() < 1e-5


def test_no_joint_turns_further_than_the_bound() -> None:
    x, step = people(300, 7, size=30.0, betas=BETAS)
    moved = move(x, step)
    turned = turned_apart(moved, x).max(1)
    rest = np.setdiff1d(np.arange(len(DOFS)), np.ravel(COLUMNS))
    longest = np.maximum(turned, np.abs(moved - x)[:, rest].max(1))
    assert (longest < MAX_STEP + 1e-5).all()
    assert (np.isclose(longest, MAX_STEP, atol=1e-5)).mean() > 0.3
    assert np.isclose(np.abs(moved - x)[:, len(DOFS) :].max(), MAX_BETA_STEP, atol=1e-5)


def test_angles_are_near_the_middle_and_of_the_nearer_euler_triple() -> None:
    x, step = people(500, 8)
    moved = move(x + np.float32(4 * pi) * (np.arange(500) % 3 - 1)[:, None].astype(np.float32), step)
    for j, columns in zip(BALL, COLUMNS, strict=True):
        low, high = dof_limits()[list(dofs_of_joint(j))].T
        middle = limits_middle()[list(dofs_of_joint(j))]
        angles = moved[:, columns].astype(np.float64)
        assert (np.abs(angles - middle) < pi + 1e-5).all()
        other_triple = np.stack((angles[:, 0] + pi, pi - angles[:, 1], angles[:, 2] + pi), 1)
        other_triple = middle + (other_triple - middle + pi) % (2 * pi) - pi
        excess, other = (
            ((np.maximum(y - high, 0) + np.maximum(low - y, 0)) ** 2).sum(1) for y in (angles, other_triple)
        )
        assert (excess <= other + 1e-4).all()


@pytest.mark.parametrize("lanes, threads", SHAPES)
def test_bits_depend_neither_on_batch_nor_threads(lanes: int, threads: int) -> None:
    x, step = people(37, 9, betas=BETAS)
    x[10:] = at_poles(x, 10, 1e-5)[10:]
    moved = move(x, step, lanes, threads)
    order = np.random.default_rng(11).permutation(37)
    assert np.array_equal(move(x[order], step[order], lanes, threads), moved[order])
    assert np.array_equal(move(x, step), moved)


@pytest.mark.parametrize("lanes, threads", [(LANES, 1), OTHERS])
def test_a_person_that_is_not_finite_changes_no_other(lanes: int, threads: int) -> None:
    x, step = people(32, 12)
    moved = move(x, step, lanes, threads)
    x[5], step[21] = np.nan, np.inf
    lost = np.isin(np.arange(32), (5, 21))
    again = move(x, step, lanes, threads)
    assert np.array_equal(again[~lost], moved[~lost])
    assert np.isnan(again[lost]).any(1).all()


# Along an Euler pole.


def move_along_pole(x: np.ndarray, limits: np.ndarray, pole_point: int, lanes: int = LANES) -> np.ndarray:
    """The kernel's angles (B, 3) at a point along the pole."""
    rows = lane_kernels.rows_of(len(x), lanes)
    at = wp.zeros((len(rows), 3), dtype=kernels_for(lanes).lanes.V, device="cpu")
    out = wp.zeros(x.shape, dtype=float, device="cpu")
    floats: list[Any] = [wp.array(a.astype(np.float32), dtype=float, device="cpu") for a in (x, limits)]
    groups: Any = wp.array(rows, dtype=int, ndim=2, device="cpu")
    inputs = [floats[0], groups, floats[1], pole_point, at, out]
    wp.launch_tiled(pole_kernel(lanes), dim=[len(rows)], inputs=inputs, block_dim=1, device="cpu")
    return out.numpy().astype(np.float64)


@pytest.mark.parametrize("joint", [15, 20])
def test_moves_along_the_pole_keep_the_rotation(joint: int) -> None:
    """Within the limits, from end to end and in the middle; whole turns make no difference."""
    limits = dof_limits()[list(dofs_of_joint(joint))]
    source = np.random.default_rng(3)
    inside = source.uniform(limits[:, 0], limits[:, 1], (40, 3))
    inside[:, 1] = np.where(np.arange(40) % 2, 1, -1) * pi / 2
    shift = source.uniform(-2, 2, (40, 1)) * np.stack((np.ones(40), np.zeros(40), np.sign(inside[:, 1])), 1)
    x = inside + shift + 2 * pi * source.integers(-1, 2, (40, 3)) * [1, 0, 1]
    moved_to = [move_along_pole(x, limits, pole_point) for pole_point in range(3)]
    for moved in moved_to:
        assert (moved > limits[:, 0] - 1e-6).all() and (moved < limits[:, 1] + 1e-6).all()
        turned = Rotation.from_euler("xyz", moved).inv() * Rotation.from_euler("xyz", inside)
        assert turned.magnitude().max() < 1e-5
    low, high, middle = moved_to
    assert np.abs(middle - (low + high) / 2).max() < 1e-5 and (high[:, 2] >= low[:, 2]).all()
    for end in (low, high):  # beyond it is outside the limits
        assert (np.abs(end[:, [0, 2], None] - limits[[0, 2]]) < 1e-5).any((1, 2)).all()
