"""The backbone of detected keypoints."""

from __future__ import annotations

import torch
from torch import Tensor

from skelfit.learning.backbones.keypoint_cnn import CELLS, OBSERVED, KeypointBackbone
from skelfit.learning.data.mirror import MIRRORED
from skelfit.learning.data.training_batch import TrainingBatch


def one_hot_maps(people: int, row: int, column: int) -> Tensor:
    maps = torch.zeros(people, 44, CELLS, CELLS)
    maps[..., row, column] = 1
    return maps


def test_keypoints_are_the_mean_of_heatmaps(batch: TrainingBatch) -> None:
    backbone, image = KeypointBackbone().eval(), batch.image[..., :96, :96]
    observations = backbone.observe(image)
    assert observations.shape == (3, 44, OBSERVED) and not observations.requires_grad
    patches = backbone(image)
    assert patches.shape == (3, 44, backbone.width)
    assert torch.equal(patches, backbone.describe(observations))
    # A heatmap with all its weight in one cell, or half of it in each of two.
    columns = iter((5, CELLS - 1 - 5))  # of the picture and of its mirror image
    vars(backbone.eye)["forward"] = lambda x: 100.0 * one_hot_maps(len(x), 20, next(columns))
    x, y, *wide, sure = backbone.observe(image).unbind(-1)
    torch.testing.assert_close(x, torch.full_like(x, (5.5 / 24 - 0.5)))
    torch.testing.assert_close(y, torch.full_like(y, (20.5 / 24 - 0.5)))
    torch.testing.assert_close(sure, torch.ones_like(sure))
    for width in wide:
        torch.testing.assert_close(width, torch.zeros_like(width), atol=1e-3, rtol=0)
    columns = iter((5, CELLS - 1 - 9))
    x, y, *wide, sure = backbone.observe(image).unbind(-1)
    torch.testing.assert_close(x, torch.full_like(x, (7.5 / 24 - 0.5)))
    torch.testing.assert_close(wide[0], torch.full_like(x, 2 / 24))
    torch.testing.assert_close(wide[1], torch.zeros_like(y), atol=1e-3, rtol=0)
    torch.testing.assert_close(sure, torch.full_like(sure, 0.5))


def test_a_mirror_image_has_mirrored_keypoints(batch: TrainingBatch) -> None:
    backbone, image = KeypointBackbone().eval(), batch.image[..., :96, :96]
    there, mirrored = backbone.observe(image), backbone.observe(image.flip(-1))
    torch.testing.assert_close(mirrored, there[:, MIRRORED] * torch.tensor([-1.0, 1, 1, 1, 1]))
    assert not torch.allclose(mirrored, there)


def test_the_mean_of_features_knows_which_keypoint_is_where() -> None:
    """A sum over keypoints alone would not: it is the same for hands that change places."""
    torch.manual_seed(0)
    backbone, observations = KeypointBackbone().eval(), torch.rand(2, 44, OBSERVED)
    swapped = observations[:, MIRRORED]
    means = [backbone.describe(x).mean(1) for x in (observations, swapped)]
    assert (means[0] - means[1]).abs().max() > 0.01


def test_observations_are_jittered_in_training_only() -> None:
    torch.manual_seed(0)
    backbone, observations = KeypointBackbone(), torch.rand(200, 44, OBSERVED)
    seen: list[Tensor] = []
    backbone.together.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    features = backbone.train().describe(observations), backbone.eval().describe(observations)
    scale = torch.tensor([3.0, 3.0, 6.0, 6.0, 1.0])
    shaken, as_it_is = (x.view(200, 44, OBSERVED) / scale for x in seen)
    torch.testing.assert_close(as_it_is, observations)
    torch.testing.assert_close(shaken[..., 2:], observations[..., 2:])
    off = (shaken - observations)[..., :2]
    assert 0.011 < off.mean(1).std() < 0.015  # all together ...
    assert 0.0035 < (off - off.mean(1, keepdim=True)).std() < 0.0045  # ... and each
    assert not torch.equal(features[0], features[1])
