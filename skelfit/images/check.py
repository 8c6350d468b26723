"""What an image file is worth: its bytes and size, or the reason why a sample goes without them.

An image that a trainer's loader would stumble over does not enter a shard, and nothing that is wrong with an image
stops a job. Whole files are told by their ends, which costs nothing; only one that looks wrong is decoded.
"""

from __future__ import annotations

import io
import os
import warnings
from dataclasses import dataclass

from PIL import Image

ENDINGS = frozenset({"bmp", "gif", "jpeg", "jpg", "png", "tif", "tiff", "webp"})
MISSING, UNREADABLE, DAMAGED = "image_missing", "image_unreadable", "image_damaged"
TOO_LARGE, NO_CROP = "image_too_large", "image_no_crop"
MAX_BYTES = 64 << 20  # a worker holds some of them at a time
MAX_PIXELS = 100_000_000  # 300 MB when decoded
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")

Affine = tuple[tuple[float, float, float], tuple[float, float, float]]
IDENTITY: Affine = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


@dataclass(frozen=True)
class Picture:
    """An image as a shard holds it, and the ending of its name; or none, and why."""

    data: bytes | None
    ending: str = ""
    reason: str = ""
    size: tuple[int, int] | None = None  # width and height of the source image, px
    affine: Affine | None = None  # (2,3), from pixels of the source image to pixels of `data`


def ending_of(name: str) -> str:
    """The ending of a file's name in lower case, without the dot."""
    return os.path.splitext(name)[1][1:].lower()


def check(data: bytes, ending: str) -> Picture:
    """The picture of an image file of these bytes, or what is wrong with it. Never raises."""
    Image.init()  # once; until then Pillow knows some of the formats only
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd but can be read is good
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    return Picture(None, reason=TOO_LARGE)
                if not _ends_well(data, image.format):
                    image.load()
                return Picture(data, ending, size=image.size, affine=IDENTITY)
    except Image.DecompressionBombError:
        return Picture(None, reason=TOO_LARGE)
    except Exception:  # a decoder may raise anything on bytes that anyone may have made
        return Picture(None, reason=DAMAGED)


def _ends_well(data: bytes, form: str | None) -> bool:
    """Whether the end of the file is there. Says no when in doubt."""
    if form == "PNG":
        return data[-12:] == b"\0\0\0\0IEND\xaeB`\x82"
    if form in ("JPEG", "MPO"):  # MPO: a JPEG with more pictures behind it
        # Neither marker occurs in the coded picture itself, which is between the two.
        return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda") > 0
    return False
