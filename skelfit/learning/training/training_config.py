"""How a training goes, from `pipelines/train-*.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from skelfit.config.yaml_dataclasses import bounded, build, load_yaml, local_path
from skelfit.errors import ConfigError
from skelfit.learning.data.data_loader import DataConfig
from skelfit.learning.data.person_stream import SubsetConfig

BackboneName = Literal["vitpose-h", "vitpose-l", "vitpose-b", "vitpose-s", "tiny", "keypoint-tiny"]


@dataclass(frozen=True)
class NetworkConfig:
    """The network; the last three are ablations of the paper."""

    # vitpose-*: ViTPose; tiny: a small ViT, for tests; keypoint-tiny: a small CNN, for CPUs and few people
    backbone: BackboneName = "vitpose-h"
    checkpoint: str | None = local_path(default=None)  # ViTPose's weights, with which a ViT starts
    random: bool = False  # true: a ViT starts with random weights; keypoint-tiny takes neither
    dim: int = bounded(8, default=1024)  # width of the decoder's tokens
    heads: int = bounded(1, default=8)  # attention heads of the decoder
    layers: int = bounded(1, default=6)  # layers of the decoder
    camera: bool = True  # the image's intrinsics; false: those of a far camera, for all people
    coarse_to_fine: bool = True  # false: one estimate, by the decoder's last layer, from the mean pose
    looped_decoder: bool = False  # true: one layer, used again and again


@dataclass(frozen=True)
class LossConfig:
    """Weights of what is minimised. Sums over keypoints and parameters, means over people."""

    keypoints2d: float = bounded(0, default=0.05)  # weight of 2D keypoints
    keypoints3d: float = bounded(0, default=0.05)  # weight of 3D keypoints
    betas: float = bounded(0, default=0.0005)  # weight of betas
    pose: float = bounded(0, default=0.001)  # weight of the pose
    orientation: float = bounded(0, default=0.002)  # weight of the global orientation
    refinement: float = bounded(0, default=0.1)  # weight of the pose of the layers between; 0: an ablation
    full_supervision: bool = False  # an ablation: all terms on every layer, in place of the refinement


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, and how its learning rate goes: up in a line, then down along a cosine."""

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
    # how the first estimate then learns, alone; null: together with the rest
    coarse: OptimizerConfig | None = None
    optimizer: OptimizerConfig = OptimizerConfig()  # steps and learning rate of the main stage
    validation: ValidationConfig = ValidationConfig()  # when and on which people errors are measured
    output: OutputConfig = OutputConfig()  # how often something is written

    @property
    def steps(self) -> int:
        """All of them."""
        return sum(part.steps for part in (self.keypoints, self.coarse, self.optimizer) if part is not None)


def load_train_config(path: str | Path) -> TrainConfig:
    """Read a training's file. Raises ConfigError."""
    return checked(build(TrainConfig, load_yaml(path), path), path)


def checked(config: TrainConfig, path: str | Path) -> TrainConfig:
    """The same, of which each value is good for itself. Raises ConfigError where two do not go together."""
    if config.network.dim % config.network.heads:
        expected = f"a multiple of network.heads, {config.network.heads}"
        raise ConfigError(path, "network.dim", expected, str(config.network.dim))
    backbone = config.network.backbone
    if (config.keypoints is not None) != (backbone == "keypoint-tiny"):
        expected = "how network.backbone: keypoint-tiny learns them, and nothing with other backbones"
        found = f"{'nothing' if config.keypoints is None else 'that'} with {backbone}"
        raise ConfigError(path, "keypoints", expected, found)
    if config.coarse is not None and not (config.keypoints and config.network.coarse_to_fine):
        expected = "network.backbone: keypoint-tiny, and network.coarse_to_fine"
        raise ConfigError(path, "coarse", expected, f"{backbone}, {config.network.coarse_to_fine}")
    starts = (config.network.checkpoint is not None) + config.network.random
    if starts > (0 if backbone == "keypoint-tiny" else 1):
        expected = "nothing with keypoint-tiny, which learns from nothing; of ViTs, checkpoint or random"
        found = f"checkpoint: {config.network.checkpoint}, random: {config.network.random} with {backbone}"
        raise ConfigError(path, "network.checkpoint", expected, found)
    return config


def ready(config: TrainConfig, path: str | Path) -> TrainConfig:
    """The same, which says what a ViT begins with: random weights are never taken unasked. Raises ConfigError."""
    network = checked(config, path).network
    if network.backbone != "keypoint-tiny" and network.checkpoint is None and not network.random:
        expected = (
            f"the weights of {network.backbone} (a ViTPose checkpoint, there or by --vitpose FILE), or "
        )
        expected += "network.random: true, to begin with random ones"
        raise ConfigError(path, "network.checkpoint", expected, "neither")
    return config
