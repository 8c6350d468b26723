"""Boxes by a detector: a function of the user's own, `--detector package.module:callable`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from skelfit.learning.inference.intrinsics import rgb_with_exif
from skelfit.learning.inference.person_boxes import FindBoxes, PersonBox, make_box
from skelfit.learning.inference.plug_ins import load_plug_in
from skelfit.learning.inference.upright_image import UprightImage

_DOES = "takes a PIL image and returns x, y, width, height in px, and perhaps a score, of each person"


class DetectorError(Exception):
    """A detector failed, or its answer is no list; says how."""


def detector(name: str) -> FindBoxes:
    """The detector of a name. Raises InputError; its boxes raise DetectorError."""
    detect = load_plug_in("--detector", name, _DOES)

    def find(_: Path, image: UprightImage) -> list[PersonBox]:
        with image.opened() as opened:
            photo = rgb_with_exif(opened)  # a fault of the image is none of the detector
        try:
            return [_as_box(found) for found in detect(photo)]
        except (Exception, SystemExit) as error:  # the user's code may raise anything, or end itself
            raise DetectorError(f"{name}: {error!r}") from error

    return find


def _as_box(found: Sequence[float]) -> PersonBox:
    """A box of what a detector says; tensors and arrays are lists of numbers, too."""
    numbers = [float(number) for number in found]
    return make_box(numbers[:4], numbers[4]) if len(numbers) == 5 else make_box(numbers)
