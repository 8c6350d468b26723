"""SKEL-CF's network: a coarse estimate of pose, betas and camera from the whole crop, refined layer by layer.

After Li et al., "SKEL-CF", 2025, and their public code. The backbone (ViTPose) gives features of the crop's patches.
One set of heads turns the mean of them into a first estimate, and what a layer makes of the tokens into a correction.
The decoder has a token for the pose, one for the betas and one for the camera. Each is made from the current estimate
and the crop's place in the camera's view, and made again after each layer.

Names, shapes and the order of what is computed are those of the public code of SKEL-CF, so its checkpoints load as they
are, but for the frozen camera network and body model that they contain. The published code takes the middle of the
image for the optical axis and fx for both focal lengths; here both are those of the intrinsics.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skelfit.learning.cameras import box_features, far_camera, known_or_far
from skelfit.learning.networks.decoder_layer import DecoderLayer
from skelfit.learning.networks.network import (
    NUM_BETAS,
    POSE_NUMBERS,
    Estimate,
    Network,
    NetworkConfig,
    Prediction,
    first_start,
)

_BOX = 3  # numbers of the crop's place in the view
# Numbers of pose (144), betas (10) and camera (3) of B people, each (B, n).
_Parts = tuple[Tensor, Tensor, Tensor]


class SkelCfNetwork(Network):
    """The network of SKEL-CF."""

    not_for = ("dim",)

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.decoder = SkelCfDecoder(config, self.backbone.width)

    @property
    def start(self) -> Estimate:
        return Estimate.of(*self.decoder.start)

    def forward(
        self,
        image: Tensor,
        cam_int: Tensor,
        center: Tensor,
        box_size: Tensor,
        observations: Tensor | None = None,
    ) -> Prediction:
        known = self.config.camera
        cam_int = known_or_far(cam_int, center, box_size) if known else far_camera(center, box_size)
        patches = self.backbone(image) if observations is None else self.backbone.describe(observations)
        steps = self.decoder(patches, box_features(cam_int, center, box_size))
        first, *fine = (Estimate.of(*step) for step in steps)
        return Prediction(first if self.config.coarse_to_fine else None, tuple(fine), cam_int)


class SkelCfDecoder(nn.Module):
    """From patches to estimates; all that SKEL-CF puts on its backbone, 48.5 million weights with ViT-H."""

    mean_poses: Tensor
    mean_betas: Tensor
    mean_cam: Tensor

    def __init__(self, config: NetworkConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.transformer = _Transformer(config, width)
        self.cam_decoder = _head(width, config.hidden, 3)
        self.betas_decoder = _head(width, config.hidden, NUM_BETAS)
        self.poses_decoder = _head(width, config.hidden, POSE_NUMBERS)
        self.to_pose_embedding = nn.Linear(POSE_NUMBERS + _BOX, width)
        self.to_betas_embedding = nn.Linear(NUM_BETAS + _BOX, width)
        self.to_cam_embedding = nn.Linear(3 + _BOX, width)
        for name, mean in zip(("mean_poses", "mean_betas", "mean_cam"), first_start(), strict=True):
            self.register_buffer(name, mean)

    @property
    def start(self) -> _Parts:
        """Where estimates start, of one person."""
        return self.mean_poses, self.mean_betas, self.mean_cam

    def forward(self, patches: Tensor, box: Tensor) -> list[_Parts]:
        """Estimates of B people: the first (without coarse-to-fine, the start), then those after each layer.

        patches: (B, N, width); box: (B, 3), see `cameras.box_features`. Without coarse-to-fine, tokens go on from layer
        to layer, and only the last one's are turned into an estimate.
        """
        coarse = self.config.coarse_to_fine
        pose, betas, camera = (mean.expand(len(box), -1) for mean in self.start)
        steps: list[_Parts] = [(pose, betas, camera)]
        if coarse:
            steps = [self._corrected(steps[0], (patches.mean(1),) * 3)]
        tokens = self._tokens(steps[0], box) + self.transformer.pos_embedding
        for i in range(self.config.layers):
            tokens = self.transformer.layer(i)(tokens, patches)
            last = i == self.config.layers - 1
            if coarse or last:
                steps.append(self._corrected(steps[-1], tokens.unbind(1)))
            if coarse and not last:
                tokens = self._tokens(steps[-1], box)
        return steps

    def _tokens(self, estimate: _Parts, box: Tensor) -> Tensor:
        """Tokens (B, 3, width) of an estimate, for a crop at its place in the view."""
        embeddings = (self.to_pose_embedding, self.to_betas_embedding, self.to_cam_embedding)
        parts = zip(embeddings, estimate, strict=True)
        return torch.stack([embed(torch.cat((part, box), -1)) for embed, part in parts], 1)

    def _corrected(self, estimate: _Parts, tokens: tuple[Tensor, ...]) -> _Parts:
        """An estimate after the correction by tokens, each (B, width), of pose, betas and camera."""
        heads = (self.poses_decoder, self.betas_decoder, self.cam_decoder)
        pose, betas, camera = (
            part + head(token) for part, head, token in zip(estimate, heads, tokens, strict=True)
        )
        return pose, betas, camera


class _Transformer(nn.Module):
    """The decoder's layers, and the vector that is added to all tokens before them."""

    def __init__(self, config: NetworkConfig, width: int) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(0.02 * torch.randn(1, 1, width))
        sizes = width, width, config.heads, config.head_dim, config.feed_forward
        count = 1 if config.looped_decoder else config.layers
        self.layers = nn.ModuleList(DecoderLayer(*sizes) for _ in range(count))

    def layer(self, number: int) -> nn.Module:
        """The layer of this number, from 0 on; of a looped decoder always the same."""
        return self.layers[number % len(self.layers)]


def _head(width: int, hidden: int, numbers: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, numbers))
