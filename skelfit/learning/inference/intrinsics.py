"""The camera of a photo: focal lengths and principal point, from EXIF, options or a plug-in.

Depth is proportional to the focal length: a person who is predicted at 4 m with f = 800 px stands at 8 m with 1600 px.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, Protocol, cast

from PIL import Image

from skelfit.errors import InputError
from skelfit.images.decoding import to_rgb
from skelfit.learning.inference.plug_ins import load_plug_in

FILM_DIAGONAL_MM = math.hypot(36, 24)
_EXIF_IFD, _FOCAL_LENGTH, _FOCAL_LENGTH_35 = 0x8769, 0x920A, 0xA405
_WIDTH, _HEIGHT, _PLANE_RESOLUTION, _PLANE_UNIT = 0xA002, 0xA003, 0xA20E, 0xA210
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0}
_SAME_SHAPE = 0.02  # of the sides' ratio: a picture of another shape than its EXIF says was cut


class PhotoCamera(NamedTuple):
    """Focal lengths and principal point, px of the photo, whose top left corner is (0, 0)."""

    fx: float
    fy: float
    cx: float
    cy: float


class IntrinsicsFunction(Protocol):
    """Gives the camera of a photo: fx, fy, cx, cy in px. `--intrinsics-from package.module:callable` names one."""

    def __call__(self, photo: Image.Image, /) -> tuple[float, float, float, float]:
        """photo: upright, RGB; its `getexif()` is that of the file."""


class SourcedCamera(NamedTuple):
    """A photo's camera, and its source."""

    camera: PhotoCamera
    source: str


CameraSource = Callable[[Image.Image], SourcedCamera]  # raises InputError


def from_exif(photo: Image.Image) -> SourcedCamera:
    """By the EXIF's focal length; without a usable one, by the diagonal."""
    focal = exif_focal(photo)
    return SourcedCamera(_centred(photo, focal), "exif") if focal else from_diagonal(photo)


def from_diagonal(photo: Image.Image) -> SourcedCamera:
    """The photo's diagonal as focal length, a view of 53 degrees from corner to corner (Li et al., CLIFF, 2022)."""
    return SourcedCamera(_centred(photo, math.hypot(photo.width, photo.height)), "diagonal")


def of_view(degrees: float) -> CameraSource:
    """A vertical field of view, as HumanFoV and the like estimate it."""

    def find(photo: Image.Image) -> SourcedCamera:
        focal = photo.height / 2 / math.tan(math.radians(degrees) / 2)
        return SourcedCamera(_centred(photo, focal), "given field of view")

    return find


def given_camera(camera: PhotoCamera) -> CameraSource:
    """The same camera for all photos."""
    return lambda photo: SourcedCamera(camera, "given")


def plugged_in(name: str) -> CameraSource:
    """A user's function, 'package.module:callable'; the current folder is searched too. Raises InputError."""
    intrinsics = cast(
        IntrinsicsFunction,
        load_plug_in("--intrinsics-from", name, "takes a PIL image and returns fx, fy, cx, cy in px"),
    )

    def find(photo: Image.Image) -> SourcedCamera:
        try:
            answer = [float(number) for number in intrinsics(rgb_with_exif(photo))]
        except (Exception, SystemExit) as error:  # the user's code
            raise InputError(name, None, "fx, fy, cx, cy in px", repr(error)) from error
        if len(answer) != 4 or not all(map(math.isfinite, answer)) or min(answer[:2]) <= 0:
            raise InputError(name, None, "fx, fy, cx, cy in px", str(answer))
        return SourcedCamera(PhotoCamera(*answer), name)

    return find


def rgb_with_exif(photo: Image.Image) -> Image.Image:
    """A photo in 8-bit RGB with the EXIF of its file, for any format."""
    rgb = to_rgb(photo)
    with suppress(Exception):  # EXIF may hold anything
        rgb.info["exif"] = photo.getexif().tobytes()
    return rgb


def exif_focal(photo: Image.Image) -> float | None:
    """The focal length in px by a photo's EXIF; None where EXIF has none, or describes another picture.

    By the 35 mm equivalent, which scales with the diagonal (CIPA DC-008); else by the focal length in mm and the
    sensor's resolution.
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
    except Exception:  # EXIF may hold anything
        return None
    return focal if math.isfinite(focal) and focal > 0 else None


def _same_shape(recorded: tuple[float, float], size: tuple[int, int]) -> bool:
    """Whether two pictures have the same aspect ratio, also if one is rotated by 90 degrees."""
    one, other = (max(sides) / min(sides) for sides in (recorded, size))
    return abs(one / other - 1) < _SAME_SHAPE


def _centred(photo: Image.Image, focal: float) -> PhotoCamera:
    return PhotoCamera(focal, focal, photo.width / 2, photo.height / 2)
