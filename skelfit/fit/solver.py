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
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from skelfit.config import SolverConfig
from skelfit.fit.cpu_steps import FLOOR, damped_steps


@dataclass(frozen=True)
class Evaluation:
    """A batch of objectives at a batch of points."""

    value: Tensor  # (B,)
    gradient: Tensor  # (B, n)
    hessian: Tensor  # (B, n, n), positive semi-definite model
    bend: Tensor | None = None  # (B, n, n), what the Hessian is more than the model; None: not to be used

    def take(self, rows: Tensor) -> Evaluation:
        """Of some of the problems; rows (K,)."""
        bend = None if self.bend is None else self.bend[rows]
        return Evaluation(self.value[rows], self.gradient[rows], self.hessian[rows], bend)


@dataclass(frozen=True)
class Solution:
    """Where the solver stopped."""

    x: Tensor  # (B, n)
    value: Tensor  # (B,)
    decrease: Tensor  # (B,) decrease of the value that one more undamped step promises; 0 at a minimum
    accepted: Tensor  # (B,) int64, number of accepted steps
    damping: Tensor  # (B,) of the next step, had there been one


class Objective(Protocol):
    """What is minimised, for a batch of problems."""

    def __call__(self, x: Tensor) -> Evaluation:
        """Evaluate all problems of the batch at x (B, n); the solver may write into what it is given."""

    def take(self, rows: Tensor) -> Objective:
        """The same objective of some problems of the batch only; rows (K,) int64."""


# Where a step (B, n) of at most a given length leads from x (B, n).
Move = Callable[[Tensor, Tensor, float], Tensor]

_DEFAULTS = SolverConfig()
# Twice as many float32 as the widest vector of any processor holds (16, of AVX-512): torch's loops take two at a time.
_LANES = 32
# On a CPU, the finished problems are dropped from the batch when they are at least this share of it.
_DROP_SHARE = 0.2


def on_cpu(x: Tensor) -> bool:
    """Whether a loop over the problems is faster than products of batches, and looking at them costs nothing."""
    return x.device.type == "cpu"


