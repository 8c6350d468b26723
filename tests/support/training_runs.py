"""Short trainings of a tiny network, and what they log."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import programs
import torch
from click.testing import CliRunner, Result
from torch import nn

from skelfit.cli import main
from skelfit.learning.data.data_loader import DataConfig
from skelfit.learning.data.person_stream import SubsetConfig
from skelfit.learning.data.process_group import ProcessGroup
from skelfit.learning.networks.network import NetworkConfig
from skelfit.learning.training.training_config import (
    OptimizerConfig,
    TrainConfig,
    load_train_config,
)
from skelfit.learning.training.training_log import read_log

TINY_VIT = NetworkConfig(backbone="tiny", random=True, heads=2, head_dim=8, layers=2)


PEOPLE, BATCH, STEPS = 24, 4, 10


CPU = ProcessGroup(torch.device("cpu"))


SHORT_TRAINING = """
name: short
data: {held_out: 0.2, batch_size: 4, workers: 0, shuffle: 4}
network: {backbone: tiny, random: true, heads: 2, head_dim: 8, layers: 2}
optimizer: {steps: 10, learning_rate: 1e-3, warm_up: 2, schedule: cosine}
validation: {every: 5}
output: {log: 1, checkpoint: 2, keep: 2}
"""


TIMES = ("samples_per_second", "waiting_share")


def run_train(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["train", *map(str, arguments)], catch_exceptions=False)


def log_lines(out: Path) -> list[dict[str, Any]]:
    """What the log says, without what a clock says."""
    return [{k: v for k, v in line.items() if k not in TIMES} for line in read_log(out)]


def train_config(shards: Path | str = "", **optimizer: Any) -> TrainConfig:
    data = DataConfig((SubsetConfig(f"{shards}/*.tar"),), batch_size=BATCH, workers=0, shuffle=4)
    settings = {"steps": STEPS, "learning_rate": 1e-3, "warm_up": 0} | optimizer
    return TrainConfig(data=data, network=TINY_VIT, optimizer=OptimizerConfig(**settings))


def short_config(config_file: Path, shards: Path) -> TrainConfig:
    """What the command makes of the file and the folder."""
    config = load_train_config(config_file)
    return replace(config, data=replace(config.data, subsets=(SubsetConfig(f"{shards}/*.tar"),)))


def flat_weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


class SilentObserver:
    """Says nothing, and may stop a training."""

    def __init__(self, until: int = 0) -> None:
        self.done, self.until = 0, until

    def begins(self, config: TrainConfig) -> None:
        self.config = config

    def step(self, done: int, loss: float) -> None:
        self.done = done

    def say(self, line: str) -> None:
        pass

    def measured(self, done: int, figures: dict[str, Any]) -> None:
        pass

    def stop(self) -> bool:
        return self.done == self.until


def torchrun(*arguments: object, program: Sequence[object] = ("-m", "skelfit")) -> str:
    """What two processes say that torchrun starts, though neither it nor they start from nothing."""
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", 2, "--no-python"]
    python = shlex.split(programs.shell_words(programs.ROOT))
    code, said, errors = programs.run(*launch, *python, *program, *arguments)
    assert code == 0, errors
    return said
