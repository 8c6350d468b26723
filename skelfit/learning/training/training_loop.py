"""A training from its first step, or from a checkpoint, to its last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from copy import deepcopy
from dataclasses import asdict, replace
from itertools import islice
from math import isfinite
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import torch

from skelfit.bodies.continuous_pose import POSE_SIZE, angles_to_pose
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skins import SkelSkins
from skelfit.errors import ConfigError
from skelfit.learning.backbones.vitpose import Backbone
from skelfit.learning.data.data_loader import Loader, each_once
from skelfit.learning.data.process_group import Team
from skelfit.learning.data.training_batch import Batch
from skelfit.learning.evaluation.validation import Measured, validate
from skelfit.learning.networks.skel_cf_network import NUM_BETAS, POSE_NUMBERS, Network
from skelfit.learning.training import checkpoint
from skelfit.learning.training.trainer import Trainer
from skelfit.learning.training.training_config import TrainConfig, ready
from skelfit.learning.training.training_log import Log
from skelfit.learning.training.training_stages import Course, Stage

MEAN_OF = 2000  # people of the labels


class Watch(Protocol):
    """Who is told how it goes."""

    def step(self, done: int, loss: float) -> None:
        """After each step."""

    def say(self, line: str) -> None:
        """Now and then."""

    def measured(self, done: int, found: Measured) -> None:
        """After each validation."""

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
    ready(config, config.name)
    content = None
    if path := checkpoint.latest(out) if resume else None:
        begun = checkpoint.begun(path, config, models.sha256)
        if begun.done >= config.steps:
            watch.say(
                f"finished already: step {begun.done} of {config.steps}; to go on, raise optimizer.steps"
            )
            return Ended(begun.done, True, 0, path)
        if config.optimizer.steps > begun.last_steps:
            more = f"optimizer.steps: {begun.last_steps} before, now {config.optimizer.steps}"
            watch.say(f"{more}; the learning rate is that of the longer schedule from here on")
        content = checkpoint.load(path)
    if not config.data.subsets:
        raise ConfigError(config.name, "data.subsets", "shards, there or by --shards", "none")
    torch.manual_seed(config.data.seed)
    network = Network(config.network)
    if content is None:
        if config.network.checkpoint is not None:
            assert isinstance(network.backbone, Backbone)  # keypoint-tiny has none
            network.backbone.load(config.network.checkpoint)
        set_mean(network, config)
    else:
        watch.say(f"going on after step {content['step']}, from {path}")
    return _Run(config, out, network, models, team, watch).to_the_end(content)


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
        self, config: TrainConfig, out: Path, network: Network, models: ModelSet, team: Team, watch: Watch
    ) -> None:
        self.config, self.out, self.models, self.team, self.watch = config, out, models, team, watch
        self.network = network.to(team.device)
        self.skins = SkelSkins(models, config.skel_gender, team.device)
        self.measured: Measured | None = None
        self.best: float | None = None  # PA-MPJPE, mm
        self.log: Log | None = None
        self.skipped = 0  # steps of stages that are over

    def to_the_end(self, content: Mapping[str, Any] | None) -> Ended:
        """All steps, or those that are left after a checkpoint, or those until the watch says stop."""
        course, first, done = Course(self.config, self.network, self.models, self.team), 0, 0
        if content is not None:
            self.network.load_state_dict(content["weights"])
            self.measured, done, training = content["measured"], content["step"], content["training"]
            self.best, self.skipped, first = training["best"], training["skipped"], training["stage"]
        with closing(Log(self.out, done)) if self.team.first else nullcontext() as self.log:
            for number in range(first, len(course.stages)):
                stage = course.stages[number]()
                if content is not None and number == first:
                    stage.trainer.resume(content["training"]["trainer"])
                    stage.loader.resume(content["training"]["loader"])
                stopped = self._steps(stage, number)
                done, self.skipped = stage.done, self.skipped + stage.trainer.skipped
                if stopped:
                    break
                self.network.load_state_dict(stage.weights(self.network))
        return Ended(done, done >= self.config.steps, self.skipped, checkpoint.latest(self.out) or self.out)

    def _steps(self, stage: Stage, number: int) -> bool:
        """Those of a stage; whether the watch said stop."""
        every, stream = self.config.output, stage.batches()
        window: list[_Step] = []
        stop = False
        while not stage.finished and not stop:
            window.append(self._step(stage.trainer, stream))
            done = stage.done
            self.watch.step(done, window[-1].found["loss"])
            wish = torch.tensor(float(self.watch.stop()), device=self.team.device)
            stop = bool(self.team.mean(wish) > 0)  # they all end after the same step
            if done % every.log == 0 or stage.finished:
                skipped = {"skipped": self.skipped + stage.trainer.skipped}
                self._write(done, _means(window) | skipped | self._memory())
                window = []
            if done % self.config.validation.every == 0 or done == self.config.steps:
                self._validate(stage)
            if done % every.checkpoint == 0 or stage.finished or stop:
                self._save(stage, number)
        return stop

    def _step(self, trainer: Trainer[Any], stream: Iterator[Batch]) -> _Step:
        began = perf_counter()
        batches = [batch.to(self.team.device) for batch in islice(stream, trainer.settings.accumulate)]
        waited = perf_counter() - began
        found = trainer.step(batches)
        people = sum(map(len, batches)) * self.team.part.of
        return _Step(found, people, waited, perf_counter() - began)

    def _memory(self) -> dict[str, float]:
        if self.team.device.type != "cuda":
            return {}
        return {"memory_gib": torch.cuda.max_memory_allocated(self.team.device) / 2**30}

    def _write(self, step: int, values: Mapping[str, Any]) -> None:
        if self.log is not None:
            self.log.write(step, values)

    def _validate(self, stage: Stage) -> None:
        """Measure those held out; keep the network if it is the best so far."""
        stage.trainer.even_out()
        people = validation_people(self.config, self.team, self.network.backbone.crop)
        network = stage.trainer.best_network
        if stage.prefix:  # what learns is a part; a large network that learns as a whole is not copied
            network = deepcopy(self.network)
            network.load_state_dict(stage.weights(self.network))
        self.measured = validate(network, people, self.skins, self.team)
        if self.measured is None:
            return
        self._write(stage.done, {"validation": self.measured})
        if self.best is None or self.measured["pa_mpjpe_mm"] < self.best:
            self.best = self.measured["pa_mpjpe_mm"]
            if self.team.first:
                checkpoint.save(self.out / checkpoint.BEST_NAME, self._content(stage, training=None))
        self.watch.measured(stage.done, self.measured)

    def _save(self, stage: Stage, number: int) -> None:
        stage.trainer.even_out()
        if self.team.first:
            training: dict[str, Any] = {"stage": number, "best": self.best, "skipped": self.skipped}
            training |= {"trainer": stage.trainer.state(), "loader": stage.loader.state()}
            content, keep = self._content(stage, training), self.config.output.keep
            checkpoint.save_numbered(self.out, stage.done, content, keep)

    def _content(self, stage: Stage, training: Mapping[str, Any] | None) -> dict[str, Any]:
        return {
            "step": stage.done,
            "config": asdict(self.config),
            "models": self.models.sha256,
            "measured": self.measured,
            "weights": stage.weights(self.network),
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
