"""The naive solver on problems with known minima, rule by rule; and how it moves joints."""

from __future__ import annotations

from dataclasses import replace
from math import pi

import pytest
import roma
import torch
from naive_solver import joint_move, levenberg_marquardt, straight
from solver_cases import Flat, Linear, Rosenbrock, StepCase, least_squares, step_cases
from torch import Tensor

from skelfit.bodies.ball_joints import BALL_JOINTS, angles_to_rotation, ball_joints
from skelfit.bodies.dofs import NUM_DOFS, dof_limits, dofs_of_joint
from skelfit.fitting.baseline.naive_objective import Evaluation
from skelfit.fitting.baseline.naive_step import FLOOR, damped_step, promised_decrease


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rosenbrock_valleys_of_a_batch(dtype: torch.dtype) -> None:
    a = torch.linspace(-1.5, 1.5, 31, dtype=dtype)
    start = torch.stack((torch.full_like(a, -1.2), torch.ones_like(a)), -1)
    solution = levenberg_marquardt(Rosenbrock(a), start, 80, straight(0.4))
    tolerance = 1e-3 if dtype == torch.float32 else 1e-8
    assert (solution.x - torch.stack((a, a**2), -1)).abs().max() < tolerance
    assert (solution.value < tolerance**2).all()
    assert (solution.decrease.abs() < tolerance**2).all()


def test_linear_least_squares_in_a_few_steps() -> None:
    matrix, target = torch.randn(5, 8, 4, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)
    start = torch.zeros(5, 4, dtype=torch.float64)
    solution = levenberg_marquardt(Linear(matrix, target), start, 8, straight(100.0))
    assert (solution.x - torch.linalg.lstsq(matrix, target[..., None]).solution[..., 0]).abs().max() < 1e-9
    # One step promises what all of them gain.
    state = Linear(matrix, target)(start)
    torch.testing.assert_close(promised_decrease(state), state.value - solution.value)


def test_a_valley_flatter_than_the_rounding_is_followed_to_its_floor() -> None:
    goal = torch.linspace(-1, 1, 6).view(3, 2)
    assert (Flat(goal)(torch.zeros(3, 2)).value == 1).all()  # otherwise the test shows nothing
    solution = levenberg_marquardt(Flat(goal), torch.zeros(3, 2), 6, straight(10.0))
    assert (solution.x - goal).abs().max() < 1e-4


@pytest.mark.parametrize(("rise", "accepted"), [(400, 1), (600, 0)])
def test_a_value_may_rise_by_its_rounding(rise: int, accepted: int) -> None:
    """By 512 units of the float type's resolution."""
    goal, start = torch.ones(1, 2), torch.zeros(1, 2)

    def evaluate(x: Tensor) -> Evaluation:
        return replace(Flat(goal)(x), value=1 + rise * torch.finfo(x.dtype).eps * (x != start).any(1))

    assert levenberg_marquardt(evaluate, start, 1, straight(10.0)).accepted == accepted


def test_damping_stays_within_its_bounds() -> None:
    goal = Linear(torch.eye(2).double()[None], torch.ones(1, 2).double())
    start = torch.tensor([[0.0, 0.0], [torch.nan, 0.0]], dtype=torch.float64)
    solution = levenberg_marquardt(goal, start, 20, straight(10.0))
    torch.testing.assert_close(solution.damping, torch.tensor([1e-7, 1e7], dtype=torch.float64))


def test_damping_is_carried_from_one_solution_to_the_next() -> None:
    """Two nearly parallel columns: a step with the first damping falls short, one with the carried damping does not."""
    matrix = torch.tensor([[[1.0, 1.0], [0.0, 1e-3]]], dtype=torch.float64)
    goal = Linear(matrix, torch.tensor([[0.0, 1e-3]], dtype=torch.float64))
    start = torch.zeros(1, 2, dtype=torch.float64)
    first = levenberg_marquardt(goal, start, 4, straight(10.0))
    assert first.accepted == 4 and (first.damping < 1e-6).all()
    fresh = levenberg_marquardt(goal, start, 1, straight(10.0))
    carried = levenberg_marquardt(goal, start, 1, straight(10.0), damping=first.damping)
    assert (carried.x - torch.tensor([-1.0, 1.0])).abs().max() < 0.2 < (fresh.x[:, 1] - 1).abs()


