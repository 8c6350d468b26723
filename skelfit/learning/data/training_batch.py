"""The input of a network: a batch of people as tensors, with their labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

CROP = 256  # side of a crop, px, unless another is asked for
# ImageNet's mean and deviation of red, green and blue, as the backbones were trained with.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalised(pixels: Tensor) -> Tensor:
    """The input of backbones, float32, from pixels (..., 3, H, W), uint8."""
    mean, std = (torch.tensor(v, device=pixels.device).view(3, 1, 1) for v in (MEAN, STD))
    return pixels.float().sub_(255 * mean).div_(255 * std)  # in place: memory is what takes time here


@dataclass(frozen=True)
class TrainingBatch:
    """B people. Pixels of the source image have their origin at its top left corner, also where shards hold crops."""

    pixels: Tensor  # (B,3,256,256) uint8, RGB; (B,3,0,0) where images were not wanted
    keypoints2d: Tensor  # (B,44,3) of the crop: x and y from -0.5 (left, top) to 0.5; confidence
    keypoints3d: Tensor  # (B,44,4) m, in the axes of the camera; confidence
    poses: Tensor  # (B,46) rad
    betas: Tensor  # (B,10) of the SKEL body that `female` names
    female: Tensor  # (B,) bool
    cam_int: Tensor  # (B,3,3) px of the source image
    center: Tensor  # (B,2) of the crop, px of the source image
    box_size: Tensor  # (B,) side of the crop, px of the source image
    image_size: Tensor  # (B,2) width and height of the source image, px; 0 where unknown
    flipped: Tensor  # (B,) bool: mirrored; all other fields are those of the mirror image
    turn: Tensor  # (B,) rad from x to y: then turned about the principal point; all fields but image_size are so, too
    has_pose: Tensor  # (B,) bool: the poses count
    has_betas: Tensor  # (B,) bool: the betas count
    extreme: Tensor  # (B,) bool: the crop shows a part of the body, by augmentation
    fitted_points: Tensor  # (B,) bool: the 3D keypoints are those of the label's SKEL body
    left_out: Tensor  # (B,3) how many labels do not count by the configuration: 2D keypoints, poses, betas
    keys: tuple[str, ...]
    observations: Tensor | None = None  # (B,N,n) of a frozen backbone, in place of images

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def image(self) -> Tensor:
        """(B,3,256,256) float32, normalised; made on the device of the pixels, which travel as bytes."""
        return normalised(self.pixels)

    def to(self, device: torch.device | str) -> TrainingBatch:
        """The same on a device; does not wait for copies of pinned memory."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> TrainingBatch:
        """The same in pinned memory; DataLoader calls it."""
        return self._with(Tensor.pin_memory)

    def _with(self, change: Callable[[Tensor], Tensor]) -> TrainingBatch:
        members = {f.name: getattr(self, f.name) for f in fields(self)}
        tensors: dict[str, Any] = {n: change(v) for n, v in members.items() if isinstance(v, Tensor)}
        return replace(self, **tensors)
