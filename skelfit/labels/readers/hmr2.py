"""Reader of the output of HMR2 and similar networks: `global_orient`, `body_pose` (rotations in any form) and `betas`.

The translation is taken from the first of these that the file has:
- `pred_cam_t_full` or `cam_t_full`, or `transl` beside the camera's intrinsics: in the camera of the whole image;
- `pred_cam` (scale, x, y), `box_center`, `box_size`, and the whole image's `cam_int`, or its `img_size` and
  `scaled_focal_length`: made from these;
- `pred_cam_t` or `cam_t`: as the camera of the crop sees it;
- `transl`, without a camera: its frame is unknown;
- nothing: 0.

SMPLify-X writes `camera_rotation` R and `camera_translation` t instead: a vertex v is seen at R v + t, and the body has
no translation. The global orientation is rotated by R. Where R is the identity, t is the translation. Else t is not
used: the body rotates about its root joint and the camera about the origin, and its position is not in the file.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from skelfit.labels.body_family import note_dropped_translation, note_shifted_translation
from skelfit.labels.files.array_files import LabelArrays
from skelfit.labels.impossible_values import check_image_size
from skelfit.labels.label_batch import Coordinates, FloatArray, LabelBatch, LabelProperties, empty_fields
from skelfit.labels.read_settings import ReadSettings
from skelfit.labels.readers.base import LabelReader
from skelfit.labels.readers.common_fields import (
    NUM_KEYPOINTS,
    clean_keypoints,
    read_betas,
    read_genders,
    read_image_names,
    read_pose,
)
from skelfit.labels.row_faults import RowFaults
from skelfit.labels.unit_inference import Array, read_rotations, read_scale, rotation_shapes, to_float32

_FULL = ("pred_cam_t_full", "cam_t_full")
_CROP = ("pred_cam_t", "cam_t")
_CENTERS, _SIZES = ("box_center", "center"), ("box_size", "scale")
_SMPLIFY = ("camera_rotation", "camera_translation")
_NO_ROTATION = 1e-6  # rad


class Hmr2Reader(LabelReader):
    """What HMR2 and networks like it write."""

    layout = "hmr2"
    version = "hmr2-2"
    required_keys = (("global_orient",), ("body_pose",), ("betas",))
    excluded_keys = ("has_body_pose", "has_betas")

    def read(self, arrays: LabelArrays, settings: ReadSettings) -> LabelBatch:
        """All people of a file, checked. Raises LabelError for a fault of the file."""
        notes: list[str] = []
        n = len(arrays.numbers("global_orient", *rotation_shapes(1)))
        faults, keys = RowFaults(n), {"pose": "body_pose", "betas": "betas"}
        numbers = empty_fields(n)
        pose, model = read_pose(arrays, "body_pose", settings, faults, notes)
        numbers["betas"] = read_betas(arrays, "betas", model, notes)
        turns = _camera_rotations(arrays, settings, faults, notes)
        numbers["pose"] = to_float32(pose)
        numbers["pose"][:, 0] = _turned(turns, pose[:, 0])
        if "keypoints_2d" in arrays:
            points = arrays.numbers("keypoints_2d", (f"{NUM_KEYPOINTS}+", 3))[:, :NUM_KEYPOINTS]
            numbers["gtkps"] = clean_keypoints(arrays, "keypoints_2d", points)
        if center := arrays.first_key(*_CENTERS):
            numbers["center"], keys["center"] = arrays.numbers(center, (2,)), center
        if size := arrays.first_key(*_SIZES):
            usual = "px" if size == "box_size" else "px/200"
            numbers["scale"] = read_scale(arrays, size, numbers["gtkps"], usual, settings, notes)
            keys["scale"] = size
        said: list[str] = []
        coordinates = _translation(arrays, numbers, keys, bool(center and size), turns, faults, said)
        has_camera = bool(numbers["cam_int"].any())
        if model == "SMPL-X":
            coordinates = _drop_inexact_translation(numbers, keys, coordinates, said)
        notes += said
        faults.check(numbers, keys, coordinates, settings.max_abs_beta)
        return LabelBatch(
            row=np.arange(n, dtype=np.int64),
            imgname=read_image_names(arrays, n),
            gender=read_genders(arrays, settings.gender, faults),
            bad=faults.texts(),
            about=LabelProperties(coordinates, has_camera, notes=tuple(notes)),
            **numbers,
        )


def _drop_inexact_translation(
    numbers: dict[str, FloatArray], keys: dict[str, str], coordinates: Coordinates, notes: list[str]
) -> Coordinates:
    """Drop an SMPL-X translation where it would have to be exact; returns the coordinates that result."""
    if "transl" not in keys:
        return coordinates
    if coordinates == "unknown":
        notes.append(note_shifted_translation(keys["transl"]))
        return coordinates
    notes[:] = [note_dropped_translation(keys.pop("transl"))]  # in place of the note on its source
    numbers["transl"] = np.zeros_like(numbers["transl"])
    return "camera_axes"


def _camera_rotations(
    arrays: LabelArrays, settings: ReadSettings, faults: RowFaults, notes: list[str]
) -> Array | None:
    """SMPLify-X's rotations of the camera (N,3) rad; None unless the file has both rotation and translation."""
    if missing := [key for key in _SMPLIFY if key not in arrays]:
        if len(missing) < len(_SMPLIFY):
            (given,) = set(_SMPLIFY) - set(missing)
            notes.append(f"'{given}': not used, as there is no '{missing[0]}'")
        return None
    turns = read_rotations(arrays, _SMPLIFY[0], (1,), settings, faults, [])[0][
        :, 0
    ]  # matrices, always: no note
    faults.report(np.logical_not(np.isfinite(turns).all(axis=1)), f"non_finite:{_SMPLIFY[0]}")
    return turns


