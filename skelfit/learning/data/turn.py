"""Labels of an image that is turned about the principal point, which is what a turn of the camera does to it.

A camera that turns about its optical axis by an angle sees the same rays, turned in the image about the principal
point, where the axis meets it. So the turned image has an exact perspective camera, whatever its focal length and
wherever the person stands: the crop's centre moves on a circle about the principal point, the crop's content turns
about the crop's centre, and points and orientations in the camera's frame turn about its z axis. If both focal lengths
are equal the intrinsics stay; else they get the skew that makes the projection exact.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from skelfit.bodies.ball_joints import angles_to_rotation, ball_joints, rotation_to_angles

Floats = NDArray[np.float32]


def turns_of(angles: Floats) -> Floats:
    """Matrices (..., 2, 2) of turns by angles (...) rad from x to y."""
    c, s = np.cos(angles), np.sin(angles)
    return np.stack((np.stack((c, -s), -1), np.stack((s, c), -1)), -2)


def turned_points(points: Floats, turns: Floats) -> Floats:
    """Points (B, N, n) of turned images or cameras: x and y, the first two numbers, turn about 0."""
    result = points.copy()
    result[..., :2] = points[..., :2] @ turns.swapaxes(-1, -2)
    return result


def turned_center(center: Floats, cameras: Floats, turns: Floats) -> Floats:
    """The centres (B, 2) px of crops of the turned images; cameras (B, 3, 3) px, whose principal points stay."""
    axis = cameras[:, :2, 2]
    return axis + ((center - axis)[:, None] @ turns.swapaxes(-1, -2))[:, 0]


def turned_cameras(cameras: Floats, turns: Floats) -> Floats:
    """The intrinsics (B, 3, 3) of turned images."""
    result = cameras.copy()
    result[:, :2, :2] = turns @ cameras[:, :2, :2] @ turns.swapaxes(-1, -2)
    return result


def turned_poses(poses: Floats, turns: Floats) -> Floats:
    """Poses (B, 46) rad whose global orientation, the first three angles, turned with the camera.

    At rest SKEL's pelvis has its x axis along z of the body's frame (forward) and y up: there, the turn is about x. A
    model file whose pelvis lies a little off these axes is off by as much (HSMR assumes the same).
    """
    pelvis = ball_joints((0,), "cpu", torch.float64)
    angles = torch.from_numpy(poses[:, None, :3]).double()
    about_x = torch.eye(3, dtype=torch.float64).repeat(len(poses), 1, 1, 1)
    about_x[:, 0, 1:, 1:] = torch.from_numpy(turns)
    result = poses.copy()
    rotation = about_x @ angles_to_rotation(pelvis, angles)
    result[:, :3] = rotation_to_angles(pelvis, rotation, angles)[:, 0].numpy()
    return result
