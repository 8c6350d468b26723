"""The training loss: differences of 2D and 3D keypoints, betas and rotations.

After Li et al., "SKEL-CF", 2025, eqs. 1 to 6, and its code: all terms for the first and the final estimate, and the
pose of the decoder's layers (refinement). Terms are sums over a person's keypoints or over the numbers of betas and
3 x 3 rotations, and means over people, so two processes with half a batch each get the loss of the whole batch. The
refinement is a mean over the 144 numbers of a pose, summed over layers. With squared differences, and without
refinement, these are the losses of HSMR (Xia et al., CVPR 2025).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from skelfit.bodies.continuous_pose import (
    angles_to_matrices,
    angles_to_pose,
    pose_to_angles,
    pose_to_matrices,
)
from skelfit.bodies.posed_keypoints import ROOT_KEYPOINT, SkelKeypoints
from skelfit.learning.cameras import body_to_crop
from skelfit.learning.data.training_batch import TrainingBatch
from skelfit.learning.networks.network import Estimate, Prediction
from skelfit.learning.training.training_config import LossConfig


def training_loss(
    prediction: Prediction, batch: TrainingBatch, body: SkelKeypoints, config: LossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, and its unweighted terms by name, such as 'decoder/pose'."""
    # In float32 even under autocast: half precision does not resolve a millimetre at 30 m.
    with torch.autocast(prediction.cam_int.device.type, enabled=False):
        supervised = {"encoder": prediction.encoder, "decoder": prediction.final}
        if config.full_supervision:
            supervised |= {f"layer{i}": layer for i, layer in enumerate(prediction.layers[:-1], 1)}
        terms: dict[str, Tensor] = {}
        total = prediction.cam_int.new_zeros(())
        estimates = {name: estimate for name, estimate in supervised.items() if estimate is not None}
        of_estimates = estimate_terms(stacked(estimates.values()), prediction.cam_int, batch, body, config)
        for term, values in of_estimates.items():
            total = total + getattr(config, term) * values.sum()
            terms |= {f"{name}/{term}": value for name, value in zip(estimates, values, strict=True)}
        refined = prediction.layers if config.refinement_layers == "all" else prediction.layers[:-1]
        if refined and config.refinement and not config.full_supervision:
            layers = torch.stack([layer.pose for layer in refined])
            refinement = refinement_loss(layers, angles_to_pose(batch.poses), batch.has_pose).sum()
            terms["refinement"] = refinement
            total = total + config.refinement * refinement
    return total, terms


def parameter_loss(
    prediction: Prediction, batch: TrainingBatch, gender: str, config: LossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of pose and betas of the first and the final estimate, and its terms; gender: of the estimated body."""
    with torch.autocast(prediction.cam_int.device.type, enabled=False):
        supervised = {"encoder": prediction.encoder, "decoder": prediction.final}
        estimates = {name: estimate for name, estimate in supervised.items() if estimate is not None}
        both = stacked(estimates.values())
        total = 0 * both.camera.sum()  # or processes would wait for the gradients of its weights
        terms: dict[str, Tensor] = {}
        for term, values in parameter_terms(both, batch, gender, config).items():
            total = total + getattr(config, term) * values.sum()
            terms |= {f"{name}/{term}": value for name, value in zip(estimates, values, strict=True)}
    return total, terms


def stacked(estimates: Iterable[Estimate]) -> Estimate:
    """S estimates as one with leading dims (S, B): posing all bodies at once costs little more than posing one."""
    parts = zip(*((e.pose, e.betas, e.camera) for e in estimates), strict=True)
    return Estimate(*map(torch.stack, parts))


def estimate_terms(
    estimate: Estimate, cam_int: Tensor, batch: TrainingBatch, body: SkelKeypoints, config: LossConfig
) -> dict[str, Tensor]:
    """The terms of an estimate, each () and a mean over people; of S stacked estimates, each (S,)."""
    points = body(pose_to_angles(estimate.pose), estimate.betas)
    in_crop = body_to_crop(points, estimate.camera, cam_int, batch.center, batch.box_size)
    return {
        "keypoints2d": keypoints2d_loss(in_crop, batch.keypoints2d),
        "keypoints3d": keypoints3d_loss(points, batch.keypoints3d),
        **parameter_terms(estimate, batch, body.gender, config),
    }


def parameter_terms(
    estimate: Estimate, batch: TrainingBatch, gender: str, config: LossConfig
) -> dict[str, Tensor]:
    """The terms of betas and rotations; gender: of the estimated body."""
    size = torch.square if config.parameters == "squared" else torch.abs
    of_this_body = batch.female == (gender == "female")
    rotations = size(pose_to_matrices(estimate.pose) - angles_to_matrices(batch.poses)).sum((-2, -1))
    return {
        "betas": mean_of(size(estimate.betas - batch.betas).sum(-1), batch.has_betas & of_this_body),
        "orientation": mean_of(rotations[..., 0], batch.has_pose),
        "pose": mean_of(rotations[..., 1:].sum(-1), batch.has_pose),
    }


def mean_of(values: Tensor, counts: Tensor) -> Tensor:
    """The mean over people (..., B) of values that count for some of them, (B,) bool, and are 0 for the others."""
    return torch.where(counts, values, 0).mean(-1)


def keypoints2d_loss(points: Tensor, labels: Tensor) -> Tensor:
    """Of points (..., B, 44, 2) against labels (B, 44, 3), both of the crop; the last column is confidence."""
    return (labels[..., 2:] * (points - labels[..., :2]).abs()).sum((-2, -1)).mean(-1)


def keypoints3d_loss(points: Tensor, labels: Tensor) -> Tensor:
    """Of points (..., B, 44, 3) m against labels (B, 44, 4), both from the pelvis; the last column is confidence.

    People without a labelled pelvis do not count.
    """
    root = slice(ROOT_KEYPOINT, ROOT_KEYPOINT + 1)
    confidence = labels[..., 3:] * (labels[..., root, 3:] > 0)
    error = (points - points[..., root, :]) - (labels[..., :3] - labels[..., root, :3])
    return (confidence * error.abs()).sum((-2, -1)).mean(-1)


def refinement_loss(pose: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Of continuous poses (..., B, 24, 6): means over their numbers, used or not, whose targets are then 0."""
    return mean_of((pose - target).abs().mean((-2, -1)), counts)
