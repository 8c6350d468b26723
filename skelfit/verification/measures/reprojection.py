"""Distances in the image of both skins' keypoints to the 2D keypoints of the labels.

The SMPL label and the SKEL fit are measured side by side, to tell a bad label from a bad fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.keypoint_names import MIRRORED_KEYPOINTS
from skelfit.verification.measures.decoded_samples import DecodedPeople
from skelfit.verification.measures.posed_bodies import Array, BodyModels, PosedGroup

SEEN = 0.3  # confidence from which a given keypoint counts, as in 4D-Humans
PCK_AT = (0.05, 0.1)  # of the box side
BAD_LABEL, BAD_FIT = 0.1, 0.05  # of the box side: the label's error, and what the fit adds to it
# Keypoints count as swapped if exchanging left and right at least halves an error that is more than _SWAP_LEAST, as a
# share of the box side.
_SWAP_GAIN, _SWAP_LEAST = 0.5, 0.03


@dataclass(frozen=True)
class Reprojection:
    """Of N people; label and fit in the last dimension. NaN without camera, keypoints or SMPL parameters."""

    seen: NDArray[np.int64]  # (N,) keypoints that count
    px: Array  # (N,2) mean distance; NaN where a keypoint is behind the camera
    share: Array  # (N,2) the same as a share of the box side
    pck: Array  # (N,2,2) share of keypoints within PCK_AT of the box side: label and fit, threshold
    swapped: NDArray[np.bool_]  # (N,) the given keypoints seem to have left and right exchanged


def measure_reprojection(bodies: BodyModels, people: DecodedPeople, groups: list[PosedGroup]) -> Reprojection:
    """Distances in the image for people whose bodies are posed in `groups`."""
    n, fields = len(people), people.fields()
    given = fields["gtkps"].astype(np.float64)
    counts = given[..., 2] >= SEEN
    camera = [bool(m["camera"]) and m["coordinates"] == "camera" for m in people.metas]
    usable = np.array(camera, bool) & counts.any(1) & bodies.has_keypoints
    points = np.full((n, 2, 44, 3), np.nan)
    if usable.any():
        for group in groups:
            if group.smpl_joints is not None:
                for k, (skin, name) in enumerate(((group.target, "smpl_trans"), (group.skin, "skel_trans"))):
                    trans = fields[name][group.rows].astype(np.float64)[:, None]
                    points[group.rows, k] = bodies.keypoints()(skin) + trans
    points[~usable] = np.nan
    counts &= usable[:, None] & np.isfinite(points[:, 0, :, 0])
    box = 200 * fields["scale"].max(1).astype(np.float64)
    box = np.where(box > 0, box, np.nan)
    image = _project(points, fields["cam_int"].astype(np.float64))
    distance = np.linalg.norm(image - given[:, None, :, :2], axis=-1)  # (N,2,44), infinite behind the camera
    px = _mean_over(distance, counts)
    near = distance[..., None] < np.array(PCK_AT) * box[:, None, None, None]
    pck = _mean_over(near.swapaxes(2, 3).astype(float), np.repeat(counts[:, None, None], 2, 1))
    order = list(MIRRORED_KEYPOINTS)
    other = np.linalg.norm(image[:, 0] - given[:, order, :2], axis=-1)
    both = counts & counts[:, order]
    as_is, exchanged = _mean_over(distance[:, 0], both), _mean_over(other, both)
    with np.errstate(invalid="ignore"):
        swapped = (exchanged < _SWAP_GAIN * as_is) & (as_is > _SWAP_LEAST * box)
    return Reprojection(
        seen=counts.sum(1),
        px=px,
        share=px / box[:, None],
        pck=np.where(np.isfinite(box)[:, None, None], pck, np.nan),
        swapped=swapped,
    )


def _project(points: Array, camera: Array) -> Array:
    """Pixels (N,2,44,2) of points (N,2,44,3) m by intrinsics (N,3,3); infinite where a point is behind the camera."""
    image = points @ np.swapaxes(camera, 1, 2)[:, None]
    depth = image[..., 2:]
    with np.errstate(invalid="ignore", divide="ignore"):
        pixels: Array = np.where(depth <= 0, np.inf, image[..., :2] / np.where(depth == 0, 1.0, depth))
    return pixels


def _mean_over(values: Array, counts: NDArray[np.bool_]) -> Array:
    """Mean of values (N,...,K) where `counts` (N,K) or (N,...,K); NaN where none counts, or one is infinite."""
    mask = counts if counts.ndim == values.ndim else counts[:, None]
    total = np.where(mask, values, 0.0).sum(-1)
    number = mask.sum(-1)
    means: Array = np.where((number > 0) & np.isfinite(total), total / np.maximum(number, 1), np.nan)
    return means
