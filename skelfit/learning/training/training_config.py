"""The configuration of a training, from `pipelines/train-*.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from skelfit.config.yaml_dataclasses import bounded, build, load_yaml
from skelfit.errors import ConfigError
from skelfit.learning.backbones.backbone_registry import BACKBONES
from skelfit.learning.data.data_loader import DataConfig
from skelfit.learning.data.person_stream import SubsetConfig
from skelfit.learning.networks.network import NetworkConfig
from skelfit.learning.networks.network_registry import NETWORKS


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss's terms, which are sums over keypoints and parameters, and means over people."""

    keypoints2d: float = bounded(0, default=0.05)  # weight of 2D keypoints
    keypoints3d: float = bounded(0, default=0.05)  # weight of 3D keypoints
    betas: float = bounded(0, default=0.0005)  # weight of betas
    pose: float = bounded(0, default=0.001)  # weight of the pose
    orientation: float = bounded(0, default=0.002)  # weight of the global orientation
    refinement: float = bounded(0, default=0.1)  # weight of the pose of the layers between; 0: an ablation
    full_supervision: bool = False  # an ablation: all terms on every layer, in place of the refinement


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW; its learning rate rises in a line, then falls along a cosine."""

    steps: int = bounded(1, default=100_000)  # number of steps
    learning_rate: float = bounded(0, default=1e-5)  # largest learning rate of AdamW
    muon: float = bounded(0, default=0.0)  # learning rate of convolutions by Muon; 0: AdamW, as all else
    warm_up: int = bounded(0, default=1000)  # steps in which the learning rate rises
    weight_decay: float = bounded(0, default=1e-4)  # weight decay of AdamW
    clip: float = bounded(1e-9, default=1.0)  # largest norm of the gradient
    accumulate: int = bounded(1, default=1)  # batches per step
    # decay per step of the running mean of the weights; 0: no mean
    ema: float = bounded(0, 0.999999, default=0.999)
    mixed_precision: bool = True  # lower precision on GPUs


@dataclass(frozen=True)
class ValidationConfig:
    """When errors are measured, and on which people that training never sees."""

    every: int = bounded(1, default=2000)  # steps between two validations; there is one more at the end
    # shards to measure with; none: the people that data.held_out holds out
    subsets: tuple[SubsetConfig, ...] = ()


@dataclass(frozen=True)
class OutputConfig:
    """How often something is written, in steps."""

    log: int = bounded(1, default=50)  # steps between two lines of the log
    checkpoint: int = bounded(1, default=1000)  # steps between two checkpoints
    keep: int = bounded(1, default=3)  # how many checkpoints are kept


@dataclass(frozen=True)
class TrainConfig:
    """A training. The defaults are those of SKEL-CF, as far as they are known."""

    name: str = "train"  # free text
    skel_gender: Literal["male", "female"] = "male"  # the body that is predicted
    data: DataConfig = DataConfig(held_out=0.01)  # what is read, and how it varies
    network: NetworkConfig = NetworkConfig()  # the network
    losses: LossConfig = LossConfig()  # what is minimised
    # how keypoint-tiny learns keypoints first; null with other backbones
    keypoints: OptimizerConfig | None = None
    # how pose and betas are then learnt, alone; null: together with the rest
    coarse: OptimizerConfig | None = None
    optimizer: OptimizerConfig = OptimizerConfig()  # steps and learning rate of the main stage
    validation: ValidationConfig = ValidationConfig()  # when and on which people errors are measured
    output: OutputConfig = OutputConfig()  # how often something is written

    @property
    def steps(self) -> int:
        """The steps of all stages."""
        return sum(part.steps for part in (self.keypoints, self.coarse, self.optimizer) if part is not None)


def load_train_config(path: str | Path) -> TrainConfig:
    """Read a training's file. Raises ConfigError."""
    return checked(build(TrainConfig, load_yaml(path), path), path)


def checked(config: TrainConfig, path: str | Path) -> TrainConfig:
    """The same configuration. Raises ConfigError for an unknown network or backbone, or options that do not fit."""
    network = config.network
    for option, names in (("kind", NETWORKS), ("backbone", BACKBONES)):
        if (value := getattr(network, option)) not in names:
            raise ConfigError(path, f"network.{option}", "one of " + ", ".join(names), value)
    backbone = BACKBONES[network.backbone]
    if (config.keypoints is not None) != backbone.keypoints_first:
        expected = "how network.backbone: keypoint-tiny learns them, and nothing with other backbones"
        given = f"{'nothing' if config.keypoints is None else 'that'} with {network.backbone}"
        raise ConfigError(path, "keypoints", expected, given)
    if config.coarse is not None and config.keypoints is None:
        raise ConfigError(
            path, "coarse", "nothing but with network.backbone: keypoint-tiny", network.backbone
        )
    starts = (network.checkpoint is not None) + network.random
    if starts > backbone.pretrained:
        expected = "nothing with keypoint-tiny, which learns from nothing; of ViTs, checkpoint or random"
        given = f"checkpoint: {network.checkpoint}, random: {network.random} with {network.backbone}"
        raise ConfigError(path, "network.checkpoint", expected, given)
    return config


def ready(config: TrainConfig, path: str | Path) -> TrainConfig:
    """As `checked`, of a configuration to train with. Raises ConfigError where a ViT has no weights to start from.

    Random weights have to be asked for.
    """
    network = checked(config, path).network
    if BACKBONES[network.backbone].pretrained and network.checkpoint is None and not network.random:
        expected = (
            f"the weights of {network.backbone} (a ViTPose checkpoint, there or by --vitpose FILE), or "
            "network.random: true, to begin with random ones"
        )
        raise ConfigError(path, "network.checkpoint", expected, "neither")
    return config
