"""How a training goes, from `pipelines/train-*.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from skelfit.errors import ConfigError
from skelfit.strict import bounded, build, load_yaml

BackboneName = Literal["vitpose-h", "vitpose-l", "vitpose-b", "vitpose-s", "tiny"]


@dataclass(frozen=True)
class NetworkConfig:
    """The network; the last three are ablations of the paper."""

    backbone: BackboneName = "vitpose-h"
    checkpoint: str | None = None  # ViTPose's weights for the backbone; None: random ones
    dim: int = bounded(8, default=1024)  # of the decoder's tokens
    heads: int = bounded(1, default=8)
    layers: int = bounded(1, default=6)
    camera: bool = True  # the intrinsics of the image; false: those of a far camera, for everyone
    coarse_to_fine: bool = True  # false: one estimate, by the decoder's last layer, from the mean pose
    looped_decoder: bool = False  # true: the same layer over and over


@dataclass(frozen=True)
class LossConfig:
    """Weights of what is minimised. Sums over keypoints and parameters, means over people."""

    keypoints2d: float = bounded(0, default=0.05)
    keypoints3d: float = bounded(0, default=0.05)
    betas: float = bounded(0, default=0.0005)
    pose: float = bounded(0, default=0.001)
    orientation: float = bounded(0, default=0.002)
    refinement: float = bounded(0, default=0.1)  # 0: the ablation without it
    full_supervision: bool = False  # an ablation: all terms on every layer, in place of the refinement


@dataclass(frozen=True)
class TrainConfig:
    """A training."""

    name: str
    skel_gender: Literal["male", "female"] = "male"  # of the body that is predicted
    network: NetworkConfig = NetworkConfig()
    losses: LossConfig = LossConfig()


def load_train_config(path: str | Path) -> TrainConfig:
    """Read a training's file. Raises ConfigError."""
    config = build(TrainConfig, load_yaml(path), path)
    if config.network.dim % config.network.heads:
        expected = f"a multiple of network.heads, {config.network.heads}"
        raise ConfigError(path, "network.dim", expected, str(config.network.dim))
    return config
