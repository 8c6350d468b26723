"""Steps of ball joints that do not stall at the Euler poles, in torch: what tests compare the kernels' retraction with.

Near a pole (middle angle +-90 degrees) the first and the third axis of a joint are almost parallel: a small turn of the
bone needs large, opposite changes of two angles. So a step is applied as a rotation and read back as angles.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from skelfit.bodies.ball_joints import BallJoints, angles_to_rotation, moved_axes, rotation_to_angles
from skelfit.bodies.lazy_roma import roma


@dataclass(frozen=True)
class BallStep:
    """A step of n ball joints, as rotations; made by `ball_step`."""

    rot: Tensor  # (..., n, 3, 3) joint rotations where the step starts
    rotvec: Tensor  # (..., n, 3) the step, in the joint frames
    angles: Tensor  # (..., n, 3) where the step starts


def ball_step(ball: BallJoints, angles: Tensor, step: Tensor) -> BallStep:
    """The rotations that steps (..., n, 3) of the angles (..., n, 3) are to first order."""
    turn = (step[..., None] * moved_axes(ball, angles)).sum(-2)
    return BallStep(angles_to_rotation(ball, angles), turn, angles)


def apply_step(ball: BallJoints, step: BallStep, share: Tensor) -> Tensor:
    """Angles (..., n, 3) after a share (...) of the step."""
    turned = roma.rotvec_to_rotmat(share[..., None, None] * step.rotvec) @ step.rot
    return rotation_to_angles(ball, turned, step.angles)
