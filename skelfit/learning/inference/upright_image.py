"""An upright image to cut people out of: the bytes of a file, or pixels."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from skelfit.images.decoding import Pixels, decode, open_image, to_rgb
from skelfit.learning.data.person_crops import Square, cut_crop
from skelfit.learning.inference.intrinsics import rgb_with_exif

Picture = NDArray[np.uint8]  # (h,w,3) RGB
LONGEST = 1280  # px of a picture's longer side; larger photos are made smaller
_ORIENTATION = 0x0112


class UprightImage(Protocol):
    """An image as viewers show it. Every method may raise whatever decoders raise."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, px."""

    def opened(self) -> AbstractContextManager[Image.Image]:
        """As Pillow has it, with the EXIF of its file; decoded when its pixels are asked for."""

    def cut(self, square: Square, size: int) -> Picture:
        """A square of it as (size,size,3), black outside."""

    def picture(self) -> Picture:
        """All of it, at most LONGEST px long: to be drawn on."""


def open_upright(data: bytes) -> UprightImage:
    """The image of a file's bytes, turned as EXIF says. Raises what Pillow raises on an image that it cannot read."""
    with open_image(data) as image:
        if image.getexif().get(_ORIENTATION, 1) == 1:
            return _CodedImage(data, image.size)
        turned = ImageOps.exif_transpose(rgb_with_exif(image))
    return _PixelImage(turned, np.asarray(turned.convert("RGBX")))


def upright_frame(pixels: Pixels) -> UprightImage:
    """The image of a frame."""
    return _PixelImage(Image.fromarray(np.ascontiguousarray(pixels[..., :3])), pixels)


class _CodedImage:
    """The bytes of an image that is stored upright. Each size that is needed is decoded once."""

    def __init__(self, data: bytes, size: tuple[int, int]) -> None:
        self.size = size
        self._data = data
        self._decoded: dict[int, tuple[Pixels, int]] = {}

    def opened(self) -> AbstractContextManager[Image.Image]:
        return open_image(self._data)

    def cut(self, square: Square, size: int) -> Picture:
        return cut_crop(self._decode, square, size)[..., :3]

    def picture(self) -> Picture:
        with open_image(self._data) as image:
            image.draft("RGB", (LONGEST, LONGEST))
            return shrunk(to_rgb(image))

    def _decode(self, shrink: int) -> tuple[Pixels, int]:
        if shrink not in self._decoded:
            self._decoded[shrink] = decode(self._data, shrink)
        return self._decoded[shrink]


class _PixelImage:
    """An image that is decoded."""

    def __init__(self, image: Image.Image, pixels: Pixels) -> None:
        self.size = image.size
        self._image, self._pixels = image, pixels

    def opened(self) -> AbstractContextManager[Image.Image]:
        return nullcontext(self._image)

    def cut(self, square: Square, size: int) -> Picture:
        return cut_crop(lambda _: (self._pixels, 1), square, size)[..., :3]

    def picture(self) -> Picture:
        return shrunk(self._image)


def shrunk(image: Image.Image) -> Picture:
    """An RGB image as pixels; a larger one is at most LONGEST px long."""
    scale = min(1.0, LONGEST / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return np.asarray(image if size == image.size else image.resize(size, Image.Resampling.LANCZOS))
