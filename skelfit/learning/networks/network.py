"""What a network provides to be trained, validated and used for prediction; and how an estimate is written as numbers.

An estimate of a person is a vector of 157 numbers: the continuous pose of 24 joints, 10 betas, and the camera of the
crop, whose scale is the softplus of its number.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import expm1, log, pi

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from skelfit.bodies.continuous_pose import POSE_SIZE, angles_to_pose
from skelfit.bodies.dofs import NUM_DOFS, NUM_JOINTS, dof_index
from skelfit.config.yaml_dataclasses import bounded, local_path
from skelfit.learning.backbones.backbone import Backbone
from skelfit.learning.backbones.backbone_registry import BACKBONES
from skelfit.learning.data.training_batch import TrainingBatch

NUM_BETAS = 10
POSE_NUMBERS = NUM_JOINTS * POSE_SIZE
SIZES = (POSE_NUMBERS, NUM_BETAS, 3)
_FIRST_SCALE = 0.9  # a crop shows a little more than two metres


@dataclass(frozen=True)
class NetworkConfig:
    """The network; the last three options are ablations of the paper."""

    kind: str = "skel-cf"  # the network; skel-cf is the only one so far
    # vitpose-h, -l, -b, -s: ViTPose; tiny: a small ViT, for tests; keypoint-tiny: a small CNN, for CPUs and few people
    backbone: str = "vitpose-h"
    checkpoint: str | None = local_path(default=None)  # ViTPose's weights, with which a ViT starts
    random: bool = False  # true: a ViT starts with random weights; keypoint-tiny takes neither
    dim: int = bounded(8, default=1024)  # width of the decoder's tokens
    heads: int = bounded(1, default=8)  # attention heads of the decoder
    layers: int = bounded(1, default=6)  # layers of the decoder
    camera: bool = True  # the image's intrinsics; false: those of a far camera, for all people
    coarse_to_fine: bool = True  # false: one estimate, by the decoder's last layer, from the mean pose
    looped_decoder: bool = False  # true: one layer, used again and again


@dataclass(frozen=True)
class Estimate:
    """An estimate of B people, float32."""

    pose: Tensor  # (B, 24, 6), see `bodies.continuous_pose`
    betas: Tensor  # (B, 10)
    camera: Tensor  # (B, 3) s > 0, tx, ty of the crop, see `learning.cameras`


@dataclass(frozen=True)
class Prediction:
    """All estimates of a batch, from coarse to fine, and the intrinsics that its cameras stand for."""

    encoder: Estimate | None  # the first estimate; None for a network without one
    layers: tuple[Estimate, ...]  # at least one; a loss may supervise each
    cam_int: Tensor  # (B, 3, 3) px

    @property
    def final(self) -> Estimate:
        """The estimate that counts."""
        return self.layers[-1]


class Network(nn.Module, ABC):
    """Base class of the networks; `network_registry` lists them by the name in `network.kind`."""

    mean: Tensor  # (157,) where estimates start; a training puts the mean of its labels here
    encoder: nn.Module  # of the first estimate, trained alone in the stage `coarse`

    def __init__(self, config: NetworkConfig) -> None:
        """A network with random weights."""
        super().__init__()
        self.config = config
        self.backbone: Backbone = BACKBONES[config.backbone].make()
        self.register_buffer("mean", first_parameters())

    @abstractmethod
    def forward(
        self,
        image: Tensor,
        cam_int: Tensor,
        center: Tensor,
        box_size: Tensor,
        observations: Tensor | None = None,
    ) -> Prediction:
        """Estimates of B people.

        image: (B, 3, crop, crop), normalised, not used with observations; cam_int: (B, 3, 3) px of the source image;
        center (B, 2) and box_size (B,): the crop, px of the source image; observations: of the backbone.
        """

    @abstractmethod
    def first_estimate(self, encoder: nn.Module, batch: TrainingBatch) -> Estimate:
        """The first estimate alone, of a batch with observations; encoder: the network's, or a wrapper of it."""


def first_parameters() -> Tensor:
    """Where estimates start, (157,): upright, facing the camera, with the arms stretched out, of mean shape."""
    q = torch.zeros(NUM_DOFS)
    q[dof_index("pelvis_tilt")] = pi  # a half turn about the body's left: y down and z forward, as in cameras
    camera = torch.tensor([log(expm1(_FIRST_SCALE)), 0.0, 0.0])
    return torch.cat((angles_to_pose(q).flatten(), torch.zeros(NUM_BETAS), camera))


def estimate_of(parameters: Tensor) -> Estimate:
    """The estimate that parameters (..., 157) stand for."""
    pose, betas, camera = parameters.float().split(SIZES, -1)
    positive = torch.cat((softplus(camera[..., :1]), camera[..., 1:]), -1)
    return Estimate(pose.unflatten(-1, (NUM_JOINTS, POSE_SIZE)), betas, positive)
