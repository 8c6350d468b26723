"""Cameras: of the crop, as a network predicts it, and of the whole image, as points are projected with.

A network sees a crop and says how large the person is in it and where, (s, tx, ty): a metre is s / 2 sides of the
crop, and the body's origin is (tx, ty) m beside the crop's centre. With the crop's place and the intrinsics of the
image this is a translation in the image's own camera (Li et al., CLIFF, ECCV 2022): the perspective is that of the
image. Camera frames as in OpenCV: x right, y down, z forward. Lengths in metres, image points in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Without intrinsics: a camera far away, in sides of the crop (5000 px for 256 px, as has become usual).
FAR_FOCAL = 5000 / 256
_NEAREST = 0.1  # m; points nearer than this, or behind the camera, are projected as if they were here


def far_camera(center: Tensor, box_size: Tensor) -> Tensor:
    """Intrinsics (..., 3, 3) px of a far camera that looks at the crop's centre (..., 2) px, of side (...) px."""
    focal, zero, one = FAR_FOCAL * box_size, torch.zeros_like(box_size), torch.ones_like(box_size)
    rows = (focal, zero, center[..., 0], zero, focal, center[..., 1], zero, zero, one)
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def known_or_far(cam_int: Tensor, center: Tensor, box_size: Tensor) -> Tensor:
    """The intrinsics (..., 3, 3); the far camera where they are not known, which labels say by 0."""
    known = cam_int[..., 0, 0, None, None] > 0
    return torch.where(known, cam_int, far_camera(center, box_size))


def box_features(cam_int: Tensor, center: Tensor, box_size: Tensor) -> Tensor:
    """Where the crop is in the view, (..., 3): its centre from the optical axis and its side, over the focal length."""
    fx, fy = cam_int[..., 0, 0], cam_int[..., 1, 1]
    right, down = (center - cam_int[..., :2, 2]).unbind(-1)
    return torch.stack((right / fx, down / fy, box_size / fx), -1)


def crop_to_translation(camera: Tensor, cam_int: Tensor, center: Tensor, box_size: Tensor) -> Tensor:
    """Translation (..., 3) m in the image's camera of a crop's camera (..., 3): s > 0, tx, ty."""
    s, tx, ty = camera.unbind(-1)
    right, down, side = box_features(cam_int, center, box_size).unbind(-1)
    depth = 2 / (side * s)
    return torch.stack((tx + depth * right, ty + depth * down, depth), -1)


def project(points: Tensor, cam_int: Tensor) -> Tensor:
    """Image points (..., N, 2) px of points (..., N, 3) m in the camera (..., 3, 3)."""
    flat = points[..., :2] / points[..., 2:].clamp_min(_NEAREST)
    return flat @ cam_int[..., :2, :2].mT + cam_int[..., None, :2, 2]


def image_to_crop(points: Tensor, center: Tensor, box_size: Tensor) -> Tensor:
    """Points (..., N, 2) px of the image in the crop: -0.5 to 0.5 from left to right and from top to bottom."""
    return (points - center[..., None, :]) / box_size[..., None, None]


def body_to_crop(points: Tensor, camera: Tensor, cam_int: Tensor, center: Tensor, box_size: Tensor) -> Tensor:
    """Where the crop shows points (..., N, 3) m of a body, (..., N, 2), by the crop's camera (..., 3)."""
    moved = points + crop_to_translation(camera, cam_int, center, box_size)[..., None, :]
    return image_to_crop(project(moved, cam_int), center, box_size)
