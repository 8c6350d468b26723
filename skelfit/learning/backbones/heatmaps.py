"""The loss of a keypoint detector: its heatmaps against the keypoints of the labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skelfit.learning.backbones.keypoint_cnn import CELLS, cell_centers
from skelfit.learning.data.training_batch import TrainingBatch

_WIDTH = 0.7  # deviation of the Gaussians that heatmaps are compared with, cells


def heatmap_training_loss(detector: nn.Module, batch: TrainingBatch) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch, and its terms by name."""
    heatmaps = detector(batch.image)
    with torch.autocast(heatmaps.device.type, enabled=False):
        loss = heatmap_loss(heatmaps.float(), batch.keypoints2d)
    return loss, {"heatmaps": loss}


def heatmap_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The loss () of heatmaps (B, 44, CELLS, CELLS) against labels (B, 44, 3) of the crop; not of labels out of view.

    The Kullback-Leibler divergence of the heatmap's softmax from a Gaussian at the label. The Gaussian is a product of
    two of one dimension each, so the sum over cells is a matrix product.
    """
    middles = cell_centers()[0, :, 0].to(labels)
    cells = ((labels[..., None, :2] - middles[:, None]) * CELLS).to(logits)
    target = (-cells.square() / (2 * _WIDTH**2)).log_softmax(-2)  # (B, 44, CELLS, 2): columns, rows
    x, y = target.exp().unbind(-1)
    cross = ((y[..., None, :] @ logits)[..., 0, :] * x).sum(-1) - logits.flatten(2).logsumexp(-1)
    divergence = (target.exp() * target).sum((-2, -1)) - cross
    inside = (labels[..., :2].abs() <= 0.5).all(-1)
    return (labels[..., 2] * inside * divergence).sum(-1).mean()
