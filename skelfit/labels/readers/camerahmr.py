"""Reader of the CameraHMR label release (`{coco,mpii,aic,insta1,insta2}-release.npz`).

A fault of the file (a missing key, columns of different length, an array of objects, a cut file) stops the
run with one LabelError. A fault of one person becomes the row's reason in `LabelBatch.bad`: rows are data,
never lost.

The camera-frame translation is `trans_cam`, plus the translation column of `cam_ext` where the file has one:
that is how training code for files of this family adds them. `pose_cam` is in the camera frame already.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skelfit.labels.body_family import (
    BODY_JOINTS,
    MODEL_OF_JOINTS,
    infer_body_model,
    note_dropped_translation,
)
from skelfit.labels.files.array_files import LabelArrays
from skelfit.labels.label_batch import FloatArray, LabelBatch, LabelProperties
from skelfit.labels.readers.base import (
    KEYPOINTS,
    Reasons,
    Request,
    clean_keypoints,
    image_batch,
    read_betas,
    with_confidence,
)
from skelfit.labels.unit_inference import read_rotations, read_scale, to_float32


def read(columns: LabelArrays, request: Request) -> LabelBatch:
    """All people of a file, checked. Raises LabelError for a fault of the file."""
    notes: list[str] = []
    n = len(columns.texts("imgname"))
    pose_key = "pose" if "pose_cam" not in columns and "pose" in columns else "pose_cam"
    reasons = Reasons(n)
    angles, joints = read_rotations(columns, pose_key, (24, *MODEL_OF_JOINTS), request, reasons, notes)
    body = infer_body_model(columns, pose_key, joints, notes)
    kept = 24 if body.model == "SMPL" else BODY_JOINTS
    pose = np.zeros((n, 24, 3), np.float32)
    pose[:, :kept] = to_float32(angles[:, :kept])
    gtkps = _keypoints(columns, n)
    numbers: dict[str, Any] = {
        "center": columns.numbers("center", (2,)),
        "scale": read_scale(columns, "scale", gtkps, "px/200", request, notes),
        "pose": pose,
        "betas": read_betas(columns, "shape", body, notes),
        "transl": np.zeros((n, 3), np.float32) if body.is_smplx else _translation(columns),
        "cam_int": columns.numbers("cam_int", (3, 3)),
        "gtkps": gtkps,
        "keypoints3d": _keypoints3d(columns, n),
    }
    source_keys = {"pose": pose_key, "betas": "shape", "transl": "trans_cam"}
    source_keys |= {name: name for name in ("cam_int", "center", "scale")}
    if body.is_smplx:
        notes.append(note_dropped_translation("trans_cam"))
    about = LabelProperties("camera_axes" if body.is_smplx else "camera", notes=tuple(notes))
    return image_batch(columns, request, numbers, source_keys, reasons, about)


def _translation(columns: LabelArrays) -> FloatArray:
    transl: FloatArray = columns.numbers("trans_cam", (3,))
    if "cam_ext" in columns:
        transl = transl + columns.numbers("cam_ext", (4, 4), (3, 4))[:, :3, 3]
    return transl


def _keypoints(columns: LabelArrays, rows: int) -> FloatArray:
    if "gtkps" not in columns:
        return np.zeros((rows, KEYPOINTS, 3), np.float32)
    return clean_keypoints(columns, "gtkps", columns.numbers("gtkps", ("44+", 3))[:, :KEYPOINTS])


def _keypoints3d(columns: LabelArrays, rows: int) -> FloatArray:
    if "keypoints3d" not in columns:
        return np.zeros((rows, KEYPOINTS, 4), np.float32)
    found = with_confidence(columns.numbers("keypoints3d", ("44+", 3), ("44+", 4))[:, :KEYPOINTS])
    return clean_keypoints(columns, "keypoints3d", found)
