"""A training from its first step, or from a checkpoint, to its last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, replace
from itertools import chain, islice, repeat
from math import isfinite
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import torch

from skelfit.body.continuous import POSE_SIZE, angles_to_pose
from skelfit.body.models import ModelSet
from skelfit.errors import ConfigError
from skelfit.loader.batch import Batch
from skelfit.loader.data import Loader, each_once
from skelfit.train import checkpoint
from skelfit.train.config import TrainConfig
from skelfit.train.log import Log, draw_curve
from skelfit.train.network import NUM_BETAS, POSE_NUMBERS, Network
from skelfit.train.team import Team
from skelfit.train.trainer import Trainer
from skelfit.train.validate import Measured, Skins, in_words, validate

MEAN_OF = 2000  # people, of whose labels the mean pose and betas are


class Watch(Protocol):
    """Who is told how it goes."""

    def step(self, done: int, loss: float) -> None:
        """After each step."""

    def say(self, line: str) -> None:
        """Now and then."""

    def stop(self) -> bool:
        """Whether to end after this step."""


class Ended(NamedTuple):
    """How a training ended."""

    step: int
    finished: bool
    skipped: int
    checkpoint: Path


def train(
    config: TrainConfig, out: Path, models: ModelSet, team: Team, watch: Watch, *, resume: bool = False
) -> Ended:
    """Train, and write to a folder. resume: go on from the folder's last checkpoint, if there is one.

    Raises ConfigError, ShardError, CheckpointError, ModelError, OutputError, and SkelfitError when nothing is learnt.
    """
    path = checkpoint.latest(out) if resume else None
    content = None if path is None else checkpoint.load_training(path, config, models.sha256)
    if not config.data.subsets:
        raise ConfigError(config.name, "data.subsets", "shards, there or by --shards", "none")
    torch.manual_seed(config.data.seed)
    network = Network(config.network)
    if content is None:
        if config.network.checkpoint is not None:
            network.backbone.load(config.network.checkpoint)
        set_mean(network, config)
    run = _Run(config, out, Trainer(config, network, models, team), models, watch)
    if content is not None:
        run.resume(content)
        watch.say(f"going on after step {content['step']}, from {path}")
    return run.to_the_end()


def set_mean(network: Network, config: TrainConfig) -> None:
    """Let a network start from the mean pose and betas of the labels; the body faces the camera all the same."""
    data = replace(config.data, workers=0, batch_size=100, epoch_samples=MEAN_OF)
    batches = list(Loader(data, images=False))
    pose = torch.cat([angles_to_pose(batch.poses) for batch in batches]).mean(0).flatten()
    betas = torch.cat([batch.betas[batch.female == (config.skel_gender == "female")] for batch in batches])
    network.mean[POSE_SIZE:POSE_NUMBERS] = pose[POSE_SIZE:]
    if len(betas):
        network.mean[POSE_NUMBERS : POSE_NUMBERS + NUM_BETAS] = betas.mean(0)


def validation_people(config: TrainConfig, team: Team, crop: int) -> Iterable[Batch]:
    """Those to measure, this process's share of them; crop: side of their crops, px."""
    subsets = config.validation.subsets
    if subsets:
        return each_once(replace(config.data, subsets=subsets, held_out=0.0), team.part, crop=crop)
    return each_once(config.data, team.part, crop=crop, held_out=True) if config.data.held_out else ()


class _Step(NamedTuple):
    """What was found in a step, of how many people in all processes, and seconds: for the loader, and in all."""

    found: dict[str, float]
    people: int
    waited: float
    seconds: float


