"""Problems for solvers: least squares with known minima, and matrices that a damped step has to cope with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from skelfit.fitting.baseline.naive_objective import Evaluation


def least_squares(residual: Tensor, jacobian: Tensor) -> Evaluation:
    """Sum of squares of residual (B, m) with jacobian (B, m, n)."""
    return Evaluation(
        residual.square().sum(-1), 2 * (jacobian.mT @ residual[..., None])[..., 0], 2 * jacobian.mT @ jacobian
    )


@dataclass(frozen=True)
class Rosenbrock:
    """A batch of Rosenbrock valleys with minima at (a, a^2)."""

    a: Tensor  # (B,)

    def __call__(self, x: Tensor) -> Evaluation:
        first, second = x.unbind(-1)
        residual = torch.stack((self.a - first, 10 * (second - first**2)), -1)
        one, zero = torch.ones_like(first), torch.zeros_like(first)
        jacobian = torch.stack((torch.stack((-one, zero), -1), torch.stack((-20 * first, 10 * one), -1)), -2)
        return least_squares(residual, jacobian)


@dataclass(frozen=True)
class Linear:
    """Linear least squares: |matrix x - target|^2, matrix (B, m, n)."""

    matrix: Tensor
    target: Tensor

    def __call__(self, x: Tensor) -> Evaluation:
        return least_squares((self.matrix @ x[..., None])[..., 0] - self.target, self.matrix)


@dataclass(frozen=True)
class Flat:
    """1 + slope (x - goal)^2, whose value float32 cannot tell from 1."""

    goal: Tensor  # (B, n)

    def __call__(self, x: Tensor) -> Evaluation:
        away, slope = x - self.goal, 1e-9
        value = 1 + slope * away.square().sum(-1)
        return Evaluation(value, 2 * slope * away, torch.diag_embed(torch.full_like(x, 2 * slope)))


@dataclass(frozen=True)
class StepCase:
    """One matrix, and what a damped step of it must be like."""

    gradient: Tensor  # (n,)
    matrix: Tensor  # (n, n)
    hessian: Tensor | None
    damping: float
    uses: str  # which of hessian, matrix and gradient the step comes from


def step_cases(n: int, dtype: torch.dtype = torch.float64) -> dict[str, StepCase]:
    """By name: matrices of n variables, of the sizes that bodies have (m^2 / rad^2), and what fails of them."""
    source = torch.Generator().manual_seed(n)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source, dtype=torch.float64)

    jacobian = 0.1 * normal(4 * n, n) * 10 ** torch.linspace(-2.0, 0.0, n, dtype=torch.float64)
    good, gradient = 2 * jacobian.mT @ jacobian, 1e-3 * normal(n)
    second_order = 0.1 * torch.diag(good.diagonal())
    singular = good.clone()
    singular[1] = singular[0]
    singular[:, 1] = singular[:, 0]
    unmoved = good.clone()
    unmoved[2] = unmoved[:, 2] = 0
    still = gradient.clone()
    still[2] = 0
    indefinite = good.clone()
    indefinite[0, 1] = indefinite[1, 0] = 5 * good.diagonal().max()
    cases = {
        "a model": StepCase(gradient, good, None, 1e-4, "matrix"),
        "undamped": StepCase(gradient, good, None, 1e-7, "matrix"),
        "much damped": StepCase(gradient, good, None, 1e7, "matrix"),
        "a Hessian": StepCase(gradient, good, good + second_order, 1e-4, "hessian"),
        "an indefinite Hessian": StepCase(gradient, good, good - 1e3 * second_order, 1e-4, "matrix"),
        "two equal columns": StepCase(gradient, singular, None, 1e-2, "matrix"),
        "a variable that moves nothing": StepCase(still, unmoved, None, 1e-4, "matrix"),
        "an indefinite model": StepCase(gradient, indefinite, None, 1e-4, "gradient"),
        "indefinite both": StepCase(gradient, indefinite, indefinite - second_order, 1e-4, "gradient"),
        "no gradient": StepCase(torch.zeros_like(gradient), good, None, 1e-4, "matrix"),
    }
    return {
        name: StepCase(
            c.gradient.to(dtype), c.matrix.to(dtype), None if c.hessian is None else c.hessian.to(dtype),
            c.damping, c.uses,
        )
        for name, c in cases.items()
    }  # fmt: skip
