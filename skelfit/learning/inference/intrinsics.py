"""Which camera took a photo: its focal lengths and principal point, from wherever they are known.

Depth is proportional to the focal length: a person who is predicted at 4 m with f = 800 px stands at 8 m with 1600 px.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from PIL import Image

from skelfit.errors import InputError
from skelfit.images.decoding import to_rgb

FILM_DIAGONAL_MM = math.hypot(36, 24)
_EXIF_IFD, _FOCAL_LENGTH, _FOCAL_LENGTH_35 = 0x8769, 0x920A, 0xA405
_WIDTH, _HEIGHT, _PLANE_RESOLUTION, _PLANE_UNIT = 0xA002, 0xA003, 0xA20E, 0xA210
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0}
_SAME_SHAPE = 0.02  # of the sides' ratio: a picture of another shape than its EXIF says was cut


class Camera(NamedTuple):
    """Focal lengths and principal point, px of the photo, whose top left corner is (0, 0)."""

    fx: float
    fy: float
    cx: float
    cy: float


class Intrinsics(Protocol):
    """Tells the camera of a photo: fx, fy, cx, cy in px. What `--intrinsics-from package.module:callable` names."""

    def __call__(self, photo: Image.Image, /) -> tuple[float, float, float, float]:
        """photo: upright, RGB; its `getexif()` is that of the file."""


class KnownCamera(NamedTuple):
    """A photo's camera, and where it is from."""

    camera: Camera
    source: str


FindCamera = Callable[[Image.Image], KnownCamera]  # raises InputError


def from_exif(photo: Image.Image) -> KnownCamera:
    """By the EXIF's focal length; where there is none that can be used, by the diagonal."""
    focal = exif_focal(photo)
    return KnownCamera(_centred(photo, focal), "exif") if focal else from_diagonal(photo)


def from_diagonal(photo: Image.Image) -> KnownCamera:
    """The photo's diagonal as focal length, a view of 53 degrees from corner to corner (Li et al., CLIFF, 2022)."""
    return KnownCamera(_centred(photo, math.hypot(photo.width, photo.height)), "diagonal")


def of_view(degrees: float) -> FindCamera:
    """A vertical field of view, as HumanFoV and the like estimate it."""

    def find(photo: Image.Image) -> KnownCamera:
        focal = photo.height / 2 / math.tan(math.radians(degrees) / 2)
        return KnownCamera(_centred(photo, focal), "given field of view")

    return find


def given(camera: Camera) -> FindCamera:
    """The same for all photos."""
    return lambda photo: KnownCamera(camera, "given")


def plugged_in(name: str) -> FindCamera:
    """The user's own, 'package.module:callable', imported from the current folder too. Raises InputError."""
    expected = "package.module:callable, which takes a PIL image and returns fx, fy, cx, cy in px"
    module, _, attribute = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # importing runs the user's code
        raise InputError("--intrinsics-from", name, expected, repr(error)) from None
    if not callable(found):
        raise InputError("--intrinsics-from", name, expected, type(found).__name__)
    tell = cast(Intrinsics, found)

    def find(photo: Image.Image) -> KnownCamera:
        try:
            answer = [float(value) for value in tell(rgb_with_exif(photo))]
        except Exception as error:
            raise InputError(name, None, "fx, fy, cx, cy in px", repr(error)) from error
        if len(answer) != 4 or not all(map(math.isfinite, answer)) or min(answer[:2]) <= 0:
            raise InputError(name, None, "fx, fy, cx, cy in px", str(answer))
        return KnownCamera(Camera(*answer), name)

    return find


def rgb_with_exif(photo: Image.Image) -> Image.Image:
    """A photo in 8-bit RGB that has the EXIF of its file, whatever the file's format."""
    rgb = to_rgb(photo)
    with suppress(Exception):  # anyone may have written anything there
        rgb.info["exif"] = photo.getexif().tobytes()
    return rgb


def exif_focal(photo: Image.Image) -> float | None:
    """The focal length in px by a photo's EXIF; None where it does not tell, or tells of another picture.

    By the focal length on 35 mm film, whose diagonal the photo's own stands for (CIPA DC-008), else by millimetres
    and the sensor's resolution.
    """
    try:
        tags = photo.getexif().get_ifd(_EXIF_IFD)
        width, height = (float(tags.get(tag) or 0) for tag in (_WIDTH, _HEIGHT))
        if width and height and not _same_shape((width, height), photo.size):
            return None
        film, lens, resolution = (
            float(tags.get(tag) or 0) for tag in (_FOCAL_LENGTH_35, _FOCAL_LENGTH, _PLANE_RESOLUTION)
        )
        focal = film / FILM_DIAGONAL_MM * math.hypot(*photo.size)
        if not focal and width:
            per_mm = resolution / _UNIT_MM[int(tags.get(_PLANE_UNIT) or 2)]
            focal = lens * per_mm * max(photo.size) / max(width, height)
    except Exception:  # anyone may have written anything there
        return None
    return focal if math.isfinite(focal) and focal > 0 else None


def _same_shape(recorded: tuple[float, float], size: tuple[int, int]) -> bool:
    """Whether two pictures have sides of the same ratio, be one of them turned."""
    one, other = (max(sides) / min(sides) for sides in (recorded, size))
    return abs(one / other - 1) < _SAME_SHAPE


def _centred(photo: Image.Image, focal: float) -> Camera:
    return Camera(focal, focal, photo.width / 2, photo.height / 2)
