"""SKEL-CF's network: a coarse estimate of pose, betas and camera from the crop as a whole, refined layer by layer.

After Li et al., "SKEL-CF", 2025. The encoder (ViTPose) describes the crop's patches; their mean, with the crop's place
in the camera's view, gives the first estimate. Every layer of the decoder then lets the tokens of the 24 joints, of the
betas and of the camera look at each other and at the patches, adds what they say to the estimate, and tells the
tokens what it now is.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import expm1, log, pi

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from skelfit.backbones.keypoint_cnn import KeypointBackbone
from skelfit.backbones.vitpose import Backbone, Features
from skelfit.body.continuous import POSE_SIZE, angles_to_pose
from skelfit.body.dofs import NUM_DOFS, NUM_JOINTS, dof_index
from skelfit.camera import box_features, far_camera, known_or_far
from skelfit.train.config import NetworkConfig

NUM_BETAS = 10
POSE_NUMBERS = NUM_JOINTS * POSE_SIZE
_SIZES = (POSE_NUMBERS, NUM_BETAS, 3)
_FIRST_SCALE = 0.9  # a crop shows a little more than two metres
_SMALL = 0.01  # of the first weights of what is added to an estimate


@dataclass(frozen=True)
class Estimate:
    """What is said of B people, float32."""

    pose: Tensor  # (B, 24, 6) continuous, see `rotations`
    betas: Tensor  # (B, 10)
    camera: Tensor  # (B, 3) s > 0, tx, ty of the crop, see `camera`


@dataclass(frozen=True)
class Prediction:
    """All estimates of a batch, from coarse to fine, and the intrinsics that its cameras stand for."""

    encoder: Estimate | None  # None without coarse-to-fine
    layers: tuple[Estimate, ...]  # of the decoder; only the last without coarse-to-fine
    cam_int: Tensor  # (B, 3, 3) px
    heatmaps: Tensor | None = None  # of the backbone, see `Features`
    shaken: Estimate | None = None  # coarse ones, (N, B, ...), of what might have been found

    @property
    def final(self) -> Estimate:
        """The estimate that counts."""
        return self.layers[-1]


class Network(nn.Module):
    """The network, of random weights."""

    mean: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        named = config.backbone
        self.backbone = KeypointBackbone() if named == "keypoint-tiny" else Backbone(named)
        width, dim = self.backbone.width, config.dim
        if config.coarse_to_fine:
            self.encoder = nn.Sequential(
                nn.Linear(width + 3, width), nn.GELU(), _small(nn.Linear(width, sum(_SIZES)))
            )
        self.patches = nn.Linear(width, dim)
        self.place = nn.Linear(3, dim)
        self.kinds = nn.Parameter(0.02 * torch.randn(NUM_JOINTS + 2, dim))
        count = 1 if config.looped_decoder else config.layers
        self.decoder = nn.ModuleList(_Layer(dim, config.heads) for _ in range(count))
        reads = count if config.coarse_to_fine else 1
        self.readout = nn.ModuleList(_Readout(dim) for _ in range(reads))
        # Kept with the weights, so that a training may put the mean of its data here.
        self.register_buffer("mean", first_parameters())

    def forward(
        self,
        image: Tensor,
        cam_int: Tensor,
        center: Tensor,
        box_size: Tensor,
        keypoints2d: Tensor | None = None,
    ) -> Prediction:
        """Estimates from crops (B, 3, crop, crop), normalised, and their place: fields of a Batch.

        keypoints2d: labels, in training, for a backbone that learns from them.
        """
        use = known_or_far if self.config.camera else _always_far
        cam_int = use(cam_int, center, box_size)
        place = box_features(cam_int, center, box_size)
        features = self.backbone(image, keypoints2d)
        mean = self.mean.expand(len(image), -1)
        if not self.config.coarse_to_fine:
            last = estimate_of(self._decode(mean, features, place)[-1])
            return Prediction(None, (last,), cam_int, features.heatmaps)
        coarse = mean + self.encoder(torch.cat((features.whole, place), -1))
        fine = tuple(map(estimate_of, self._decode(coarse, features, place)))
        shaken = None
        if features.shaken is not None:
            places = place.expand(len(features.shaken), -1, -1)
            shaken = estimate_of(mean + self.encoder(torch.cat((features.shaken, places), -1)))
        return Prediction(estimate_of(coarse), fine, cam_int, features.heatmaps, shaken)

    def _decode(self, parameters: Tensor, features: Features, place: Tensor) -> list[Tensor]:
        """Parameters (B, 157) after every layer that changes them."""
        patches = self.patches(features.patches)
        tokens = (self.kinds + self.place(place)[:, None]).expand(-1, -1, -1)
        found = []
        for i in range(self.config.layers):
            layer = self.decoder[i % len(self.decoder)]
            tokens = layer(tokens, parameters, patches)
            if self.config.coarse_to_fine or i == self.config.layers - 1:
                parameters = parameters + self.readout[i % len(self.readout)](tokens)
                found.append(parameters)
        return found


class _Layer(nn.Module):
    """Embeds the estimate anew, then self-attention, cross-attention to the patches, and a feed-forward part."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.ModuleList(nn.Linear(n, dim) for n in (POSE_SIZE, *_SIZES[1:]))
        self.attend = nn.TransformerDecoderLayer(
            dim, heads, 2 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )

    def forward(self, tokens: Tensor, parameters: Tensor, patches: Tensor) -> Tensor:
        pose, betas, camera = parameters.split(_SIZES, -1)
        parts = (pose.unflatten(-1, (NUM_JOINTS, POSE_SIZE)), betas[:, None], camera[:, None])
        known = torch.cat([embed(part) for embed, part in zip(self.embed, parts, strict=True)], 1)
        return self.attend(tokens + known, patches)


class _Readout(nn.Module):
    """What the tokens add to the estimate."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.heads = nn.ModuleList(_small(nn.Linear(dim, n)) for n in (POSE_SIZE, *_SIZES[1:]))

    def forward(self, tokens: Tensor) -> Tensor:
        joints, betas, camera = self.norm(tokens).split((NUM_JOINTS, 1, 1), 1)
        parts = zip(self.heads, (joints, betas, camera), strict=True)
        return torch.cat([head(part).flatten(1) for head, part in parts], -1)


def first_parameters() -> Tensor:
    """Where estimates start, (157,): upright, facing the camera, with the arms stretched out, of mean shape."""
    q = torch.zeros(NUM_DOFS)
    q[dof_index("pelvis_tilt")] = pi  # a half turn about the body's left: y down and z forward, as in cameras
    camera = torch.tensor([log(expm1(_FIRST_SCALE)), 0.0, 0.0])
    return torch.cat((angles_to_pose(q).flatten(), torch.zeros(NUM_BETAS), camera))


def estimate_of(parameters: Tensor) -> Estimate:
    """What parameters (..., 157) say."""
    pose, betas, camera = parameters.float().split(_SIZES, -1)
    positive = torch.cat((softplus(camera[..., :1]), camera[..., 1:]), -1)
    return Estimate(pose.unflatten(-1, (NUM_JOINTS, POSE_SIZE)), betas, positive)


def _small(linear: nn.Linear) -> nn.Linear:
    nn.init.xavier_uniform_(linear.weight, _SMALL)
    nn.init.zeros_(linear.bias)
    return linear


def _always_far(cam_int: Tensor, center: Tensor, box_size: Tensor) -> Tensor:
    return far_camera(center, box_size)
