"""The training loss: absolute differences (L1) of 2D and 3D keypoints, betas and pose.

After Li et al., "SKEL-CF", 2025, eqs. 1 to 6: all terms for the first and the final estimate, and the pose of the
layers between (refinement). Terms are sums over a person's keypoints or parameters and means over people, so two
processes with half a batch each get the loss of the whole batch. The refinement is a mean over the pose's numbers too.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from skelfit.bodies.continuous_pose import angles_to_pose, pose_to_angles, used_numbers
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
        between = prediction.layers[:-1]
        if config.full_supervision:
            supervised |= {f"layer{i}": layer for i, layer in enumerate(between, 1)}
            between = ()
        terms: dict[str, Tensor] = {}
        total = prediction.cam_int.new_zeros(())
        estimates = {name: estimate for name, estimate in supervised.items() if estimate is not None}
        of_estimates = estimate_terms(stacked(estimates.values()), prediction.cam_int, batch, body)
        for term, values in of_estimates.items():
            total = total + getattr(config, term) * values.sum()
            terms |= {f"{name}/{term}": value for name, value in zip(estimates, values, strict=True)}
        if between and config.refinement:
            target = angles_to_pose(batch.poses)
            refinement = torch.stack([refinement_loss(layer.pose, target) for layer in between]).sum()
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
        for term, values in parameter_terms(both, batch, gender).items():
            total = total + getattr(config, term) * values.sum()
            terms |= {f"{name}/{term}": value for name, value in zip(estimates, values, strict=True)}
    return total, terms


def stacked(estimates: Iterable[Estimate]) -> Estimate:
    """S estimates as one with leading dims (S, B): posing all bodies at once costs little more than posing one."""
    parts = zip(*((e.pose, e.betas, e.camera) for e in estimates), strict=True)
    return Estimate(*map(torch.stack, parts))


def estimate_terms(
    estimate: Estimate, cam_int: Tensor, batch: TrainingBatch, body: SkelKeypoints
) -> dict[str, Tensor]:
    """The terms of an estimate, each () and a mean over people; of S stacked estimates, each (S,)."""
    points = body(pose_to_angles(estimate.pose), estimate.betas)
    in_crop = body_to_crop(points, estimate.camera, cam_int, batch.center, batch.box_size)
    return {
        "keypoints2d": keypoints2d_loss(in_crop, batch.keypoints2d),
        "keypoints3d": keypoints3d_loss(points, batch.keypoints3d),
        **parameter_terms(estimate, batch, body.gender),
    }


def parameter_terms(estimate: Estimate, batch: TrainingBatch, gender: str) -> dict[str, Tensor]:
    """The terms of betas and pose; gender: of the estimated body."""
    target = angles_to_pose(batch.poses)
    of_this_body = batch.female == (gender == "female")
    return {
        "betas": betas_loss(estimate.betas, batch.betas, of_this_body),
        "orientation": pose_loss(estimate.pose, target, slice(0, 1)),
        "pose": pose_loss(estimate.pose, target, slice(1, None)),
    }


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


def betas_loss(betas: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Of betas (..., B, 10), for people whose labels are of the same body: counts (B,) bool."""
    return ((betas - labels).abs().sum(-1) * counts).mean(-1)


def pose_loss(pose: Tensor, target: Tensor, joints: slice) -> Tensor:
    """Of continuous poses (..., B, 24, 6), of some joints; the target's vectors have length 1."""
    used = used_numbers(pose.device)
    return ((pose - target).abs() * used)[..., joints, :].sum((-2, -1)).mean(-1)


def refinement_loss(pose: Tensor, target: Tensor) -> Tensor:
    """Of continuous poses (B, 24, 6): the mean over the numbers that a joint uses."""
    return pose_loss(pose, target, slice(None)) / used_numbers(pose.device).sum()
