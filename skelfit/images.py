"""Image files for the shards: their own bytes, or the reason why a sample goes without them.

An image that a trainer's loader would stumble over does not enter a shard, and nothing that is wrong with an image
stops a job. Whole files are told by their ends, which costs nothing; only one that looks wrong is decoded.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

ENDINGS = frozenset({"bmp", "gif", "jpeg", "jpg", "png", "tif", "tiff", "webp"})
MISSING, UNREADABLE, DAMAGED = "image_missing", "image_unreadable", "image_damaged"
TOO_LARGE = "image_too_large"
MAX_BYTES = 64 << 20  # a worker holds some of them at a time
MAX_PIXELS = 100_000_000  # 300 MB when decoded
# Read at the same time: a network drive answers late, but many at once. Bounds the memory, too.
AHEAD, THREADS = 16, 4
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")


@dataclass(frozen=True)
class Picture:
    """An image file's own bytes and ending; or none, and why."""

    data: bytes | None
    ending: str = ""
    reason: str = ""


def read_picture(path: Path | None) -> Picture:
    """Read and check an image file; None is one that the label file does not name."""
    # An ending of another kind could pass for a label.
    ending = "" if path is None else path.suffix[1:].lower()
    if path is None or ending not in ENDINGS:
        return Picture(None, reason=MISSING)
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                return Picture(None, reason=UNREADABLE)
            if found.st_size > MAX_BYTES:
                return Picture(None, reason=TOO_LARGE)
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name with a zero byte
        return Picture(None, reason=MISSING)
    except OSError:
        return Picture(None, reason=UNREADABLE)
    reason = fault(data)
    return Picture(None, reason=reason) if reason else Picture(data, ending)


def read_pictures(paths: Iterable[Path | None]) -> Generator[Picture, None, None]:
    """The pictures of some files, in order, a few of them read ahead."""
    ahead: deque[Future[Picture]] = deque()
    with ThreadPoolExecutor(THREADS, "images") as pool:
        try:
            for path in paths:
                ahead.append(pool.submit(read_picture, path))
                if len(ahead) > AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def fault(data: bytes) -> str:
    """What is wrong with an image file of these bytes; '' for a good one."""
    Image.init()  # once; until then Pillow knows some of the formats only
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd but can be read is good
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    return TOO_LARGE
                if not _ends_well(data, image.format):
                    image.load()
    except Image.DecompressionBombError:
        return TOO_LARGE
    except Exception:  # a decoder may raise anything on bytes that anyone may have made
        return DAMAGED
    return ""


def _ends_well(data: bytes, form: str | None) -> bool:
    """Whether the end of the file is there. Says no when in doubt."""
    if form == "PNG":
        return data[-12:] == b"\0\0\0\0IEND\xaeB`\x82"
    if form in ("JPEG", "MPO"):  # MPO: a JPEG with more pictures behind it
        # Neither marker occurs in the coded picture itself, which is between the two.
        return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda") > 0
    return False
