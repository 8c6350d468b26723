"""Reader of what HMR2 and its like put out: `global_orient`, `body_pose` (rotation matrices, or any form) and `betas`.

Where a translation is, depends on what the file has, tried in this order:
- `pred_cam_t_full` or `cam_t_full`, or `transl` beside the camera's intrinsics: in the camera of the whole image;
- `pred_cam` (scale, x, y), `box_center`, `box_size`, and the whole image's `cam_int`, or its `img_size` and
  `scaled_focal_length`: made from these;
- `pred_cam_t` or `cam_t`: as the camera of the crop sees it;
- `transl`, without a camera: relative to whatever the file means;
- nothing: 0.
"""

from __future__ import annotations

import numpy as np

from skelfit.labels.batch import About, Coordinates, FloatArray, LabelBatch, nothing_known
from skelfit.labels.boxed import read_pose
from skelfit.labels.columns import Columns
from skelfit.labels.limits import check_image_size
from skelfit.labels.request import KEYPOINTS, Reasons, Request, clean_keypoints, read_betas, read_genders
from skelfit.labels.values import read_scale

_FULL = ("pred_cam_t_full", "cam_t_full")
_CROP = ("pred_cam_t", "cam_t")
_CENTERS, _SIZES = ("box_center", "center"), ("box_size", "scale")
_NAMES = ("imgname", "img_path", "image")


def read(columns: Columns, request: Request) -> LabelBatch:
    """All people of a file, checked. Raises LabelError for a fault of the file."""
    notes: list[str] = []
    betas = read_betas(columns, "betas", notes)
    n = len(betas)
    reasons, keys = Reasons(n), {"pose": "body_pose", "betas": "betas"}
    numbers = nothing_known(n)
    numbers["betas"] = betas
    numbers["pose"] = read_pose(columns, "body_pose", request, reasons, notes).astype(np.float32)
    if "keypoints_2d" in columns:
        points = columns.numbers("keypoints_2d", (f"{KEYPOINTS}+", 3))[:, :KEYPOINTS]
        numbers["gtkps"] = clean_keypoints(columns, "keypoints_2d", points)
    if center := columns.first_of(*_CENTERS):
        numbers["center"], keys["center"] = columns.numbers(center, (2,)), center
    if size := columns.first_of(*_SIZES):
        usual = "px" if size == "box_size" else "px/200"
        numbers["scale"] = read_scale(columns, size, numbers["gtkps"], usual, request, notes)
        keys["scale"] = size
    coordinates = _translation(columns, numbers, keys, bool(center and size), reasons, notes)
    if coordinates != "camera" and numbers["cam_int"].any():
        numbers["cam_int"] = np.zeros_like(numbers["cam_int"])
        notes.append(f"'{keys.pop('cam_int')}': not used, as no translation is in the image's camera")
    has_camera = bool(coordinates == "camera" and numbers["cam_int"].any())
    reasons.check(numbers, keys, coordinates, request.max_abs_beta)
    name = columns.first_of(*_NAMES)
    imgname = columns.texts(name) if name else [""] * n
    return LabelBatch(
        row=np.arange(n, dtype=np.int64),
        imgname=imgname,
        gender=read_genders(columns, request.gender, reasons),
        bad=reasons.texts(),
        about=About(coordinates, has_camera, notes=tuple(notes)),
        **numbers,
    )


def _translation(
    columns: Columns,
    numbers: dict[str, FloatArray],
    keys: dict[str, str],
    has_box: bool,
    reasons: Reasons,
    notes: list[str],
) -> Coordinates:
    """Fill in transl and cam_int; returns what they are relative to."""
    camera = _camera(columns, keys, reasons)
    if camera is not None:
        numbers["cam_int"] = camera
    if key := columns.first_of(*_FULL, *(("transl",) if camera is not None else ())):
        numbers["transl"], keys["transl"] = columns.numbers(key, (3,)), key
        return "camera"
    if "pred_cam" in columns and camera is not None and has_box:
        weak = columns.numbers("pred_cam", (3,))
        # The crop's scale, seen by the camera of the whole image: as wide, and where the box is.
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = 2 / (200 * numbers["scale"].max(axis=1) * weak[:, 0])
            away = (numbers["center"] - camera[:, :2, 2]) * depth[:, None]
            numbers["transl"] = np.column_stack([weak[:, 1:] + away, camera[:, 0, 0] * depth])
        keys["transl"] = "pred_cam"
        notes.append("translation made from 'pred_cam', the boxes and the focal lengths")
        return "camera"
    if key := columns.first_of(*_CROP):
        numbers["transl"], keys["transl"] = columns.numbers(key, (3,)), key
        notes.append(f"'{key}': in the camera of the crop, not of the image")
        return "crop_camera"
    if "transl" in columns:
        numbers["transl"], keys["transl"] = columns.numbers("transl", (3,)), "transl"
        notes.append("'transl': kept as it is; the file does not say relative to what")
        return "unknown"
    notes.append("no translation: every body stands where SMPL puts it without one")
    return "camera_axes"


def _camera(columns: Columns, keys: dict[str, str], reasons: Reasons) -> FloatArray | None:
    """Intrinsics of the whole image (N,3,3) px: given, or of its size and focal length."""
    if "cam_int" in columns:
        keys["cam_int"] = "cam_int"
        given: FloatArray = columns.numbers("cam_int", (3, 3))
        return given
    focal_key = columns.first_of("scaled_focal_length", "focal_length_full")
    if focal_key is None or "img_size" not in columns:
        return None
    focal = columns.numbers(focal_key, (), (1,), (2,))
    size = columns.numbers("img_size", (2,))
    check_image_size(size, "img_size", reasons.report)
    camera = np.zeros((len(size), 3, 3), np.float32)
    camera[:, [0, 1], [0, 1]] = focal[:, None] if focal.ndim == 1 else focal
    camera[:, :2, 2] = np.where(np.isfinite(size), size / 2, 0)
    camera[:, 2, 2] = 1
    keys["cam_int"] = focal_key
    return camera