def _turned(turns: Array | None, orientation: Array) -> Array:
    """Global orientations (N,3) rad, rotated by those of a camera (N,3) rad."""
    turned = orientation.copy()
    if turns is not None:
        rows = np.isfinite(orientation).all(axis=1) & np.isfinite(turns).all(axis=1) & turns.any(axis=1)
        if rows.any():
            both = Rotation.from_rotvec(turns[rows]) * Rotation.from_rotvec(orientation[rows])
            turned[rows] = both.as_rotvec()
    return turned


def _smplify_translation(
    arrays: LabelArrays, numbers: dict[str, FloatArray], keys: dict[str, str], turns: Array, notes: list[str]
) -> Coordinates:
    """Fill in transl from SMPLify-X's camera, with rotations (N,3) rad; returns its frame."""
    key = _SMPLIFY[1]
    if np.abs(turns).max(initial=0) > _NO_ROTATION:
        notes.append(
            f"'{key}': not used, every translation is 0: 'camera_rotation' turns about another point"
        )
        return "camera_axes"
    numbers["transl"], keys["transl"] = arrays.numbers(key, (3,)), key
    if "transl" in arrays:
        numbers["transl"] = numbers["transl"] + arrays.numbers("transl", (3,))
    notes.append(f"'{key}': the body's translation in the camera, seen at the focal length of the fit")
    return "camera"


def _translation(
    arrays: LabelArrays,
    numbers: dict[str, FloatArray],
    keys: dict[str, str],
    has_box: bool,
    turns: Array | None,
    faults: RowFaults,
    notes: list[str],
) -> Coordinates:
    """Fill in transl and cam_int; returns the frame of transl."""
    camera = _camera(arrays, keys, faults)
    if camera is not None:
        numbers["cam_int"] = camera
    if turns is not None:
        return _smplify_translation(arrays, numbers, keys, turns, notes)
    if key := arrays.first_key(*_FULL, *(("transl",) if camera is not None else ())):
        numbers["transl"], keys["transl"] = arrays.numbers(key, (3,)), key
        return "camera"
    if "pred_cam" in arrays and camera is not None and has_box:
        weak = arrays.numbers("pred_cam", (3,))
        # The depth and offset at which the camera of the whole image sees the body as the weak-perspective crop does.
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = 2 / (200 * numbers["scale"].max(axis=1) * weak[:, 0])
            away = (numbers["center"] - camera[:, :2, 2]) * depth[:, None]
            numbers["transl"] = np.column_stack([weak[:, 1:] + away, camera[:, 0, 0] * depth])
        keys["transl"] = "pred_cam"
        notes.append("translation made from 'pred_cam', the boxes and the focal lengths")
        return "camera"
    if key := arrays.first_key(*_CROP):
        numbers["transl"], keys["transl"] = arrays.numbers(key, (3,)), key
        notes.append(f"'{key}': in the camera of the crop, not of the image")
        return "crop_camera"
    if "transl" in arrays:
        numbers["transl"], keys["transl"] = arrays.numbers("transl", (3,)), "transl"
        notes.append("'transl': kept as it is; the file does not say relative to what")
        return "unknown"
    notes.append("no translation: every body stands where SMPL puts it without one")
    return "camera_axes"


def _camera(arrays: LabelArrays, keys: dict[str, str], faults: RowFaults) -> FloatArray | None:
    """Intrinsics of the whole image (N,3,3) px: from the file, or from the image's size and the focal length."""
    if "cam_int" in arrays:
        keys["cam_int"] = "cam_int"
        given: FloatArray = arrays.numbers("cam_int", (3, 3))
        return given
    focal_key = arrays.first_key("scaled_focal_length", "focal_length_full")
    if focal_key is None or "img_size" not in arrays:
        return None
    focal = arrays.numbers(focal_key, (), (1,), (2,))
    size = arrays.numbers("img_size", (2,))
    check_image_size(size, "img_size", faults.report)
    camera = np.zeros((len(size), 3, 3), np.float32)
    camera[:, [0, 1], [0, 1]] = focal[:, None] if focal.ndim == 1 else focal
    camera[:, :2, 2] = np.where(np.isfinite(size), size / 2, 0)
    camera[:, 2, 2] = 1
    keys["cam_int"] = focal_key
    return camera
