"""Square crops of people, and the affine from pixels of the source image to pixels of the crop.

Pixel coordinates are continuous: (0, 0) is the top left corner of the top left pixel, whose centre is (0.5, 0.5). A
crop is the square scaled with an antialiasing filter; pixels outside of the image are black. An EXIF orientation is not
applied, as the tools that made the labels did not apply it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import simplejpeg

from skelfit.config.pipeline import ImageConfig
from skelfit.images.decoding import Pixels, decode, shrink_for
from skelfit.images.image_bytes import NO_CROP, Affine, ShardImage, faulty_image
from skelfit.images.resampling import cut_square

# The version of a crop's bytes. Raise it by one when the same image and box give others than before: finished shards
# with crops of another version are never mixed with new ones.
CROP_VERSION = 2
_MAX_RELATIVE_SIDE = 8  # times the image's longer side: in a wider square a person would be a few pixels


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
    decoded: dict[int, tuple[Pixels, int]] = {}
    crops = []
    for box in boxes:
        if not _can_be_cut(box, picture, config):
            crops.append(ShardImage(None, reason=NO_CROP, size=picture.size))
            continue
        affine = crop_affine(box, config)
        shrink = shrink_for(affine[0][0])
        try:
            if shrink not in decoded:
                decoded[shrink] = decode(picture.data, shrink)
            pixels = _cut(*decoded[shrink], affine, config.size)
            data = simplejpeg.encode_jpeg(pixels, config.quality, "RGBX", "420")
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


def _cut(pixels: Pixels, unit: int, affine: Affine, size: int) -> Pixels:
    """The crop of an image whose pixels are `unit` source pixels wide."""
    (scale, _, right), (_, _, down) = affine
    pixel = 1 / (scale * unit)  # of the crop, in pixels of the image
    return cut_square(pixels, -right * pixel, -down * pixel, size * pixel, size)
