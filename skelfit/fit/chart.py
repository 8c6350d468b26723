"""How a solver step moves the active DoFs: ball joints along rotations, other DoFs and betas straight."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skelfit.body.ball import BALL_JOINTS, ball_joints, ball_step, move
from skelfit.body.dofs import dofs_of_joint
from skelfit.fit.cpu_chart import move_all
from skelfit.fit.solver import Move, straight


def joint_move(
    joints: list[int],
    dofs: list[int],
    device: torch.device | str,
    dtype: torch.dtype,
    limits: np.ndarray | None = None,
) -> Move:
    """The `Move` of the active DoFs of these joints; limits (46, 2) rad choose Euler branches, None: the table's.

    The length of a step is the largest turn of any joint, so that large opposite angles at an Euler pole count as
    the small turn that they are.
    """
    way = compiled_move if torch.device(device).type == "cpu" else torch_move
    return way(joints, dofs, device, dtype, limits)


def torch_move(
    joints: list[int],
    dofs: list[int],
    device: torch.device | str,
    dtype: torch.dtype,
    limits: np.ndarray | None = None,
) -> Move:
    """`joint_move` for any device."""
    index, rest = _columns(joints, dofs, device)
    ball = ball_joints(_balls(joints), device, dtype, limits)
    flat = index.flatten()

    def along(x: Tensor, step: Tensor, max_step: float) -> Tensor:
        turn = ball_step(ball, x[:, index], step[:, index])
        longest = torch.cat((turn.rotvec.norm(dim=-1), step[:, rest].abs()), 1).amax(1)
        share = max_step / longest.clamp(min=max_step)
        moved = x + share[:, None] * step
        return moved.index_copy(1, flat, move(ball, turn, share).flatten(1))

    return along


def compiled_move(
    joints: list[int],
    dofs: list[int],
    device: torch.device | str,
    dtype: torch.dtype,
    limits: np.ndarray | None = None,
) -> Move:
    """`joint_move` for CPUs."""
    ball = ball_joints(_balls(joints), device, torch.float64, limits)
    index, rest = (t.numpy() for t in _columns(joints, dofs, device))
    hand, within, middle = (t.numpy() for t in (ball.hand[:, 0], ball.limits, ball.middle))

    def along(x: Tensor, step: Tensor, max_step: float) -> Tensor:
        moved = torch.empty(x.shape, dtype=dtype)
        there, by = x.contiguous().numpy(), step.contiguous().numpy()
        move_all(there, by, max_step, index, rest, hand, within, middle, moved.numpy())
        return moved

    return along


def _balls(joints: list[int]) -> tuple[int, ...]:
    return tuple(j for j in joints if j in BALL_JOINTS)


def _columns(joints: list[int], dofs: list[int], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Where the angles of the ball joints (n, 3) stand among these DoFs, and where the others (m,)."""
    index = [[dofs.index(i) for i in dofs_of_joint(j)] for j in _balls(joints)]
    turning = {k for columns in index for k in columns}
    rest = [k for k in range(len(dofs)) if k not in turning]
    return (
        torch.tensor(index, device=device, dtype=torch.int64).view(-1, 3),
        torch.tensor(rest, device=device, dtype=torch.int64),
    )


def shaped_move(move: Move, dofs: int, max_beta_step: float) -> Move:
    """The `Move` of so many DoFs, and of betas after them, none of which goes further than max_beta_step."""

    def along(x: Tensor, step: Tensor, max_step: float) -> Tensor:
        betas = straight(x[:, dofs:], step[:, dofs:], max_beta_step)
        return torch.cat((move(x[:, :dofs], step[:, :dofs], max_step), betas), 1)

    return along
