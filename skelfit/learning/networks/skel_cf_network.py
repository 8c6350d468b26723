"""SKEL-CF's network: a coarse estimate of pose, betas and camera from the whole crop, refined layer by layer.

After Li et al., "SKEL-CF", 2025. The backbone (ViTPose) gives features of the crop's patches; their mean, with the
position of the crop in the camera's view, gives the first estimate. The decoder has a token for each of the 24 joints,
for the betas and for the camera. Each of its layers embeds the current estimate, lets the tokens attend to each other
and to the patches, and adds a correction to the estimate. Names of attributes are those in checkpoints.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from skelfit.bodies.continuous_pose import POSE_SIZE
from skelfit.bodies.dofs import NUM_JOINTS
from skelfit.learning.backbones.backbone import Features
from skelfit.learning.cameras import box_features, far_camera, known_or_far
from skelfit.learning.data.mirror import mirrored_pose
from skelfit.learning.data.training_batch import TrainingBatch
from skelfit.learning.networks.network import SIZES, Estimate, Network, NetworkConfig, Prediction, estimate_of

_SMALL = 0.01  # gain of the first weights of what is added to an estimate


class SkelCfNetwork(Network):
    """The network of SKEL-CF."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        width, dim = self.backbone.width, config.dim
        if config.coarse_to_fine:
            sizes = (self.backbone.summary + 3, *[width] * self.backbone.hidden)
            hidden = [layer for pair in pairwise(sizes) for layer in _dense(*pair)]
            last = _small(nn.Linear(width, sum(SIZES)))
            self.encoder = nn.Sequential(*hidden, nn.Linear(sizes[-1], width), nn.GELU(), last)
        self.patches = nn.Linear(width, dim)
        self.place = nn.Linear(3, dim)
        self.kinds = nn.Parameter(0.02 * torch.randn(NUM_JOINTS + 2, dim))
        count = 1 if config.looped_decoder else config.layers
        self.decoder = nn.ModuleList(_Layer(dim, config.heads) for _ in range(count))
        readouts = count if config.coarse_to_fine else 1
        self.readout = nn.ModuleList(_Readout(dim) for _ in range(readouts))

    def forward(
        self,
        image: Tensor,
        cam_int: Tensor,
        center: Tensor,
        box_size: Tensor,
        observations: Tensor | None = None,
    ) -> Prediction:
        cam_int, view = self._camera(cam_int, center, box_size)
        backbone = self.backbone
        features = backbone(image) if observations is None else backbone.describe(observations)
        steps = self._steps(features, view)
        if features.mirrored is not None:
            mirrored = self._steps(features.mirrored, view * view.new_tensor((-1, 1, 1)))
            pairs = zip(steps, mirrored, strict=True)
            # Mirroring twice changes nothing but the length of the pose's vectors: both sides then have the same.
            steps = [torch.lerp(in_mirror(in_mirror(here)), in_mirror(there), 0.5) for here, there in pairs]
        first, *fine = map(estimate_of, steps)
        return Prediction(first if self.config.coarse_to_fine else None, tuple(fine), cam_int)

    def first_estimate(self, encoder: nn.Module, batch: TrainingBatch) -> Estimate:
        assert batch.observations is not None
        _, view = self._camera(batch.cam_int, batch.center, batch.box_size)
        return estimate_of(self._coarse(encoder, self.backbone.describe(batch.observations), view))

    def _camera(self, cam_int: Tensor, center: Tensor, box_size: Tensor) -> tuple[Tensor, Tensor]:
        """The intrinsics (B, 3, 3) that count, and the position and size of the crop in their view (B, 3)."""
        known = self.config.camera
        cam_int = known_or_far(cam_int, center, box_size) if known else far_camera(center, box_size)
        return cam_int, box_features(cam_int, center, box_size)

    def _coarse(self, encoder: nn.Module, features: Features, view: Tensor) -> Tensor:
        """Parameters (B, 157) of the first estimate."""
        return self.mean + encoder(torch.cat((features.whole, view), -1))

    def _steps(self, features: Features, view: Tensor) -> list[Tensor]:
        """Parameters (B, 157): the first (the mean without coarse-to-fine), then those after each decoder layer.

        Without coarse-to-fine only the last layer changes them.
        """
        coarse = self.config.coarse_to_fine
        parameters = self._coarse(self.encoder, features, view) if coarse else self.mean.expand(len(view), -1)
        patches = self.patches(features.patches)
        tokens = (self.kinds + self.place(view)[:, None]).expand(-1, -1, -1)
        steps = [parameters]
        for i in range(self.config.layers):
            tokens = self.decoder[i % len(self.decoder)](tokens, parameters, patches)
            if coarse or i == self.config.layers - 1:
                parameters = parameters + self.readout[i % len(self.readout)](tokens)
                steps.append(parameters)
        return steps


class _Layer(nn.Module):
    """Embeds the current estimate; then self-attention, cross-attention to the patches, and a feed-forward part."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.ModuleList(nn.Linear(n, dim) for n in (POSE_SIZE, *SIZES[1:]))
        self.attend = nn.TransformerDecoderLayer(
            dim, heads, 2 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )

    def forward(self, tokens: Tensor, parameters: Tensor, patches: Tensor) -> Tensor:
        pose, betas, camera = parameters.split(SIZES, -1)
        parts = (pose.unflatten(-1, (NUM_JOINTS, POSE_SIZE)), betas[:, None], camera[:, None])
        embedded = torch.cat([embed(part) for embed, part in zip(self.embed, parts, strict=True)], 1)
        return self.attend(tokens + embedded, patches)


class _Readout(nn.Module):
    """What the tokens add to the estimate: parameters (B, 157)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.heads = nn.ModuleList(_small(nn.Linear(dim, n)) for n in (POSE_SIZE, *SIZES[1:]))

    def forward(self, tokens: Tensor) -> Tensor:
        joints, betas, camera = self.norm(tokens).split((NUM_JOINTS, 1, 1), 1)
        parts = zip(self.heads, (joints, betas, camera), strict=True)
        return torch.cat([head(part).flatten(1) for head, part in parts], -1)


def in_mirror(parameters: Tensor) -> Tensor:
    """Parameters (B, 157) of the mirror images of people."""
    pose, betas, camera = parameters.split(SIZES, -1)
    mirrored = mirrored_pose(pose.unflatten(-1, (NUM_JOINTS, POSE_SIZE))).flatten(-2)
    return torch.cat((mirrored, betas, camera * camera.new_tensor((1, -1, 1))), -1)


def _dense(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()


def _small(linear: nn.Linear) -> nn.Linear:
    nn.init.xavier_uniform_(linear.weight, _SMALL)
    nn.init.zeros_(linear.bias)
    return linear
