"""Where to try again when the closed-form start led nowhere: starts that depend on nothing but the person.

Each is a `Start` of `skelfit.fitting.start.retry`: from the rows of the failed people and their best answers so far
(K, 46 or more), of which the first 46 numbers are the angles in rad, to where they begin anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from skelfit.bodies.dofs import dof_index
from skelfit.fitting.start.retry import Start

if TYPE_CHECKING:
    from skelfit.config.fit_settings import RestartConfig


def as_found(rows: Tensor, q: Tensor) -> Tensor:
    """Where they are: the attempt begins without the joint limits, which are a wall between two Euler branches."""
    return q


def shoulders(turn: float) -> Start:
    """Both shoulders' outer angles turned against each other by rad, which near a pole hardly turns the arm."""

    def start(rows: Tensor, q: Tensor) -> Tensor:
        q = q.clone()
        for side, mirrored in (("r", 1.0), ("l", -1.0)):
            q[:, dof_index(f"shoulder_{side}_x")] += mirrored * turn
            q[:, dof_index(f"shoulder_{side}_z")] -= mirrored * turn
        return q

    return start


def hips(flexion: float) -> Start:
    """Both hips flexed by rad, neither turned nor spread; the rest as found."""

    def start(rows: Tensor, q: Tensor) -> Tensor:
        q = q.clone()
        for side in "rl":
            q[:, dof_index(f"hip_flexion_{side}")] = flexion
            q[:, dof_index(f"hip_adduction_{side}")] = 0
            q[:, dof_index(f"hip_rotation_{side}")] = 0
        return q

    return start


def zero(rows: Tensor, q: Tensor) -> Tensor:
    """The T-pose."""
    return torch.zeros_like(q)


def other_starts(config: RestartConfig) -> tuple[Start, ...]:
    """What is tried, in this order."""
    turn = config.shoulder_turn
    return as_found, shoulders(turn), shoulders(-turn), hips(config.hip_flexion), zero
