"""Cameras: of the crop, which a network predicts, and of the whole image, which projects points.

A network predicts the size and position of the person in the crop, (s, tx, ty): a metre is s / 2 sides of the crop, and
the body's origin is (tx, ty) m beside the crop's centre. With the crop's position and the intrinsics of the image this
gives a translation in the image's camera, so the perspective is that of the image (Li et al., CLIFF, ECCV 2022). The
scale is the network's number as it is. It may cross 0 while a network learns: the person is then far away, or behind
the camera, where points are projected through it, so what is minimised does not jump.
Camera frames as in OpenCV: x right, y down, z forward. Lengths in metres, image points in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Focal length without intrinsics, in sides of the crop: the usual 5000 px for 256 px.
FAR_FOCAL = 5000 / 256
_NEAREST = 0.1  # m; the least distance of points in a projection, before or behind the camera
_SMALLEST = 1e-4  # the least size of a crop's camera, of either sign


def far_camera(center: Tensor, box_size: Tensor) -> Tensor:
    """Intrinsics (..., 3, 3) px of a far camera on the axis of the crop's centre (..., 2) px, of side (...) px."""
    focal, zero, one = FAR_FOCAL * box_size, torch.zeros_like(box_size), torch.ones_like(box_size)
    rows = (focal, zero, center[..., 0], zero, focal, center[..., 1], zero, zero, one)
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def known_or_far(cam_int: Tensor, center: Tensor, box_size: Tensor) -> Tensor:
    """The intrinsics (..., 3, 3) px; the far camera where they are unknown, which is 0 in labels."""
    known = cam_int[..., 0, 0, None, None] > 0
    return torch.where(known, cam_int, far_camera(center, box_size))


def box_features(cam_int: Tensor, center: Tensor, box_size: Tensor) -> Tensor:
    """The crop in the view, (..., 3): its centre from the optical axis, and its side, divided by the focal length."""
    fx, fy = cam_int[..., 0, 0], cam_int[..., 1, 1]
    right, down = (center - cam_int[..., :2, 2]).unbind(-1)
    return torch.stack((right / fx, down / fy, box_size / fx), -1)


def crop_to_translation(camera: Tensor, cam_int: Tensor, center: Tensor, box_size: Tensor) -> Tensor:
    """Translation (..., 3) m in the image's camera of a crop's camera (..., 3): s, tx, ty."""
    s, tx, ty = camera.unbind(-1)
    right, down, side = box_features(cam_int, center, box_size).unbind(-1)
    depth = 2 / (side * _off_zero(s, _SMALLEST))
    return torch.stack((tx + depth * right, ty + depth * down, depth), -1)


def project(points: Tensor, cam_int: Tensor) -> Tensor:
    """Image points (..., N, 2) px of points (..., N, 3) m in the camera (..., 3, 3)."""
    flat = points[..., :2] / _off_zero(points[..., 2:], _NEAREST)
    return flat @ cam_int[..., :2, :2].mT + cam_int[..., None, :2, 2]


def _off_zero(x: Tensor, least: float) -> Tensor:
    """The same, but at least this far from 0, on its side."""
    return torch.where(x < 0, x.clamp_max(-least), x.clamp_min(least))


def image_to_crop(points: Tensor, center: Tensor, box_size: Tensor) -> Tensor:
    """Points (..., N, 2) px of the image in the crop: -0.5 to 0.5 from left to right and from top to bottom."""
    return (points - center[..., None, :]) / box_size[..., None, None]


def body_to_crop(points: Tensor, camera: Tensor, cam_int: Tensor, center: Tensor, box_size: Tensor) -> Tensor:
    """Positions (..., N, 2) in the crop of points (..., N, 3) m of a body, by the crop's camera (..., 3)."""
    moved = points + crop_to_translation(camera, cam_int, center, box_size)[..., None, :]
    return image_to_crop(project(moved, cam_int), center, box_size)
