"""Impossible values: each makes a bad row, with a reason that names the quantity.

The limits are far beyond what real files hold. They catch numbers in other units, in other coordinates, or of damaged
rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from skelfit.labels.label_batch import Coordinates, FloatArray


@dataclass(frozen=True)
class ValueLimits:
    """The bounds of possible values."""

    # m from the origin. HMR2's cameras (a focal length of 5000 / 256 of the image's longer side) put a person of 50 px
    # in an image of 4K at 3.7 km; beyond 5 km float32 would round positions to more than 0.5 mm.
    distance_m: float = 5000.0
    # m. A camera at arm's length may have the pelvis beside or behind it; 2 m behind, no part of a body is before it.
    behind_m: float = 2.0
    # px. A fisheye lens on a thumbnail has 20; HMR2's camera of an image of 16K has 300,000. A focal length in mm or in
    # widths of the image is below it.
    focal_px: tuple[float, float] = (10.0, 1e6)
    focal_ratio: float = 4.0  # between the two focal lengths; an anamorphic lens has 2
    point_px: float = (
        1e5  # of the principal point and of a box's centre, either way: a JPEG has up to 65,535 px
    )
    box_px: tuple[float, float] = (2.0, 1e5)  # a side of a box
    image_px: tuple[float, float] = (16.0, 1e5)  # a side of an image
    # COCO calls a visible keypoint 2, others one without a label -1; peaks of heatmaps are a little above 1.
    confidence: tuple[float, float] = (-1.0, 2.0)
    keypoint_px: float = (
        1e6  # of a seen keypoint: one that is projected close by the camera lies far off its image
    )
    extent_m: float = (
        10.0  # of the seen 3D keypoints of one person, who is no longer than 2.6 m; mm are beyond it
    )
    frame_rate_hz: tuple[float, float] = (0.1, 1e4)  # below it are the seconds of a frame


LIMITS = ValueLimits()


class RowReporter(Protocol):
    """Records a reason for the rows where a mask (N,) is true; values (N,) fill the braces of the text."""

    def __call__(
        self, where: NDArray[np.bool_], text: str, values: NDArray[np.floating] | None = None, /
    ) -> None: ...


def check_values(
    numbers: Mapping[str, FloatArray], keys: Mapping[str, str], coordinates: Coordinates, report: RowReporter
) -> None:
    """Report the rows with an impossible value. Numbers that are not finite are reported elsewhere.

    keys: field -> the file's key for it, for the fields that the file has; keypoints are always checked.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if "transl" in keys:
            _check_translation(numbers["transl"], keys["transl"], coordinates, report)
        if "cam_int" in keys:
            _check_camera(numbers["cam_int"], report)
        if "scale" in keys:
            low, high = (side / 200 for side in LIMITS.box_px)
            side = numbers["scale"]
            text = f"bad_box: scale {{:.3f}}, not {low:g} to {high:g} px/200"
            report(side.min(axis=1) < low, text, side.min(axis=1))
            report(side.max(axis=1) > high, text, side.max(axis=1))
        if "center" in keys:
            most = np.abs(numbers["center"]).max(axis=1)
            limit = LIMITS.point_px
            report(
                _beyond(most, limit), f"bad_box: center at {{:.0f}} px, more than {limit:.0f} px off", most
            )
        _check_keypoints(numbers["gtkps"], numbers["keypoints3d"], report)


def check_image_size(size: FloatArray, key: str, report: RowReporter) -> None:
    """Report the rows with an impossible image size (N,2) px."""
    finite = np.asarray(np.isfinite(size).all(axis=1))
    report(~finite, f"non_finite:{key}")
    low, high = LIMITS.image_px
    text = f"bad_image_size: {key} {{:.1f}} px, not {low:g} to {high:.0f}"
    report(finite & (size.min(axis=1) < low), text, size.min(axis=1))
    report(finite & (size.max(axis=1) > high), text, size.max(axis=1))


def check_mesh_position(vertices: FloatArray, report: RowReporter) -> None:
    """Report the meshes (N,V,3) m that are too far off."""
    distance = np.abs(vertices).max(axis=(1, 2), initial=0)
    limit = LIMITS.distance_m
    report(
        _beyond(distance, limit), f"absurd_mesh: {{:.0f}} m from the origin, more than {limit:.0f}", distance
    )


