"""The label files of published evaluations, read by the keys that they were published with.

| layout | keys |
|---|---|
| camerahmr | `imgname`, `center` px, `scale` px/200, `pose_cam` (72) rad, `shape` or `betas`; `gender` if there |
| hmr2 | `imgname`, `center`, `scale` px, `body_keypoints_2d`, `extra_keypoints_2d`, `body_keypoints_3d`, `extra_keypoints_3d` |
| moyo | `names`, `img_paths`, `centers`, `scales` px, `smpl`: `global_orient`, `body_pose`, `betas` |

All may have `cam_int`, px.
"""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.errors import LabelError
from skelfit.labels.files.array_files import LabelArrays, open_label_file
from skelfit.labels.row_faults import RowFaults
from skelfit.protocols.protocol import Layout, Protocol

Array = NDArray[np.float64]
OPENPOSE, EXTRA = 25, 19
_LEAST_SIDE = 1.0  # px
_CAMERA = re.compile(r"[Cc]am(?:era)?_?0*(\d+)(?![0-9])")


@dataclass(frozen=True)
class PublishedLabels:
    """The N rows of a label file; None where its layout has no such column."""

    imgname: tuple[str, ...]
    center: Array  # (N,2) px, of the person's box
    size: Array  # (N,2) px, its width and height
    faults: tuple[str, ...]  # why a row cannot be used; '' for a good one
    pose: Array | None = None  # (N,24,3) rad
    betas: Array | None = None  # (N,10)
    gender: tuple[str, ...] = ()  # of the SMPL body
    keypoints2d: Array | None = None  # (N,44,3) px, px, confidence
    keypoints3d: Array | None = None  # (N,44,3) m
    cam_int: Array | None = None  # (N,3,3) px; 0 where unknown
    sequence: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.imgname)


def read_labels(path: Path, protocol: Protocol) -> PublishedLabels:
    """The label file of a protocol. Raises LabelError, which names the key that is missing or wrong."""
    with open_label_file(path) as arrays:
        labels = _READERS[protocol.layout](arrays, protocol)
        if "cam_int" in arrays:
            labels = replace(labels, cam_int=_numbers(arrays, "cam_int", (3, 3)))
    if len(labels) == 0:
        raise LabelError(path, None, "rows", "none")
    return labels


def _camerahmr(arrays: LabelArrays, protocol: Protocol) -> PublishedLabels:
    names = arrays.texts("imgname")
    faults, rows = RowFaults(len(names)), len(names)
    pose = _numbers(arrays, "pose_cam", ("72+",), (24, 3)).reshape(rows, -1)[:, :72].reshape(rows, 24, 3)
    betas = _numbers(arrays, arrays.first_key("shape", "betas") or "shape", ("10+",))[:, :10]
    faults.check_finite({"pose": pose, "betas": betas}, {"pose": "pose_cam", "betas": "shape"})
    return PublishedLabels(
        *_boxes(arrays, names, "center", "scale", 200, faults),
        pose=pose,
        betas=betas,
        gender=tuple(_published_genders(arrays, rows)),
    )


def _published_genders(arrays: LabelArrays, rows: int) -> list[str]:
    """As CameraHMR's code reads them: what is not male is female, and without the key all are neutral."""
    if "gender" not in arrays:
        return ["neutral"] * rows
    return ["male" if text in ("m", "male") else "female" for text in arrays.texts("gender")]


def _hmr2(arrays: LabelArrays, protocol: Protocol) -> PublishedLabels:
    names = arrays.texts("imgname")
    faults, flat = RowFaults(len(names)), protocol.target == "keypoints2d"
    keypoints = _keypoints(arrays, "2d" if flat else "3d", 3 if flat else 4)
    if flat:
        shown = np.isfinite(keypoints).all(-1, keepdims=True)
        keypoints = np.where(shown, keypoints, 0.0)  # a confidence of 0: not labelled
    else:
        used = keypoints[:, [*protocol.joints, *protocol.root], :3]
        faults.check_finite({"points": used}, {"points": "extra_keypoints_3d"})
    boxes, points = _boxes(arrays, names, "center", "scale", 1, faults), keypoints[..., :3]
    return (
        PublishedLabels(*boxes, keypoints2d=points) if flat else PublishedLabels(*boxes, keypoints3d=points)
    )


