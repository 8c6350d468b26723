"""A backbone for processors and a few thousand people: it finds the keypoints, and says where they are.

SKEL-CF begins with a backbone that has learnt keypoints from hundreds of thousands of pictures (ViTPose); what begins
with nothing needs to be told them. So an eye, a small network (down to 1/32 and up again), makes a heatmap of each
keypoint, and all that follows sees where keypoints are, not pixels. The place is the mean of the heatmap's cells (Sun
et al., "Integral Human Pose Regression", 2018), in the picture and in its mirror image.

The eye learns first, from heatmaps of the labels alone. Then it stays as it is and looks at everyone once; the rest
learns from what it found, which takes a tenth of the time that looking does.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from skelfit.learning.backbones.vitpose import Features
from skelfit.learning.data.mirror import MIRRORED

KEYPOINTS = 44
VIEW = 0.75  # sides of the crop, of the square in its middle that is looked at: labels' boxes are that large
CELLS = 24  # of a heatmap, along each side of the view
FINDINGS = (
    5  # of a keypoint: x and y, as keypoints2d of a Batch; their deviations; how high the heatmap is there
)
_STEM = 8  # channels at 48 x 48
_CHANNELS = (32, 64, 128, 128)  # at 24 x 24, 12 x 12, 6 x 6 and 3 x 3
_UP = 48  # channels on the way up
_SCALE = (4.0, 4.0, 8.0, 8.0, 1.0)  # brings what is found to about 1
_SHIFT, _STIR = 0.01, 0.003  # in training, of all keypoints together and of each; deviations


class Eye(nn.Module):
    """From the middle 96 x 96 px of crops of 128 x 128 px to heatmaps."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(_conv(3, _STEM, 2), _conv(_STEM, _CHANNELS[0], 2))
        steps = (nn.Sequential(_conv(a, b, 2), _conv(b, b, 1)) for a, b in pairwise(_CHANNELS))
        self.down = nn.ModuleList((stem, *steps))
        self.across = nn.ModuleList(nn.Conv2d(c, _UP, 1) for c in _CHANNELS)
        last = nn.Sequential(nn.BatchNorm2d(_UP), nn.ReLU())  # no convolution: the largest maps cost most
        self.up = nn.ModuleList((last, _conv(_UP, _UP, 1), _conv(_UP, _UP, 1)))
        self.heatmaps = nn.Conv2d(_UP, KEYPOINTS, 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a sixth faster on CPUs

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, 44, CELLS, CELLS) of where keypoints are in crops (B, 3, 128, 128), normalised."""
        aside = round(image.shape[-1] * (1 - VIEW) / 2)
        features = image[..., aside:-aside, aside:-aside].contiguous(memory_format=torch.channels_last)
        levels = []
        for step in self.down:
            features = step(features)
            levels.append(features)
        *levels, features = (across(level) for across, level in zip(self.across, levels, strict=True))
        for up, level in reversed(list(zip(self.up, levels, strict=True))):
            features = up(level + interpolate(features, scale_factor=2))
        return self.heatmaps(features)


class KeypointBackbone(nn.Module):
    """From crops to what the eye finds, and from that to a feature for each of the 44 keypoints."""

    width, crop = 512, 128
    summary, hidden = FINDINGS * KEYPOINTS, 2
    _places: Tensor
    _mirror: Tensor
    _scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.eye = Eye()
        self.token = nn.Linear(FINDINGS, self.width)
        self.kinds = nn.Parameter(0.02 * torch.randn(KEYPOINTS, self.width))
        self.register_buffer("_places", cell_places().flatten(0, 1), persistent=False)
        self.register_buffer("_mirror", torch.from_numpy(MIRRORED), persistent=False)
        self.register_buffer("_scale", torch.tensor(_SCALE), persistent=False)

    def forward(self, image: Tensor) -> Features:
        """Features of crops (B, 3, 128, 128), normalised."""
        return self.describe(self.find(image))

    @torch.no_grad()
    def find(self, image: Tensor) -> Tensor:
        """What the eye finds, (B, 44, FINDINGS)."""
        logits = (self.eye(image) + self.eye(image.flip(-1)).flip(-1)[:, self._mirror]) / 2
        shares = logits.float().flatten(2).softmax(-1)
        places = shares @ self._places
        wide = (shares @ self._places.square() - places.square()).clamp_min(0).sqrt()
        return torch.cat((places, wide, shares.amax(-1, keepdim=True)), -1)

    def describe(self, found: Tensor) -> Features:
        """Features of what was found: in training moved a little, and else in a mirror as well."""
        if self.training:
            shift, stir = torch.randn_like(found[:, :1, :2]), torch.randn_like(found[..., :2])
            places = found[..., :2] + _SHIFT * shift + _STIR * stir
            return self._features(torch.cat((places, found[..., 2:]), -1))
        mirrored = torch.cat((-found[..., :1], found[..., 1:]), -1)[:, self._mirror]
        return self._features(found)._replace(mirrored=self._features(mirrored))

    def _features(self, found: Tensor) -> Features:
        found = found * self._scale
        return Features(self.token(found) + self.kinds, found.flatten(1))


def cell_places() -> Tensor:
    """The middles of a heatmap's cells, (CELLS, CELLS, 2): x and y of the crop, as keypoints2d of a Batch."""
    along = ((torch.arange(CELLS) + 0.5) / CELLS - 0.5) * VIEW
    y, x = torch.meshgrid(along, along, indexing="ij")
    return torch.stack((x, y), -1)


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
