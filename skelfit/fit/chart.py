"""How a solver step moves the active DoFs: ball joints along rotations, other DoFs and betas straight."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skelfit.body.ball import BALL_JOINTS, ball_joints, ball_step, move
from skelfit.body.dofs import dofs_of_joint
from skelfit.fit.solver import Move, straight

_BETA_STEP = 2.0  # the longest step of a beta


def joint_move(
    joints: list[int],
    dofs: list[int],
    device: torch.device,
    dtype: torch.dtype,
    limits: np.ndarray | None = None,
) -> Move:
    """The `Move` of the active DoFs of these joints; limits (46, 2) rad choose Euler branches, None: the table's.

    The length of a step is the largest turn of any joint, so that large opposite angles at an Euler pole count as
    the small turn that they are.
    """
    balls = tuple(j for j in joints if j in BALL_JOINTS)
    ball = ball_joints(balls, device, dtype, limits)
    position = {dof: k for k, dof in enumerate(dofs)}
    index = torch.tensor([[position[d] for d in dofs_of_joint(j)] for j in balls], device=device)
    flat = index.flatten()
    straight = torch.ones(len(dofs), dtype=torch.bool, device=device)
    straight[flat] = False

    def along(x: Tensor, step: Tensor, max_step: float) -> Tensor:
        turn = ball_step(ball, x[:, index], step[:, index])
        longest = torch.cat((turn.rotvec.norm(dim=-1), (step * straight).abs()), 1).amax(1)
        share = max_step / longest.clamp(min=max_step)
        moved = x + share[:, None] * step
        return moved.index_copy(1, flat, move(ball, turn, share).flatten(1))

    return along


def shaped_move(move: Move, dofs: int) -> Move:
    """The `Move` of so many DoFs, and of betas after them."""

    def along(x: Tensor, step: Tensor, max_step: float) -> Tensor:
        betas = straight(x[:, dofs:], step[:, dofs:], _BETA_STEP)
        return torch.cat((move(x[:, :dofs], step[:, :dofs], max_step), betas), 1)

    return along
