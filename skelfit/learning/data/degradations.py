"""Degradations of crops: blur, compression, rain and snow; and changes of their colours. By albumentations.

The kinds and their rates are those of CameraHMR and SKEL-CF, which change the whole image before they cut it; here the
crop is changed, which is many times faster.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.errors import ConfigError


def degraded(pixels: NDArray[np.uint8], seed: int, rate: float) -> NDArray[np.uint8]:
    """Pixels (H,W,3), which with this rate each are degraded and have other colours; a function of the seed.

    Raises ConfigError without albumentations.
    """
    rng = np.random.default_rng(seed)
    for kinds, shares in _kinds():
        # The same draws for every sample. albumentations' own choice would seed all kinds for each.
        chance, kind, own = rng.random(), int(rng.choice(len(kinds), p=shares)), int(rng.integers(2**31))
        if chance < rate:
            kinds[kind].set_random_seed(own)
            pixels = np.asarray(kinds[kind](image=np.ascontiguousarray(pixels))["image"])
    return pixels


@lru_cache(maxsize=1)
def _kinds() -> tuple[tuple[list[Any], NDArray[np.float64]], ...]:
    """What makes an image worse, and what changes its colours; and the share of each, together 1."""
    # Otherwise it asks the internet for a newer version.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        import albumentations as a
        import cv2
    except ImportError:
        missing = "no such package (pip install 'skelfit[augment]')"
        raise ConfigError("data", "augment.degrade", "0, or albumentations", missing) from None
    cv2.setNumThreads(0)  # the loader has its own processes
    worse = {
        a.Downscale((0.5, 0.9), p=1): 0.1,
        a.ImageCompression(quality_range=(20, 100), p=1): 0.1,
        a.RandomRain(blur_value=4, p=1): 0.1,
        a.MotionBlur((3, 15), p=1): 0.2,
        a.Blur((3, 9), p=1): 0.1,
        a.RandomSnow(brightness_coeff=1.5, snow_point_range=(0.2, 0.4), p=1): 0.5,
    }
    colours = {
        a.CLAHE((1, 11), (10, 10), p=1): 0.2,
        a.ToGray(p=1): 0.2,
        a.RandomBrightnessContrast(p=1): 0.2,
        a.MultiplicativeNoise((0.5, 1.5), per_channel=True, elementwise=True, p=1): 0.2,
        a.HueSaturationValue(20, 30, 20, p=1): 0.2,
        a.Posterize(p=1): 0.1,
        a.RandomGamma((80, 200), p=1): 0.1,
        a.Equalize(mode="cv", p=1): 0.1,
    }
    return tuple((list(each), np.array([*each.values()]) / sum(each.values())) for each in (worse, colours))
