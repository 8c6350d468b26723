"""What a network provides to be trained, validated and used for prediction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import pi
from typing import ClassVar

import torch
from torch import Tensor, nn

from skelfit.bodies.continuous_pose import POSE_SIZE, angles_to_pose
from skelfit.bodies.dofs import NUM_DOFS, NUM_JOINTS, dof_index
from skelfit.config.yaml_dataclasses import bounded, local_path
from skelfit.learning.backbones.backbone import Backbone
from skelfit.learning.backbones.backbone_registry import BACKBONES

NUM_BETAS = 10
POSE_NUMBERS = NUM_JOINTS * POSE_SIZE
_FIRST_SCALE = 0.9  # a crop shows a little more than two metres


@dataclass(frozen=True)
class NetworkConfig:
    """The network; the last three options are ablations of SKEL-CF's paper. Some are for one network only."""

    kind: str = "skel-cf"  # the network: skel-cf, hsmr
    # vitpose-h, -l, -b, -s: ViTPose; tiny: a small ViT, for tests; keypoint-tiny: a small CNN, for CPUs and few people
    backbone: str = "vitpose-h"
    checkpoint: str | None = local_path(
        default=None
    )  # weights to start with: ViTPose's, of a ViT, or a checkpoint's, of all
    random: bool = False  # true: a ViT starts with random weights; keypoint-tiny takes neither
    layers: int = bounded(1, default=6)  # layers of the decoder
    heads: int = bounded(1, default=8)  # attention heads of the decoder
    head_dim: int = bounded(1, default=64)  # width of each attention head
    feed_forward: int = bounded(
        1, default=1024
    )  # width of the hidden layer of the decoder's feed-forward parts
    hidden: int = bounded(
        1, default=256
    )  # skel-cf: width of the hidden layer that turns tokens into estimates
    dim: int = bounded(1, default=1024)  # hsmr: width of the token; skel-cf's have that of the backbone
    camera: bool = True  # the image's intrinsics; false: those of a far camera, for all people
    coarse_to_fine: bool = True  # false: one estimate, by the decoder's last layer, from the mean pose
    looped_decoder: bool = False  # true: one layer, used again and again


@dataclass(frozen=True)
class Estimate:
    """An estimate of B people, float32."""

    pose: Tensor  # (B, 24, 6), see `bodies.continuous_pose`
    betas: Tensor  # (B, 10)
    camera: Tensor  # (B, 3) s, tx, ty of the crop, see `learning.cameras`

    @staticmethod
    def of(pose: Tensor, betas: Tensor, camera: Tensor) -> Estimate:
        """Of numbers (B, 144), (B, 10) and (B, 3) of any precision."""
        return Estimate(pose.float().unflatten(-1, (NUM_JOINTS, POSE_SIZE)), betas.float(), camera.float())


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

    not_for: ClassVar[tuple[str, ...]] = ()  # options of NetworkConfig that mean nothing to this kind
    refines: ClassVar[bool] = True  # gives an estimate after each of several layers

    def __init__(self, config: NetworkConfig) -> None:
        """A network with random weights."""
        super().__init__()
        self.config = config
        self.backbone: Backbone = BACKBONES[config.backbone].make()

    @property
    @abstractmethod
    def start(self) -> Estimate:
        """Where estimates start, of one person (B = 1): the network's buffers, which change with what is written here.

        A training writes the mean pose and betas of its labels.
        """

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


def first_start() -> tuple[Tensor, Tensor, Tensor]:
    """Where estimates start before training, (1, 144), (1, 10) and (1, 3).

    Upright, facing the camera, with the arms stretched out, of mean shape.
    """
    q = torch.zeros(1, NUM_DOFS)
    q[:, dof_index("pelvis_tilt")] = (
        pi  # a half turn about the body's left: y down and z forward, as in cameras
    )
    return angles_to_pose(q).flatten(1), torch.zeros(1, NUM_BETAS), torch.tensor([[_FIRST_SCALE, 0.0, 0.0]])