def test_a_problem_gives_the_same_alone_and_in_any_batch() -> None:
    """A hard problem in the batch changes no other one, nor does NaN."""
    a = torch.tensor([0.5, 1.4, -1.0], dtype=torch.float64)
    start = torch.tensor([[0.0, 0.0], [-3.0, 4.0], [torch.nan, 1.0]], dtype=torch.float64)
    together = levenberg_marquardt(Rosenbrock(a), start, 10, straight(0.4))
    for k in range(3):
        alone = levenberg_marquardt(Rosenbrock(a[k : k + 1]), start[k : k + 1], 10, straight(0.4))
        torch.testing.assert_close(together.x[k], alone.x[0], rtol=0, atol=1e-12, equal_nan=True)
    assert together.value[:2].isfinite().all()
    assert together.accepted[2] == 0


def test_no_step_is_longer_than_allowed_and_none_goes_up() -> None:
    goal = Rosenbrock(torch.ones(20, dtype=torch.float64))
    x, values, lengths = 3 * torch.randn(20, 2, dtype=torch.float64), [], []
    for _ in range(15):
        solution = levenberg_marquardt(goal, x, 1, straight(0.25))
        lengths.append((solution.x - x).abs().max())
        values.append(solution.value)
        x = solution.x
    assert 0.25 - 1e-12 <= max(lengths) <= 0.25 + 1e-12
    assert all((after <= before).all() for before, after in zip(values, values[1:], strict=False))
    assert (values[-1] < values[0]).all()


def test_a_step_that_raises_the_value_is_not_taken() -> None:
    """The root of atan from afar: plain Gauss-Newton steps overshoot further each time."""

    def atan(x: Tensor) -> Evaluation:
        return least_squares(torch.atan(x), (1 / (1 + x**2))[..., None])

    start = torch.tensor([[3.0], [-5.0], [0.5]], dtype=torch.float64)
    once = levenberg_marquardt(atan, start, 1, straight(1000.0))
    assert (once.value <= atan(start).value).all() and (once.accepted == torch.tensor([0, 0, 1])).all()
    expected = torch.tensor([1e-3, 1e-3, 1e-5], dtype=torch.float64)
    torch.testing.assert_close(once.damping, expected)
    solution = levenberg_marquardt(atan, start, 30, straight(1000.0))
    assert solution.x.abs().max() < 1e-6


def test_resting_problems_stay_where_they_are() -> None:
    """Easy and hard problems together: the easy ones rest at once, and all end where they would without rest."""
    a = torch.linspace(-1.5, 1.5, 40, dtype=torch.float64)
    start = torch.stack((a, a**2), -1)
    start[::2] += torch.tensor([0.8, -1.0])  # every second one has work to do
    solution = levenberg_marquardt(Rosenbrock(a), start, 60, straight(0.4), tolerance=1e-10)
    without_rest = levenberg_marquardt(Rosenbrock(a), start, 60, straight(0.4))
    assert (solution.x - without_rest.x).abs().max() < 1e-6
    assert (solution.accepted[1::2] == 0).all() and (solution.accepted[::2] > 0).all()
    assert (solution.accepted <= without_rest.accepted).all() and (solution.accepted < 40).all()
    # With much damping a step promises little: that is no reason to rest.
    damped = levenberg_marquardt(
        Rosenbrock(a), start, 60, straight(0.4), tolerance=1e-3, damping=torch.full_like(a, 1e6)
    )
    assert (damped.x - without_rest.x)[::2].abs().max() < 0.1


def one(case: StepCase) -> tuple[Evaluation, Tensor]:
    """A batch of one problem, and its damping."""
    hessian = None if case.hessian is None else case.hessian[None]
    state = Evaluation(case.gradient.new_zeros(1), case.gradient[None], case.matrix[None], hessian)
    return state, case.gradient.new_full((1,), case.damping)


