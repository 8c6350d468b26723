"""What 4D-Humans' and SPIN's label files share: people in boxes of images, as trainers of image networks have them.

They have neither a camera nor a translation: the global orientation is along the camera's axes, and the body stands
where SMPL puts it without a translation. Rows whose `has_*` flag is 0 hold no label.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from skelfit.labels.files.array_files import LabelArrays
from skelfit.labels.label_batch import FloatArray, LabelBatch, LabelProperties, empty_fields
from skelfit.labels.read_settings import ReadSettings
from skelfit.labels.readers.base import LabelReader
from skelfit.labels.readers.common_fields import (
    NUM_KEYPOINTS,
    NUM_OPENPOSE,
    clean_keypoints,
    image_batch,
    read_betas,
    read_pose,
    with_confidence,
)
from skelfit.labels.row_faults import RowFaults
from skelfit.labels.unit_inference import read_scale, to_float32


class BoxLabelReader(LabelReader):
    """Reader of a layout of people in boxes; a subclass says what the layout calls its fields."""

    pose_key: ClassVar[str]  # all 24 joints, or 23 beside `global_orient`
    betas_key: ClassVar[str]
    flag_keys: ClassVar[tuple[str, ...]]  # 0 in rows without a label
    keypoint_keys: ClassVar[tuple[str, str]]  # 2D: 25 OpenPose keypoints; 19 or more extra ones
    keypoint3d_keys: ClassVar[tuple[str, str]]
    scale_unit: ClassVar[Literal["px", "px/200"]]  # that files of the layout usually have

    def read(self, arrays: LabelArrays, settings: ReadSettings) -> LabelBatch:
        """All people of a file, checked. Raises LabelError for a fault of the file."""
        notes: list[str] = []
        n = len(arrays.texts("imgname"))
        faults = RowFaults(n)
        for flag in self.flag_keys:
            faults.check_flag(arrays, flag)
        numbers = empty_fields(n)
        numbers["center"] = arrays.numbers("center", (2,))
        pose, model = read_pose(arrays, self.pose_key, settings, faults, notes)
        numbers["pose"] = to_float32(pose)
        numbers["betas"] = read_betas(arrays, self.betas_key, model, notes)
        numbers["gtkps"] = _keypoints(arrays, self.keypoint_keys, 3)
        numbers["keypoints3d"] = _keypoints(arrays, self.keypoint3d_keys, 4)
        numbers["scale"] = read_scale(arrays, "scale", numbers["gtkps"], self.scale_unit, settings, notes)
        source_keys = {"pose": self.pose_key, "betas": self.betas_key, "center": "center", "scale": "scale"}
        about = LabelProperties("camera_axes", has_camera=False, notes=tuple(notes))
        return image_batch(arrays, settings, numbers, source_keys, faults, about)


def _keypoints(arrays: LabelArrays, keys: tuple[str, str], size: int) -> FloatArray:
    """25 OpenPose and 19 extra keypoints (N,44,size); confidence 0 where the file has none."""
    keypoints = np.zeros((arrays.rows or 0, NUM_KEYPOINTS, size), np.float32)
    counts = (NUM_OPENPOSE, NUM_KEYPOINTS - NUM_OPENPOSE)
    slots = (slice(0, NUM_OPENPOSE), slice(NUM_OPENPOSE, NUM_KEYPOINTS))
    for key, count, slot in zip(keys, counts, slots, strict=True):
        if key in arrays:
            sizes = (3,) if size == 3 else (3, 4)
            points = arrays.numbers(key, *((f"{count}+", s) for s in sizes))[:, :count]
            keypoints[:, slot] = clean_keypoints(
                arrays, key, points if size == 3 else with_confidence(points)
            )
    return keypoints
