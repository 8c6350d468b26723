"""What the eye of keypoint-tiny learns from: heatmaps of the labels' keypoints."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skelfit.learning.backbones.keypoint_cnn import CELLS, VIEW, cell_places
from skelfit.learning.data.training_batch import Batch

_WIDTH = 0.7  # deviation of the Gaussians that heatmaps are compared with, cells


def heatmap_lesson(eye: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """What heatmaps of images are off those of the labels."""
    heatmaps = eye(batch.image)
    with torch.autocast(heatmaps.device.type, enabled=False):
        loss = heatmap_loss(heatmaps.float(), batch.keypoints2d)
    return loss, {"heatmaps": loss}


def heatmap_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Of heatmaps (B, 44, CELLS, CELLS) against labels (B, 44, 3) of the crop; what is out of view does not count.

    The Kullback-Leibler divergence of a heatmap's shares from a Gaussian about the label. That is a product of two of
    one dimension each, so the sum over cells is a product of matrices.
    """
    middles = cell_places()[0, :, 0].to(labels)
    cells = ((labels[..., None, :2] - middles[:, None]) * (CELLS / VIEW)).to(logits)
    target = (-cells.square() / (2 * _WIDTH**2)).log_softmax(-2)  # (B, 44, CELLS, 2): columns, rows
    x, y = target.exp().unbind(-1)
    said = ((y[..., None, :] @ logits)[..., 0, :] * x).sum(-1) - logits.flatten(2).logsumexp(-1)
    off = (target.exp() * target).sum((-2, -1)) - said
    inside = (labels[..., :2].abs() <= VIEW / 2).all(-1)
    return (labels[..., 2] * inside * off).sum(-1).mean()
