"""The rules of the fit's Levenberg-Marquardt solver in plain code: the reference for the kernels.

It minimises value(x) of a batch of unrelated problems x (B, n). Damping, step bound and the decision to accept are each
problem's own. A failure is a status, never an exception: a problem whose matrix cannot be factored takes a damped
gradient step, and one whose value is not finite keeps its last finite x.

- A step is that of `naive_step.damped_step`.
- The move bounds it: an unbounded Gauss-Newton step of an angle can land whole turns away.
- A problem rests, for good, when a step with little damping predicts a decrease below `tolerance` of its value.
- A step is accepted when it does not raise the value by more than its rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skelfit.bodies.ball_joints import BALL_JOINTS, ball_joints
from skelfit.bodies.dofs import dofs_of_joint
from skelfit.config.fit_settings import SolverConfig
from skelfit.fitting.baseline.naive_objective import Evaluation
from skelfit.fitting.baseline.naive_step import damped_step, promised_decrease
from tools.studies.ball_steps import apply_step, ball_step

# Moves x (B, n) by a step (B, n), bounded.
Move = Callable[[Tensor, Tensor], Tensor]

_DEFAULTS = SolverConfig()


@dataclass(frozen=True)
class Solution:
    """The result of the solver."""

    x: Tensor  # (B, n)
    value: Tensor  # (B,)
    decrease: Tensor  # (B,) predicted decrease of one more undamped step; 0 at a minimum
    accepted: Tensor  # (B,) int64, number of accepted steps
    damping: Tensor  # (B,) of the next step, had there been one


def levenberg_marquardt(
    evaluate: Callable[[Tensor], Evaluation],
    x: Tensor,
    steps: int,
    apply_step: Move,
    tolerance: float = 0.0,
    damping: Tensor | None = None,
    config: SolverConfig = _DEFAULTS,
) -> Solution:
    """At most `steps` steps of each problem from x (B, n); damping (B,) is that of the first step."""
    state = evaluate(x)
    damping = torch.full_like(state.value, config.damping) if damping is None else damping
    accepted = torch.zeros_like(state.value, dtype=torch.int64)
    for _ in range(steps):
        step, predicted = damped_step(state, damping)
        resting = (predicted <= tolerance * state.value) & (damping <= config.damping_at_rest)
        trial_x, moving = apply_step(x, step), ~resting
        trial = evaluate(trial_x)
        noise = config.noise * torch.finfo(x.dtype).eps * state.value
        better = (trial.value <= state.value + noise) & moving
        x, state = torch.where(better[:, None], trial_x, x), _chosen(better, trial, state)
        scaled = damping * torch.where(better, config.damping_down, config.damping_up)
        damping = torch.where(moving, scaled.clamp(config.damping_min, config.damping_max), damping)
        accepted = accepted + better
    return Solution(x, state.value, promised_decrease(state, config), accepted, damping)


def _chosen(better: Tensor, trial: Evaluation, state: Evaluation) -> Evaluation:
    """The trial of each problem where it is better, else the state."""

    def choose(one: Tensor, other: Tensor) -> Tensor:
        return torch.where(better.view(-1, *(1,) * (one.dim() - 1)), one, other)

    hessian = None
    if trial.hessian is not None and state.hessian is not None:
        hessian = choose(trial.hessian, state.hessian)
    return Evaluation(
        choose(trial.value, state.value),
        choose(trial.gradient, state.gradient),
        choose(trial.matrix, state.matrix),
        hessian,
    )


def straight(max_step: float) -> Move:
    """x + step, the step scaled so that no component is longer than max_step."""

    def along(x: Tensor, step: Tensor) -> Tensor:
        longest = step.abs().amax(-1, keepdim=True)
        return x + step * (max_step / longest.clamp(min=max_step))

    return along


def joint_move(
    dofs: Tensor, limits: np.ndarray, max_step: float, max_beta_step: float = _DEFAULTS.max_beta_step
) -> Move:
    """The move of active DoFs (n,), and of betas after them: ball joints follow rotations, the others add the step.

    No joint turns by more than max_step (rad), no beta changes by more than max_beta_step. limits (46, 2) rad choose
    between the two Euler triples of a rotation. Large opposite angles at an Euler pole count as the small rotation
    that they are.
    """
    active = dofs.tolist()
    balls = tuple(j for j in BALL_JOINTS if set(dofs_of_joint(j)) <= set(active))
    columns = [[active.index(i) for i in dofs_of_joint(j)] for j in balls]
    rest = [k for k in range(len(active)) if not any(k in joint for joint in columns)]
    index = torch.tensor(columns, device=dofs.device, dtype=torch.int64).view(-1, 3)
    betas_move = straight(max_beta_step)

    def along(x: Tensor, step: Tensor) -> Tensor:
        ball = ball_joints(balls, x.device, x.dtype, limits)
        turn = ball_step(ball, x[:, index], step[:, index])
        longest = torch.cat((turn.rotvec.norm(dim=-1), step[:, rest].abs()), 1).amax(1)
        share = max_step / longest.clamp(min=max_step)
        n = len(active)
        moved = x[:, :n] + share[:, None] * step[:, :n]
        moved = moved.index_copy(1, index.flatten(), apply_step(ball, turn, share).flatten(1))
        if x.shape[1] == n:
            return moved
        return torch.cat((moved, betas_move(x[:, n:], step[:, n:])), 1)

    return along
