"""Augmentation of training samples: scale, position, rotation, colours, flips, extreme crops and degradations.

The defaults are those of CameraHMR and SKEL-CF, where cameras stay upright, but without degradations, which need
albumentations.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import radians

import numpy as np
from numpy.typing import NDArray

from skelfit.config.yaml_dataclasses import bounded
from skelfit.learning.data.extreme_crops import part_of
from skelfit.learning.data.person_crops import Square


@dataclass(frozen=True)
class AugmentConfig:
    """The amount of augmentation; 0 switches a kind off."""

    # the side of the square changes by this share, normally distributed, and by no more
    scale: float = bounded(0, 0.9, default=0.1)
    # the square moves by this share of its side, in x and y, likewise
    shift: float = bounded(0, 0.5, default=0.0)
    # degrees by which the image is turned, normally distributed, at most twice that
    rotation: float = bounded(0, 90, default=0.0)
    rotation_rate: float = bounded(0, 1, default=1.0)  # how often it is turned
    # red, green and blue change by up to this share, each by itself
    color: float = bounded(0, 1, default=0.2)
    flip: float = bounded(0, 1, default=0.0)  # how often people are mirrored
    extreme_crop: float = bounded(0, 1, default=0.1)  # how often only a part of the body is shown
    # how often an image is degraded, and how often its colours change; needs albumentations
    degrade: float = bounded(0, 1, default=0.0)


@dataclass(frozen=True)
class Variation:
    """The augmentation of one sample: its square is cut out, mirrored, then turned."""

    square: Square
    colors: tuple[float, float, float] = (1.0, 1.0, 1.0)  # factors of red, green, blue
    flip: bool = False
    turn: float = 0.0  # rad from x (right) to y (down), of the content
    degrade: int | None = None  # seed of the degradations; None: none
    extreme: bool = False  # the square shows a part of the body


def draw(
    square: Square, keypoints: NDArray[np.float32], config: AugmentConfig, rng: np.random.Generator
) -> Variation:
    """A variation of a person with keypoints (44,3), px of the source image."""
    # The same number of draws for every person.
    normal = rng.standard_normal(4).tolist()
    size, right, down = (min(1.0, max(-1.0, x)) for x in normal[:3])
    turn = min(2.0, max(-2.0, normal[3])) * radians(config.rotation)
    *colors, extreme, part, turned, seed, flip = rng.random(8).tolist()
    shown = square
    if extreme < config.extreme_crop:
        shown = part_of(square, keypoints, part)
    x, y = (at + config.shift * by * shown.side for at, by in ((shown.x, right), (shown.y, down)))
    red, green, blue = (1 + config.color * (2 * c - 1) for c in colors)
    return Variation(
        Square(x, y, shown.side * (1 + config.scale * size)),
        (red, green, blue),
        flip < config.flip,
        turn if turned < config.rotation_rate else 0.0,
        int(seed * 2**31) if config.degrade else None,
        shown != square,
    )


def recolored(pixels: NDArray[np.uint8], colors: tuple[float, float, float]) -> NDArray[np.uint8]:
    """Pixels (H,W,3) whose channels are multiplied by a factor each, as planes (3,H,W)."""
    planes = pixels.transpose(2, 0, 1)
    if colors == (1.0, 1.0, 1.0):
        return np.ascontiguousarray(planes)
    shades = np.clip(np.outer(colors, np.arange(256)) + 0.5, 0, 255).astype(np.uint8)
    result = np.empty(planes.shape, np.uint8)
    for of_channel, plane, out in zip(shades, planes, result, strict=True):
        np.take(of_channel, plane, out=out, mode="clip")
    return result
