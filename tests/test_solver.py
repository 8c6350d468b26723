"""The Levenberg-Marquardt solver on problems with known minima; it must know no body."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

import skelfit.fit.solver
from skelfit.fit.solver import Evaluation, damped_step, levenberg_marquardt


@pytest.fixture(params=["compiled", "torch"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU, and as on every other device."""
    if request.param == "torch":
        monkeypatch.setattr(skelfit.fit.solver, "on_cpu", lambda x: False)


def least_squares(residual: Tensor, jacobian: Tensor) -> Evaluation:
    """Sum of squares of residual (B, m) with jacobian (B, m, n)."""
    return Evaluation(
        residual.square().sum(-1), 2 * (jacobian.mT @ residual[..., None])[..., 0], 2 * jacobian.mT @ jacobian
    )


@dataclass(frozen=True)
class Rosenbrock:
    """A batch of Rosenbrock valleys with minima at (a, a^2)."""

    a: Tensor

    def __call__(self, x: Tensor) -> Evaluation:
        first, second = x.unbind(-1)
        residual = torch.stack((self.a - first, 10 * (second - first**2)), -1)
        one, zero = torch.ones_like(first), torch.zeros_like(first)
        jacobian = torch.stack((torch.stack((-one, zero), -1), torch.stack((-20 * first, 10 * one), -1)), -2)
        return least_squares(residual, jacobian)

    def take(self, rows: Tensor) -> Rosenbrock:
        return Rosenbrock(self.a[rows])


@dataclass(frozen=True)
class Linear:
    """Linear least squares: |matrix x - target|^2, matrix (B, m, n)."""

    matrix: Tensor
    target: Tensor

    def __call__(self, x: Tensor) -> Evaluation:
        return least_squares((self.matrix @ x[..., None])[..., 0] - self.target, self.matrix)

    def take(self, rows: Tensor) -> Linear:
        return Linear(self.matrix[rows], self.target[rows])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rosenbrock_valleys_of_a_batch(dtype: torch.dtype) -> None:
    a = torch.linspace(-1.5, 1.5, 31, dtype=dtype)
    start = torch.stack((torch.full_like(a, -1.2), torch.ones_like(a)), -1)
    found = levenberg_marquardt(Rosenbrock(a), start, steps=80, max_step=0.4)
    expected = torch.stack((a, a**2), -1)
    tolerance = 1e-3 if dtype == torch.float32 else 1e-8
    assert (found.x - expected).abs().max() < tolerance
    assert (found.value < tolerance**2).all()
    assert (found.decrease.abs() < tolerance**2).all()


def test_linear_least_squares_in_a_few_steps() -> None:
    matrix, target = torch.randn(5, 8, 4, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)
    found = levenberg_marquardt(
        Linear(matrix, target), torch.zeros(5, 4, dtype=torch.float64), steps=8, max_step=100.0
    )
    assert (found.x - torch.linalg.lstsq(matrix, target[..., None]).solution[..., 0]).abs().max() < 1e-9


@dataclass(frozen=True)
class Flat:
    """1 + slope (x - goal)^2, whose value float32 cannot tell from 1."""

    goal: Tensor

    def __call__(self, x: Tensor) -> Evaluation:
        away, slope = x - self.goal, 1e-9
        value = 1 + slope * away.square().sum(-1)
        return Evaluation(value, 2 * slope * away, torch.diag_embed(torch.full_like(x, 2 * slope)))

    def take(self, rows: Tensor) -> Flat:
        return Flat(self.goal[rows])


def test_a_valley_flatter_than_the_rounding_of_its_value_is_followed_to_its_floor() -> None:
    goal = torch.linspace(-1, 1, 6).view(3, 2)
    assert (Flat(goal)(torch.zeros(3, 2)).value == 1).all()  # otherwise the test shows nothing
    found = levenberg_marquardt(Flat(goal), torch.zeros(3, 2), steps=6, max_step=10.0)
    assert (found.x - goal).abs().max() < 1e-4


