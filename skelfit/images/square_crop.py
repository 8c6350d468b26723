"""Square crops of people, and the affine from pixels of the source image to pixels of the crop.

Pixel coordinates are continuous: (0, 0) is the top left corner of the top left pixel, whose centre is (0.5, 0.5). A
crop is what the square shows, scaled with an antialiasing filter; what lies outside of the image is black. The
picture is taken as it is stored: an EXIF orientation turns nothing, since label makers did not turn it either.
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

_WIDEST = 8  # times the image's longer side: a person in a wider square would be a few dots
_SUPPORT = 2  # source pixels per pixel of a crop that the bicubic filter looks at, to each side


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
    """The crops of the people of one image (a checked one), in order, or why there are none. Never raises."""
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
        except Exception as error:  # a decoder may raise anything on bytes that anyone may have made
            crops.append(replace(faulty_image(error), size=picture.size))
            continue
        crops.append(ShardImage(data, "jpg", size=picture.size, affine=affine))
    return crops


def _can_be_cut(box: CropBox, picture: ShardImage, config: ImageConfig) -> bool:
    """Whether a box's square shows something of the image, at a size that makes sense."""
    assert picture.size is not None
    width, height = picture.size
    side = box.side * config.margin
    if not (all(map(math.isfinite, box)) and 1 <= side <= _WIDEST * max(width, height)):
        return False
    return -side / 2 < box.x < width + side / 2 and -side / 2 < box.y < height + side / 2


def _shrink(scale: float) -> int:
    """By which power of two a JPEG may be shrunk while it is decoded and still have twice the crop's pixels."""
    return next((shrink for shrink in (8, 4, 2) if scale * shrink <= 0.5), 1)


def _decode(data: bytes, shrink: int) -> tuple[Image.Image, float]:
    """An image in RGB, and how many pixels of its own one of it stands for: JPEGs are shrunk while they are decoded."""
    with open_image(data) as image:
        width = image.width
        drafted = image.draft(None, (max(1, width // shrink), max(1, image.height // shrink)))
        return to_rgb(image), 1.0 if drafted is None else width / drafted[1][2]


def _cut(image: Image.Image, unit: float, affine: Affine, size: int) -> Image.Image:
    """The crop of an image whose pixels stand for `unit` source pixels each."""
    (scale, _, right), (_, _, down) = affine
    pixel = 1 / (scale * unit)  # of the crop, in pixels of the image
    left, top = -right * pixel, -down * pixel  # the square's corner
    # The crop's pixels that the image reaches, at least in part; the others are black.
    x0, x1 = _reached(left, pixel, image.width, size)
    y0, y1 = _reached(top, pixel, image.height, size)
    # Only these, and what the filter looks at around them; Image.crop makes what is outside of the image black.
    around = math.ceil(_SUPPORT * max(pixel, 1)) + 1
    corner = math.floor(left + x0 * pixel) - around, math.floor(top + y0 * pixel) - around
    far = math.ceil(left + x1 * pixel) + around, math.ceil(top + y1 * pixel) + around
    start = left + x0 * pixel - corner[0], top + y0 * pixel - corner[1]
    stop = left + x1 * pixel - corner[0], top + y1 * pixel - corner[1]
    part = image.crop((*corner, *far)).resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC, (*start, *stop))
    crop = Image.new("RGB", (size, size))
    crop.paste(part, (x0, y0))
    return crop


def _reached(start: float, pixel: float, extent: int, size: int) -> tuple[int, int]:
    """The range of a crop's pixels, along one axis, that an image of an extent reaches; never empty."""
    first = min(max(math.floor(-start / pixel), 0), size - 1)
    return first, max(min(math.ceil((extent - start) / pixel), size), first + 1)


def _encode(image: Image.Image, quality: int) -> bytes:
    """A JPEG of a fresh image, which has no metadata."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()
