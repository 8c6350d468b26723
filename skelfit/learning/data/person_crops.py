"""The crop of a person: its square of the image, and its pixels.

Coordinates are those of the shards: px of the source image, (0, 0) the corner of its top left pixel. EXIF
orientations are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skelfit.images.decoding import Pixels, decode, shrink_for
from skelfit.images.resampling import cut_square

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


def read_crop(data: bytes, affine: Sequence[Sequence[float]], square: Square, size: int) -> NDArray[np.uint8]:
    """The square of a coded image as (size,size,3), RGB; black outside of the image.

    affine: (2,3), from px of the source image to px of this one, which may be a crop itself. Raises TooLargeError,
    UnknownPixelsError, and what Pillow raises on an image that it cannot read.
    """
    (scale, _, right), (_, _, down) = affine
    inside = Square(scale * square.x + right, scale * square.y + down, scale * square.side)
    return cut_crop(partial(decode, data), inside, size)


def cut_crop(decoded: Callable[[int], tuple[Pixels, int]], square: Square, size: int) -> NDArray[np.uint8]:
    """The square of an image as (size,size,3), RGB; black outside of the image.

    decoded: gives the image, perhaps smaller, as `decode` does; square: in px of the image at its full size.
    """
    left, top = square.x - square.side / 2, square.y - square.side / 2
    pixels, unit = decoded(shrink_for(size / square.side))
    crop = cut_square(pixels, left / unit, top / unit, square.side / unit, size)[..., :3]
    # A channel after the other, as networks want them: all that follows is faster.
    return np.ascontiguousarray(crop.transpose(2, 0, 1)).transpose(1, 2, 0)
