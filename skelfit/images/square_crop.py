"""Square crops of people, and the affine from pixels of the source image to pixels of the crop.

Pixel coordinates are continuous: (0, 0) is the top left corner of the top left pixel, whose centre is (0.5, 0.5). A
crop is the square scaled with an antialiasing filter; pixels outside of the image are black. An EXIF orientation is not
applied, as the tools that made the labels did not apply it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from PIL import Image

from skelfit.config.pipeline import ImageConfig
from skelfit.images.decoding import open_image, to_rgb
from skelfit.images.image_bytes import NO_CROP, Affine, ShardImage, faulty_image

_MAX_RELATIVE_SIDE = 8  # times the image's longer side: in a wider square a person would be a few pixels
_SUPPORT = 2  # source pixels, to each side, that the bicubic filter uses for a pixel of a crop


class CropBox(NamedTuple):
    """The square about a person, px of the source image."""

    x: float
    y: float
    side: float


def crop_affine(box: CropBox, config: ImageConfig) -> Affine:
    """The affine (2,3) from pixels of the source image to those of a box's crop: scale, and shift."""
    side = box.side * config.margin
    scale = config.size / side
    return (scale, 0.0, scale * (side / 2 - box.x)), (0.0, scale, scale * (side / 2 - box.y))


def cut_crops(picture: ShardImage, boxes: Sequence[CropBox], config: ImageConfig) -> list[ShardImage]:
    """The crops of the people of one checked image, in order, or why there is none. Never raises."""
    assert picture.data is not None
    decoded: dict[int, tuple[Image.Image, float]] = {}
    crops = []
    for box in boxes:
        if not _can_be_cut(box, picture, config):
            crops.append(ShardImage(None, reason=NO_CROP, size=picture.size))
            continue
        affine = crop_affine(box, config)
        shrink = _shrink(affine[0][0])
        try:
            if shrink not in decoded:
                decoded[shrink] = _decode(picture.data, shrink)
            data = _encode(_cut(*decoded[shrink], affine, config.size), config.quality)
        except Exception as error:  # a decoder may raise anything on damaged bytes
            crops.append(replace(faulty_image(error), size=picture.size))
            continue
        crops.append(ShardImage(data, "jpg", size=picture.size, affine=affine))
    return crops


def _can_be_cut(box: CropBox, picture: ShardImage, config: ImageConfig) -> bool:
    """Whether the square of a box overlaps the image and has a plausible size."""
    assert picture.size is not None
    width, height = picture.size
    side = box.side * config.margin
    if not (all(map(math.isfinite, box)) and 1 <= side <= _MAX_RELATIVE_SIDE * max(width, height)):
        return False
    return -side / 2 < box.x < width + side / 2 and -side / 2 < box.y < height + side / 2


def _shrink(scale: float) -> int:
    """The power of two by which a JPEG can be shrunk in decoding and still have twice the crop's resolution."""
    return next((shrink for shrink in (8, 4, 2) if scale * shrink <= 0.5), 1)


def _decode(data: bytes, shrink: int) -> tuple[Image.Image, float]:
    """An image in RGB, and the width of its pixels in source pixels: JPEGs are shrunk in decoding."""
    with open_image(data) as image:
        width = image.width
        drafted = image.draft(None, (max(1, width // shrink), max(1, image.height // shrink)))
        return to_rgb(image), 1.0 if drafted is None else width / drafted[1][2]


def _cut(image: Image.Image, unit: float, affine: Affine, size: int) -> Image.Image:
    """The crop of an image whose pixels are `unit` source pixels wide."""
    (scale, _, right), (_, _, down) = affine
    pixel = 1 / (scale * unit)  # of the crop, in pixels of the image
    left, top = -right * pixel, -down * pixel  # the square's corner
    # The crop's pixels that the image covers, at least in part; the others are black.
    x0, x1 = _covered(left, pixel, image.width, size)
    y0, y1 = _covered(top, pixel, image.height, size)
    # Only these pixels, with the filter's margin; Image.crop makes pixels outside of the image black.
    around = math.ceil(_SUPPORT * max(pixel, 1)) + 1
    corner = math.floor(left + x0 * pixel) - around, math.floor(top + y0 * pixel) - around
    far = math.ceil(left + x1 * pixel) + around, math.ceil(top + y1 * pixel) + around
    start = left + x0 * pixel - corner[0], top + y0 * pixel - corner[1]
    stop = left + x1 * pixel - corner[0], top + y1 * pixel - corner[1]
    part = image.crop((*corner, *far)).resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC, (*start, *stop))
    crop = Image.new("RGB", (size, size))
    crop.paste(part, (x0, y0))
    return crop


def _covered(start: float, pixel: float, extent: int, size: int) -> tuple[int, int]:
    """The range of a crop's pixels, along one axis, that an image of this extent covers; never empty."""
    first = min(max(math.floor(-start / pixel), 0), size - 1)
    return first, max(min(math.ceil((extent - start) / pixel), size), first + 1)


def _encode(image: Image.Image, quality: int) -> bytes:
    """A JPEG without metadata."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()
