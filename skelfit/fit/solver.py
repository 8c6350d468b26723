"""A batched Levenberg-Marquardt solver in which nothing couples two problems.

It knows no body: it minimises value(x) for a batch of unrelated x (B, n), given a function that returns the value
(B,), its gradient (B, n) and a positive semi-definite model of its Hessian (B, n, n). Damping, step bound, and the
decision to accept are each problem's own, so that a hard problem cannot slow an easy one, and a batch gives what
its members give alone. A failure is a status, never an exception: a problem whose normal matrix cannot be factored
takes a damped gradient step, and one whose value is not finite keeps its last finite x.

The damped step solves (H + lambda diag H) d = -g and is bounded by `max_step`: an unbounded Gauss-Newton step of an
angle can land whole turns away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Evaluation:
    """A batch of objectives at a batch of points."""

    value: Tensor  # (B,)
    gradient: Tensor  # (B, n)
    hessian: Tensor  # (B, n, n), positive semi-definite model


@dataclass(frozen=True)
class Solution:
    """Where the solver stopped."""

    x: Tensor  # (B, n)
    value: Tensor  # (B,)
    decrease: Tensor  # (B,) decrease of the value that one more undamped step promises; 0 at a minimum
    accepted: Tensor  # (B,) int64, number of accepted steps


Objective = Callable[[Tensor], Evaluation]
# Where a step (B, n) of at most a given length leads from x (B, n).
Move = Callable[[Tensor, Tensor, float], Tensor]

_DAMPING_START, _DAMPING_MIN, _DAMPING_MAX = 1e-3, 1e-7, 1e7
_DAMPING_UP, _DAMPING_DOWN = 10.0, 0.1


def damped_step(state: Evaluation, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Solve (H + damping (diag H + floor)) d = -g per problem: d (B, n), and the decrease that the model promises.

    Where the matrix is not positive definite even so, the step is the gradient scaled by the largest curvature.
    """
    diagonal = state.hessian.diagonal(dim1=-2, dim2=-1)
    largest = diagonal.amax(-1, keepdim=True)
    floor = 1e-6 * largest + torch.finfo(diagonal.dtype).tiny
    matrix = state.hessian + torch.diag_embed(damping[:, None] * diagonal + floor)
    factor, info = torch.linalg.cholesky_ex(matrix)
    step = -torch.cholesky_solve(state.gradient[..., None], factor)[..., 0]
    usable = ((info == 0) & step.isfinite().all(-1))[:, None]
    step = torch.where(usable, step, -state.gradient / (largest * (1 + damping[:, None]) + floor))
    curvature = (step * (state.hessian @ step[..., None])[..., 0]).sum(-1)
    promised = -(step * state.gradient).sum(-1) - 0.5 * curvature
    return step, promised


def _choose(mask: Tensor, a: Evaluation, b: Evaluation) -> Evaluation:
    return Evaluation(
        torch.where(mask, a.value, b.value),
        torch.where(mask[:, None], a.gradient, b.gradient),
        torch.where(mask[:, None, None], a.hessian, b.hessian),
    )


def straight(x: Tensor, step: Tensor, max_step: float) -> Tensor:
    """x + step, the step scaled so that no component is longer than max_step."""
    longest = step.abs().amax(-1, keepdim=True)
    return x + step * (max_step / longest.clamp(min=max_step))


def levenberg_marquardt(
    objective: Objective, x: Tensor, steps: int, max_step: float, move: Move = straight
) -> Solution:
    """Minimise a batch of objectives from x (B, n) with a fixed number of steps, each bounded by max_step.

    `move` may follow a manifold, as long as it agrees with x + step to first order. The value of a solution is never
    above that of its start. No host synchronisation: every decision is a mask.
    """
    state = objective(x)
    damping = torch.full_like(state.value, _DAMPING_START)
    accepted = torch.zeros_like(state.value, dtype=torch.int64)
    for _ in range(steps):
        step, _ = damped_step(state, damping)
        trial_x = move(x, step, max_step)
        trial = objective(trial_x)
        better = trial.value < state.value
        x = torch.where(better[:, None], trial_x, x)
        state = _choose(better, trial, state)
        damping = torch.where(better, damping * _DAMPING_DOWN, damping * _DAMPING_UP)
        damping = damping.clamp(_DAMPING_MIN, _DAMPING_MAX)
        accepted = accepted + better
    _, decrease = damped_step(state, torch.full_like(damping, _DAMPING_MIN))
    return Solution(x, state.value, decrease, accepted)
