"""Restarts of problems that failed: each problem of a batch by itself, and the better answer is kept.

`retry_failed` knows no body and no solver: an answer is a vector with a score, and lower is better. A retry depends on
its own problem alone, so a batch gives what its members give one by one.

The restarts of SKEL begin at angles that depend on nothing but the person.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from skelfit.bodies.dofs import dof_index

if TYPE_CHECKING:
    from skelfit.config.fit_settings import RestartConfig

# From the rows (K,) int64 of the failed problems and their best answers (K, n) to where they begin again (K, n). The
# first 46 numbers of SKEL's answers are the angles in rad.
Restart = Callable[[Tensor, Tensor], Tensor]
# Solve the problems of these rows (K,) int64 from starts (K, n): answers (K, n) and scores (K,).
Attempt = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class RetryResult:
    """The best answers of all attempts."""

    x: Tensor  # (B, n)
    score: Tensor  # (B,)
    retries: Tensor  # (B,) int64, attempts after the first


def retry_failed(
    attempt: Attempt, x: Tensor, score: Tensor, good_enough: float | Tensor, restarts: Sequence[Restart]
) -> RetryResult:
    """Try the restarts in turn on the problems with a score above good_enough, or of NaN.

    x (B, n) and score (B,) are the answers so far; good_enough is one score or one per problem (B,). Each restart is
    tried on the problems that still fail. A score never rises, and a problem that has not failed is not touched.
    """
    x, score = x.clone(), score.clone()
    retries = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    goal = torch.as_tensor(good_enough, dtype=score.dtype, device=score.device).expand(score.shape)
    for restart in restarts:
        rows = (~(score <= goal)).nonzero()[:, 0]
        if len(rows) == 0:
            break
        answers, values = attempt(rows, restart(rows, x[rows]))
        better = (values < score[rows]) | (score[rows].isnan() & ~values.isnan())
        x[rows] = torch.where(better[:, None], answers, x[rows])
        score[rows] = torch.where(better, values, score[rows])
        retries[rows] += 1
    return RetryResult(x, score, retries)


def unchanged(rows: Tensor, q: Tensor) -> Tensor:
    """The best answers as they are: attempts begin without the joint limits, a wall between two Euler branches."""
    return q


def shoulders(turn: float) -> Restart:
    """Both outer angles of each shoulder turned against each other, rad: near a pole the arm hardly moves."""

    def restart(rows: Tensor, q: Tensor) -> Tensor:
        q = q.clone()
        for side, mirrored in (("r", 1.0), ("l", -1.0)):
            q[:, dof_index(f"shoulder_{side}_x")] += mirrored * turn
            q[:, dof_index(f"shoulder_{side}_z")] -= mirrored * turn
        return q

    return restart


def hips(flexion: float) -> Restart:
    """Both hips flexed, rad, with no rotation and no adduction."""

    def restart(rows: Tensor, q: Tensor) -> Tensor:
        q = q.clone()
        for side in "rl":
            q[:, dof_index(f"hip_flexion_{side}")] = flexion
            q[:, dof_index(f"hip_adduction_{side}")] = 0
            q[:, dof_index(f"hip_rotation_{side}")] = 0
        return q

    return restart


def t_pose(rows: Tensor, q: Tensor) -> Tensor:
    """All angles zero."""
    return torch.zeros_like(q)


def skel_restarts(config: RestartConfig) -> tuple[Restart, ...]:
    """The restarts of a person, in order."""
    turn = config.shoulder_turn
    return unchanged, shoulders(turn), shoulders(-turn), hips(config.hip_flexion), t_pose
