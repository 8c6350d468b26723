"""From the bytes of an image file to 8-bit RGB. All of skelfit decodes images here.

Pillow's `convert("RGB")` clips pixels of more than 8 bits, so that a 16-bit PNG becomes white. Here they are scaled:
16 bits (and 12, in TIFF) by their full range. The range of 32-bit integers and floats is inferred from the values, or
the image is refused.

Transparency is dropped: the stored colours count, as in Pillow and OpenCV. Of several frames the first is used. An EXIF
orientation is not applied.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, features

Pixels = NDArray[np.uint8]  # (H,W,4): red, green, blue, and a fourth that means nothing and makes work faster
MAX_PIXELS = 100_000_000  # 300 MB when decoded
# Possible ranges of 32-bit pixels: floats from 0 to 1, and numbers of 8 or 16 bits.
_UNIT, _BYTE, _WORD = 1.0, 255.0, 65535.0
_OVERSHOOT = 2  # floats of up to this times a range may still belong to it, so the range is not known
# How a plain JPEG begins (a JFIF header of 20 bytes), and the markers of tables and of usual frames.
_JFIF = b"\xff\xd8\xff\xe0\x00\x10JFIF\0"
_TABLES = (b"\xff\xdb", b"\xff\xc4", b"\xff\xdd")
_FRAMES = (b"\xff\xc0", b"\xff\xc1", b"\xff\xc2")
_USUAL_COLORS = ("YCbCr", "Gray")  # of a JPEG
_TIFF_BITS, _TIFF_MEANING, _WHITE_IS_ZERO = 258, 262, 0


class TooLargeError(ValueError):
    """An image with too many pixels; says how many, and the limit."""


class UnknownPixelsError(ValueError):
    """An image whose pixels do not determine colours; says what they are."""


def _reads(codec: str) -> bool:
    """Whether this Pillow has a codec. Asking Pillow about an unknown codec would warn."""
    return codec in (features.modules | features.codecs) and bool(features.check(codec))


# The formats that are read, by Pillow's names, and the endings of their files.
_FORMATS = {
    "BMP": ("bmp",),
    "GIF": ("gif",),
    "JPEG": ("jfif", "jpe", "jpeg", "jpg"),
    "PNG": ("png",),
    "TIFF": ("tif", "tiff"),
    "WEBP": ("webp",),
}
if _reads("avif"):
    _FORMATS["AVIF"] = ("avif",)
if _reads("jpg_2000"):
    _FORMATS["JPEG2000"] = ("j2c", "j2k", "jp2", "jpc", "jpf", "jpx")
FORMATS = tuple(_FORMATS)
ENDINGS = frozenset(ending for endings in _FORMATS.values() for ending in endings)


@contextmanager
def open_image(data: bytes) -> Iterator[Image.Image]:
    """The image of a file's bytes, not decoded yet; warnings are suppressed.

    Raises TooLargeError, and any error of Pillow for bytes that it cannot read.
    """
    Image.init()  # until then Pillow knows only some of the formats
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            opened = Image.open(io.BytesIO(data), formats=FORMATS)
        except Image.DecompressionBombError as error:  # Pillow's own limit, which is higher
            pixels = re.search(r"\d+", str(error))
            raise TooLargeError(_too_large(f"{int(pixels[0]):,} pixels" if pixels else "more")) from None
        with opened as image:
            if image.width * image.height > MAX_PIXELS:
                raise TooLargeError(_too_large(f"{image.width} x {image.height} px"))
            yield image


def _too_large(size: str) -> str:
    return f"{size}, at most {MAX_PIXELS:,} pixels are read"


def to_rgb(image: Image.Image) -> Image.Image:
    """An image decoded to 8-bit RGB; the same object where it is RGB already.

    Raises UnknownPixelsError, and any error of Pillow for an image that it cannot decode.
    """
    image.load()
    if image.mode == "RGB":
        return image
    if image.mode[0] in "IF":  # I;16 and variants, I, F
        rgb = Image.fromarray(_gray(image)).convert("RGB")
        rgb.info = dict(image.info)
        return rgb
    try:
        return image.convert("RGB")
    except ValueError:
        raise UnknownPixelsError(f"pixels of mode {image.mode}, which have no conversion to RGB") from None


def decode(data: bytes, shrink: int = 1) -> tuple[Pixels, int]:
    """The pixels (H,W,4) of a file's bytes, and how many of the file's pixels, along a side, are one of them.

    shrink: 1, 2, 4 or 8, by which a JPEG is made smaller in decoding, rounded up. Files of other kinds are not made
    smaller. Raises TooLargeError, UnknownPixelsError, and any error of Pillow for bytes that it cannot read.
    """
    pixels = _decode_sound_jpeg(data, shrink)
    if pixels is not None:
        return pixels, shrink
    with open_image(data) as image:
        width = image.width
        drafted = image.draft(None, (max(1, width // shrink), max(1, image.height // shrink)))
        unit = 1 if drafted is None else round(width / drafted[1][2])
        return np.asarray(to_rgb(image).convert("RGBX")), unit


def shrink_for(scale: float) -> int:
    """The power of two by which a JPEG can be shrunk in decoding and still have the resolution of its crop.

    scale: pixels of the crop along one of the image.
    """
    return next((shrink for shrink in (8, 4, 2) if scale * shrink <= 1), 1)


def _decode_sound_jpeg(data: bytes, shrink: int) -> Pixels | None:
    """The pixels of a JPEG, gray or YCbCr, in which nothing is amiss; None for any other file, which is for Pillow.

    Both have libjpeg-turbo, so the pixels are the same, but Pillow copies them around. simplejpeg refuses what makes
    libjpeg warn; Pillow, which accepts some of that, has the last word.
    """
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
        if colors not in _USUAL_COLORS or width * height > MAX_PIXELS:
            return None
        least = {"min_height": -(-height // shrink), "min_width": -(-width // shrink)}
        return simplejpeg.decode_jpeg(data, "RGBX", min_factor=shrink, **least)
    except ValueError:
        return None


def plain_jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG that is as plain as most are; None for any other file, which is for Pillow.

    Plain: nothing but tables between a JFIF header and the frame; 8 bits of gray or YCbCr. libjpeg-turbo then reads
    what Pillow reads, but in a twentieth of the time.
    """
    if not data.startswith(_JFIF):
        return None
    at = 20
    while data[at : at + 2] in _TABLES:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    if data[at : at + 2] not in _FRAMES or data[at + 4 : at + 5] != b"\x08":
        return None
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    return (width, height) if colors in _USUAL_COLORS and width * height <= MAX_PIXELS else None