def test_damping_is_carried_from_one_solution_to_the_next() -> None:
    """Two nearly parallel columns: a step with the first damping falls short, one with what was earned does not."""
    matrix = torch.tensor([[[1.0, 1.0], [0.0, 1e-3]]], dtype=torch.float64)
    goal = Linear(matrix, torch.tensor([[0.0, 1e-3]], dtype=torch.float64))
    start = torch.zeros(1, 2, dtype=torch.float64)
    first = levenberg_marquardt(goal, start, steps=4, max_step=10.0)
    assert first.accepted == 4 and (first.damping < 1e-6).all()
    afresh = levenberg_marquardt(goal, start, steps=1, max_step=10.0)
    carried = levenberg_marquardt(goal, start, steps=1, max_step=10.0, damping=first.damping)
    assert (carried.x - torch.tensor([-1.0, 1.0])).abs().max() < 0.2 < (afresh.x[:, 1] - 1).abs()


def test_a_problem_gives_the_same_alone_and_in_any_batch() -> None:
    """A hard neighbour, even one that is not a number, changes nothing."""
    a = torch.tensor([0.5, 1.4, -1.0], dtype=torch.float64)
    start = torch.tensor([[0.0, 0.0], [-3.0, 4.0], [torch.nan, 1.0]], dtype=torch.float64)
    together = levenberg_marquardt(Rosenbrock(a), start, steps=10, max_step=0.4)
    for k in range(3):
        alone = levenberg_marquardt(Rosenbrock(a[k : k + 1]), start[k : k + 1], steps=10, max_step=0.4)
        torch.testing.assert_close(together.x[k], alone.x[0], rtol=0, atol=1e-12, equal_nan=True)
    assert together.value[:2].isfinite().all()


def test_no_step_is_longer_than_allowed_and_none_goes_up() -> None:
    seen: list[Tensor] = []

    class Watched(Rosenbrock):
        def __call__(self, x: Tensor) -> Evaluation:
            seen.append(x)
            return super().__call__(x)

    watch = Watched(torch.ones(20, dtype=torch.float64))

    start = 3 * torch.randn(20, 2, dtype=torch.float64)
    values = []
    x = start
    for _ in range(15):
        seen.clear()
        found = levenberg_marquardt(watch, x, steps=1, max_step=0.25)
        assert (seen[1] - x).abs().max() <= 0.25 + 1e-12
        values.append(found.value)
        x = found.x
    assert all((after <= before).all() for before, after in zip(values, values[1:], strict=False))
    assert (values[-1] < values[0]).all()


