"""The image of a sample: its bytes and size, or the reason why the sample has none.

An image that a trainer's loader cannot read does not enter a shard, and no fault of an image stops a job. The end of a
file shows cheaply whether the file is whole; only a file that looks damaged is decoded.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from skelfit.images.decoding import (
    TooLargeError,
    UnknownPixelsError,
    is_usual,
    open_image,
    plain_jpeg_size,
    to_rgb,
)

MISSING, UNREADABLE, DAMAGED = "image_missing", "image_unreadable", "image_damaged"
TOO_LARGE, NO_CROP, UNKNOWN_PIXELS = "image_too_large", "image_no_crop", "image_unknown_pixels"
MAX_BYTES = 64 << 20  # a worker holds some of them at a time

Affine = tuple[tuple[float, float, float], tuple[float, float, float]]
IDENTITY: Affine = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


@dataclass(frozen=True)
class ShardImage:
    """An image as a shard holds it, with the ending of its name; or the reason why there is none."""

    data: bytes | None
    ending: str = ""
    reason: str = ""
    size: tuple[int, int] | None = None  # width and height of the source image, px
    affine: Affine | None = None  # (2,3), from pixels of the source image to pixels of `data`
    detail: str = ""  # of the reason: the value and the limit

    @property
    def why(self) -> str:
        """The reason with its detail; '' where there is an image."""
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


def ending_of(name: str) -> str:
    """The ending of a file's name in lower case, without the dot."""
    return os.path.splitext(name)[1][1:].lower()


def check_image(data: bytes, ending: str) -> ShardImage:
    """The image of these bytes, or what is wrong with them. Never raises."""
    size = plain_jpeg_size(data)
    if size is not None and _ends_well(data, "JPEG"):
        return ShardImage(data, ending, size=size, affine=IDENTITY)
    try:
        with open_image(data) as image:
            if not is_usual(image):
                to_rgb(image)
            elif not _ends_well(data, image.format):
                image.load()
            return ShardImage(data, ending, size=image.size, affine=IDENTITY)
    except Exception as error:  # a decoder may raise anything on damaged bytes
        return faulty_image(error)


def faulty_image(error: Exception) -> ShardImage:
    """The result for an image whose decoding raised an error."""
    if isinstance(error, TooLargeError):
        return ShardImage(None, reason=TOO_LARGE, detail=str(error))
    if isinstance(error, UnknownPixelsError):
        return ShardImage(None, reason=UNKNOWN_PIXELS, detail=str(error))
    return ShardImage(None, reason=DAMAGED)


def _ends_well(data: bytes, form: str | None) -> bool:
    """Whether the end of the file is there; False when in doubt."""
    if form == "PNG":
        return data[-12:] == b"\0\0\0\0IEND\xaeB`\x82"
    if form in ("JPEG", "MPO"):  # MPO: a JPEG followed by more images
        # The coded image is between the two markers and contains neither. The last start is not searched for from
        # the end: that looks at every byte.
        end = data.rfind(b"\xff\xd9")
        return data.find(b"\xff\xda", 1, max(end, 0)) > 0 > data.find(b"\xff\xda", max(end, 0))
    return False
