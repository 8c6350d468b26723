"""Made-up photographs of 640 x 480 px with as much to decode as real ones have."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

SIZE = 640, 480


def photograph(seed: int, grain: float, quality: int = 90) -> bytes:
    """A JPEG: soft colours, and grain of a deviation in shades. 0, 3 and 5 make 55, 79 and 103 kB."""
    rng = np.random.default_rng(seed)
    soft = Image.fromarray(rng.integers(40, 215, (SIZE[1] // 16, SIZE[0] // 16, 3), dtype=np.uint8))
    pixels = np.asarray(soft.resize(SIZE, Image.Resampling.BICUBIC)) + rng.normal(
        0, grain, (SIZE[1], SIZE[0], 1)
    )
    stream = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=quality)
    return stream.getvalue()
