"""SKEL-CF's network: a coarse estimate of pose, betas and camera from the crop as a whole, refined layer by layer.

After Li et al., "SKEL-CF", 2025. The encoder (ViTPose) describes the crop's patches; their mean, with the crop's place
in the camera's view, gives the first estimate. Every layer of the decoder then lets the tokens of the 24 joints, of the
betas and of the camera look at each other and at the patches, adds what they say to the estimate, and tells the
tokens what it now is.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import expm1, log, pi

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from skelfit.bodies.continuous_pose import POSE_SIZE, angles_to_pose
from skelfit.bodies.dofs import NUM_DOFS, NUM_JOINTS, dof_index
from skelfit.learning.backbones.keypoint_cnn import KeypointBackbone
from skelfit.learning.backbones.vitpose import Backbone, Features
from skelfit.learning.cameras import box_features, far_camera, known_or_far
from skelfit.learning.data.mirror import mirrored_pose
from skelfit.learning.training.training_config import NetworkConfig

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
        own = config.backbone == "keypoint-tiny"
        self.backbone: KeypointBackbone | Backbone = KeypointBackbone() if own else Backbone(config.backbone)
        width, dim = self.backbone.width, config.dim
        if config.coarse_to_fine:
            sizes = (self.backbone.summary + 3, *[width] * self.backbone.hidden)
            hidden = [layer for pair in pairwise(sizes) for layer in _dense(*pair)]
            last = _small(nn.Linear(width, sum(_SIZES)))
            self.encoder = nn.Sequential(*hidden, nn.Linear(sizes[-1], width), nn.GELU(), last)
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
        self, image: Tensor, cam_int: Tensor, center: Tensor, box_size: Tensor, found: Tensor | None = None
    ) -> Prediction:
        """Estimates from crops (B, 3, crop, crop), normalised, or from what was found in them, and their place."""
        cam_int, place = self.camera(cam_int, center, box_size)
        features = self.backbone(image) if found is None else self.backbone.describe(found)
        every = self._step_by_step(features, place)
        if features.mirrored is not None:
            others = self._step_by_step(features.mirrored, place * place.new_tensor((-1, 1, 1)))
            pairs = zip(every, others, strict=True)
            # Twice mirrored is as it was, but with the vectors of poses made as long as the others'.
            every = [torch.lerp(in_mirror(in_mirror(here)), in_mirror(there), 0.5) for here, there in pairs]
        first, *fine = map(estimate_of, every)
        return Prediction(first if self.config.coarse_to_fine else None, tuple(fine), cam_int)

    def _step_by_step(self, features: Features, place: Tensor) -> list[Tensor]:
        """Parameters (B, 157): the first, which are the mean ones without coarse-to-fine, and those of the layers."""
        first = self.mean.expand(len(place), -1)
        if self.config.coarse_to_fine:
            first = self.coarse(self.encoder, features, place)
        return [first, *self._decode(first, features, place)]

    def camera(self, cam_int: Tensor, center: Tensor, box_size: Tensor) -> tuple[Tensor, Tensor]:
        """The intrinsics (B, 3, 3) that count, and the crop's place in their view (B, 3)."""
        known = self.config.camera
        cam_int = known_or_far(cam_int, center, box_size) if known else far_camera(center, box_size)
        return cam_int, box_features(cam_int, center, box_size)

    def coarse(self, encoder: nn.Module, features: Features, place: Tensor) -> Tensor:
        """Parameters (B, 157) of the first estimate; encoder: the network's, or what stands for it."""
        return self.mean + encoder(torch.cat((features.whole, place), -1))

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


def in_mirror(parameters: Tensor) -> Tensor:
    """Parameters (B, 157) of people whom a mirror shows."""
    pose, betas, camera = parameters.split(_SIZES, -1)
    mirrored = mirrored_pose(pose.unflatten(-1, (NUM_JOINTS, POSE_SIZE))).flatten(-2)
    return torch.cat((mirrored, betas, camera * camera.new_tensor((1, -1, 1))), -1)


def _dense(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()


def _small(linear: nn.Linear) -> nn.Linear:
    nn.init.xavier_uniform_(linear.weight, _SMALL)
    nn.init.zeros_(linear.bias)
    return linear
