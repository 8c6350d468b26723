"""A backbone for processors and a few thousand people: it finds the keypoints, and says where they are.

SKEL-CF begins with a backbone that has learnt keypoints from hundreds of thousands of pictures (ViTPose); what begins
with nothing needs to be told them. So a small network (down to 1/32 and up again) makes a heatmap of each keypoint,
which `losses.heatmaps` compares with the labels, and all that follows sees where keypoints are, not pixels. The place
is the mean of the heatmap's cells (Sun et al., "Integral Human Pose Regression", 2018).

To find keypoints takes almost all of the time, to say a pose from them almost none. So in training a pose is learnt
also from places between those found and the labels, shaken a few times: before anything is found, it can be learnt
what to make of it. And once it is trained, the picture's mirror image is looked at too.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from skelfit.backbones.vitpose import Features
from skelfit.errors import ModelError
from skelfit.loader.mirror import MIRRORED

KEYPOINTS = 44
VIEW = 0.75  # sides of the crop, of the square in its middle that is looked at: labels' boxes are that large
CELLS = 24  # of a heatmap, along each side of the view
_STEM = 8  # channels at 48 x 48
_CHANNELS = (32, 64, 128, 128)  # at 24 x 24, 12 x 12, 6 x 6 and 3 x 3
_UP = 48  # channels on the way up
_TOLD = 5  # numbers of each keypoint: its place, how high the heatmap is there, and how wide along x and y
_SPREAD = 4.0  # brings places, which are small numbers, to about 1
SHAKEN = 3  # times, in training
_ZOOM, _SHIFT, _STIR = 0.03, 0.01, 0.003  # of what is shaken: as a whole, and each keypoint; deviations


class KeypointBackbone(nn.Module):
    """From the middle 96 x 96 px of crops of 128 x 128 to a feature for each of the 44 keypoints."""

    width, crop = 512, 128
    _places: Tensor
    _mirror: Tensor

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(_conv(3, _STEM, 2), _conv(_STEM, _CHANNELS[0], 2))
        steps = (nn.Sequential(_conv(a, b, 2), _conv(b, b, 1)) for a, b in pairwise(_CHANNELS))
        self.down = nn.ModuleList((stem, *steps))
        self.across = nn.ModuleList(nn.Conv2d(c, _UP, 1) for c in _CHANNELS)
        last = nn.Sequential(nn.BatchNorm2d(_UP), nn.ReLU())  # no convolution: the largest maps cost most
        self.up = nn.ModuleList((last, _conv(_UP, _UP, 1), _conv(_UP, _UP, 1)))
        self.heatmaps = nn.Conv2d(_UP, KEYPOINTS, 1)
        self.token = nn.Linear(_TOLD + _UP, self.width)
        self.kinds = nn.Parameter(0.02 * torch.randn(KEYPOINTS, self.width))
        self.whole = nn.Sequential(*_dense(_TOLD * KEYPOINTS, self.width), *_dense(self.width, self.width))
        self.register_buffer("_places", cell_places().flatten(0, 1), persistent=False)
        self.register_buffer("_mirror", torch.from_numpy(MIRRORED), persistent=False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a sixth faster on CPUs

    def forward(self, image: Tensor, keypoints2d: Tensor | None = None) -> Features:
        """Features of crops (B, 3, 128, 128), normalised; in training, of labels (B, 44, 3) of the crop as well."""
        aside = round(self.crop * (1 - VIEW) / 2)
        view = image[..., aside:-aside, aside:-aside]
        features, heatmaps = self._look(view)
        if not self.training:
            _, mirrored = self._look(view.flip(-1))
            heatmaps = (heatmaps + mirrored.flip(-1)[:, self._mirror]) / 2
        # What follows learns from the features as they are: taught by poses too, heatmaps come to worse keypoints.
        features, shares = features.detach(), heatmaps.detach().flatten(2).softmax(-1)
        places = shares @ self._places
        wide = (shares @ self._places.square() - places.square()).clamp_min(0).sqrt()
        sure = torch.cat((shares.amax(-1, keepdim=True), 2 * _SPREAD * wide), -1)
        found = torch.cat((_SPREAD * places, sure), -1)
        there = shares @ features.flatten(2).mT  # the features where a keypoint is
        tokens = self.token(torch.cat((found, there), -1)) + self.kinds
        if not self.training or keypoints2d is None:
            return Features(tokens, self.whole(found.flatten(1)), heatmaps)
        shaken = torch.cat((_SPREAD * _shaken(places, keypoints2d), sure.expand(SHAKEN, -1, -1, -1)), -1)
        whole = self.whole(torch.cat((found[None], shaken)).flatten(2).flatten(0, 1))
        whole = whole.unflatten(0, (-1, len(image)))
        return Features(tokens, whole[0], heatmaps, whole[1:])

    def _look(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, 48, CELLS, CELLS) and heatmaps of views (B, 3, 96, 96)."""
        features, levels = view.contiguous(memory_format=torch.channels_last), []
        for step in self.down:
            features = step(features)
            levels.append(features)
        *levels, features = (across(level) for across, level in zip(self.across, levels, strict=True))
        for up, level in reversed(list(zip(self.up, levels, strict=True))):
            features = up(level + interpolate(features, scale_factor=2))
        return features, self.heatmaps(features)

    def load(self, path: str | Path) -> None:
        """Raises ModelError: nobody has published weights for it."""
        expected = "network.checkpoint: null, as keypoint-tiny starts from nothing"
        raise ModelError(path, None, expected, "a file")


def cell_places() -> Tensor:
    """The middles of a heatmap's cells, (CELLS, CELLS, 2): x and y of the crop, as keypoints2d of a Batch."""
    along = ((torch.arange(CELLS) + 0.5) / CELLS - 0.5) * VIEW
    y, x = torch.meshgrid(along, along, indexing="ij")
    return torch.stack((x, y), -1)


def _shaken(places: Tensor, labels: Tensor) -> Tensor:
    """Places (SHAKEN, B, 44, 2) that might have been found: between these (B, 44, 2) and the labels, and moved."""
    several = places.expand(SHAKEN, -1, -1, -1)
    nearer = torch.rand_like(several[..., :1, :1]) * (labels[..., 2:] > 0)
    several = several + nearer * (labels[..., :2] - several)
    zoom = 1 + _ZOOM * torch.randn_like(several[..., :1, :1])
    shift = _SHIFT * torch.randn_like(several[..., :1, :])
    return zoom * several + shift + _STIR * torch.randn_like(several)


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _dense(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()
