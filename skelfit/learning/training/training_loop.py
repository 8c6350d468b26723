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
from torch import Tensor

from skelfit.bodies.continuous_pose import angles_to_pose
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skins import SkelSkins
from skelfit.errors import ConfigError
from skelfit.learning.data.better_labels import RefinePeople
from skelfit.learning.data.data_loader import Loader, each_once
from skelfit.learning.data.process_group import ProcessGroup
from skelfit.learning.data.training_batch import TrainingBatch
from skelfit.learning.evaluation.validation import Measured, validate
from skelfit.learning.networks.network import Network
from skelfit.learning.networks.network_registry import make_network
from skelfit.learning.training import checkpoint
from skelfit.learning.training.trainer import Trainer
from skelfit.learning.training.training_config import TrainConfig, ready
from skelfit.learning.training.training_log import TrainingLog
from skelfit.learning.training.training_stages import TrainingStage, TrainingStages

MEAN_OF = 2000  # people
LEFT_OUT = ("keypoints2d", "poses", "betas")  # labels that do not count, as the log names them


class TrainingObserver(Protocol):
    """Is told of the progress of a training, and may end it."""

    def begins(self, config: TrainConfig) -> None:
        """When all is there that a training needs, before its first step; config: with its lengths in steps."""

    def step(self, done: int, loss: float) -> None:
        """After each step."""

    def say(self, line: str) -> None:
        """A line for the user."""

    def measured(self, done: int, figures: Measured) -> None:
        """After each validation."""

    def stop(self) -> bool:
        """Whether the training is to end after this step."""


class TrainingEnd(NamedTuple):
    """How a training ended."""

    step: int
    finished: bool
    skipped: int
    checkpoint: Path


def train(
    config: TrainConfig,
    out: Path,
    models: ModelSet,
    group: ProcessGroup,
    observer: TrainingObserver,
    *,
    resume: bool = False,
    refine: RefinePeople | None = None,
) -> TrainingEnd:
    """Train, and write checkpoints and a log to a folder. resume: continue from its last checkpoint, if there is one.

    refine: how people are refined, for config.better_labels; the fit is no part of the trainer.

    Raises ConfigError, ShardError, CheckpointError, ModelError, OutputError, and SkelfitError when nothing is learnt.
    """
    ready(config, config.name)
    if (config.better_labels is None) != (refine is None):
        expected = "a function that refines, and only with it"
        raise ConfigError(
            config.name, "better_labels", expected, "none" if refine is None else "one without it"
        )
    content = None
    if path := checkpoint.latest(out) if resume else None:
        progress = checkpoint.progress(path, config, models.sha256)
        if progress.done >= progress.steps and not progress.longer:
            unit = "steps" if config.optimizer.epochs is None else "epochs"
            more = f"to go on, raise optimizer.{unit}"
            observer.say(f"finished already: step {progress.done} of {progress.steps}; {more}")
            return TrainingEnd(progress.done, True, 0, path)
        if progress.longer:
            falls = config.optimizer.schedule == "cosine"
            more = "; the learning rate is that of the longer schedule from here on" if falls else ""
            observer.say(progress.longer + more)
        content = checkpoint.load(path)
    if not config.data.subsets:
        raise ConfigError(config.name, "data.subsets", "shards, there or by --shards", "none")
    epoch = Loader(config.data, group.part, images=False)
    in_steps = config.in_steps(epoch.batches)
    if any(stage.epochs for stage in config.stages.values()):
        observer.say(f"an epoch: {epoch.samples} people, {epoch.batches} batches of each process")
    torch.manual_seed(config.data.seed)
    network = make_network(config.network)
    if content is None:
        start = config.network.checkpoint
        if start is None or not checkpoint.load_start(network, start):
            set_mean(network, config)
    observer.begins(in_steps)
    if content is not None:
        observer.say(f"going on after step {content['step']}, from {path}")
    return _TrainingRun(config, in_steps, out, network, models, group, observer, refine).to_the_end(content)