def test_a_singular_matrix_still_gives_a_step_downhill() -> None:
    """Two equal columns, a zero column, and a matrix that is not positive definite at all."""
    hessian = torch.zeros(2, 3, 3)
    hessian[0, :2, :2] = 1.0
    hessian[1] = torch.tensor([[1.0, 5.0, 0.0], [5.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    gradient = torch.tensor([[1.0, 1.0, 0.0], [1.0, -1.0, 0.5]])
    step, _ = damped_step(Evaluation(torch.zeros(2), gradient, hessian), torch.full((2,), 1e-4))
    assert step.isfinite().all()
    assert ((step * gradient).sum(-1) < 0).all()


def test_the_whole_hessian_is_used_where_it_is_positive_definite() -> None:
    """Elsewhere the model alone, problem by problem."""
    root = torch.randn(6, 4, 4, dtype=torch.float64)
    model = root @ root.mT + torch.eye(4)
    bend = 0.1 * torch.eye(4, dtype=torch.float64).expand(6, 4, 4).clone()
    bend[::2] = -1e3 * torch.eye(4)
    gradient = torch.randn(6, 4, dtype=torch.float64)
    state = Evaluation(torch.zeros(6), gradient, model, bend)
    damping = torch.zeros(6, dtype=torch.float64)
    step, promised = damped_step(state, damping)
    used = torch.where((torch.arange(6) % 2 == 0)[:, None, None], model, model + bend)
    torch.testing.assert_close(step, -torch.linalg.solve(used, gradient), rtol=1e-5, atol=0)
    torch.testing.assert_close(promised, -(step * gradient).sum(1) / 2, rtol=1e-5, atol=0)


def test_the_promised_decrease_is_kept_on_a_quadratic() -> None:
    matrix, target = torch.randn(6, 9, 4, dtype=torch.float64), torch.randn(6, 9, dtype=torch.float64)
    evaluate = Linear(matrix, target)
    x = torch.randn(6, 4, dtype=torch.float64)
    state = evaluate(x)
    step, promised = damped_step(state, torch.full((6,), 0.1, dtype=torch.float64))
    torch.testing.assert_close(state.value - evaluate(x + step).value, promised)
    assert (promised > 0).all()


def test_the_solver_knows_no_body() -> None:
    """Of skelfit, it and what it imports import each other only, and the numbers that it is given."""
    own = {"skelfit.fit.solver", "skelfit.fit.cpu_steps", "skelfit.fit.compiled"}
    known = own | {"skelfit.config"}
    for name in own:
        source = importlib.util.find_spec(name)
        assert source is not None and source.origin is not None
        tree = ast.parse(Path(source.origin).read_text())
        imported = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        imported |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        assert {m for m in imported if m and m.startswith("skelfit")} <= known


def test_resting_problems_leave_the_batch_and_nobody_notices() -> None:
    """Easy and hard problems together: the easy ones rest early, all end where they would have alone."""
    sizes: list[int] = []

    @dataclass(frozen=True)
    class Counted(Rosenbrock):
        def __call__(self, x: Tensor) -> Evaluation:
            sizes.append(len(x))
            return super().__call__(x)

        def take(self, rows: Tensor) -> Counted:
            return Counted(self.a[rows])

    a = torch.linspace(-1.5, 1.5, 40, dtype=torch.float64)
    start = torch.stack((a, a**2), -1)
    start[::2] += torch.tensor([0.8, -1.0])  # every second one has work to do
    found = levenberg_marquardt(Counted(a), start, 60, 0.4, tolerance=1e-10)
    if skelfit.fit.solver.on_cpu(a):
        # whole lanes of those who are left
        assert sizes[0] == 40 and min(sizes) < 40 and sizes == sorted(sizes, reverse=True)
        assert all(size % 16 == 0 for size in sizes[1:] if size < 40)
    else:
        assert set(sizes) == {40}
    everybody = levenberg_marquardt(Rosenbrock(a), start, 60, 0.4)
    assert (found.x - everybody.x).abs().max() < 1e-6
    assert (found.x - torch.stack((a, a**2), -1)).abs().max() < 1e-6
    assert (found.accepted[1::2] == 0).all() and (found.accepted[::2] > 0).all()
    assert found.decrease.isfinite().all()


def test_a_step_that_makes_it_worse_is_not_taken() -> None:
    """The root of atan from afar: plain Gauss-Newton steps overshoot further each time."""

    @dataclass(frozen=True)
    class Atan:
        def __call__(self, x: Tensor) -> Evaluation:
            return least_squares(torch.atan(x), (1 / (1 + x**2))[..., None])

        def take(self, rows: Tensor) -> Atan:
            return self

    start = torch.tensor([[3.0], [-5.0], [0.5]], dtype=torch.float64)
    once = levenberg_marquardt(Atan(), start, steps=1, max_step=1000.0)
    assert (once.value <= Atan()(start).value).all() and (once.accepted == torch.tensor([0, 0, 1])).all()
    found = levenberg_marquardt(Atan(), start, steps=30, max_step=1000.0)
    assert found.x.abs().max() < 1e-6
