"""The pose that networks predict: six continuous numbers per joint, and the conversion to and from the 46 angles.

A joint of three DoFs is the first two columns of its rotation matrix; of one DoF, the cosine and sine of its angle; of
two DoFs, the angles themselves. The rest of the six numbers is unused. Angles jump at half a turn and at the Euler
poles; these numbers do not. On the way back all gradients are bounded: at the poles, where a small turn of a bone needs
large changes of two angles, and for vectors of almost no length.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from skelfit.bodies.ball_joints import (
    BALL_JOINTS,
    BallJoints,
    angles_to_rotation,
    ball_joints,
    moved_axes,
    rotation_to_angles,
)
from skelfit.bodies.dofs import NUM_DOFS, NUM_JOINTS, dofs_of_joint

POSE_SIZE = 6  # numbers per joint
_BALL = list(BALL_JOINTS)
_HINGE = [j for j in range(NUM_JOINTS) if len(dofs_of_joint(j)) == 1]
_PAIR = [j for j in range(NUM_JOINTS) if len(dofs_of_joint(j)) == 2]
_BALL_DOFS, _HINGE_DOFS, _PAIR_DOFS = ([list(dofs_of_joint(j)) for j in js] for js in (_BALL, _HINGE, _PAIR))
_SHORTEST = 0.1  # the gradient of a vector's direction is that of a vector at least this long
_POLE = 0.01  # near a pole, gradients are those where 1 - |sin| of the middle angle is at least this


@cache
def _tables(device: torch.device, dtype: torch.dtype) -> BallJoints:
    return ball_joints(BALL_JOINTS, device, dtype)


@cache
def used_numbers(device: torch.device) -> Tensor:
    """Which of a pose's numbers are used, (24, 6) bool."""
    used = torch.zeros(NUM_JOINTS, POSE_SIZE, dtype=torch.bool, device=device)
    used[_BALL] = True
    used[_HINGE + _PAIR, :2] = True
    return used


def angles_to_pose(q: Tensor) -> Tensor:
    """The continuous pose (..., 24, 6) of angles (..., 46) rad; unused numbers are 0."""
    pose = q.new_zeros(*q.shape[:-1], NUM_JOINTS, POSE_SIZE)
    rotation = angles_to_rotation(_tables(q.device, q.dtype), q[..., _BALL_DOFS])
    pose[..., _BALL, :] = rotation[..., :2].mT.flatten(-2)
    hinge = q[..., _HINGE_DOFS]
    pose[..., _HINGE, :2] = torch.cat((torch.cos(hinge), torch.sin(hinge)), -1)
    pose[..., _PAIR, :2] = q[..., _PAIR_DOFS]
    return pose


def pose_to_angles(pose: Tensor) -> Tensor:
    """The angles (..., 46) rad of a continuous pose (..., 24, 6), whose vectors may have any length.

    Of the two triples of angles that describe a rotation, the one nearer to the joint limits is taken, as in shards.
    """
    q = pose.new_zeros(*pose.shape[:-2], NUM_DOFS)
    first, second = pose[..., _BALL, :3], pose[..., _BALL, 3:]
    x = unit(first)
    y = unit(second - (x * second).sum(-1, keepdim=True) * x)
    q[..., _BALL_DOFS] = _euler_angles(torch.stack((x, y, torch.linalg.cross(x, y)), -1))
    cos, sin = unit(pose[..., _HINGE, :2]).split(1, -1)
    q[..., _HINGE_DOFS] = torch.atan2(sin, cos)
    q[..., _PAIR_DOFS] = pose[..., _PAIR, :2]
    return q


def unit(x: Tensor) -> Tensor:
    """Vectors (..., n) scaled to length 1; 0 becomes the first axis. The gradient is bounded for short vectors."""
    still = x.detach()
    length = still.norm(dim=-1, keepdim=True)
    tiny = torch.finfo(x.dtype).tiny
    direction = torch.where(length > tiny, still / length.clamp_min(tiny), torch.eye(x.shape[-1]).to(x)[0])
    across = x - (x * direction).sum(-1, keepdim=True) * direction
    return _with_gradient_of(direction, across / length.clamp_min(_SHORTEST))


def _euler_angles(rotation: Tensor) -> Tensor:
    """Angles (..., 10, 3) of the ball joints' rotations (..., 10, 3, 3).

    A small turn of a joint is J dq, with J's columns its three axes as moved by the angles after them, so dq is
    (J^T J)^-1 J^T turn. Only the first and the third axis are not at right angles: near a pole, where they are almost
    parallel, J^T J is damped.
    """
    still = rotation.detach()
    ball = _tables(still.device, still.dtype)
    angles = rotation_to_angles(ball, still, ball.middle.expand(still.shape[:-1]))
    axes = moved_axes(ball, angles)
    squares = axes @ axes.mT
    damping = (_POLE - (1 - squares[..., 0, 2].abs())).clamp_min(0)
    squares = squares + damping[..., None, None] * torch.eye(3).to(still)
    moved = rotation @ still.mT  # the identity, but it has a gradient
    turn = (moved - moved.mT)[..., (2, 0, 1), (1, 2, 0)] / 2
    return _with_gradient_of(angles, torch.linalg.solve_ex(squares, axes @ turn[..., None]).result[..., 0])


def _with_gradient_of(value: Tensor, other: Tensor) -> Tensor:
    """A value with the gradient of another tensor."""
    return value + (other - other.detach())
