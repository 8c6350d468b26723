"""Damped steps of the kernel against those of the naive solver, in all cases in which a step falls back."""

from typing import Any

import pytest
import torch
from backends import NEAR
from sample_kernels import damped_step_kernel
from solver_cases import step_cases
from torch import Tensor

from skelfit.fitting.backends.backend import Backend
from skelfit.fitting.baseline.naive_objective import Evaluation
from skelfit.fitting.baseline.naive_step import damped_step


def kernel_steps(backend: Backend, state: Evaluation, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Step (B, n) and predicted decrease (B,) of each problem, in one launch; only upper triangles are set."""
    count, n = state.gradient.shape
    rows = torch.arange(-(-count // backend.lanes) * backend.lanes).clamp(max=count - 1)
    groups, k = len(rows) // backend.lanes, backend.kernels
    newton, predicted = k.damped_step.make_newton_scratch(groups, n, backend.device), backend.lanes_of(groups)

    def in_first_buffer(x: Tensor) -> Any:
        """In the first buffer of each group; the other is NaN, as no step may read it."""
        first = x[rows].float().reshape(groups, 1, backend.lanes, *x.shape[1:])
        both = torch.cat((first, torch.full_like(first, torch.nan)), 1)
        return backend.lanes_from(both.reshape(2 * len(rows), *x.shape[1:]))

    nothing = torch.full_like(state.matrix, torch.nan).tril(-1)
    newton.gradient, newton.hessian = (
        in_first_buffer(state.gradient),
        in_first_buffer(state.matrix.triu() + nothing),
    )
    if state.hessian is not None:
        newton.curvature = in_first_buffer((state.hessian - state.matrix).triu() + nothing)
    inputs = [backend.lanes_from(damping[rows].float()), int(state.hessian is not None), newton, predicted]
    backend.launch(damped_step_kernel(backend.lanes), groups, inputs)
    step, decrease = (backend.people_of(x, count).double() for x in (newton.step, predicted))
    return step, decrease


@pytest.mark.parametrize("n", [43, 59])
def test_damped_steps_of_all_cases_in_one_launch(backend: Backend, n: int) -> None:
    """In the lanes of one group each problem falls back only as far as it has to."""
    cases = step_cases(n)
    gradient, matrix = (torch.stack([getattr(c, k) for c in cases.values()]) for k in ("gradient", "matrix"))
    hessian = torch.stack([c.matrix if c.hessian is None else c.hessian for c in cases.values()])
    # Kernels hold the Hessian as its difference from the Gauss-Newton matrix, in float32.
    matrix = matrix.float().double()
    hessian = matrix + (hessian - matrix).float().double()
    state = Evaluation(matrix.new_zeros(len(cases)), gradient.float().double(), matrix, hessian)
    damping = torch.tensor([c.damping for c in cases.values()]).double()
    steps, predicted_decreases = kernel_steps(backend, state, damping)
    expected, expected_decreases = damped_step(state, damping)
    for name, step, predicted, right, its in zip(
        cases, steps, predicted_decreases, expected, expected_decreases, strict=True
    ):
        if name == "undamped":  # beyond the digits of float32: only the decrease agrees
            assert predicted == pytest.approx(float(its), rel=1e-3)
        else:
            assert (step - right).abs().max() <= NEAR.step * right.abs().max(), name
            assert predicted == pytest.approx(float(its), rel=NEAR.step, abs=1e-20), name
        moved = gradient[list(cases).index(name)].any()
        assert (step @ gradient[list(cases).index(name)] < 0) == bool(moved), name

    bad = torch.tensor([c.uses == "gradient" or "indefinite" in name for name, c in cases.items()])
    calm_gradient, calm_matrix, calm_hessian = (x.clone() for x in (state.gradient, matrix, hessian))
    calm_matrix[bad], calm_hessian[bad] = matrix[0].clone(), hessian[0].clone()
    calm_gradient[bad] = torch.nan
    calm = Evaluation(state.value, calm_gradient, calm_matrix, calm_hessian)
    alone, gains = kernel_steps(backend, calm, damping)
    assert torch.equal(alone[~bad], steps[~bad]) and torch.equal(gains[~bad], predicted_decreases[~bad])
    assert not alone[bad].isfinite().all(1).any()
