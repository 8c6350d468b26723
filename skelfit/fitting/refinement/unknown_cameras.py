"""People whose camera is not known: where they stand before the camera of the prior, and the camera that they get.

A label without intrinsics says nothing of the way to its camera. So the prior's camera sees the person first, from the
place at which the given keypoints agree best with the label. There focal length and depth begin; see `FocalConfig`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skelfit.fitting.refinement.image_units import fitted_confidence
from skelfit.fitting.refinement.refinement_problem import VARIABLES, RefinementProblem

if TYPE_CHECKING:
    from skelfit.config.refine_settings import FocalConfig, RefineConfig

Floats = NDArray[np.float64]
_ROUNDS = 30  # of reweighting
_SHARPEST = 1e-3  # of the shoulder-hip length; closer keypoints weigh no more
_AT_END = 1e-3  # of a log focal length, how near to the end of its range counts as there


def estimated_rows(problem: RefinementProblem) -> Tensor:
    """Which people (N,) have no camera, all zeros, and an image of known size."""
    if problem.image_size is None:
        return torch.zeros(len(problem), dtype=torch.bool)
    size = problem.image_size
    return (problem.cam_int == 0).flatten(1).all(1) & (size.isfinite() & (size > 0)).all(1)


def prior_cameras(image_size: Tensor, focal: FocalConfig) -> Tensor:
    """Intrinsics (N, 3, 3) px at the prior's centre, of images of sizes (N, 2) px; the axis goes through the middle."""
    camera = torch.eye(3, dtype=torch.float64).repeat(len(image_size), 1, 1)
    size = image_size.double()
    camera[:, [0, 1], [0, 1]] = focal.centre * size.square().sum(1, keepdim=True).sqrt()
    camera[:, :2, 2] = size / 2
    return camera.to(image_size)


def in_prior_cameras(
    problem: RefinementProblem, keypoints: Floats, config: RefineConfig
) -> RefinementProblem:
    """People without a camera, before that of the prior. keypoints (N, 44, 3) m, without translation.

    Start and anchor are in one place. It is not finite where no place agrees with the keypoints.
    """
    assert problem.image_size is not None
    cam_int = prior_cameras(problem.image_size, config.focal)
    given = problem.keypoints2d.double().numpy()
    place = place_people(keypoints, given, fitted_confidence(given[..., 2], config), cam_int.double().numpy())
    transl = torch.from_numpy(place).to(problem.start.transl)
    return replace(
        problem,
        cam_int=cam_int,
        start=replace(problem.start, transl=transl),
        anchor=None if problem.anchor is None else replace(problem.anchor, transl=transl),
    )


def place_people(keypoints: Floats, given: Floats, confidence: Floats, cam_int: Floats) -> Floats:
    """Translations (N, 3) m at which cameras (N, 3, 3) see keypoints (N, 44, 3) m nearest to given (N, 44, 2+) px.

    The sum of confidence times distance is minimised, which few outliers do not move, by reweighted least squares in
    the plane of the person. NaN where there is no such place in front of the camera.
    """
    focal = cam_int[:, [0, 1], [0, 1]][:, None]
    rays = (np.where((confidence > 0)[..., None], given[..., :2], 0.0) - cam_int[:, None, :2, 2]) / focal
    weight, length = confidence, _spread(keypoints, confidence)
    with np.errstate(all="ignore"):
        for _ in range(_ROUNDS):
            place = _least_squares(keypoints, rays, weight)
            points = keypoints + place[:, None]
            depth = np.maximum(points[..., 2], 1e-6)
            away = np.linalg.norm(points[..., :2] / depth[..., None] - rays, axis=2)
            sharpest = _SHARPEST * length / np.maximum(place[:, 2], 1e-6)
            # An offset of 1 m at the keypoint's depth is what the equations are in.
            weight = confidence / np.maximum(away, sharpest[:, None]) / depth**2
        good = np.isfinite(place).all(1) & (place[:, 2] > 0)
    return np.where(good[:, None], place, np.nan)


def _spread(keypoints: Floats, confidence: Floats) -> Floats:
    """How far the counting keypoints are from their middle (N,) m, in the mean."""
    share = confidence / np.maximum(confidence.sum(1, keepdims=True), 1e-9)
    middle = (share[..., None] * keypoints).sum(1)
    away: Floats = (share * np.linalg.norm(keypoints - middle[:, None], axis=2)).sum(1)
    return away


def _least_squares(keypoints: Floats, rays: Floats, weight: Floats) -> Floats:
    """Translations (N, 3) that minimise weight |xy + t_xy - ray (z + t_z)|^2 over the keypoints."""
    total = weight.sum(1)
    off = keypoints[..., :2] - rays * keypoints[..., 2:]
    ray, mean = ((weight[..., None] * x).sum(1) / total[:, None] for x in (rays, off))
    spread = weight * np.square(rays - ray[:, None]).sum(2)
    both = weight * ((rays - ray[:, None]) * (off - mean[:, None])).sum(2)
    depth = both.sum(1) / spread.sum(1)
    return np.concatenate((ray * depth[:, None] - mean, depth[:, None]), 1)


def seen_as_estimated(x: Tensor, cam_int: Tensor) -> tuple[Tensor, Tensor]:
    """Variables (B, 59), intrinsics (B, 3, 3) px of variables (B, 59 or 60) and the cameras that they are against."""
    if x.shape[1] == VARIABLES:
        return x, cam_int
    zoom = x[:, VARIABLES].double().exp()
    camera = cam_int.double().clone()
    camera[:, :2, :2] *= zoom[:, None, None]
    depth = (x[:, 2].double() * zoom).to(x)
    return torch.cat((x[:, :2], depth[:, None], x[:, 3:VARIABLES]), 1), camera.to(cam_int)


def at_end_of_range(x: Tensor, focal: FocalConfig) -> Tensor:
    """Whose focal length (B,) is at an end of its range; no one's, of variables (B, 59) without one."""
    if x.shape[1] == VARIABLES:
        return torch.zeros(len(x), dtype=torch.bool)
    return x[:, VARIABLES].abs() >= math.log(focal.range) - _AT_END
