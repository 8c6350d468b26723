"""Degradations of crops: blur, compression, rain and snow; and changes of their colours. By albumentations.

The kinds and their weights are those of CameraHMR and SKEL-CF, which change the whole image before they cut it; here
the crop is changed, which is many times faster. What happens is drawn here: albumentations seeds all that it composes
alike, so that its choices would not be independent.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.errors import ConfigError

_Group = list[tuple[float, Any]]  # weights, and transforms


def degraded(pixels: NDArray[np.uint8], seed: int, rate: float) -> NDArray[np.uint8]:
    """Pixels (H,W,3), which with this rate each are degraded and have other colours; a function of the seed.

    Raises ConfigError without albumentations.
    """
    rng = np.random.default_rng(seed)
    for group in _groups():
        if rng.random() < rate:
            weights = np.array([weight for weight, _ in group])
            change = group[int(rng.choice(len(group), p=weights / weights.sum()))][1]
            change.set_random_seed(int(rng.integers(2**31)))
            pixels = change(image=np.ascontiguousarray(pixels))["image"]
    return pixels


@lru_cache(maxsize=1)
def _groups() -> tuple[_Group, _Group]:
    """Kinds of degradations, and changes of colours, with their weights."""
    # Otherwise it asks the internet for a newer version.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        import albumentations as a
        import cv2
    except ImportError:
        missing = "no such package (pip install 'skelfit[augment]')"
        raise ConfigError("data", "augment.degrade", "0, or albumentations", missing) from None
    cv2.setNumThreads(0)  # the loader has its own processes
    worse = [
        (0.1, a.Downscale((0.5, 0.9), p=1)),
        (0.1, a.ImageCompression(quality_range=(20, 100), p=1)),
        (0.1, a.RandomRain(blur_value=4, p=1)),
        (0.2, a.MotionBlur((3, 15), p=1)),
        (0.1, a.Blur((3, 9), p=1)),
        (0.5, a.RandomSnow(brightness_coeff=1.5, snow_point_range=(0.2, 0.4), p=1)),
    ]
    colours = [
        (0.2, a.CLAHE((1, 11), (10, 10), p=1)),
        (0.2, a.ToGray(p=1)),
        (0.2, a.RandomBrightnessContrast(p=1)),
        (0.2, a.MultiplicativeNoise((0.5, 1.5), per_channel=True, elementwise=True, p=1)),
        (0.2, a.HueSaturationValue(20, 30, 20, p=1)),
        (0.1, a.Posterize(p=1)),
        (0.1, a.RandomGamma((80, 200), p=1)),
        (0.1, a.Equalize(mode="cv", p=1)),
    ]
    return worse, colours
