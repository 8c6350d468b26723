"""Poses as a network predicts them: six continuous numbers per joint, and the 46 angles that they mean.

A joint of three DoFs is the first two columns of its rotation; of one, the cosine and sine of its angle; of two, the
angles themselves. What is left of the six means nothing. Angles jump, at half a turn and at the Euler poles; these
numbers do not. On the way back no gradient grows without bound: neither at the poles, where small turns of a bone
need large changes of two angles, nor for vectors of almost no length.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from skelfit.body.ball import BALL_JOINTS, BallJoints, angles_to_rotation, ball_joints, rotation_to_angles
from skelfit.body.dofs import NUM_DOFS, NUM_JOINTS, dofs_of_joint

POSE_SIZE = 6  # numbers per joint
_BALL = list(BALL_JOINTS)
_HINGE = [j for j in range(NUM_JOINTS) if len(dofs_of_joint(j)) == 1]
_PAIR = [j for j in range(NUM_JOINTS) if len(dofs_of_joint(j)) == 2]
_BALL_DOFS, _HINGE_DOFS, _PAIR_DOFS = ([list(dofs_of_joint(j)) for j in js] for js in (_BALL, _HINGE, _PAIR))
_SHORTEST = 0.1  # gradients of the direction of a vector are those of one at least this long
_POLE = 0.01  # and near a pole those of 1 - |sin| of the middle angle at least this


@cache
def _tables(device: torch.device, dtype: torch.dtype) -> BallJoints:
    return ball_joints(BALL_JOINTS, device, dtype)


@cache
def used_numbers(device: torch.device) -> Tensor:
    """Which of a pose's numbers mean something, (24, 6) bool."""
    used = torch.zeros(NUM_JOINTS, POSE_SIZE, dtype=torch.bool, device=device)
    used[_BALL] = True
    used[_HINGE + _PAIR, :2] = True
    return used


def angles_to_pose(q: Tensor) -> Tensor:
    """The continuous pose (..., 24, 6) of angles (..., 46) rad; numbers that mean nothing are 0."""
    pose = q.new_zeros(*q.shape[:-1], NUM_JOINTS, POSE_SIZE)
    rotation = angles_to_rotation(_tables(q.device, q.dtype), q[..., _BALL_DOFS])
    pose[..., _BALL, :] = rotation[..., :2].mT.flatten(-2)
    hinge = q[..., _HINGE_DOFS]
    pose[..., _HINGE, :2] = torch.cat((torch.cos(hinge), torch.sin(hinge)), -1)
    pose[..., _PAIR, :2] = q[..., _PAIR_DOFS]
    return pose


def pose_to_angles(pose: Tensor) -> Tensor:
    """The angles (..., 46) rad of a continuous pose (..., 24, 6), of whatever length its vectors are.

    Of the two triples of angles that are one rotation, the one nearer to the joint limits, as in shards.
    """
    q = pose.new_zeros(*pose.shape[:-2], NUM_DOFS)
    first, second = pose[..., _BALL, :3], pose[..., _BALL, 3:]
    x = unit(first)
    y = unit(second - (x * second).sum(-1, keepdim=True) * x)
    rotation = torch.stack((x, y, torch.linalg.cross(x, y)), -1)
    q[..., _BALL_DOFS] = _EulerAngles.apply(rotation)
    cos, sin = unit(pose[..., _HINGE, :2]).split(1, -1)
    q[..., _HINGE_DOFS] = torch.atan2(sin, cos)
    q[..., _PAIR_DOFS] = pose[..., _PAIR, :2]
    return q


def unit(x: Tensor) -> Tensor:
    """Vectors (..., n) at length 1; of 0 the first axis."""
    return _Unit.apply(x)


class _Unit(torch.autograd.Function):
    """The direction of vectors (..., n), with a gradient that stays bounded."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        length = x.norm(dim=-1, keepdim=True)
        first = torch.zeros_like(x)
        first[..., 0] = 1
        tiny = torch.finfo(x.dtype).tiny
        direction = torch.where(length > tiny, x / length.clamp_min(tiny), first)
        ctx.save_for_backward(direction, length)
        return direction

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        direction, length = ctx.saved_tensors
        (grad,) = grads
        across = grad - (grad * direction).sum(-1, keepdim=True) * direction
        return across / length.clamp_min(_SHORTEST)


class _EulerAngles(torch.autograd.Function):
    """Angles (..., 10, 3) of the ball joints' rotations (..., 10, 3, 3).

    A turn w of the joint is w = J dq, with J's columns the joint's three axes as moved by the angles after them. The
    first and the third are the only two that are not at right angles, so with s their cosine J^T J is 1 but for s in
    its corners, and dq = (J^T J)^-1 J^T w in closed form. At a pole |s| = 1; damping keeps 1 - |s| from 0.
    """

    @staticmethod
    def forward(ctx: Any, rotation: Tensor) -> Tensor:
        ball = _tables(rotation.device, rotation.dtype)
        angles = rotation_to_angles(ball, rotation, ball.middle.expand(rotation.shape[:-1]))
        ctx.save_for_backward(rotation, angles)
        return angles

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        rotation, angles = ctx.saved_tensors
        ball = _tables(rotation.device, rotation.dtype)
        third = angles_to_rotation(ball, angles * angles.new_tensor((0.0, 0.0, 1.0)))
        later = angles_to_rotation(ball, angles * angles.new_tensor((0.0, 1.0, 1.0)))
        axes = torch.stack(
            (
                (later @ ball.axes[:, 0, :, None])[..., 0],
                (third @ ball.axes[:, 1, :, None])[..., 0],
                ball.axes[:, 2].expand(angles.shape),
            ),
            -1,
        )
        s = (axes[..., 0] * axes[..., 2]).sum(-1)
        diagonal = 1 + (_POLE - (1 - s.abs())).clamp_min(0)
        a, b, c = grads[0].unbind(-1)
        determinant = diagonal.square() - s.square()
        solved = torch.stack(
            ((diagonal * a - s * c) / determinant, b / diagonal, (diagonal * c - s * a) / determinant), -1
        )
        turn = (axes @ solved[..., None])[..., 0]
        # dR = w x R for a turn w: half of `turn` x R has the inner product turn . w with it.
        return torch.linalg.cross(turn[..., None].expand_as(rotation), rotation, dim=-2) / 2
