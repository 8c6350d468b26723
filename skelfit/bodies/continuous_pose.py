"""The pose that networks predict: six continuous numbers per joint; to and from angles, and to rotations.

The six numbers are those of HSMR (Xia et al., CVPR 2025) and of SKEL-CF (Li et al., 2025), so the weights of published
networks mean the same here. A joint of three DoFs is the first two rows of its rotation matrix (Zhou et al., 2019); of
one DoF, the cosine and minus the sine of its angle; of two DoFs, the angles themselves. The rest of the six is 0 and
means nothing. Signs and order of the angles are those of `dofs`, which are SKEL's.

Angles jump at half a turn and at the Euler poles; these numbers do not. On the way back all gradients are bounded: at
the poles, where a small turn of a bone needs large changes of two angles, and for vectors of almost no length.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from skelfit.bodies.axis_rotations import cross_matrix, rotations_about
from skelfit.bodies.ball_joints import (
    BALL_JOINTS,
    BallJoints,
    angles_to_rotation,
    ball_joints,
    moved_axes,
    rotation_to_angles,
)
from skelfit.bodies.dofs import NUM_DOFS, NUM_JOINTS, dof_axes, dofs_of_joint

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
def _cross(device: torch.device, dtype: torch.dtype) -> Tensor:
    """The cross-product matrices (46, 3, 3) of the DoFs' axes."""
    return cross_matrix(torch.tensor(dof_axes(), device=device, dtype=dtype))


def angles_to_pose(q: Tensor) -> Tensor:
    """The continuous pose (..., 24, 6) of angles (..., 46) rad; unused numbers are 0."""
    pose = q.new_zeros(*q.shape[:-1], NUM_JOINTS, POSE_SIZE)
    rotation = angles_to_rotation(_tables(q.device, q.dtype), q[..., _BALL_DOFS])
    pose[..., _BALL, :] = rotation[..., :2, :].flatten(-2)
    hinge = q[..., _HINGE_DOFS]
    pose[..., _HINGE, :2] = torch.cat((torch.cos(hinge), -torch.sin(hinge)), -1)
    pose[..., _PAIR, :2] = q[..., _PAIR_DOFS]
    return pose


def pose_to_angles(pose: Tensor) -> Tensor:
    """The angles (..., 46) rad of a continuous pose (..., 24, 6), whose vectors may have any length.

    Of the two triples of angles that describe a rotation, the one nearer to the joint limits is taken, as in shards.
    """
    q = pose.new_zeros(*pose.shape[:-2], NUM_DOFS)
    q[..., _BALL_DOFS] = _euler_angles(_rows_to_rotation(pose[..., _BALL, :]))
    cos, minus_sin = unit(pose[..., _HINGE, :2]).split(1, -1)
    q[..., _HINGE_DOFS] = torch.atan2(-minus_sin, cos)
    q[..., _PAIR_DOFS] = pose[..., _PAIR, :2]
    return q


def pose_to_matrices(pose: Tensor) -> Tensor:
    """Rotations (..., 24, 3, 3) of the joints of a continuous pose (..., 24, 6), whose vectors may have any length.

    They are those of its angles, but no Euler angle is on the way, so gradients are right at the poles too.
    """
    hinge_cross, pair_cross = (
        _cross(pose.device, pose.dtype)[dofs, :, :] for dofs in (_HINGE_DOFS, _PAIR_DOFS)
    )
    cos, minus_sin = unit(pose[..., _HINGE, :2])[..., None, None].unbind(-3)
    eye, hinge_cross = torch.eye(3).to(pose), hinge_cross[:, 0]
    matrices = pose.new_zeros(*pose.shape[:-1], 3, 3)
    matrices[..., _BALL, :, :] = _rows_to_rotation(pose[..., _BALL, :])
    matrices[..., _HINGE, :, :] = eye - minus_sin * hinge_cross + (1 - cos) * hinge_cross @ hinge_cross
    first, second = rotations_about(pose[..., _PAIR, :2], pair_cross, pair_cross @ pair_cross).unbind(-3)
    matrices[..., _PAIR, :, :] = second @ first
    return matrices


def angles_to_matrices(q: Tensor) -> Tensor:
    """Rotations (..., 24, 3, 3) of the joints of angles (..., 46) rad, each in the frame of its joint."""
    cross = _cross(q.device, q.dtype)
    turns = rotations_about(q, cross, cross @ cross)
    matrices = q.new_zeros(*q.shape[:-1], NUM_JOINTS, 3, 3)
    for joints, dofs in ((_BALL, _BALL_DOFS), (_HINGE, _HINGE_DOFS), (_PAIR, _PAIR_DOFS)):
        first, *later = turns[..., dofs, :, :].unbind(-3)
        for turn in later:
            first = turn @ first
        matrices[..., joints, :, :] = first
    return matrices


def _rows_to_rotation(rows: Tensor) -> Tensor:
    """Rotations (..., 3, 3) whose first two rows are those of (..., 6), made orthonormal from the first on."""
    first, second = rows[..., :3], rows[..., 3:]
    x = unit(first)
    y = unit(second - (x * second).sum(-1, keepdim=True) * x)
    return torch.stack((x, y, torch.linalg.cross(x, y)), -2)


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