def _keypoints(arrays: LabelArrays, kind: str, columns: int) -> Array:
    """The 44 keypoints (N,44,columns): OpenPose's 25, then 19 extra; zeros for those that the file lacks."""
    body, extra = f"body_keypoints_{kind}", f"extra_keypoints_{kind}"
    if body not in arrays and extra not in arrays:
        arrays.raw(extra, f"numbers of shape (N, {EXTRA}, {columns})")  # says what the file has
    parts = [
        _numbers(arrays, key, (count, columns))
        if key in arrays
        else np.zeros((arrays.rows or 0, count, columns))
        for key, count in ((body, OPENPOSE), (extra, EXTRA))
    ]
    return np.concatenate(parts, 1)


def _moyo(arrays: LabelArrays, protocol: Protocol) -> PublishedLabels:
    names = arrays.texts("img_paths")
    sequences, faults = arrays.texts("names"), RowFaults(len(names))
    pose, betas = _smpl_entry(arrays, len(names))
    faults.check_finite({"pose": pose, "betas": betas}, {"pose": "smpl", "betas": "smpl"})
    return PublishedLabels(
        *_boxes(arrays, names, "centers", "scales", 1, faults),
        pose=pose,
        betas=betas,
        gender=("neutral",) * len(names),
        sequence=tuple(sequences),
    )


def _smpl_entry(arrays: LabelArrays, rows: int) -> tuple[Array, Array]:
    """Poses (N,24,3) and betas (N,10) of the dictionary `smpl`."""
    entry = arrays.tree.get("smpl") if isinstance(arrays.tree, Mapping) else None
    if not isinstance(entry, Mapping):
        expected = "a dictionary of global_orient, body_pose and betas"
        arrays.raw("smpl", expected)  # says why it is none that can be read
        raise arrays.error("smpl", expected, "an array of numbers or texts")
    smpl = arrays.part(entry, "smpl.")
    orient = _numbers(smpl, "global_orient", (3,), (1, 3)).reshape(-1, 3)
    pose = np.concatenate((orient, _numbers(smpl, "body_pose", (69,), (23, 3)).reshape(-1, 69)), 1)
    betas = _numbers(smpl, "betas", (10,))
    if len(betas) != rows:
        raise arrays.error("smpl", f"{rows} rows, as many as 'img_paths' has", f"{len(betas)} rows")
    return pose.reshape(rows, 24, 3), betas


_READERS: dict[Layout, Callable[[LabelArrays, Protocol], PublishedLabels]] = {
    "camerahmr": _camerahmr,
    "hmr2": _hmr2,
    "moyo": _moyo,
}


def _numbers(arrays: LabelArrays, key: str, *shapes: Any) -> Array:
    return arrays.numbers(key, *shapes, dtype=np.float64)


def _boxes(
    arrays: LabelArrays, names: list[str], center: str, scale: str, unit: float, faults: RowFaults
) -> tuple[tuple[str, ...], Array, Array, tuple[str, ...]]:
    """Names, centres (N,2) px, widths and heights (N,2) px of the boxes, and all faults of the rows so far."""
    centers = _numbers(arrays, center, (2,))
    scales = _numbers(arrays, scale, (), (1,), (2,))
    sizes = unit * np.broadcast_to(scales.reshape(len(names), -1), (len(names), 2))
    faults.check_names(names)
    faults.check_finite({"center": centers, "scale": sizes}, {"center": center, "scale": scale})
    longer = sizes.max(1)
    faults.report(longer < _LEAST_SIDE, "box_too_small: {:.2g} px", longer)
    return tuple(names), centers, sizes, tuple(faults.texts())


def rows_outside(labels: PublishedLabels, protocol: Protocol, path: Path) -> list[str]:
    """Why each row is not among those of a protocol; '' for a row that is. path: of the labels. Raises LabelError."""
    if protocol.subset == "all":
        return [""] * len(labels)
    cameras = [_CAMERA.search(name) for name in labels.imgname]
    if not any(cameras):
        expected = "paths that name the camera, such as YOGI_Cam_01"
        raise LabelError(path, "img_paths", expected, repr(labels.imgname[0]))
    reasons = ["" if found and int(found[1]) == 1 else "another camera than camera 1" for found in cameras]
    frames: dict[str, list[int]] = {}
    for i, sequence in enumerate(labels.sequence):
        if not reasons[i]:
            frames.setdefault(sequence, []).append(i)
    for rows in frames.values():
        rows.sort(key=lambda i: _natural(labels.imgname[i]))
        first, last = len(rows) // 4, 3 * len(rows) // 4
        for i in (*rows[:first], *rows[last:]):
            reasons[i] = "outside of the middle half of its sequence"
    return reasons


def _natural(name: str) -> list[tuple[int, str]]:
    """A key by which names sort as their numbers do."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