def damped_step(state: Evaluation, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Solve (H + damping (diag M + floor)) d = -g per problem: d (B, n), and the decrease that this promises.

    H is the Hessian as far as it is known; where it is not positive definite even so, it is the model M; and where that
    is not either, the step is the gradient scaled by the largest curvature.
    """
    if on_cpu(damping):
        return damped_steps(state.hessian, state.bend, state.gradient, damping)
    diagonal = state.hessian.diagonal(dim1=-2, dim2=-1)
    largest = diagonal.amax(-1, keepdim=True)
    floor = FLOOR * largest + torch.finfo(diagonal.dtype).tiny
    added = torch.diag_embed(damping[:, None] * diagonal + floor)
    step, good = _solve(state.hessian + added, state.gradient)
    step = torch.where(good, step, -state.gradient / (largest * (1 + damping[:, None]) + floor))
    hessian = state.hessian
    if state.bend is not None:
        exact = hessian + state.bend
        other, good = _solve(exact + added, state.gradient)
        step, hessian = torch.where(good, other, step), torch.where(good[..., None], exact, hessian)
    curvature = (step * (hessian @ step[..., None])[..., 0]).sum(-1)
    promised = -(step * state.gradient).sum(-1) - 0.5 * curvature
    return step, promised


def _solve(matrix: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """-matrix^-1 gradient (B, n), and where (B, 1) the matrix is positive definite and that is finite."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    step = -torch.cholesky_solve(gradient[..., None], factor)[..., 0]
    return step, ((info == 0) & step.isfinite().all(-1))[:, None]


@dataclass(frozen=True)
class _Batch:
    """The problems that are still worked on."""

    rows: Tensor  # (K,) int64, which of the whole batch
    x: Tensor  # (K, n)
    state: Evaluation
    damping: Tensor  # (K,)
    accepted: Tensor  # (K,)

    def take(self, keep: Tensor) -> _Batch:
        state = self.state.take(keep)
        return _Batch(self.rows[keep], self.x[keep], state, self.damping[keep], self.accepted[keep])


def whole_lanes(rows: Tensor) -> Tensor:
    """rows (K,), the last of them repeated up to a multiple of 32.

    torch computes the last few numbers of a tensor by other instructions than the rest, and atan2 rounds differently
    there. In batches of whole lanes every problem is computed alike, whatever else is in the batch; a problem that is
    there twice gives one answer.
    """
    short = -len(rows) % _LANES
    return torch.cat((rows, rows[-1:].expand(short))) if short else rows


def straight(x: Tensor, step: Tensor, max_step: float) -> Tensor:
    """x + step, the step scaled so that no component is longer than max_step."""
    longest = step.abs().amax(-1, keepdim=True)
    return x + step * (max_step / longest.clamp(min=max_step))


def levenberg_marquardt(
    objective: Objective,
    x: Tensor,
    steps: int,
    max_step: float,
    move: Move = straight,
    tolerance: float = 0.0,
    damping: Tensor | None = None,
    config: SolverConfig = _DEFAULTS,
) -> Solution:
    """Minimise a batch of objectives from x (B, n) with at most `steps` steps each, each bounded by max_step.

    `move` may follow a manifold, as long as it agrees with x + step to first order. A problem rests when a step
    promises to gain no more than `tolerance` times its value. The value of a solution is never above that of its start,
    but for rounding. damping (B,) is that of the first step, such as an earlier solution's.
    Every decision is a mask: on a GPU nothing waits for the host; on a CPU resting problems also leave the batch.
    """
    everybody = torch.arange(len(x), device=x.device)
    if damping is None:
        damping = x.new_full((len(x),), config.damping)
    batch = _Batch(everybody, x, objective(x), damping, torch.zeros_like(everybody))
    found_x, found_value, found_accepted = x.clone(), batch.state.value.clone(), batch.accepted.clone()
    decrease, found_damping = torch.full_like(found_value, torch.inf), damping.clone()

    def store(batch: _Batch) -> None:
        found_x[batch.rows], found_value[batch.rows] = batch.x, batch.state.value
        found_accepted[batch.rows], found_damping[batch.rows] = batch.accepted, batch.damping
        _, decrease[batch.rows] = damped_step(batch.state, torch.full_like(batch.damping, config.damping_min))

    for _ in range(steps):
        step, promised = damped_step(batch.state, batch.damping)
        resting = (promised <= tolerance * batch.state.value) & (batch.damping <= config.damping_at_rest)
        if on_cpu(x) and tolerance > 0 and float(resting.float().mean()) >= _DROP_SHARE:
            store(batch.take(resting))
            keep = whole_lanes((~resting).nonzero()[:, 0])
            if len(keep) == 0:
                return Solution(found_x, found_value, decrease, found_accepted, found_damping)
            batch, objective = batch.take(keep), objective.take(keep)
            step, resting = step[keep], resting[keep]
        batch = _step(objective, batch, move(batch.x, step, max_step), ~resting, config)
    store(batch)
    return Solution(found_x, found_value, decrease, found_accepted, found_damping)


def _step(
    objective: Objective, batch: _Batch, trial_x: Tensor, moving: Tensor, config: SolverConfig
) -> _Batch:
    """Each moving problem goes to its trial point where that is better, and adapts its damping."""
    trial, state = objective(trial_x), batch.state
    noise = config.noise * torch.finfo(state.value.dtype).eps * state.value
    better = (trial.value <= state.value + noise) & moving
    scaled = batch.damping * torch.where(better, config.damping_down, config.damping_up)
    return _Batch(
        rows=batch.rows,
        x=torch.where(better[:, None], trial_x, batch.x),
        state=_chosen(better, trial, state),
        damping=torch.where(moving, scaled.clamp(config.damping_min, config.damping_max), batch.damping),
        accepted=batch.accepted + better,
    )


def _chosen(better: Tensor, trial: Evaluation, state: Evaluation) -> Evaluation:
    """Of each problem the trial where that is better. On a CPU, those few of which it is not are copied into it."""
    rows = (~better).nonzero()[:, 0] if on_cpu(better) else None

    def choose(one: Tensor | None, other: Tensor | None) -> Tensor | None:
        if one is None or other is None:
            return None
        if rows is not None:
            return one.index_copy_(0, rows, other[rows])
        return torch.where(better.view(-1, *(1,) * (one.dim() - 1)), one, other)

    chosen: list[Any] = [choose(getattr(trial, f.name), getattr(state, f.name)) for f in fields(Evaluation)]
    return Evaluation(*chosen)