class _Run:
    """The loop, and what it has to remember."""

    def __init__(
        self, config: TrainConfig, out: Path, trainer: Trainer, models: ModelSet, watch: Watch
    ) -> None:
        self.config, self.out, self.trainer, self.models, self.watch = config, out, trainer, models, watch
        self.team = trainer.team
        self.loader = Loader(config.data, self.team.part, crop=trainer.network.backbone.crop)
        self.skins = Skins(models, config.skel_gender, self.team.device)
        self.measured: Measured | None = None
        self.best: float | None = None  # PA-MPJPE, mm
        self.log: Log | None = None

    def resume(self, content: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.trainer.resume(content["training"]["trainer"])
        self.loader.resume(content["training"]["loader"])
        self.measured, self.best = content["measured"], content["training"]["best"]

    def to_the_end(self) -> Ended:
        """All steps that are left, or those until the watch says stop."""
        with closing(Log(self.out, self.trainer.steps)) if self.team.first else nullcontext() as self.log:
            self._steps(self.config.optimizer.steps)
        done, last = self.trainer.steps, checkpoint.latest(self.out) or self.out
        return Ended(done, done >= self.config.optimizer.steps, self.trainer.skipped, last)

    def _steps(self, steps: int) -> None:
        every, stream = self.config.output, chain.from_iterable(repeat(self.loader))
        window: list[_Step] = []
        stop = False
        while self.trainer.steps < steps and not stop:
            window.append(self._step(stream))
            done = self.trainer.steps
            self.watch.step(done, window[-1].found["loss"])
            wish = torch.tensor(float(self.watch.stop()), device=self.team.device)
            stop = bool(self.team.mean(wish) > 0)  # they all end after the same step
            if done % every.log == 0 or done == steps:
                self._write(_means(window) | {"skipped": self.trainer.skipped} | self._memory())
                window = []
            if done % self.config.validation.every == 0 or done == steps:
                self._validate()
            if done % every.checkpoint == 0 or done == steps or stop:
                self._save()

    def _step(self, stream: Iterator[Batch]) -> _Step:
        began = perf_counter()
        batches = [batch.to(self.team.device) for batch in islice(stream, self.config.optimizer.accumulate)]
        waited = perf_counter() - began
        found = self.trainer.step(batches)
        people = sum(map(len, batches)) * self.team.part.of
        return _Step(found, people, waited, perf_counter() - began)

    def _memory(self) -> dict[str, float]:
        if self.team.device.type != "cuda":
            return {}
        return {"memory_gib": torch.cuda.max_memory_allocated(self.team.device) / 2**30}

    def _write(self, values: Mapping[str, Any]) -> None:
        if self.log is not None:
            self.log.write(self.trainer.steps, values)

    def _validate(self) -> None:
        """Measure those held out; keep the network if it is the best so far."""
        people = validation_people(self.config, self.team, self.loader.crop)
        self.measured = validate(self.trainer.best_network, people, self.skins, self.team)
        if self.measured is None:
            return
        self._write({"validation": self.measured})
        self.watch.say(f"step {self.trainer.steps}: {in_words(self.measured)}")
        better = self.best is None or self.measured["pa_mpjpe_mm"] < self.best
        if better:
            self.best = self.measured["pa_mpjpe_mm"]
        if self.team.first:
            draw_curve(self.out)
            if better:
                checkpoint.save(self.out / checkpoint.BEST_NAME, self._content(training=None))

    def _save(self) -> None:
        if self.team.first:
            training = {"trainer": self.trainer.state(), "loader": self.loader.state(), "best": self.best}
            content, keep = self._content(training), self.config.output.keep
            checkpoint.save_numbered(self.out, self.trainer.steps, content, keep)

    def _content(self, training: Mapping[str, Any] | None) -> dict[str, Any]:
        return {
            "step": self.trainer.steps,
            "config": asdict(self.config),
            "models": self.models.sha256,
            "measured": self.measured,
            "weights": self.trainer.best_network.state_dict(),
            "training": training,
        }


def _means(window: Sequence[_Step]) -> dict[str, float]:
    """Means over the steps that were finite, the last learning rate, and how fast it went."""
    good = [step.found for step in window if all(map(isfinite, step.found.values()))]
    good = good or [step.found for step in window]
    means = {name: fmean(found[name] for found in good) for name in good[0]}
    seconds = sum(step.seconds for step in window)
    return means | {
        "learning_rate": window[-1].found["learning_rate"],
        "samples_per_second": sum(step.people for step in window) / seconds,
        "waiting_share": sum(step.waited for step in window) / seconds,
    }
