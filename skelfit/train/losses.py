"""What training minimises: keypoints in the image and in space, betas and pose, all as absolute differences (L1).

After Li et al., "SKEL-CF", 2025, eqs. 1 to 6: all terms for the coarse estimate and for the final one, and the pose of
the layers between. A sum runs over a person's keypoints or parameters, a mean over people, so that
two processes with half a batch each find together what one finds with all of it. The refinement is a mean over the
pose's numbers as well.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from skelfit.backbones.keypoint_cnn import CELLS, VIEW, cell_places
from skelfit.body.continuous import angles_to_pose, pose_to_angles, used_numbers
from skelfit.body.posed_keypoints import ROOT_KEYPOINT, SkelKeypoints
from skelfit.camera import body_to_crop
from skelfit.loader.batch import Batch
from skelfit.train.config import LossConfig
from skelfit.train.network import Estimate, Prediction


def training_loss(
    prediction: Prediction, batch: Batch, body: SkelKeypoints, config: LossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, and its terms before they are weighted, by name: 'decoder/pose'."""
    # In float32 also where the network is not: a millimetre at 30 m is less than half precision tells.
    with torch.autocast(prediction.cam_int.device.type, enabled=False):
        supervised = {"encoder": prediction.encoder, "decoder": prediction.final}
        between = prediction.layers[:-1]
        if config.full_supervision:
            supervised |= {f"layer{i}": layer for i, layer in enumerate(between, 1)}
            between = ()
        terms: dict[str, Tensor] = {}
        total = prediction.cam_int.new_zeros(())
        for name, estimate in supervised.items():
            if estimate is not None:
                found = estimate_terms(estimate, prediction.cam_int, batch, body)
                total = total + sum(getattr(config, term) * value for term, value in found.items())
                terms |= {f"{name}/{term}": value for term, value in found.items()}
        if between and config.refinement:
            target = angles_to_pose(batch.poses)
            refinement = torch.stack([refinement_loss(layer.pose, target) for layer in between]).sum()
            terms["refinement"] = refinement
            total = total + config.refinement * refinement
        if config.heatmaps and prediction.heatmaps is not None:
            terms["heatmaps"] = heatmap_loss(prediction.heatmaps.float(), batch.keypoints2d)
            total = total + config.heatmaps * terms["heatmaps"]
    return total, terms


def estimate_terms(
    estimate: Estimate, cam_int: Tensor, batch: Batch, body: SkelKeypoints
) -> dict[str, Tensor]:
    """The terms of one estimate, each () and a mean over people."""
    points = body(pose_to_angles(estimate.pose), estimate.betas)
    in_crop = body_to_crop(points, estimate.camera, cam_int, batch.center, batch.box_size)
    target = angles_to_pose(batch.poses)
    of_this_body = batch.female == (body.gender == "female")
    return {
        "keypoints2d": keypoints2d_loss(in_crop, batch.keypoints2d),
        "keypoints3d": keypoints3d_loss(points, batch.keypoints3d),
        "betas": betas_loss(estimate.betas, batch.betas, of_this_body),
        "orientation": pose_loss(estimate.pose, target, slice(0, 1)),
        "pose": pose_loss(estimate.pose, target, slice(1, None)),
    }


def keypoints2d_loss(points: Tensor, labels: Tensor) -> Tensor:
    """Of points (B, 44, 2) against labels (B, 44, 3), both of the crop; the last column is confidence."""
    return (labels[..., 2:] * (points - labels[..., :2]).abs()).sum((-2, -1)).mean()


def keypoints3d_loss(points: Tensor, labels: Tensor) -> Tensor:
    """Of points (B, 44, 3) m against labels (B, 44, 4), both from the pelvis; the last column is confidence.

    Without the label's pelvis nothing is known of a person.
    """
    root = slice(ROOT_KEYPOINT, ROOT_KEYPOINT + 1)
    confidence = labels[..., 3:] * (labels[..., root, 3:] > 0)
    off = (points - points[..., root, :]) - (labels[..., :3] - labels[..., root, :3])
    return (confidence * off.abs()).sum((-2, -1)).mean()


def betas_loss(betas: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Of betas (B, 10), for people whose labels are of the same body: counts (B,) bool."""
    return ((betas - labels).abs().sum(-1) * counts).mean()


def pose_loss(pose: Tensor, target: Tensor, joints: slice) -> Tensor:
    """Of continuous poses (B, 24, 6), some of the joints; the target's vectors have length 1, so these come to it."""
    used = used_numbers(pose.device)
    return ((pose - target).abs() * used)[:, joints].sum((-2, -1)).mean()


def refinement_loss(pose: Tensor, target: Tensor) -> Tensor:
    """Of continuous poses (B, 24, 6): the mean over the numbers that mean something."""
    used = used_numbers(pose.device)
    return ((pose - target).abs() * used).sum((-2, -1)).mean() / used.sum()


def heatmap_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Of heatmaps (B, 44, CELLS, CELLS) against labels (B, 44, 3) of the crop; what is out of view does not count.

    The Kullback-Leibler divergence of a heatmap's shares from a Gaussian about the label, a cell wide.
    """
    places = cell_places().to(labels).flatten(0, 1)
    cells = (labels[..., None, :2] - places) * (CELLS / VIEW)
    target = (-cells.square().sum(-1) / 2).log_softmax(-1)
    off = kl_div(logits.flatten(2).log_softmax(-1), target, reduction="none", log_target=True).sum(-1)
    inside = (labels[..., :2].abs() <= VIEW / 2).all(-1)
    return (labels[..., 2] * inside * off).sum(-1).mean()