def is_usual(image: Image.Image) -> bool:
    """Whether the mode of an image guarantees that it can be converted to RGB, without decoding it."""
    return image.mode in {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"} or (
        image.mode.startswith("I;16")
    )


def _gray(image: Image.Image) -> NDArray[np.uint8]:
    """Brightness (H,W) of pixels of more than 8 bits."""
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if values.dtype.kind == "u":
        top = 4095 if tags.get(_TIFF_BITS) == (12,) else 65535
        shades = np.rint(np.minimum(np.arange(65536) / top, 1) * 255).astype(np.uint8)
        gray: NDArray[np.uint8] = shades[values]
    else:
        scale = 255 / _range_of(values, of_png=image.format == "PNG")
        gray = np.rint(values * scale).astype(np.uint8)
    return 255 - gray if tags.get(_TIFF_MEANING) == _WHITE_IS_ZERO else gray


def _range_of(values: NDArray[np.generic], *, of_png: bool) -> float:
    """The value of white for 32-bit pixels. Raises UnknownPixelsError."""
    kind = "floats" if values.dtype.kind == "f" else "32-bit integers"
    if not np.isfinite(values).all():
        raise UnknownPixelsError("pixels that are not finite numbers")
    low, high = float(values.min()), float(values.max())
    if of_png:  # older versions of Pillow take 16 bits of a PNG for 32
        return _WORD
    overshoot, ranges = (_OVERSHOOT, (_UNIT, _BYTE, _WORD)) if kind == "floats" else (1, (_BYTE, _WORD))
    below = 0.0
    for top in ranges:
        if low >= 0 and high <= top and (high > below * overshoot or not below):
            return top
        below = top
    raise UnknownPixelsError(
        f"pixels that are {kind} from {low:g} to {high:g}, expected 0 to {' or '.join(f'{r:g}' for r in ranges)}"
    )
