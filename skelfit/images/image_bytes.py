"""What an image file is worth: its bytes and size, or the reason why a sample goes without them.

An image that a trainer's loader would stumble over does not enter a shard, and nothing that is wrong with an image
stops a job. Whole files are told by their ends, which costs nothing; only one that looks wrong is decoded.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from skelfit.images.decoding import TooLargeError, UnknownPixelsError, is_usual, open_image, to_rgb

MISSING, UNREADABLE, DAMAGED = "image_missing", "image_unreadable", "image_damaged"
TOO_LARGE, NO_CROP, UNKNOWN_PIXELS = "image_too_large", "image_no_crop", "image_unknown_pixels"
MAX_BYTES = 64 << 20  # a worker holds some of them at a time

Affine = tuple[tuple[float, float, float], tuple[float, float, float]]
IDENTITY: Affine = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


@dataclass(frozen=True)
class ShardImage:
    """An image as a shard holds it, and the ending of its name; or none, and why."""

    data: bytes | None
    ending: str = ""
    reason: str = ""
    size: tuple[int, int] | None = None  # width and height of the source image, px
    affine: Affine | None = None  # (2,3), from pixels of the source image to pixels of `data`
    detail: str = ""  # of the reason: what was found, and the limit

    @property
    def why(self) -> str:
        """The reason with its detail; '' where there is an image."""
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


def ending_of(name: str) -> str:
    """The ending of a file's name in lower case, without the dot."""
    return os.path.splitext(name)[1][1:].lower()


def check_image(data: bytes, ending: str) -> ShardImage:
    """The picture of an image file of these bytes, or what is wrong with it. Never raises."""
    try:
        with open_image(data) as image:
            if not is_usual(image):
                to_rgb(image)
            elif not _ends_well(data, image.format):
                image.load()
            return ShardImage(data, ending, size=image.size, affine=IDENTITY)
    except Exception as error:  # a decoder may raise anything on bytes that anyone may have made
        return faulty_image(error)


def faulty_image(error: Exception) -> ShardImage:
    """What an image is worth of which decoding raised an error."""
    if isinstance(error, TooLargeError):
        return ShardImage(None, reason=TOO_LARGE, detail=str(error))
    if isinstance(error, UnknownPixelsError):
        return ShardImage(None, reason=UNKNOWN_PIXELS, detail=str(error))
    return ShardImage(None, reason=DAMAGED)


def _ends_well(data: bytes, form: str | None) -> bool:
    """Whether the end of the file is there. Says no when in doubt."""
    if form == "PNG":
        return data[-12:] == b"\0\0\0\0IEND\xaeB`\x82"
    if form in ("JPEG", "MPO"):  # MPO: a JPEG with more pictures behind it
        # Neither marker occurs in the coded picture itself, which is between the two.
        return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda") > 0
    return False