def _beyond(values: FloatArray, limit: float) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(values) & (values > limit))


def _check_translation(transl: FloatArray, key: str, coordinates: Coordinates, report: RowReporter) -> None:
    distance = np.linalg.norm(transl.astype(np.float64), axis=1).astype(np.float32)
    limit = LIMITS.distance_m
    text = f"bad_translation: {key} is {{:.0f}} m from the origin, more than {limit:.0f}"
    report(_beyond(distance, limit), text, distance)
    if coordinates in ("camera", "crop_camera"):
        text = f"bad_translation: {key} is {{:.1f}} m behind the camera, more than {LIMITS.behind_m:g}"
        report(_beyond(-transl[:, 2], LIMITS.behind_m), text, -transl[:, 2])


def _check_camera(cam_int: FloatArray, report: RowReporter) -> None:
    finite = np.asarray(np.isfinite(cam_int).all(axis=(1, 2)))
    focal = cam_int[:, [0, 1], [0, 1]]
    low, high = LIMITS.focal_px
    text = f"bad_camera: focal length {{:.1f}} px, not {low:g} to {high:.0f}"
    small, large = focal.min(axis=1), focal.max(axis=1)
    report(finite & (small < low), text, small)
    report(finite & (large > high), text, large)
    good = finite & (small >= low) & (large <= high)
    ratio = large / np.where(good, small, 1)
    text = f"bad_camera: one focal length is {{:.1f}} times the other, more than {LIMITS.focal_ratio:g}"
    report(good & (ratio > LIMITS.focal_ratio), text, ratio)
    centre = np.abs(cam_int[:, :2, 2]).max(axis=1)
    text = f"bad_camera: principal point at {{:.0f}} px, more than {LIMITS.point_px:.0f} px off"
    report(finite & (centre > LIMITS.point_px), text, centre)
    # The last row is 0 0 1 and the skew small: any other matrix, such as a transposed one, is no camera.
    below = np.abs(cam_int[:, 2] - np.array([0, 0, 1], np.float32)).max(axis=1)
    skew = np.abs(cam_int[:, [0, 1], [1, 0]]).max(axis=1)
    report(good & ((below > 1e-3) | (skew > small)), "bad_camera: not an intrinsic matrix")


def _check_keypoints(gtkps: FloatArray, keypoints3d: FloatArray, report: RowReporter) -> None:
    """Check 2D (N,44,3) and 3D (N,44,4) keypoints with confidences; positions are checked where confidence > 0."""
    low, high = LIMITS.confidence
    for points, kind in ((gtkps, "2D"), (keypoints3d, "3D")):
        confidence = points[..., -1]
        text = f"bad_confidence: {{:.3g}} of a {kind} keypoint, not {low:g} to {high:g}"
        report(confidence.min(axis=1) < low, text, confidence.min(axis=1))
        report(confidence.max(axis=1) > high, text, confidence.max(axis=1))
    most = np.where(gtkps[..., 2] > 0, np.abs(gtkps[..., :2]).max(axis=2), 0).max(axis=1)
    limit = LIMITS.keypoint_px
    report(
        _beyond(most, limit), f"bad_keypoints: a 2D keypoint at {{:.3g}} px, more than {limit:g} off", most
    )
    points = keypoints3d[..., :3]
    distance = np.where(keypoints3d[..., 3] > 0, np.abs(points).max(axis=2), 0).max(axis=1)
    text = f"bad_keypoints3d: one is {{:.0f}} m from the origin, more than {LIMITS.distance_m:.0f}"
    report(_beyond(distance, LIMITS.distance_m), text, distance)
    # Files without confidences have 0 0 0 where a point is missing.
    seen = ((keypoints3d[..., 3] > 0) & points.any(axis=2))[..., None]
    extent = (np.where(seen, points, -np.inf).max(axis=1) - np.where(seen, points, np.inf).min(axis=1)).max(
        axis=1
    )
    text = f"bad_keypoints3d: {{:.1f}} m apart, more than {LIMITS.extent_m:g}"
    report(_beyond(extent, LIMITS.extent_m), text, extent)
