"""Squares of decoded images, scaled. All of skelfit cuts people out of images here.

The filter is bicubic (Catmull-Rom) and antialiased: where a pixel of the result is wider than one of the image, the
filter is as wide as it. The image is taken to be black outside of itself.

The convolution is that of Rust's fast_image_resize, in integers: every processor gives the same bytes. Where its
package has no wheel (Linux on ARM), Pillow's convolution with the same filter stands in; a few pixels differ by some
shades.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from skelfit.images.decoding import Pixels

try:
    from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
except ImportError:
    _HAS_RESIZER = False
else:
    _HAS_RESIZER = True
    _ALGORITHM = ResizeAlg.convolution(FilterType.catmull_rom)

_SUPPORT = 2  # pixels, to each side, that the filter uses for a pixel of the result
_FEWEST = 7  # pixels of the result along the image's longer side; an image that would have less is left out


def cut_square(pixels: Pixels, left: float, top: float, side: float, size: int) -> Pixels:
    """A square of an image (H,W,4), by its corner and side in pixels of the image, as (size,size,4); black outside.

    Coordinates are continuous: (0, 0) is the corner of the top left pixel. The square may lie anywhere; it is black,
    too, where the image would be a dot in it, which bounds the work. Raises ValueError when a number is not finite, or
    the side not positive.
    """
    if not (math.isfinite(left) and math.isfinite(top) and 0 < side < math.inf):
        raise ValueError(f"expected a square, found corner {left:g}, {top:g} and side {side:g}")
    pixel = side / size  # of the result, in pixels of the image
    height, width = pixels.shape[:2]
    # The result's pixels that the image covers, at least in part; the others are black.
    x0, x1 = _covered(left, pixel, width, size)
    y0, y1 = _covered(top, pixel, height, size)
    if x0 >= x1 or y0 >= y1 or pixel * _FEWEST > max(width, height):
        return np.zeros((size, size, 4), np.uint8)
    # Only what these pixels need: their part of the image, with the filter's margin.
    around = math.ceil(_SUPPORT * max(pixel, 1)) + 1
    x, y = math.floor(left + x0 * pixel) - around, math.floor(top + y0 * pixel) - around
    far_x, far_y = math.ceil(left + x1 * pixel) + around, math.ceil(top + y1 * pixel) + around
    box = left + x0 * pixel - x, top + y0 * pixel - y, (x1 - x0) * pixel, (y1 - y0) * pixel
    part = _resized(_region(pixels, x, y, far_x, far_y), box, x1 - x0, y1 - y0)
    if part.shape == (size, size, 4):
        return part
    square = np.zeros((size, size, 4), np.uint8)
    square[y0:y1, x0:x1] = part
    return square


def _covered(start: float, pixel: float, extent: int, size: int) -> tuple[int, int]:
    """The range of a square's pixels, along one axis, that an image of this extent covers."""
    return max(math.floor(-start / pixel), 0), min(math.ceil((extent - start) / pixel), size)


def _region(pixels: Pixels, x: int, y: int, far_x: int, far_y: int) -> Pixels:
    """A rectangle of an image, which may reach beyond it."""
    height, width = pixels.shape[:2]
    inside = pixels[max(y, 0) : far_y, max(x, 0) : far_x]
    if x >= 0 and y >= 0 and far_x <= width and far_y <= height:
        return inside
    region = np.zeros((far_y - y, far_x - x, 4), np.uint8)
    region[max(-y, 0) :, max(-x, 0) :][: inside.shape[0], : inside.shape[1]] = inside
    return region


def _resized(pixels: Pixels, box: tuple[float, float, float, float], width: int, height: int) -> Pixels:
    """A box (left, top, width, height; in pixels) of an image, as (height,width,4)."""
    if not _HAS_RESIZER:
        return _resized_by_pillow(pixels, box, width, height)
    options = ResizeOptions(resize_alg=_ALGORITHM, crop_box=CropBox(*box), use_alpha=False)
    source = ImageData(pixels.shape[1], pixels.shape[0], PixelType.U8x4, pixels.tobytes())
    result = ImageData(width, height, PixelType.U8x4)
    Resizer().resize(source, result, options)
    return np.frombuffer(result.get_buffer(), np.uint8).reshape(height, width, 4)


def _resized_by_pillow(
    pixels: Pixels, box: tuple[float, float, float, float], width: int, height: int
) -> Pixels:
    left, top, across, down = box
    image = Image.frombuffer("RGBX", pixels.shape[1::-1], pixels.tobytes())
    edges = (left, top, left + across, top + down)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, edges))
