"""The configuration of a training, from `pipelines/train-*.yaml`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from skelfit.config.yaml_dataclasses import bounded, build, load_yaml
from skelfit.errors import ConfigError
from skelfit.learning.backbones.backbone_registry import BACKBONES
from skelfit.learning.data.better_labels import BetterLabelsConfig
from skelfit.learning.data.data_loader import DataConfig
from skelfit.learning.data.person_stream import SubsetConfig
from skelfit.learning.networks.network import NetworkConfig
from skelfit.learning.networks.network_registry import NETWORKS


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss's terms, which are sums over keypoints and parameters, and means over people.

    The defaults are SKEL-CF's; HSMR has keypoints2d 0.01, squared differences, and no refinement.
    """

    keypoints2d: float = bounded(0, default=0.05)  # weight of 2D keypoints
    keypoints3d: float = bounded(0, default=0.05)  # weight of 3D keypoints
    betas: float = bounded(0, default=0.0005)  # weight of betas
    pose: float = bounded(0, default=0.001)  # weight of the pose
    orientation: float = bounded(0, default=0.002)  # weight of the global orientation
    # differences of betas, and of rotations as matrices; keypoints have absolute ones
    parameters: Literal["absolute", "squared"] = "absolute"
    refinement: float = bounded(0, default=0.1)  # weight of the pose of the decoder's layers; 0: an ablation
    # of which layers: all, as in SKEL-CF's code, or between: but for the last, as in its paper
    refinement_layers: Literal["all", "between"] = "all"
    full_supervision: bool = False  # an ablation: all terms on every layer, in place of the refinement


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW; its learning rate rises in a line, then stays, or falls along a cosine. Give its length in one unit."""

    # the length in epochs: in one, as many people come as the subsets have, by their weights, or data.epoch_samples
    epochs: int | None = bounded(1, default=None)
    steps: int | None = bounded(1, default=None)  # the length in steps
    learning_rate: float = bounded(0, default=1e-5)  # largest learning rate of AdamW
    muon: float = bounded(0, default=0.0)  # learning rate of convolutions by Muon; 0: AdamW, as all else
    schedule: Literal["constant", "cosine"] = "constant"  # of the learning rate after the warm-up
    warm_up: int = bounded(0, default=0)  # steps in which the learning rate rises
    warm_up_epochs: float = bounded(0, default=0.0)  # the same in epochs; give one of them
    weight_decay: float = bounded(0, default=1e-4)  # weight decay of AdamW
    clip: float | None = bounded(1e-9, default=1.0)  # largest norm of the gradient; null: any
    accumulate: int = bounded(1, default=1)  # batches per step
    # decay per step of the running mean of the weights; 0: no mean
    ema: float = bounded(0, 0.999999, default=0.9995)
    # steps over which the decay rises: after n of them it is ema (1 - exp(-n / ema_ramp)); 0: at once
    ema_ramp: int = bounded(0, default=6000)
    mixed_precision: bool = True  # lower precision on GPUs

    @property
    def length(self) -> int:
        """The length in steps, of a configuration that `in_steps` returned."""
        assert self.steps is not None and not self.warm_up_epochs
        return self.steps

    def in_steps(self, batches: int) -> OptimizerConfig:
        """The same with length and warm-up in steps; batches: of an epoch, in each process."""
        each = max(1, batches // self.accumulate)
        steps = self.steps if self.epochs is None else self.epochs * each
        warm_up = self.warm_up + round(self.warm_up_epochs * each)
        return replace(self, epochs=None, steps=steps, warm_up=warm_up, warm_up_epochs=0.0)


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
    # length and learning rate of the main stage
    optimizer: OptimizerConfig = OptimizerConfig(epochs=30, warm_up_epochs=1.0)
    # labels that get better while the network learns; null: they stay as they are
    better_labels: BetterLabelsConfig | None = None
    validation: ValidationConfig = ValidationConfig()  # when and on which people errors are measured
    output: OutputConfig = OutputConfig()  # how often something is written

    @property
    def stages(self) -> dict[str, OptimizerConfig]:
        """The stages that there are, in order, by their keys."""
        named = {"keypoints": self.keypoints, "coarse": self.coarse, "optimizer": self.optimizer}
        return {name: stage for name, stage in named.items() if stage is not None}

    @property
    def steps(self) -> int:
        """The steps of all stages, of a configuration that `in_steps` returned."""
        return sum(stage.length for stage in self.stages.values())

    def in_steps(self, batches: int) -> TrainConfig:
        """The same with all lengths in steps; batches: of an epoch, in each process."""
        stages: dict[str, Any] = {name: stage.in_steps(batches) for name, stage in self.stages.items()}
        return replace(self, **stages)


def load_train_config(path: str | Path) -> TrainConfig:
    """Read a training's file. Raises ConfigError."""
    return checked(build(TrainConfig, load_yaml(path), path), path)


