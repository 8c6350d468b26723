"""The one form that labels take after they are read, whatever file they came from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

# Shapes of the numeric fields, without the leading number of people.
FIELD_SHAPES: dict[str, tuple[int, ...]] = {
    "center": (2,),
    "scale": (2,),
    "pose": (24, 3),
    "betas": (10,),
    "transl": (3,),
    "cam_int": (3, 3),
    "gtkps": (44, 3),
    "keypoints3d": (44, 4),
}


@dataclass(frozen=True)
class LabelBatch:
    """N people. Camera frame: OpenCV (x right, y down, z forward).

    A row with a reason in `bad` keeps its values as they were found; they must not be fitted.
    """

    row: NDArray[np.int64]  # (N,) index in the source file
    imgname: list[str]  # (N,) as the source file has it
    center: FloatArray  # (N,2) px, centre of the person's box
    scale: FloatArray  # (N,2) width and height of the box, px / 200
    pose: FloatArray  # (N,24,3) rad, axis-angle; joint 0 is the global orientation in the camera frame
    betas: FloatArray  # (N,10) SMPL shape
    transl: FloatArray  # (N,3) m, SMPL translation in the camera frame
    cam_int: FloatArray  # (N,3,3) px, intrinsic matrix
    gtkps: FloatArray  # (N,44,3) px, px, confidence
    keypoints3d: FloatArray  # (N,44,4) m, m, m, confidence; confidence 0 where the source has none
    gender: list[str]  # (N,) gender of the SMPL body: neutral, male or female
    bad: list[str]  # (N,) why the row cannot be used; '' for a good one

    def __post_init__(self) -> None:
        n = len(self.row)
        for name in ("imgname", "gender", "bad"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{name}: expected {n} entries, found {len(getattr(self, name))}")
        for name, shape in FIELD_SHAPES.items():
            found = getattr(self, name).shape
            if found != (n, *shape):
                raise ValueError(f"{name}: expected shape {(n, *shape)}, found {found}")

    def __len__(self) -> int:
        return len(self.row)

    def rows(self, start: int, stop: int) -> LabelBatch:
        """The people start..stop-1 of this batch (views, no copies)."""
        parts: dict[str, Any] = {f.name: getattr(self, f.name)[start:stop] for f in dataclasses.fields(self)}
        return LabelBatch(**parts)
