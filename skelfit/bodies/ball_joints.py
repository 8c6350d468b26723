"""Ball joints: the three Euler angles of a rotation."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import numpy as np
import torch
from torch import Tensor

from skelfit.bodies.axis_rotations import cross_matrix, rotations_about
from skelfit.bodies.dofs import NUM_JOINTS, dof_axes, dof_limits, dofs_of_joint, limits_middle

BALL_JOINTS: tuple[int, ...] = tuple(j for j in range(NUM_JOINTS) if len(dofs_of_joint(j)) == 3)
# Below this cosine of the middle angle, in units of the float type's resolution, the first angle is kept as it was:
# the rotation no longer tells the outer angles apart.
_POLE = 10.0


@dataclass(frozen=True)
class BallJoints:
    """The axes of n ball joints; made by `ball_joints`. Three orthonormal axes each, in the order of application."""

    axes: Tensor  # (n, 3, 3), rows are axes in the joint frame
    cross: Tensor  # (n, 3, 3, 3) the axes' cross-product matrices K
    cross2: Tensor  # (n, 3, 3, 3) K @ K
    handedness: Tensor  # (n, 1), +1 or -1: determinant of the axes
    limits: Tensor  # (n, 3, 2) rad
    middle: Tensor  # (n, 3) rad, of the limits; angles are given within half a turn of it


def ball_joints(
    joints: tuple[int, ...],
    device: torch.device | str,
    dtype: torch.dtype,
    limits: np.ndarray | None = None,
) -> BallJoints:
    """The axes of these ball joints, and their limits. limits: of all DoFs (46, 2) rad; None: the table's."""
    dofs = [list(dofs_of_joint(j)) for j in joints]
    limits = dof_limits() if limits is None else limits
    axes = torch.tensor(dof_axes()[dofs], device=device, dtype=dtype)
    cross = cross_matrix(axes)
    return BallJoints(
        axes=axes,
        cross=cross,
        cross2=cross @ cross,
        handedness=torch.linalg.det(axes)[:, None].round(),
        limits=torch.tensor(limits[dofs], device=device, dtype=dtype),
        middle=torch.tensor(limits_middle(limits)[dofs], device=device, dtype=dtype),
    )


def angles_to_rotation(ball: BallJoints, angles: Tensor) -> Tensor:
    """Joint rotations (..., n, 3, 3) of angles (..., n, 3)."""
    first, second, third = _axis_rotations(ball, angles)
    return third @ second @ first


def rotation_to_angles(ball: BallJoints, rot: Tensor, near: Tensor) -> Tensor:
    """Angles (..., n, 3) rad of joint rotations (..., n, 3, 3): of the two triples, the one nearer to the limits.

    At a pole only the sum or difference of the outer angles is fixed: the first is then taken from near (..., n, 3).
    """
    # In the basis of the axes the rotation is Rz(c) Ry(b) Rx(a), up to the handedness of the basis.
    local = ball.axes @ rot @ ball.axes.mT
    cos_b = torch.hypot(local[..., 2, 1], local[..., 2, 2])
    pole = _POLE * torch.finfo(rot.dtype).eps
    a = torch.where(
        cos_b > pole, torch.atan2(local[..., 2, 1], local[..., 2, 2]), ball.handedness[:, 0] * near[..., 0]
    )
    sin_a, cos_a = torch.sin(a), torch.cos(a)
    # Columns of local @ Rx(-a) = Rz(c) Ry(b).
    y = cos_a[..., None] * local[..., 1] - sin_a[..., None] * local[..., 2]
    z22 = sin_a * local[..., 2, 1] + cos_a * local[..., 2, 2]
    c = torch.atan2(-y[..., 0], y[..., 1])
    b = torch.atan2(-local[..., 2, 0], z22)
    angles = wrap_near(torch.stack((a, b, c), -1) * ball.handedness, ball.middle)
    flipped = wrap_near(torch.stack((a + pi, pi - b, c + pi), -1) * ball.handedness, ball.middle)
    return torch.where((_excess(ball, angles) <= _excess(ball, flipped))[..., None], angles, flipped)


def _excess(ball: BallJoints, angles: Tensor) -> Tensor:
    """Sum of squares of how far angles (..., n, 3) are beyond the limits, (..., n)."""
    low, high = ball.limits.unbind(-1)
    return (torch.relu(angles - high) + torch.relu(low - angles)).square().sum(-1)


def wrap_near(angles: Tensor, middle: Tensor) -> Tensor:
    """The same angles, moved by whole turns to within half a turn of middle."""
    return middle + torch.remainder(angles - middle + pi, 2 * pi) - pi


def moved_axes(ball: BallJoints, angles: Tensor) -> Tensor:
    """The joints' axes (..., n, 3, 3), one a row, as moved by the rotations about the later axes."""
    _, second, third = _axis_rotations(ball, angles)
    first_axis, second_axis = third @ second @ ball.axes[:, 0, :, None], third @ ball.axes[:, 1, :, None]
    third_axis = ball.axes[:, 2].expand(second_axis.shape[:-1])
    return torch.stack((first_axis[..., 0], second_axis[..., 0], third_axis), -2)


def _axis_rotations(ball: BallJoints, angles: Tensor) -> tuple[Tensor, ...]:
    return rotations_about(angles, ball.cross, ball.cross2).unbind(-3)
