"""Augmentation of training samples: scale, colours, flips, and crops of the upper body, the shoulders or the head.

The defaults are those of 4D-Humans, without rotations and flips: cameras stay upright. Flips have to be asked for.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.config.yaml_dataclasses import bounded
from skelfit.errors import ConfigError
from skelfit.learning.data.person_crops import Square, square_around

# Of the 44 keypoints: OpenPose's 25, then 19 extra.
_ARMS_AND_LEGS = (2, 3, 4, 5, 6, 7, 10, 11, 13, 14)
_LEGS = (10, 11, 13, 14, 19, 20, 21, 22, 23, 24, 25, 26, 29, 30)
_HEAD = (0, 15, 16, 17, 18, 37, 38, 42, 43)
_SHOULDERS = (*_HEAD, 1, 2, 5, 33, 34, 40)
_UPPER_BODY = tuple(k for k in range(44) if k not in _LEGS)
_AROUND = 1.3  # sides of what is left, in sides of the box about its keypoints


@dataclass(frozen=True)
class AugmentConfig:
    """The amount of augmentation; 0 switches a kind off."""

    scale: float = bounded(0, 0.9, default=0.1)  # the side of the square changes by up to this share
    # red, green and blue change by up to this share, each by itself
    color: float = bounded(0, 1, default=0.2)
    flip: float = bounded(0, 1, default=0.0)  # how often people are mirrored
    extreme_crop: float = bounded(0, 1, default=0.1)  # how often only a part of the body is shown
    # how often blur, noise and the like are added; needs albumentations
    albumentations: float = bounded(0, 1, default=0.0)


@dataclass(frozen=True)
class Variation:
    """The augmentation of one sample."""

    square: Square
    colors: tuple[float, float, float] = (1.0, 1.0, 1.0)  # factors of red, green, blue
    flip: bool = False
    roughen: int | None = None  # seed for albumentations; None: not used


def draw(
    square: Square, keypoints: NDArray[np.float32], config: AugmentConfig, rng: np.random.Generator
) -> Variation:
    """A variation of a person with keypoints (44,3), px of the source image."""
    factor = 1 + config.scale * min(1.0, max(-1.0, rng.standard_normal()))
    *colors, extreme, part, rough, seed, flip = rng.random(
        8
    ).tolist()  # the same number of draws for every person
    if extreme < config.extreme_crop:
        square = _part_of(square, keypoints, part)
    red, green, blue = (1 + config.color * (2 * c - 1) for c in colors)
    return Variation(
        square._replace(side=square.side * factor),
        (red, green, blue),
        flip < config.flip,
        int(seed * 2**31) if rough < config.albumentations else None,
    )


def _part_of(square: Square, keypoints: NDArray[np.float32], chance: float) -> Square:
    """The square of a part of the body, for people seen whole or without legs; the same square for others."""
    visible = keypoints[:, 2] > 0
    if visible[list(_ARMS_AND_LEGS)].all():
        part = _UPPER_BODY if chance < 0.7 else _SHOULDERS if chance < 0.9 else _HEAD
    elif not visible[list(_LEGS)].any():
        part = _SHOULDERS if chance < 0.9 else _HEAD
    else:
        return square
    points = keypoints[[k for k in part if visible[k]], :2]
    if len(points) < 2:
        return square
    low, high = points.min(axis=0), points.max(axis=0)
    cut = square_around(*((low + high) / 2).tolist(), *(_AROUND * (high - low)).tolist())
    return cut if cut.side >= 1 else square  # keypoints at one point show nothing


def recolored(pixels: NDArray[np.uint8], colors: tuple[float, float, float]) -> NDArray[np.uint8]:
    """Pixels (H,W,3) whose channels are multiplied by a factor each."""
    if colors == (1.0, 1.0, 1.0):
        return pixels
    shades = np.clip(np.outer(colors, np.arange(256)) + 0.5, 0, 255).astype(np.uint8)
    result = np.empty_like(pixels)
    for channel in range(3):
        np.take(shades[channel], pixels[..., channel], out=result[..., channel], mode="clip")
    return result


def roughen(pixels: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Pixels (H,W,3) with blur, noise, compression or other light. Raises ConfigError without albumentations."""
    change = _albumentations()
    change.set_random_seed(seed)
    return change(image=np.ascontiguousarray(pixels))["image"]


@lru_cache(maxsize=1)
def _albumentations() -> Any:
    os.environ.setdefault(
        "NO_ALBUMENTATIONS_UPDATE", "1"
    )  # otherwise it asks the internet for a newer version
    try:
        import albumentations as a
    except ImportError:
        missing = "no such package (pip install albumentations)"
        raise ConfigError("data", "augment.albumentations", "0, or albumentations", missing) from None
    blur = a.OneOf([a.MotionBlur(p=1), a.GaussianBlur(p=1), a.Downscale(p=1)], p=0.5)
    noise = a.OneOf([a.ImageCompression(quality_range=(20, 80), p=1), a.GaussNoise(p=1)], p=0.5)
    light = a.OneOf([a.RandomBrightnessContrast(p=1), a.RandomGamma(p=1), a.CLAHE(p=1)], p=0.5)
    return a.Compose([blur, noise, light])
