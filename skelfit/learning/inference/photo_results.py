"""Photos and frames, and what becomes of the people in them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skelfit.learning.data.person_crops import Square
from skelfit.learning.inference.intrinsics import SourcedCamera
from skelfit.learning.inference.predictor import CropInput, PredictedPeople
from skelfit.learning.inference.upright_image import Picture

OK = "ok"


@dataclass(frozen=True)
class Moment:
    """The place of a frame in its sequence."""

    sequence: str  # its name, of which the results are called
    frame: int  # counted from 0
    seconds: float  # since the first frame


@dataclass(frozen=True)
class PhotoFile:
    """A photo or frame, and the name of its results. The frames of a video have paths as if it were a folder."""

    path: Path
    name: str
    moment: Moment | None = None  # None: a photo by itself


@dataclass(frozen=True)
class BoxResult:
    """The outcome of one box, or of a whole photo without boxes."""

    photo: str  # its path
    person: int | None  # number of the box in its photo; None: the whole photo
    status: str
    reason: str = ""
    box: tuple[float, ...] | None = None  # x, y, width, height px
    square: Square | None = None  # the crop
    camera: SourcedCamera | None = None
    moment: Moment | None = None
    track: int | None = None  # number of the person in the sequence

    def failed(self, status: str, reason: str) -> BoxResult:
        """The same box with another status."""
        return replace(self, status=status, reason=reason)


@dataclass(frozen=True)
class PhotoResult:
    """A photo, its boxes, and an input of the network for each box that is ok so far."""

    photo: PhotoFile
    boxes: tuple[BoxResult, ...]
    size: tuple[int, int] = (0, 0)  # of the upright photo, px
    picture: Picture | None = None  # the photo, perhaps smaller; None: not to be drawn
    inputs: tuple[CropInput, ...] = ()
    people: PredictedPeople | None = None  # of the boxes that are ok, once they are predicted
    layers: tuple[PredictedPeople, ...] = ()  # their estimates from coarse to fine, if they are wanted
    labels: PredictedPeople | None = None  # the same people by their labels, where there are labels
    # (2,3) from px of the cameras to px of the picture, where that is a crop
    affine: NDArray[np.float32] | None = None

    @property
    def ok_boxes(self) -> list[int]:
        """Numbers of the boxes that are ok."""
        return [i for i, box in enumerate(self.boxes) if box.status == OK]
