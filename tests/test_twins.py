"""Shoulders tried from both Euler branches: an objective with a minimum in each, both known."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

from skelfit.body.ball import angles_to_rotation, ball_joints
from skelfit.body.dofs import DOF_NAMES, STAGE_JOINTS, dof_index, dof_limits, dofs_of_joint
from skelfit.fit.solver import Evaluation, Objective, Solution, levenberg_marquardt
from skelfit.fit.twins import other_branch, shoulder_columns

LIMITS = torch.tensor(dof_limits()[[dof_index(f"shoulder_r_{axis}") for axis in "xyz"]], dtype=torch.float64)
COLUMNS = [1, 2, 3]


@dataclass(frozen=True)
class TwoValleys:
    """Of each problem (B,) the lower of two paraboloids over (B, 4) with these centres and depths."""

    centres: Tensor  # (B, 2, 4)
    depths: Tensor  # (B, 2)

    def __call__(self, x: Tensor) -> Evaluation:
        off = x[:, None] - self.centres
        values = off.square().sum(2) + self.depths
        lower = values.argmin(1, keepdim=True)
        gradient = 2 * off.take_along_dim(lower[..., None], 1)[:, 0]
        hessian = 2 * torch.eye(4, dtype=x.dtype).repeat(len(x), 1, 1)
        return Evaluation(values.take_along_dim(lower, 1)[:, 0], gradient, hessian)

    def take(self, rows: Tensor) -> TwoValleys:
        return TwoValleys(self.centres[rows], self.depths[rows])


def solve(goal: Objective, x: Tensor) -> Solution:
    return levenberg_marquardt(goal, x, 20, 0.4, tolerance=1e-12)


def test_whoever_is_beyond_a_limit_keeps_the_lower_of_both_branches() -> None:
    low, high = LIMITS.unbind(-1)
    inside, beyond = low + 0.4 * (high - low), torch.stack((low[0] + 1, low[1] + 1, high[2] + 0.2))
    twin = torch.stack((beyond[0] + pi, pi - beyond[1], beyond[2] - pi)).clamp(low, high)
    here, there = (torch.cat((torch.zeros(1), x)) for x in (beyond, twin))
    within = torch.cat((torch.ones(1), inside))
    centres = torch.stack([torch.stack(pair) for pair in ((here, there), (here, there), (within, there))])
    depths = torch.tensor([[1.0, 0.5], [1.0, 1.5], [1.0, 0.5]], dtype=torch.float64)
    goal = TwoValleys(centres.double(), depths)
    first = solve(goal, goal.centres[:, 0] + 0.01)
    torch.testing.assert_close(first.value, depths[:, 0])
    found = other_branch(goal, first, COLUMNS, LIMITS, 0.02, solve)
    # The first gains; the second would lose; the third is within its limits, so nobody looks elsewhere.
    torch.testing.assert_close(found.value, torch.tensor([0.5, 1.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(found.x[0], goal.centres[0, 1], atol=1e-6, rtol=0)
    assert torch.equal(found.x[1:], first.x[1:]) and torch.equal(found.damping[1:], first.damping[1:])


def test_the_other_branch_is_the_same_rotation_where_it_is_within_the_limits() -> None:
    """Angles that the limits exclude, of a rotation that they allow: the try begins where nothing has turned."""
    joint = next(j for j in range(24) if dofs_of_joint(j)[:1] == (dof_index("shoulder_r_x"),))
    ball = ball_joints((joint,), "cpu", torch.float64)
    allowed = torch.tensor([[0.3, 0.9, -0.4]], dtype=torch.float64)
    excluded = torch.stack((allowed[:, 0] - pi, pi - allowed[:, 1], allowed[:, 2] + pi), 1)
    starts = []

    def watch(goal: Objective, x: Tensor) -> Solution:
        starts.append(x)
        return solve(goal, x)

    x = torch.cat((torch.zeros(1, 1), excluded), 1)
    goal = TwoValleys(x[:, None].expand(1, 2, 4), torch.zeros(1, 2, dtype=torch.float64))
    other_branch(goal, solve(goal, x), COLUMNS, LIMITS, 0.02, watch)
    start = starts[0][:1, COLUMNS]
    torch.testing.assert_close(start, allowed)
    one, two = (angles_to_rotation(ball, a[:, None]) for a in (start, excluded))
    torch.testing.assert_close(one, two)


def test_columns_of_the_shoulders_that_a_stage_moves() -> None:
    def dofs(part: str) -> list[int]:
        return [i for joint in STAGE_JOINTS[part] for i in dofs_of_joint(joint)]

    assert shoulder_columns(dofs("lower_body")) == ()
    for columns, side in zip(shoulder_columns(dofs("upper_body")), "rl", strict=True):
        assert [DOF_NAMES[dofs("upper_body")[c]] for c in columns] == [f"shoulder_{side}_{a}" for a in "xyz"]
