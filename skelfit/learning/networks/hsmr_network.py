"""HSMR's network: one token attends to the patches of the crop, and linear heads turn it into an estimate.

After Xia et al., "Reconstructing Humans with a Biomechanically Accurate Skeleton", CVPR 2025, and their public code:
the decoder of HMR2 (Goel et al., ICCV 2023) with heads for SKEL's numbers. The token begins as zero, so its embedding
is a learnt vector. The heads' results are added to the mean pose, betas and camera. The network sees the crop alone:
its camera is the far one on the crop's axis, of 5000 px for 256 px, whatever the image's intrinsics are.

Names and shapes are those of HSMR's checkpoints, which load as they are, but for the body model that they contain.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skelfit.learning.cameras import far_camera
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


class HsmrNetwork(Network):
    """The network of HSMR."""

    not_for = ("hidden", "camera", "coarse_to_fine", "looped_decoder")
    refines = False

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.head = HsmrHead(config, self.backbone.width)

    @property
    def start(self) -> Estimate:
        return Estimate.of(self.head.init_poses, self.head.init_betas, self.head.init_cam)

    def forward(
        self,
        image: Tensor,
        cam_int: Tensor,
        center: Tensor,
        box_size: Tensor,
        observations: Tensor | None = None,
    ) -> Prediction:
        patches = self.backbone(image) if observations is None else self.backbone.describe(observations)
        estimate = Estimate.of(*self.head(patches))
        return Prediction(None, (estimate,), far_camera(center, box_size))


class HsmrHead(nn.Module):
    """From patches to an estimate; all that HSMR puts on its backbone."""

    init_poses: Tensor
    init_betas: Tensor
    init_cam: Tensor

    def __init__(self, config: NetworkConfig, width: int) -> None:
        super().__init__()
        dim = config.dim
        self.transformer = _Decoder(config, width)
        self.poses_decoder = nn.Linear(dim, POSE_NUMBERS)
        self.betas_decoder = nn.Linear(dim, NUM_BETAS)
        self.cam_decoder = nn.Linear(dim, 3)
        for name, mean in zip(("init_poses", "init_betas", "init_cam"), first_start(), strict=True):
            self.register_buffer(name, mean)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Numbers of pose (B, 144), betas (B, 10) and camera (B, 3), of patches (B, N, width)."""
        token = self.transformer(patches)
        return (
            self.init_poses + self.poses_decoder(token),
            self.init_betas + self.betas_decoder(token),
            self.init_cam + self.cam_decoder(token),
        )


class _Decoder(nn.Module):
    """From patches (B, N, width) to what its layers make of a token that begins as zero, (B, dim)."""

    def __init__(self, config: NetworkConfig, width: int) -> None:
        super().__init__()
        self.to_token_embedding = nn.Linear(1, config.dim)
        self.pos_embedding = nn.Parameter(torch.randn(1, 1, config.dim))
        self.transformer = _Layers(config, width)

    def forward(self, patches: Tensor) -> Tensor:
        zero = patches.new_zeros(len(patches), 1, 1)
        return self.transformer(self.to_token_embedding(zero) + self.pos_embedding, patches)[:, 0]


class _Layers(nn.Module):
    """A module by itself, for its name in checkpoints."""

    def __init__(self, config: NetworkConfig, width: int) -> None:
        super().__init__()
        sizes = config.dim, width, config.heads, config.head_dim, config.feed_forward
        self.layers = nn.ModuleList(DecoderLayer(*sizes) for _ in range(config.layers))

    def forward(self, tokens: Tensor, patches: Tensor) -> Tensor:
        for layer in self.layers:
            tokens = layer(tokens, patches)
        return tokens
