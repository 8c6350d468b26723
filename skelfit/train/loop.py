"""A training from its first step, or from a checkpoint, to its last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from itertools import islice
from math import isfinite
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import torch

from skelfit.body.models import ModelSet
from skelfit.errors import ConfigError
from skelfit.loader.batch import Batch
from skelfit.loader.data import Loader, each_once
from skelfit.train import checkpoint
from skelfit.train.config import TrainConfig
from skelfit.train.curve import draw_curve
from skelfit.train.log import Log
from skelfit.train.network import NUM_BETAS, POSE_NUMBERS, Network
from skelfit.train.rotations import POSE_SIZE, angles_to_pose
from skelfit.train.team import Team
from skelfit.train.trainer import Trainer
from skelfit.train.validate import ERRORS, PCK_AT, Measured, Skins, validate

MEAN_OF = 2000  # people, of whose labels the mean pose and betas are
NAMES = {"mpjpe_mm": "MPJPE", "pa_mpjpe_mm": "PA-MPJPE", "pve_mm": "PVE"}


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
    measured: Measured | None  # the last validation


def train(
    config: TrainConfig, out: Path, models: ModelSet, team: Team, watch: Watch, *, resume: bool = False
) -> Ended:
    """Train, and write to a folder. resume: go on from the folder's last checkpoint, if there is one.

    Raises ConfigError, ShardError, CheckpointError, ModelError, OutputError, and SkelfitError when nothing is learnt.
    """
    path = checkpoint.latest(out) if resume else None
    content = None if path is None else checkpoint.load(path)
    if path is not None and content is not None:
        checkpoint.check_same_training(path, content, config)
    if not config.data.subsets:
        raise ConfigError(config.name, "data.subsets", "shards, there or by --shards", "none")
    torch.manual_seed(config.data.seed)
    loader = Loader(config.data, team.part)
    if content is None:
        network = Network(config.network)
        set_mean(network, config)
    else:
        network = Network(replace(config.network, checkpoint=None))  # all weights come from the checkpoint
    trainer = Trainer(config, network, models, team)
    run = _Run(config, out, trainer, loader, Skins(models, config.skel_gender, team.device), watch)
    if content is not None:
        run.resume(content)
        watch.say(f"going on after step {trainer.steps}, from {path}")
    team.wait()  # until all have read what the first one may soon remove
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


def validation_people(config: TrainConfig, team: Team) -> Iterator[Batch]:
    """Those to measure, this process's share of them."""
    subsets = config.validation.subsets
    if subsets:
        return iter(each_once(replace(config.data, subsets=subsets, held_out=0.0), team.part))
    return iter(each_once(config.data, team.part, held_out=True) if config.data.held_out else ())


def _endless(loader: Loader) -> Iterator[Batch]:
    while True:
        yield from loader


class _Run:
    """The loop, and what it has to remember."""

    def __init__(
        self, config: TrainConfig, out: Path, trainer: Trainer, loader: Loader, skins: Skins, watch: Watch
    ) -> None:
        self.config, self.out, self.trainer, self.loader = config, out, trainer, loader
        self.skins, self.watch, self.team = skins, watch, trainer.team
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
        if self.team.first:
            self.log = Log(self.out, self.trainer.steps)
        try:
            return self._steps(self.config.optimizer.steps)
        finally:
            if self.log is not None:
                self.log.close()

    def _steps(self, steps: int) -> Ended:
        trainer, every, stream = self.trainer, self.config.output, _endless(self.loader)
        window, stop = _Window(), False
        while trainer.steps < steps and not stop:
            began = perf_counter()
            batches = list(islice(stream, self.config.optimizer.accumulate))
            batches = [batch.to(self.team.device) for batch in batches]
            ready = perf_counter()
            found = trainer.step(batches)
            window.add(
                found, sum(map(len, batches)) * self.team.part.of, ready - began, perf_counter() - began
            )
            self.watch.step(trainer.steps, found["loss"])
            stop = self._agreed(self.watch.stop())
            done = trainer.steps
            if done % every.log == 0 or done == steps:
                self._write(window.values() | {"skipped": trainer.skipped})
                window = _Window()
            if done % self.config.validation.every == 0 or done == steps:
                self._validate()
            if done % every.checkpoint == 0 or done == steps or stop:
                self._save()
        last = checkpoint.latest(self.out) or self.out
        return Ended(trainer.steps, trainer.steps >= steps, trainer.skipped, last, self.measured)

    def _agreed(self, wish: bool) -> bool:
        """Whether any process wishes it: they all end after the same step."""
        return bool(self.team.sum(torch.tensor(float(wish), device=self.team.device)) > 0)

    def _write(self, values: Mapping[str, Any]) -> None:
        if self.log is not None:
            self.log.write(self.trainer.steps, values)

    def _validate(self) -> None:
        """Measure those held out; keep the network if it is the best so far."""
        people = validation_people(self.config, self.team)
        self.measured = validate(self.trainer.best_network, people, self.skins, self.team)
        if self.measured is None:
            return
        self._write({"validation": self.measured})
        if self.team.first:
            draw_curve(self.out)
        for line in summary_lines(self.trainer.steps, self.measured):
            self.watch.say(line)
        error = self.measured["pa_mpjpe_mm"]
        if self.best is None or error < self.best:
            self.best = error
            if self.team.first:
                checkpoint.save(self.out / checkpoint.BEST_NAME, self._content() | {"training": None})

    def _save(self) -> None:
        if self.team.first:
            training = {"trainer": self.trainer.state(), "loader": self.loader.state(), "best": self.best}
            content = self._content() | {"training": training}
            checkpoint.save_numbered(self.out, self.trainer.steps, content, self.config.output.keep)

    def _content(self) -> dict[str, Any]:
        return {
            "step": self.trainer.steps,
            "config": asdict(self.config),
            "measured": self.measured,
            "weights": self.trainer.best_network.state_dict(),
        }


class _Window:
    """What was found in the steps since the last line of the log."""

    def __init__(self) -> None:
        self.found: list[dict[str, float]] = []
        self.samples, self.waited, self.seconds = 0, 0.0, 0.0

    def add(self, found: dict[str, float], samples: int, waited: float, seconds: float) -> None:
        """One step: its values, people in all processes, and seconds: for the loader, and in all."""
        self.found.append(found)
        self.samples += samples
        self.waited += waited
        self.seconds += seconds

    def values(self) -> dict[str, float]:
        """Means over the steps that were finite; the learning rate is the last one's."""
        good = [found for found in self.found if all(map(isfinite, found.values()))] or self.found
        means = {name: fmean(found[name] for found in good) for name in good[0]}
        return means | {
            "learning_rate": self.found[-1]["learning_rate"],
            "samples_per_second": self.samples / self.seconds,
            "waiting_share": self.waited / self.seconds,
        }


def summary_lines(step: int, measured: Measured) -> list[str]:
    """A validation in a few lines."""
    errors = ", ".join(f"{NAMES[e]} {measured[e]:.1f}" for e in ERRORS)
    mean = ", ".join(f"{NAMES[e]} {measured['mean_pose'][e]:.1f}" for e in ERRORS)
    pck = ", ".join(f"PCK@{at} {measured[f'pck_{at}'] or 0:.1%}" for at in PCK_AT)
    beyond = dict(zip(measured["violations"]["beyond_deg"], measured["violations"]["any"], strict=True))
    worse = ", ".join(f"{share:.1%} by {deg}" for deg, share in beyond.items())
    return [
        f"step {step}: {measured['people']} people held out, mm: {errors}; {pck}",
        f"  the mean pose: {mean}; people beyond a joint limit: {worse} degrees",
    ]