def set_mean(network: Network, config: TrainConfig) -> None:
    """Let a network start from the mean pose and betas of the labels that count; it still faces the camera."""
    data = replace(config.data, workers=0, batch_size=100, epoch_samples=MEAN_OF)
    batches, female = list(Loader(data, images=False)), config.skel_gender == "female"
    poses = torch.cat([angles_to_pose(batch.poses[batch.has_pose]) for batch in batches])
    betas = torch.cat([batch.betas[batch.has_betas & (batch.female == female)] for batch in batches])
    if len(poses):
        network.start.pose[:, 1:] = poses.mean(0)[1:]
    if len(betas):
        network.start.betas[:] = betas.mean(0)


def validation_people(config: TrainConfig, group: ProcessGroup, crop: int) -> Iterable[TrainingBatch]:
    """Batches of this process's share of the people to validate on; crop: side of their crops, px."""
    subsets = config.validation.subsets
    if subsets:
        return each_once(replace(config.data, subsets=subsets, held_out=0.0), group.part, crop=crop)
    return each_once(config.data, group.part, crop=crop, held_out=True) if config.data.held_out else ()


class _Step(NamedTuple):
    """A step, for the log."""

    terms: dict[str, float]  # losses, learning rate, gradient norm
    people: int  # in all processes
    left_out: Tensor  # (3,) labels of this process that do not count: 2D keypoints, poses, betas
    waited: float  # s for the loader
    seconds: float  # in all


