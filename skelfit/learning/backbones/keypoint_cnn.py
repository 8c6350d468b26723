"""A backbone for CPUs and a few thousand people: it detects 2D keypoints and gives features of their positions.

SKEL-CF starts from a backbone that has learnt keypoints from hundreds of thousands of pictures (ViTPose). A backbone
that starts from nothing has to be taught them. So a detector, a small network (down to 1/32 and up again), makes a
heatmap of each keypoint. The rest of the network gets the positions of keypoints, not pixels. A position is the mean
over the heatmap's cells (Sun et al., "Integral Human Pose Regression", 2018), of the crop and of its mirror image. Two
normalised layers make a feature of all positions together (Martinez et al., ICCV 2017), which each keypoint's is added
to, so that their mean says more than where the middle of the person is.

The detector learns first, from heatmaps of the labels alone. Then it is frozen and observes every person once. The rest
learns from these observations, which takes a tenth of the time of a step with images.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from skelfit.learning.backbones.backbone import Backbone
from skelfit.learning.data.mirror import MIRRORED

KEYPOINTS = 44
CELLS = 24  # of a heatmap, along each side of the crop
# Numbers of a keypoint: x and y, as keypoints2d of a batch; their deviations; the height of the heatmap's peak.
OBSERVED = 5
_STEM = 8  # channels at 48 x 48
_CHANNELS = (32, 64, 128, 128)  # at 24 x 24, 12 x 12, 6 x 6 and 3 x 3
_UP = 48  # channels on the way up
_SCALE = (3.0, 3.0, 6.0, 6.0, 1.0)  # scales observations to about 1
_SHIFT, _JITTER = 0.013, 0.004  # in training, of all keypoints together and of each; deviations


class KeypointDetector(nn.Module):
    """From crops of 96 x 96 px to heatmaps."""

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
        """Logits (B, 44, CELLS, CELLS) of where keypoints are in crops (B, 3, 96, 96), normalised."""
        features = image.contiguous(memory_format=torch.channels_last)
        levels = []
        for step in self.down:
            features = step(features)
            levels.append(features)
        *levels, features = (across(level) for across, level in zip(self.across, levels, strict=True))
        for up, level in reversed(list(zip(self.up, levels, strict=True))):
            features = up(level + interpolate(features, scale_factor=2))
        return self.heatmaps(features)


class KeypointBackbone(Backbone):
    """From crops to detected keypoints, and from these to a feature of each of the 44 keypoints."""

    width, crop = 256, 96
    _cells: Tensor
    _mirror: Tensor
    _scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.eye = KeypointDetector()  # the name that checkpoints have
        self.token = nn.Linear(OBSERVED, self.width)
        self.kinds = nn.Parameter(0.02 * torch.randn(KEYPOINTS, self.width))
        self.together = nn.Sequential(
            *_dense(OBSERVED * KEYPOINTS, self.width), *_dense(self.width, self.width)
        )
        self.register_buffer("_cells", cell_centers().flatten(0, 1), persistent=False)
        self.register_buffer("_mirror", torch.from_numpy(MIRRORED), persistent=False)
        self.register_buffer("_scale", torch.tensor(_SCALE), persistent=False)

    @property
    def detector(self) -> nn.Module:
        return self.eye

    @torch.no_grad()
    def observe(self, image: Tensor) -> Tensor:
        """The keypoints in crops (B, 3, 96, 96), normalised: (B, 44, OBSERVED)."""
        logits = (self.eye(image) + self.eye(image.flip(-1)).flip(-1)[:, self._mirror]) / 2
        shares = logits.float().flatten(2).softmax(-1)
        points = shares @ self._cells
        deviations = (shares @ self._cells.square() - points.square()).clamp_min(0).sqrt()
        return torch.cat((points, deviations, shares.amax(-1, keepdim=True)), -1)

    def describe(self, observations: Tensor) -> Tensor:
        """Features (B, 44, width) of keypoints (B, 44, OBSERVED), which are jittered in training."""
        if self.training:
            shift, jitter = torch.randn_like(observations[:, :1, :2]), torch.randn_like(observations[..., :2])
            points = observations[..., :2] + _SHIFT * shift + _JITTER * jitter
            observations = torch.cat((points, observations[..., 2:]), -1)
        scaled = observations * self._scale
        return self.token(scaled) + self.kinds + self.together(scaled.flatten(1))[:, None]


def cell_centers() -> Tensor:
    """The centers of a heatmap's cells, (CELLS, CELLS, 2): x and y of the crop, as keypoints2d of a batch."""
    along = (torch.arange(CELLS) + 0.5) / CELLS - 0.5
    y, x = torch.meshgrid(along, along, indexing="ij")
    return torch.stack((x, y), -1)


def _dense(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
