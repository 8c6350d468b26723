"""The label vector of a sample: which value stands where. Published as `schema.json`, for readers without skelfit."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LAYOUT_VERSION = "skelfit-label-1"
FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class LabelField:
    """One part of a label vector."""

    name: str
    shape: tuple[int, ...]
    unit: str
    meaning: str

    @property
    def size(self) -> int:
        """How many numbers it takes."""
        return math.prod(self.shape)


FIELDS: tuple[LabelField, ...] = (
    LabelField("skel_poses", (46,), "rad", "SKEL DoFs in the order of SKEL v1.1.1"),
    LabelField("skel_betas", (10,), "1", "SKEL shape, of the gender in the metadata"),
    LabelField("skel_trans", (3,), "m", "SKEL translation"),
    LabelField(
        "smpl_pose",
        (24, 3),
        "rad",
        "input SMPL pose, axis-angle; joint 0 is the global orientation",
    ),
    LabelField("smpl_betas", (10,), "1", "input SMPL shape, of the gender in the metadata"),
    LabelField("smpl_trans", (3,), "m", "input SMPL translation"),
    LabelField("center", (2,), "px", "centre of the person's box in the image"),
    LabelField("scale", (2,), "px/200", "width and height of the person's box"),
    LabelField("cam_int", (3, 3), "px", "intrinsic matrix of the camera"),
    LabelField(
        "gtkps", (44, 3), "px, px, confidence", "2D keypoints in the image, 25 OpenPose then 19 extra"
    ),
    LabelField("keypoints3d", (44, 4), "m, m, m, confidence", "3D keypoints; confidence 0 where unknown"),
    LabelField(
        "errors", (2,), "mm", "pve_mm (mean) and max_vertex_mm (largest) skin distance of SKEL to SMPL"
    ),
)
# What a sample's metadata may say, beside what it names itself by.
META: dict[str, str] = {
    "coordinates": "what poses, translations and points are relative to: one of the coordinates below",
    "camera": "whether cam_int is known; false: it is all 0",
    "smpl": "whether smpl_pose, smpl_betas and smpl_trans are known; false: all 0, and SKEL was fitted to a mesh",
    "target_gender": "of the SMPL body whose mesh SKEL was fitted to: smpl_gender, or skel_gender where the pipeline "
    "reads neutral betas as those of that body; null: a mesh came in",
    "root": "the pelvis: frozen, oriented and placed as the label says; turn, its orientation fitted with the rest; "
    "free, its place as well, as always for meshes",
    "sequence": "name of the sequence that the sample is a frame of; null: of none, as are the next four",
    "frame": "which frame of it, from 0 on; what was not published leaves a gap",
    "frame_rate": "frames per second; null also where the source does not say",
    "fitted_rate": "frames per second at which it was fitted as one problem with its sequence; null: by itself",
    "subject": "whose motion it is, by the source",
    "image": "whether the sample has an image",
    "image_size": "width and height of the source image, px; null: it could not be read, or none was wanted",
    "affine": "2 x 3, from px of the source image, whose numbers the label holds, to px of the image in the sample",
    "angles": "canonical: skel_poses nearest to the joint limits; continuous: nearest to those of the frame before",
}
COORDINATES: dict[str, str] = {
    "camera": "the camera that took the image: OpenCV, x right, y down, z forward",
    "camera_axes": "the axes of that camera; where the body is, is not known: translation 0",
    "crop_camera": "the camera of a crop of the image, whose intrinsics are not known; the same axes",
    "world_y_up": "a room, y up, as the source has it or turned by 90 degrees about x",
    "world_z_up": "a room, z up, as the source has it or turned by 90 degrees about x",
    "unknown": "as the source has it",
}
LABEL_SIZE = sum(f.size for f in FIELDS)


def _npy_header() -> bytes:
    """What `np.save` writes before the numbers of a label vector."""
    stream = io.BytesIO()
    np.save(stream, np.zeros(LABEL_SIZE, "<f4"))
    return stream.getvalue()[: -4 * LABEL_SIZE]


_NPY_HEADER = _npy_header()


def label_to_npy(label: FloatArray) -> bytes:
    """The file that `np.save` would write of a label vector (LABEL_SIZE,)."""
    assert label.shape == (LABEL_SIZE,), label.shape
    return _NPY_HEADER + np.ascontiguousarray(label, "<f4").tobytes()


def label_from_npy(data: bytes) -> FloatArray | None:
    """The label vector of such a file, None of another. Much faster than `np.load`, which parses the header."""
    if len(data) != len(_NPY_HEADER) + 4 * LABEL_SIZE or not data.startswith(_NPY_HEADER):
        return None
    return np.frombuffer(data, "<f4", offset=len(_NPY_HEADER))


def pack(values: Mapping[str, NDArray[Any]]) -> FloatArray:
    """Label vectors (N, LABEL_SIZE) float32 of arrays (N, *shape), one for each of FIELDS."""
    count = len(values[FIELDS[0].name])
    for f in FIELDS:
        if values[f.name].shape != (count, *f.shape):
            raise ValueError(f"{f.name}: expected shape {(count, *f.shape)}, found {values[f.name].shape}")
    return np.concatenate([values[f.name].reshape(count, f.size) for f in FIELDS], axis=1, dtype=np.float32)


def unpack(labels: FloatArray) -> dict[str, FloatArray]:
    """The fields, each (..., *shape), of label vectors (..., LABEL_SIZE)."""
    parts: dict[str, FloatArray] = {}
    offset = 0
    for f in FIELDS:
        parts[f.name] = labels[..., offset : offset + f.size].reshape(*labels.shape[:-1], *f.shape)
        offset += f.size
    return parts


def schema() -> dict[str, Any]:
    """The layout of the label vector as plain data, for readers without skelfit."""
    fields, offset = [], 0
    for f in FIELDS:
        fields.append({**asdict(f), "offset": offset, "size": f.size})
        offset += f.size
    return {
        "layout": LAYOUT_VERSION,
        "dtype": "float32",
        "size": LABEL_SIZE,
        "frame": "camera, or what the metadata names as coordinates",
        "coordinates": COORDINATES,
        "metadata": META,
        "fields": fields,
    }
