"""The one form that labels have after reading, whatever the layout of their file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

# The frame of SMPL's numbers. camera: OpenCV (x right, y down, z forward), of the whole image. camera_axes: the same
# axes; the translation is unknown and 0. crop_camera: the same axes; the translation is relative to the crop's camera.
# world_y_up, world_z_up: a room, with y or z up. unknown: as in the file.
Coordinates = Literal["camera", "camera_axes", "crop_camera", "world_y_up", "world_z_up", "unknown"]

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
TEXT_FIELDS = ("imgname", "gender", "bad")
VERTICES = 6890
# Of fields that few files have.
OPTIONAL_SHAPES: dict[str, tuple[int, ...]] = {"vertices": (VERTICES, 3), "root_shift": (3, 3)}


@dataclass(frozen=True)
class LabelProperties:
    """What holds for all rows of a label file."""

    coordinates: Coordinates = "camera"
    has_camera: bool = True  # False: cam_int is all 0, because the file does not say
    has_smpl: bool = True  # False: pose, betas and transl are all 0; the target is `vertices`
    has_keypoints: bool = True  # False: no row of the file has a 2D keypoint
    notes: tuple[str, ...] = ()  # what was inferred from values, and what was not used
    # Sum over the rows of the unit vectors from limbs to trunk; 0 for labels in no world.
    upright: tuple[float, float, float] = (0.0, 0.0, 0.0)
    telling: int = 0  # the number of rows in this sum
    told_up: tuple[int, int] = (0, 0)  # number of its files that tell y up, and of those that tell z up
    first_up: tuple[str, str] = ("", "")  # the names of the first such files


@dataclass(frozen=True)
class MotionSequence:
    """Rows start..start+frames-1 of a label file, which are neighbouring frames of one motion."""

    name: str
    subject: str
    frame_rate: float | None  # Hz; None: the file does not say
    start: int
    frames: int


@dataclass(frozen=True)
class LabelBatch:
    """N people, in the coordinates that `about` names.

    A row with a reason in `bad` keeps the values of the file and must not be fitted.
    """

    row: NDArray[np.int64]  # (N,) index in the source file
    imgname: list[str]  # (N,) as the source file has it; '' where it has none
    center: FloatArray  # (N,2) px, centre of the person's box; 0 where there is none
    scale: FloatArray  # (N,2) width and height of the box, px / 200; 0 where there is none
    pose: FloatArray  # (N,24,3) rad, axis-angle; joint 0 is the global orientation
    betas: FloatArray  # (N,10) SMPL shape
    transl: FloatArray  # (N,3) m, SMPL translation
    cam_int: FloatArray  # (N,3,3) px, intrinsic matrix
    gtkps: FloatArray  # (N,44,3) px, px, confidence
    keypoints3d: FloatArray  # (N,44,4) m, m, m, confidence; confidence 0 where the source has none
    gender: list[str]  # (N,) gender of the SMPL body: neutral, male or female
    bad: list[str]  # (N,) why the row cannot be used; '' for a good one
    vertices: FloatArray | None = None  # (N,6890,3) m, the target of a fit to bare meshes
    root_shift: FloatArray | None = (
        None  # (N,3,3) times the root joint at rest is still to be added to transl
    )
    sequences: tuple[
        MotionSequence, ...
    ] = ()  # the sequences that rows of the batch belong to, in the order of rows
    about: LabelProperties = LabelProperties()

    def __post_init__(self) -> None:
        n = len(self.row)
        for name in TEXT_FIELDS:
            if len(getattr(self, name)) != n:
                raise ValueError(f"{name}: expected {n} entries, found {len(getattr(self, name))}")
        for name, shape in self.field_shapes().items():
            actual = getattr(self, name).shape
            if actual != (n, *shape):
                raise ValueError(f"{name}: expected shape {(n, *shape)}, found {actual}")

    def __len__(self) -> int:
        return len(self.row)

    def field_shapes(self) -> dict[str, tuple[int, ...]]:
        """The numeric fields that this batch has, and their shapes without the leading number of people."""
        has = {name for name in OPTIONAL_SHAPES if getattr(self, name) is not None}
        return FIELD_SHAPES | {name: shape for name, shape in OPTIONAL_SHAPES.items() if name in has}

    def rows(self, start: int, stop: int) -> LabelBatch:
        """The people start..stop-1 of this batch (views, no copies)."""
        names = ("row", *TEXT_FIELDS, *self.field_shapes())
        parts: dict[str, Any] = {name: getattr(self, name)[start:stop] for name in names}
        sequences = sequences_of_rows(self.sequences, self.row[start:stop])
        return dataclasses.replace(self, **parts, sequences=sequences)

    def frames_of(self, sequence: MotionSequence) -> slice:
        """Which of the N people are frames of a sequence."""
        return slice(*np.searchsorted(self.row, [sequence.start, sequence.start + sequence.frames]).tolist())

    def sha256(self) -> str:
        """A hash (hex) of all that people are fitted and described by: equal for equal rows of another label file."""
        about = self.about
        known = (about.coordinates, about.has_camera, about.has_smpl, about.has_keypoints)
        texts = [getattr(self, name) for name in TEXT_FIELDS]
        sequences = [dataclasses.asdict(sequence) for sequence in self.sequences]
        digest = hashlib.sha256(json.dumps([known, texts, sequences]).encode())
        for name in ("row", *self.field_shapes()):
            column = getattr(self, name)
            digest.update(f"{name} {column.shape}".encode())
            # Most layouts lack some fields, which are all 0.
            if column.any():
                digest.update(np.ascontiguousarray(column, column.dtype.newbyteorder("<")).data)
        return digest.hexdigest()


def sequences_of_rows(
    sequences: tuple[MotionSequence, ...], rows: NDArray[np.int64]
) -> tuple[MotionSequence, ...]:
    """The sequences that consecutive rows belong to."""
    if len(rows) == 0:
        return ()
    return tuple(s for s in sequences if s.start <= rows[-1] and rows[0] < s.start + s.frames)


def empty_fields(rows: int) -> dict[str, Any]:
    """Zeros for every numeric field; a reader starts from them."""
    return {name: np.zeros((rows, *shape), np.float32) for name, shape in FIELD_SHAPES.items()}
