"""Reader of label files that image trainers use, of people in boxes: 4D-Humans' (HMR2's), and SPIN's and its heirs'.

They have neither a camera nor a translation: the global orientation is along the camera's axes, and the body stands
where SMPL puts it without a translation. Rows that a `has_*` column says are empty hold no label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skelfit.labels.body_family import BODY_JOINTS, MODEL_OF_JOINTS, Body, infer_body_model
from skelfit.labels.files.array_files import LabelArrays
from skelfit.labels.label_batch import FloatArray, LabelBatch, LabelProperties, empty_fields
from skelfit.labels.readers.base import (
    KEYPOINTS,
    OPENPOSE,
    Reasons,
    Request,
    clean_keypoints,
    image_batch,
    read_betas,
    with_confidence,
)
from skelfit.labels.unit_inference import Array, read_rotations, read_scale, to_float32


@dataclass(frozen=True)
class Names:
    """What a layout calls things."""

    pose: str  # 24 joints, or 23 beside `global_orient`
    betas: str
    flags: tuple[str, ...]  # 0 in rows that hold nothing
    points: tuple[str, str]  # 2D: 25 OpenPose keypoints; 19 or more extra ones
    points3d: tuple[str, str]
    scale_unit: str  # that such files have


FOURDHUMANS = Names(
    "body_pose",
    "betas",
    ("has_body_pose", "has_betas"),
    ("body_keypoints_2d", "extra_keypoints_2d"),
    ("body_keypoints_3d", "extra_keypoints_3d"),
    "px",
)
# The first 19 of SPIN's 24 joints are the extra ones of the 44.
SPIN = Names("pose", "shape", ("has_smpl",), ("openpose", "part"), ("openpose_3d", "S"), "px/200")


def read_fourdhumans(columns: LabelArrays, request: Request) -> LabelBatch:
    """All people of a file in 4D-Humans' layout, checked. Raises LabelError for a fault of the file."""
    return _read(columns, request, FOURDHUMANS)


def read_spin(columns: LabelArrays, request: Request) -> LabelBatch:
    """All people of a file in SPIN's layout, checked. Raises LabelError for a fault of the file."""
    return _read(columns, request, SPIN)


def _read(columns: LabelArrays, request: Request, names: Names) -> LabelBatch:
    notes: list[str] = []
    n = len(columns.texts("imgname"))
    reasons = Reasons(n)
    for flag in names.flags:
        reasons.check_flag(columns, flag)
    numbers = empty_fields(n)
    numbers["center"] = columns.numbers("center", (2,))
    pose, body = read_pose(columns, names.pose, request, reasons, notes)
    numbers["pose"] = to_float32(pose)
    numbers["betas"] = read_betas(columns, names.betas, body, notes)
    numbers["gtkps"] = _keypoints(columns, names.points, 3)
    numbers["keypoints3d"] = _keypoints(columns, names.points3d, 4)
    numbers["scale"] = read_scale(columns, "scale", numbers["gtkps"], names.scale_unit, request, notes)
    source_keys = {"pose": names.pose, "betas": names.betas, "center": "center", "scale": "scale"}
    about = LabelProperties("camera_axes", has_camera=False, notes=tuple(notes))
    return image_batch(columns, request, numbers, source_keys, reasons, about)


def read_pose(
    columns: LabelArrays, key: str, request: Request, reasons: Reasons, notes: list[str]
) -> tuple[Array, Body]:
    """Axis-angles (N,24,3) rad of a key with all joints, or of one without the first and `global_orient`.

    Also whose they are. SMPL's two hands hold nothing that SKEL has. They are 0 where they were cut off, or
    where fingers follow instead.
    """
    if "global_orient" not in columns:
        angles, joints = read_rotations(columns, key, (24, *MODEL_OF_JOINTS), request, reasons, notes)
    else:
        root, _ = read_rotations(columns, "global_orient", (1,), request, reasons, notes)
        others, joints = read_rotations(columns, key, (23, 21), request, reasons, notes)
        angles, joints = np.concatenate([root, others], axis=1), joints + 1
    body = infer_body_model(columns, key, joints, notes)
    kept = BODY_JOINTS if body.model != "SMPL" else min(joints, 24)
    pose = np.zeros((len(angles), 24, 3))
    pose[:, :kept] = angles[:, :kept]
    return pose, body


def _keypoints(columns: LabelArrays, keys: tuple[str, str], size: int) -> FloatArray:
    """25 OpenPose and 19 extra keypoints (N,44,size); confidence 0 where the file has none."""
    found = np.zeros((columns.rows or 0, KEYPOINTS, size), np.float32)
    counts = (OPENPOSE, KEYPOINTS - OPENPOSE)
    places = (slice(0, OPENPOSE), slice(OPENPOSE, KEYPOINTS))
    for key, count, place in zip(keys, counts, places, strict=True):
        if key in columns:
            sizes = (3,) if size == 3 else (3, 4)
            points = columns.numbers(key, *((f"{count}+", s) for s in sizes))[:, :count]
            found[:, place] = clean_keypoints(columns, key, points if size == 3 else with_confidence(points))
    return found
