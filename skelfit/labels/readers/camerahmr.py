"""Reader of the CameraHMR label release (`{coco,mpii,aic,insta1,insta2}-release.npz`).

A fault of the file (a missing key, arrays of different length, an array of objects, a cut file) stops the run with one
LabelError. A fault of one person becomes the row's reason in `LabelBatch.bad`: no row is dropped.

The camera-frame translation is `trans_cam`, plus the translation column of `cam_ext` where the file has one:
that is how training code for files of this family adds them. `pose_cam` is in the camera frame already.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skelfit.config.manifest import LabelLayout
from skelfit.labels.body_family import (
    BODY_JOINTS,
    MODEL_OF_JOINTS,
    infer_body_model,
    note_dropped_translation,
)
from skelfit.labels.files.array_files import LabelArrays
from skelfit.labels.label_batch import FloatArray, LabelBatch, LabelProperties
from skelfit.labels.read_settings import ReadSettings
from skelfit.labels.readers.base import LabelReader
from skelfit.labels.readers.common_fields import (
    NUM_KEYPOINTS,
    clean_keypoints,
    image_batch,
    read_betas,
    with_confidence,
)
from skelfit.labels.row_faults import RowFaults
from skelfit.labels.unit_inference import read_rotations, read_scale, to_float32


class CameraHmrReader(LabelReader):
    """The layout of the CameraHMR release."""

    layout: LabelLayout = "camerahmr"
    version = "camerahmr-4"
    required_keys: tuple[tuple[str, ...], ...] = (
        ("imgname",),
        ("pose_cam", "pose"),
        ("shape",),
        ("trans_cam",),
        ("cam_int",),
    )
    excluded_keys: tuple[str, ...] = ("pose_world", "trans_world")

    def keypoint_note(self, arrays: LabelArrays) -> str:
        """Why `gtkps` are left; '' where they are the 44 keypoints."""
        return ""

    def read(self, arrays: LabelArrays, settings: ReadSettings) -> LabelBatch:
        """All people of a file, checked. Raises LabelError for a fault of the file."""
        notes: list[str] = []
        n = len(arrays.texts("imgname"))
        pose_key = "pose" if "pose_cam" not in arrays and "pose" in arrays else "pose_cam"
        faults = RowFaults(n)
        angles, joints = read_rotations(arrays, pose_key, (24, *MODEL_OF_JOINTS), settings, faults, notes)
        model = infer_body_model(arrays, pose_key, joints, notes)
        kept = 24 if model == "SMPL" else BODY_JOINTS
        pose = np.zeros((n, 24, 3), np.float32)
        pose[:, :kept] = to_float32(angles[:, :kept])
        left = self.keypoint_note(arrays)
        notes += [left] if left else []
        gtkps = np.zeros((n, NUM_KEYPOINTS, 3), np.float32) if left else _keypoints(arrays, n)
        numbers: dict[str, Any] = {
            "center": arrays.numbers("center", (2,)),
            "scale": read_scale(arrays, "scale", gtkps, "px/200", settings, notes),
            "pose": pose,
            "betas": read_betas(arrays, "shape", model, notes),
            "transl": np.zeros((n, 3), np.float32) if model == "SMPL-X" else _translation(arrays),
            "cam_int": arrays.numbers("cam_int", (3, 3)),
            "gtkps": gtkps,
            "keypoints3d": _keypoints3d(arrays, n),
        }
        source_keys = {"pose": pose_key, "betas": "shape", "transl": "trans_cam"}
        source_keys |= {name: name for name in ("cam_int", "center", "scale")}
        if model == "SMPL-X":
            notes.append(note_dropped_translation("trans_cam"))
        about = LabelProperties("camera_axes" if model == "SMPL-X" else "camera", notes=tuple(notes))
        return image_batch(arrays, settings, numbers, source_keys, faults, about)


def _translation(arrays: LabelArrays) -> FloatArray:
    transl: FloatArray = arrays.numbers("trans_cam", (3,))
    if "cam_ext" in arrays:
        transl = transl + arrays.numbers("cam_ext", (4, 4), (3, 4))[:, :3, 3]
    return transl


def _keypoints(arrays: LabelArrays, rows: int) -> FloatArray:
    if "gtkps" not in arrays:
        return np.zeros((rows, NUM_KEYPOINTS, 3), np.float32)
    return clean_keypoints(arrays, "gtkps", arrays.numbers("gtkps", ("44+", 3))[:, :NUM_KEYPOINTS])


def _keypoints3d(arrays: LabelArrays, rows: int) -> FloatArray:
    if "keypoints3d" not in arrays:
        return np.zeros((rows, NUM_KEYPOINTS, 4), np.float32)
    keypoints = with_confidence(arrays.numbers("keypoints3d", ("44+", 3), ("44+", 4))[:, :NUM_KEYPOINTS])
    return clean_keypoints(arrays, "keypoints3d", keypoints)
