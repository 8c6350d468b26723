"""The crop of a person: its square of the image, and its pixels.

Coordinates are those of the shards: px of the source image, (0, 0) the corner of its top left pixel. EXIF
orientations are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from skelfit.images.decoding import open_image, to_rgb

# ViTPose sees the middle 192 of a crop's 256 columns: the person's box has to fit there.
ASPECT = 192 / 256


class Square(NamedTuple):
    """A square of the source image by its centre and side, px."""

    x: float
    y: float
    side: float


def square_around(x: float, y: float, width: float, height: float) -> Square:
    """The smallest square whose middle 192/256 contain a box, given by its centre, width and height. All in px."""
    return Square(x, y, max(height, width / ASPECT))


def read_crop(data: bytes, affine: Sequence[Sequence[float]], square: Square, size: int) -> Image.Image:
    """The square of a coded image as (size, size) px, RGB; black outside of the image.

    affine: (2,3), from px of the source image to px of this one, which may be a crop itself. Raises TooLargeError,
    UnknownPixelsError, and what Pillow raises on an image that it cannot read.
    """
    (scale, _, right), (_, _, down) = affine
    side = scale * square.side
    left, top = scale * square.x + right - side / 2, scale * square.y + down - side / 2
    with open_image(data) as image:
        width = image.width
        shrink = max(1, int(side / size))  # a JPEG is decoded smaller, never smaller than the crop
        image.draft(None, (max(1, width // shrink), max(1, image.height // shrink)))
        rgb = to_rgb(image)
    unit = rgb.width / width
    return _cut(rgb, left * unit, top * unit, side * unit, size)


def _cut(image: Image.Image, left: float, top: float, side: float, size: int) -> Image.Image:
    """A square of an image, scaled with antialiasing; pixels that are not completely inside are black."""
    pixel = side / size
    x0, x1 = _inside(left, pixel, image.width, size)
    y0, y1 = _inside(top, pixel, image.height, size)
    if (x0, x1, y0, y1) == (0, size, 0, size):
        return image.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
    crop = Image.new("RGB", (size, size))
    if x0 < x1 and y0 < y1:
        # resize refuses a box that rounding puts slightly outside of the image.
        corner = max(0.0, left + x0 * pixel), max(0.0, top + y0 * pixel)
        far = min(image.width, left + x1 * pixel), min(image.height, top + y1 * pixel)
        crop.paste(image.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, (*corner, *far)), (x0, y0))
    return crop


def _inside(start: float, pixel: float, extent: int, size: int) -> tuple[int, int]:
    """The range of a crop's pixels, along one axis, that lie within an image of an extent."""
    return max(0, math.ceil(-start / pixel)), min(size, math.floor((extent - start) / pixel))
