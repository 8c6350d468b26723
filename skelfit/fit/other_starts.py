"""Where to try again when the closed-form start led nowhere: starts that depend on nothing but the person.

Each is a `Start` of `skelfit.fit.second_chance`: from the rows of the failed people and their best answers so far
(K, 46 or more), of which the first 46 numbers are the angles in rad, to where they begin anew.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skelfit.body.dofs import dof_index
from skelfit.fit.second_chance import Start

_TURN = 1.2  # rad, along the valley of a shoulder near its Euler pole
_FLEXED = 1.0  # rad


def as_found(rows: Tensor, q: Tensor) -> Tensor:
    """Where they are: the attempt begins without the joint limits, which are a wall between two Euler branches."""
    return q


def shoulders(sign: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Both shoulders' outer angles turned against each other, which near a pole hardly turns the arm."""

    def start(rows: Tensor, q: Tensor) -> Tensor:
        q = q.clone()
        for side, mirrored in (("r", 1.0), ("l", -1.0)):
            q[:, dof_index(f"shoulder_{side}_x")] += sign * mirrored * _TURN
            q[:, dof_index(f"shoulder_{side}_z")] -= sign * mirrored * _TURN
        return q

    return start


def hips(rows: Tensor, q: Tensor) -> Tensor:
    """Both hips flexed, neither turned nor spread; the rest as found."""
    q = q.clone()
    for side in "rl":
        q[:, dof_index(f"hip_flexion_{side}")] = _FLEXED
        q[:, dof_index(f"hip_adduction_{side}")] = 0
        q[:, dof_index(f"hip_rotation_{side}")] = 0
    return q


def zero(rows: Tensor, q: Tensor) -> Tensor:
    """The T-pose."""
    return torch.zeros_like(q)


OTHER_STARTS: tuple[Start, ...] = (as_found, shoulders(1.0), shoulders(-1.0), hips, zero)
