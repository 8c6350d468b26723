"""The crop of a person: its square of the image, and its pixels.

Coordinates are those of the shards: px of the source image, (0, 0) the corner of its top left pixel. EXIF
orientations are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import ceil, cos, sin
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from skelfit.images.decoding import Pixels, decode, shrink_for
from skelfit.images.resampling import cut_square

ASPECT = 192 / 256  # ViTPose sees the middle 192 of a crop's 256 columns


class Square(NamedTuple):
    """A square of the source image by its centre and side, px."""

    x: float
    y: float
    side: float


def square_around(x: float, y: float, width: float, height: float, *, widen: bool) -> Square:
    """The square about a box, given by its centre, width and height. All in px.

    Its side is the box's longer side, as in SKEL-CF. widen: its middle 192/256 contain the box, as in 4D-Humans and
    HSMR; a square box then takes 56 % of the crop's pixels.
    """
    return Square(x, y, max(height, width / ASPECT if widen else width))


def read_crop(
    data: bytes, affine: Sequence[Sequence[float]], square: Square, size: int, turn: float = 0.0
) -> NDArray[np.uint8]:
    """The square of a coded image as (size,size,3), RGB; black outside of the image.

    affine: (2,3), from px of the source image to px of this one, which may be a crop itself; turn: of the content about
    the square's centre, rad from x to y. Raises TooLargeError, UnknownPixelsError, and what Pillow raises on an image
    that it cannot read.
    """
    (scale, _, right), (_, _, down) = affine
    # A turned square is cut out of an upright one that contains it.
    around = size if not turn else ceil(size * (abs(cos(turn)) + abs(sin(turn)))) + 2
    side = scale * square.side * around / size
    inside = Square(scale * square.x + right, scale * square.y + down, side)
    crop = cut_crop(partial(decode, data), inside, around)
    return (_turned(crop, size, turn) if turn else crop)[..., :3]


def cut_crop(decoded: Callable[[int], tuple[Pixels, int]], square: Square, size: int) -> Pixels:
    """The square of an image as (size,size,4); black outside of the image.

    decoded: gives the image, perhaps smaller, as `decode` does; square: in px of the image at its full size.
    """
    left, top = square.x - square.side / 2, square.y - square.side / 2
    pixels, unit = decoded(shrink_for(size / square.side))
    return cut_square(pixels, left / unit, top / unit, square.side / unit, size)


def _turned(pixels: Pixels, size: int, turn: float) -> Pixels:
    """The middle (size,size,4) of turned pixels (n,n,4)."""
    c, s = cos(turn), sin(turn)
    middle, half = pixels.shape[0] / 2, size / 2
    # From a point of the result to the point of the pixels that is seen there.
    back = (c, s, middle - (c + s) * half, -s, c, middle - (c - s) * half)
    image = Image.frombuffer("RGBX", pixels.shape[1::-1], np.ascontiguousarray(pixels))
    return np.asarray(image.transform((size, size), Image.Transform.AFFINE, back, Image.Resampling.BILINEAR))