@pytest.mark.parametrize("name", step_cases(4))
@pytest.mark.parametrize("n", [4, 43])
def test_a_damped_step(name: str, n: int) -> None:
    """Against a solution by other means; a batch of it and of others gives the same."""
    case = step_cases(n)[name]
    step, promised = damped_step(*one(case))
    diagonal = case.matrix.diagonal()
    floor = FLOOR * diagonal.max()
    used = case.hessian if case.uses == "hessian" else case.matrix
    assert used is not None
    added = torch.diag(case.damping * diagonal + floor)
    if case.uses == "gradient":
        expected = -case.gradient / (diagonal.max() * (1 + case.damping) + floor)
        assert torch.linalg.eigvalsh(case.matrix + added).min() < 0
    else:
        expected = -torch.linalg.solve(used + added, case.gradient)
    assert (step[0] - expected).abs().max() <= 1e-6 * expected.abs().max()
    decrease = -(expected @ case.gradient) - 0.5 * expected @ used @ expected
    torch.testing.assert_close(promised[0], decrease, rtol=1e-6, atol=1e-20)
    assert (step[0] @ case.gradient < 0) == bool(case.gradient.any())


def test_damped_steps_of_a_batch_are_independent() -> None:
    cases = [c for c in step_cases(6).values() if c.hessian is not None]
    state = Evaluation(
        torch.zeros(len(cases)).double(),
        *(torch.stack([getattr(c, k) for c in cases]) for k in ("gradient", "matrix", "hessian")),
    )
    state.gradient[0, 0] = torch.nan
    steps, promised = damped_step(state, torch.tensor([c.damping for c in cases]).double())
    assert not steps[0].isfinite().all()
    for case, step, gain in zip(cases[1:], steps[1:], promised[1:], strict=True):
        alone, alone_gain = damped_step(*one(case))
        torch.testing.assert_close(step, alone[0], rtol=1e-9, atol=0)
        torch.testing.assert_close(gain, alone_gain[0], rtol=1e-9, atol=0)


ACTIVE = torch.arange(3, NUM_DOFS)
BALLS = [j for j in BALL_JOINTS if j > 0]
COLUMNS = [[i - 3 for i in dofs_of_joint(j)] for j in BALLS]
REST = [k for k in range(NUM_DOFS - 3) if not any(k in c for c in COLUMNS)]


def test_a_move_agrees_with_addition_to_first_order() -> None:
    move = joint_move(ACTIVE, dof_limits(), 0.4)
    x = 0.3 * torch.randn(20, 53, dtype=torch.float64)
    d = 1e-5 * torch.randn(20, 53, dtype=torch.float64)
    assert (move(x, d) - (x + d)).abs().max() < 1e-8


@pytest.mark.parametrize("middle", [0.0, pi / 2])
def test_no_joint_turns_further_than_allowed_and_no_beta_goes_further(middle: float) -> None:
    move = joint_move(ACTIVE, dof_limits(), 0.4, max_beta_step=2.0)
    x = 0.3 * torch.randn(20, 53, dtype=torch.float64)
    x[:, [c[1] for c in COLUMNS]] += middle
    far = move(x, 30 * torch.randn(20, 53, dtype=torch.float64))
    ball = ball_joints(tuple(BALLS), "cpu", torch.float64)
    before, after = (angles_to_rotation(ball, a[:, COLUMNS]) for a in (x, far))
    turned = roma.rotmat_geodesic_distance(before, after)
    longest = torch.cat((turned, (far - x)[:, REST].abs()), 1).amax(1)
    torch.testing.assert_close(longest, torch.full_like(longest, 0.4))
    betas = (far - x)[:, NUM_DOFS - 3 :].abs().amax(1)
    torch.testing.assert_close(betas, torch.full_like(betas, 2.0))
    assert ((far[:, COLUMNS] - ball.middle).abs() <= pi + 1e-9).all()


def test_opposite_angles_at_an_euler_pole_count_as_the_small_turn_that_they_are() -> None:
    x, step = torch.zeros(2, 1, 43, dtype=torch.float64)
    ball = ball_joints(tuple(BALLS), "cpu", torch.float64)
    step[:, REST] = 0.3
    for (first, middle, third), hand in zip(COLUMNS, ball.handedness[:, 0], strict=True):
        x[:, middle], step[:, first], step[:, third] = pi / 2, 3.0, 3.0 * hand
    far = joint_move(ACTIVE, dof_limits(), 0.4)(x, step)
    assert ((far - x)[:, REST] - 0.3).abs().max() < 1e-12
    before, after = (angles_to_rotation(ball, a[:, COLUMNS]) for a in (x, far))
    assert (before - after).abs().max() < 1e-9