def checked(config: TrainConfig, path: str | Path) -> TrainConfig:
    """The same configuration. Raises ConfigError for an unknown network or backbone, or options that do not fit."""
    network = config.network
    for option, names in (("kind", NETWORKS), ("backbone", BACKBONES)):
        if (value := getattr(network, option)) not in names:
            raise ConfigError(path, f"network.{option}", "one of " + ", ".join(names), value)
    for option in NETWORKS[network.kind].not_for:
        if (value := getattr(network, option)) != getattr(NetworkConfig(), option):
            raise ConfigError(
                path, f"network.{option}", f"nothing with network.kind: {network.kind}", str(value)
            )
    losses = config.losses
    if not NETWORKS[network.kind].refines and (losses.refinement or losses.full_supervision):
        expected = f"0, and no full_supervision, with network.kind: {network.kind}, which has one estimate"
        found = f"{losses.refinement:g}, {losses.full_supervision}"
        raise ConfigError(path, "losses.refinement", expected, found)
    backbone = BACKBONES[network.backbone]
    if (config.keypoints is not None) != backbone.keypoints_first:
        expected = "how network.backbone: keypoint-tiny learns them, and nothing with other backbones"
        given = f"{'nothing' if config.keypoints is None else 'that'} with {network.backbone}"
        raise ConfigError(path, "keypoints", expected, given)
    if config.coarse is not None and config.keypoints is None:
        raise ConfigError(
            path, "coarse", "nothing but with network.backbone: keypoint-tiny", network.backbone
        )
    for name, stage in config.stages.items():
        _check_lengths(stage, name, path)
    starts = (network.checkpoint is not None) + network.random
    if starts > backbone.pretrained:
        expected = "nothing with keypoint-tiny, which learns from nothing; of ViTs, checkpoint or random"
        given = f"checkpoint: {network.checkpoint}, random: {network.random} with {network.backbone}"
        raise ConfigError(path, "network.checkpoint", expected, given)
    return config


def _check_lengths(stage: OptimizerConfig, name: str, path: str | Path) -> None:
    """Raises ConfigError unless a stage has one length, and at most one warm-up."""
    if (stage.epochs is None) == (stage.steps is None):
        found = "neither" if stage.epochs is None else "both"
        raise ConfigError(path, f"{name}.epochs", f"either that or {name}.steps", found)
    if stage.warm_up and stage.warm_up_epochs:
        raise ConfigError(path, f"{name}.warm_up", f"either that or {name}.warm_up_epochs", "both")


def ready(config: TrainConfig, path: str | Path) -> TrainConfig:
    """As `checked`, of a configuration to train with. Raises ConfigError where a ViT has no weights to start from.

    Random weights have to be asked for.
    """
    network = checked(config, path).network
    if BACKBONES[network.backbone].pretrained and network.checkpoint is None and not network.random:
        expected = (
            f"the weights of {network.backbone} (ViTPose's, or a checkpoint's, there or by --checkpoint FILE), or "
            "network.random: true, to begin with random ones"
        )
        raise ConfigError(path, "network.checkpoint", expected, "neither")
    return config
