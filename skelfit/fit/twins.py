"""Shoulders that end beyond their limits, tried from their other Euler branch too.

Two triples of a ball joint's angles mean one rotation. Where neither lies within the limits, each branch has a minimum
of its own, with a wall between them, and the start decides which is found. So whoever ends beyond a limit is also
followed from the other triple, brought within the limits, and keeps the lower of the two; of the same moments, so that
it takes no vertex pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import pi

import torch
from torch import Tensor

from skelfit.body.ball import nearest_turn
from skelfit.body.dofs import dof_index
from skelfit.fit.solver import Objective, Solution, whole_lanes


def shoulder_columns(dofs: list[int]) -> tuple[list[int], ...]:
    """Where the angles of each shoulder, whose limits lie at its Euler pole, stand among these DoFs; of those there."""
    joints = ([dof_index(f"shoulder_{side}_{axis}") for axis in "xyz"] for side in "rl")
    return tuple([dofs.index(i) for i in joint] for joint in joints if set(joint) <= set(dofs))


def other_branch(
    goal: Objective,
    found: Solution,
    joint: list[int],
    limits: Tensor,
    margin: float,
    solve: Callable[[Objective, Tensor], Solution],
) -> Solution:
    """The better of what was found and of what is found from the other branch of one joint.

    joint: the columns of its three angles in the variables (B, n); limits (3, 2) rad, theirs; margin: how far, rad,
    beyond one of them an angle makes the branch doubtful.
    """
    low, high = limits.unbind(-1)
    angles = found.x[:, joint]
    beyond = ((angles < low - margin) | (angles > high + margin)).any(1)
    rows = whole_lanes(beyond.nonzero()[:, 0])
    if len(rows) == 0:
        return found
    first, second, third = angles[rows].unbind(1)
    twin = nearest_turn(torch.stack((first + pi, pi - second, third + pi), 1), limits.mean(-1))
    start = found.x[rows]
    start[:, joint] = twin.clamp(low, high)
    other = solve(goal.take(rows), start)
    lower = other.value < found.value[rows]
    rows, tensors = rows[lower], vars(other).items()
    return replace(found, **{k: getattr(found, k).index_copy(0, rows, v[lower]) for k, v in tensors})
