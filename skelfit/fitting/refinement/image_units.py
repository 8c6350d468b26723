"""Keypoints in the image: which of them count, how far they are off, and the length that distances are measured in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skelfit.bodies.keypoint_names import HIP_POINTS, SHOULDER_POINTS, UNFITTED_POINTS
from skelfit.fitting.refinement.refinement_problem import RefinementProblem

if TYPE_CHECKING:
    from skelfit.config.refine_settings import RefineConfig

Floats = NDArray[np.float64]
_ENDS = (*SHOULDER_POINTS, *HIP_POINTS)


def fitted_confidence(confidence: NDArray[Any], config: RefineConfig) -> Floats:
    """Confidences (..., 44), at most 1, and 0 for keypoints that do not count."""
    given = np.nan_to_num(np.asarray(confidence, np.float64), nan=0.0, posinf=0.0).clip(0.0, 1.0)
    counts = given >= config.keypoints.min_confidence
    counts[..., list(UNFITTED_POINTS)] = False
    return np.where(counts, given, 0.0)


def shoulder_hip_length(points: Floats) -> Floats:
    """Distance (...) of the middle of the shoulders from that of the hips, of points (..., 44, d)."""
    shoulders, hips = (points[..., list(pair), :].mean(-2) for pair in (SHOULDER_POINTS, HIP_POINTS))
    return np.asarray(np.linalg.norm(shoulders - hips, axis=-1))


def image_offsets(points: Floats, cam_int: Floats, given: Floats) -> Floats:
    """Offsets (B, 44, 2) px of points (B, 44, 3) m in the camera's frame from those given (B, 44, 2) px.

    Infinite where a point is at the camera's plane or behind it.
    """
    image = (points[..., None, :] * cam_int[:, None, :2]).sum(-1)
    depth = points[..., 2:]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        offsets: Floats = np.where(depth > 0, image / depth - given, np.inf)
    return offsets


def torso_translation(
    problem: RefinementProblem, keypoints: Floats, x: Tensor, config: RefineConfig
) -> Tensor:
    """Translations (B, 3) m at which the torso is as large and stands where the given one does.

    The depth follows from shoulder-hip lengths, as in HSMR: focal length times that of the body over that of the image.
    A person without all four ends, or whose torso points at the camera, stays where x (B, 59) is. keypoints (B, 44, 3)
    m, without translation.
    """
    given = problem.keypoints2d.double().numpy()
    cam = problem.cam_int.double().numpy()
    seen = (fitted_confidence(given[..., 2], config)[:, list(_ENDS)] > 0).all(1)
    length = shoulder_hip_length(np.nan_to_num(given[..., :2]))
    flat = shoulder_hip_length(keypoints[..., :2])  # as long as it can look
    with np.errstate(invalid="ignore", divide="ignore"):
        depth = cam[:, 0, 0] * flat / length
        middle = np.nan_to_num(given[:, list(_ENDS), :2]).mean(1)
        ray = (middle - cam[:, :2, 2]) / cam[:, [0, 1], [0, 1]]
    centre = keypoints[:, list(_ENDS)].mean(1)
    there = np.concatenate((ray * depth[:, None], depth[:, None]), 1) - centre
    good = seen & (length > 0.2 * shoulder_hip_length(keypoints) * cam[:, 0, 0] / np.maximum(depth, 1e-3))
    good &= np.isfinite(there).all(1) & (there[:, 2] > config.nearest)
    return torch.where(torch.from_numpy(good)[:, None], torch.from_numpy(there).to(x), x[:, :3])