class _TrainingRun:
    """The loop, and its state."""

    def __init__(
        self,
        given: TrainConfig,
        config: TrainConfig,
        out: Path,
        network: Network,
        models: ModelSet,
        group: ProcessGroup,
        observer: TrainingObserver,
        refine: RefinePeople | None,
    ) -> None:
        """given: the configuration as checkpoints hold it; config: the same with its lengths in steps."""
        self.given, self.config, self.out, self.models = given, config, out, models
        self.group, self.observer, self.refine = group, observer, refine
        self.network = network.to(group.device)
        self.skins = SkelSkins(models, config.skel_gender, group.device)
        self.measured: Measured | None = None
        self.best: float | None = None  # PA-MPJPE, mm
        self.log: TrainingLog | None = None
        self.skipped = 0  # steps of finished stages

    def to_the_end(self, content: Mapping[str, Any] | None) -> TrainingEnd:
        """All steps that are left after a checkpoint, or those until the observer stops the training."""
        stages = TrainingStages(self.config, self.network, self.models, self.group, refine=self.refine)
        first = done = 0
        if content is not None:
            self.network.load_state_dict(content["weights"])
            self.measured, done, training = content["measured"], content["step"], content["training"]
            self.best, self.skipped, first = training["best"], training["skipped"], training["stage"]
        with closing(TrainingLog(self.out, done)) if self.group.first else nullcontext() as self.log:
            for number in range(first, len(stages.makers)):
                stage = stages.makers[number]()
                if content is not None and number == first:
                    stage.trainer.resume(content["training"]["trainer"])
                    stage.loader.resume(content["training"]["loader"])
                    if stage.labels is not None:
                        stage.labels.resume(content["training"]["labels"])
                stopped = self._steps(stage, number)
                done, self.skipped = stage.done, self.skipped + stage.trainer.skipped
                if stopped:
                    break
                self.network.load_state_dict(stage.weights(self.network))
        return TrainingEnd(
            done, done >= self.config.steps, self.skipped, checkpoint.latest(self.out) or self.out
        )

    def _steps(self, stage: TrainingStage, number: int) -> bool:
        """The steps of a stage; returns whether the observer stopped the training."""
        every, stream = self.config.output, stage.batches()
        window: list[_Step] = []
        stop = False
        while not stage.finished and not stop:
            window.append(self._step(stage.trainer, stream))
            done = stage.done
            self.observer.step(done, window[-1].terms["loss"])
            self._refine(stage)
            asked = torch.tensor(float(self.observer.stop()), device=self.group.device)
            stop = bool(self.group.mean(asked) > 0)  # all processes end after the same step
            if done % every.log == 0 or stage.finished:
                skipped = {"skipped": self.skipped + stage.trainer.skipped}
                left_out = self._left_out(window)
                self._write(done, _means(window) | skipped | left_out | self._memory())
                window = []
            if done % self.config.validation.every == 0 or done == self.config.steps:
                self._validate(stage)
            if done % every.checkpoint == 0 or stage.finished or stop:
                self._save(stage, number)
        return stop

    def _step(self, trainer: Trainer[Any], stream: Iterator[TrainingBatch]) -> _Step:
        began = perf_counter()
        batches = [batch.to(self.group.device) for batch in islice(stream, trainer.settings.accumulate)]
        waited = perf_counter() - began
        terms = trainer.step(batches)
        people = sum(map(len, batches)) * self.group.part.of
        left_out = torch.stack([batch.left_out.sum(0) for batch in batches]).sum(0)
        return _Step(terms, people, left_out, waited, perf_counter() - began)

    def _refine(self, stage: TrainingStage) -> None:
        """Make labels better where it is time, for the samples that come."""
        counts = None if stage.labels is None else stage.labels.after_step(stage.trainer.steps)
        if counts is not None:
            self._write(stage.done, {"better_labels": counts})
            self.observer.say(
                f"step {stage.done}: {counts['better']} of {counts['tried']} refined predictions are better labels; "
                f"{counts['labels']} so far"
            )

    def _left_out(self, window: Sequence[_Step]) -> dict[str, Any]:
        """How many labels of all processes did not count since the last line, where a filter is configured."""
        if not self.config.data.supervision.selects:
            return {}
        counts = torch.stack([step.left_out for step in window]).sum(0).double()
        counts = (self.group.mean(counts) * self.group.part.of).round().long()
        people = sum(step.people for step in window)
        return {"left_out": dict(zip(LEFT_OUT, counts.tolist(), strict=True)) | {"of_people": people}}

    def _memory(self) -> dict[str, float]:
        if self.group.device.type != "cuda":
            return {}
        return {"memory_gib": torch.cuda.max_memory_allocated(self.group.device) / 2**30}

    def _write(self, step: int, values: Mapping[str, Any]) -> None:
        if self.log is not None:
            self.log.write(step, values)

    def _validate(self, stage: TrainingStage) -> None:
        """Validate; write a checkpoint if the network is the best so far."""
        stage.trainer.even_out()
        people = validation_people(self.config, self.group, self.network.backbone.crop)
        network = stage.trainer.best_network
        if stage.prefix:  # what learns is a part; a large network that learns as a whole is not copied
            network = deepcopy(self.network)
            network.load_state_dict(stage.weights(self.network))
        self.measured = validate(network, people, self.skins, self.group)
        if self.measured is None:
            return
        self._write(stage.done, {"validation": self.measured})
        if self.best is None or self.measured["pa_mpjpe_mm"] < self.best:
            self.best = self.measured["pa_mpjpe_mm"]
            if self.group.first:
                checkpoint.save(self.out / checkpoint.BEST_NAME, self._content(stage, training=None))
        self.observer.measured(stage.done, self.measured)

    def _save(self, stage: TrainingStage, number: int) -> None:
        stage.trainer.even_out()
        labels = None if stage.labels is None else stage.labels.state()  # of all processes
        if self.group.first:
            training: dict[str, Any] = {"stage": number, "best": self.best, "skipped": self.skipped}
            training |= {"steps": self.config.steps}
            training |= {"trainer": stage.trainer.state(), "loader": stage.loader.state(), "labels": labels}
            content, keep = self._content(stage, training), self.config.output.keep
            checkpoint.save_numbered(self.out, stage.done, content, keep)

    def _content(self, stage: TrainingStage, training: Mapping[str, Any] | None) -> dict[str, Any]:
        return {
            "step": stage.done,
            "config": asdict(self.given),
            "models": self.models.sha256,
            "measured": self.measured,
            "weights": stage.weights(self.network),
            "training": training,
        }


def _means(window: Sequence[_Step]) -> dict[str, float]:
    """Means over the finite steps, the last learning rate, and the speed."""
    every = [step.terms for step in window]
    finite = [terms for terms in every if all(map(isfinite, terms.values()))] or every
    means = {name: fmean(terms[name] for terms in finite) for name in finite[0]}
    seconds = sum(step.seconds for step in window)
    return means | {
        "learning_rate": window[-1].terms["learning_rate"],
        "samples_per_second": sum(step.people for step in window) / seconds,
        "waiting_share": sum(step.waited for step in window) / seconds,
    }
